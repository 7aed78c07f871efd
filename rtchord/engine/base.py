"""What all backends share: buffers that are made once, and a step that allocates nothing.

A *step* engine reads the newest frame and the keys and values of the frames before it, of which there are two sets
that swap roles: each step reads one and writes the other, so that no cache is copied. A *window* engine reads the last
`window` frames, which are kept here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtchord.chords import N_BASS, N_CLASSES
from rtchord.engine.manifest import Manifest
from rtchord.errors import UserError

Float32 = NDArray[np.float32]


def reason_of(error: Exception) -> str:
    """The first line of what a library complains about, for use in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def unfit(folder: Path, error: Exception) -> UserError:
    """The sentence for an engine whose file is another than its manifest says."""
    return UserError(f"engine {str(folder)!r} does not fit its manifest: {reason_of(error)}; build it again")


class Engine(Protocol):
    """One network on one stream, or on several in step, one frame at a time."""

    manifest: Manifest

    def reset(self, stream: int | None = None) -> None:
        """Forget one stream, or all of them."""

    def step(self, frame: Float32) -> tuple[Float32, Float32]:
        """Posteriors of the next feature frame, valid until the next step.

        `frame`: (bins,) -> classes (170,) and bass (13,); with several streams (streams, bins) -> (streams, 170) and
        (streams, 13).
        """

    def look(self, window: Float32) -> tuple[Float32, Float32]:
        """The same for a whole window (window, bins), of one stream, whose older frames may have changed too."""


def state_shapes(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Name -> (shape, dtype) of what a step reads beside its frame and writes as `next_*`; nothing for a window."""
    if manifest.cache is None:
        return {}
    dtype = np.float16 if manifest.precision == "fp16" else np.float32
    return {
        "keys": (manifest.cache, dtype),
        "values": (manifest.cache, dtype),
        "filled": ((manifest.streams,), np.int64),
    }


def stream_axis(name: str) -> int:
    """Axis of a state array that counts the streams."""
    return 0 if name == "filled" else 1


def rows(name: str, stream: int | None) -> tuple[Any, ...]:
    """Index of one stream's part of a state array, or of all of it."""
    return (...,) if stream is None else (*[slice(None)] * stream_axis(name), stream)


class Stepper:
    """Base of all engines: the host's side. A backend fills `_runs`, and clears its state in `_clear`.

    `_runs`: calls, used in turn, each of which takes `_input` and the state to `_classes`, `_bass` and the next state.
    """

    def __init__(self, manifest: Manifest, host_array: Callable[..., NDArray[Any]] = np.zeros) -> None:
        self.manifest = manifest
        streams, bins = manifest.streams, manifest.features.bins
        shape = (streams, bins) if manifest.window is None else (streams, manifest.window, bins)
        self.input_name = "frame" if manifest.window is None else "frames"
        self._input: Float32 = host_array(shape, np.float32)
        self._classes: Float32 = host_array((streams, N_CLASSES), np.float32)
        self._bass: Float32 = host_array((streams, N_BASS), np.float32)
        newest = self._input if manifest.window is None else self._input[:, -1]
        self._newest = newest[0] if streams == 1 else newest
        self._answer = (self._classes[0], self._bass[0]) if streams == 1 else (self._classes, self._bass)
        # The whole of the window moves up by one frame; what crosses from one stream to the next is overwritten.
        address, frame = self._input.ctypes.data, 4 * bins
        self._shift = (address, address + frame, self._input.nbytes - frame) if manifest.window else None
        self._silence = np.float32(np.log(manifest.features.log_offset))
        self._runs: list[Callable[[], object]] = []
        self._turn = 0

    def reset(self, stream: int | None = None) -> None:
        # Before a stream begins there was silence: a window is full from the start.
        self._input[... if stream is None else stream] = self._silence
        self._clear(stream)

    def _clear(self, stream: int | None) -> None:
        """Zero one stream's part of the state, or all of it."""

    def step(self, frame: Float32) -> tuple[Float32, Float32]:
        if self._shift is not None:
            ctypes.memmove(*self._shift)
        self._newest[...] = frame
        return self._next()

    def look(self, window: Float32) -> tuple[Float32, Float32]:
        self._input[0] = window
        return self._next()

    def _next(self) -> tuple[Float32, Float32]:
        self._runs[self._turn]()
        self._turn = (self._turn + 1) % len(self._runs)
        return self._answer


class HostStepper(Stepper):
    """A backend on the CPU, whose state lies in NumPy arrays: it gives `_bind`, this class the rest."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        shapes = state_shapes(manifest)
        self._states = [
            {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()} for _ in range(2 if shapes else 1)
        ]

    def _ready(self) -> None:
        """Bind both directions and run each once, so that what does not fit is told now; then forget."""
        self._runs = [
            self._bind(
                {self.input_name: self._input, **source},
                {"classes": self._classes, "bass": self._bass, **{f"next_{k}": v for k, v in target.items()}},
            )
            for source, target in zip(self._states, reversed(self._states), strict=True)
        ]
        for run in self._runs:
            run()
        self.reset()

    def _bind(self, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Callable[[], object]:
        """A call that reads and writes these arrays in place."""
        raise NotImplementedError

    def _clear(self, stream: int | None) -> None:
        for state in self._states:
            for name, array in state.items():
                array[rows(name, stream)] = 0
