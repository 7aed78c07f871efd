"""rtchord: real-time streaming chord recognition."""

import os as _os
import sys as _sys
from pathlib import Path as _Path


def _cache_folder() -> _Path:
    """Where what was compiled is kept between runs; user-writable even if the package is not."""
    if _sys.platform == "win32":
        base = _Path(_os.environ.get("LOCALAPPDATA", "~\\AppData\\Local"))
    elif _sys.platform == "darwin":
        base = _Path("~/Library/Caches")
    else:
        base = _Path(_os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "rtchord"


# Must be set before numba is first imported.
_os.environ.setdefault("NUMBA_CACHE_DIR", str(_cache_folder() / "numba"))

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
