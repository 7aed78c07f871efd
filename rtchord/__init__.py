"""rtchord: real-time streaming chord recognition."""

import os as _os

# ONNX Runtime reports to its maker unless this says no before it is first imported. 0 is a user's own wish.
NO_REPORTS = "ORT_DISABLE_TELEMETRY"
_os.environ.setdefault(NO_REPORTS, "1")

__version__ = "0.1.0"
__all__ = ["ChordEvent", "Recognizer"]


def __getattr__(name: str) -> object:
    # Lazy, so that `rtchord --help` does not load numba and ONNX Runtime.
    if name == "Recognizer":
        from rtchord.recognizer import Recognizer

        return Recognizer
    if name == "ChordEvent":
        from rtchord.events import ChordEvent

        return ChordEvent
    raise AttributeError(f"module 'rtchord' has no attribute {name!r}")
