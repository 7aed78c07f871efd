"""What all backends share: an engine that is loaded once and is never changed, and the state of each stream beside it.

The state is a `Stepper`: buffers that are made once, and a step that allocates nothing. A *step* engine reads the
newest frame and the keys and values of the frames before it, of which there are two sets that swap roles: each step
reads one and writes the other, so that no cache is copied. A *window* engine reads the last `window` frames, which are
kept here.
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
    """A network that is loaded, with its manifest. It holds no state of a stream, and any number may share it."""

    manifest: Manifest

    def stepper(self) -> Stepper:
        """State of one stream, at whose beginning nothing was heard (of `manifest.streams` that go in step)."""


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


def input_name(manifest: Manifest) -> str:
    """What the network calls its input."""
    return "frame" if manifest.window is None else "frames"


def stream_axis(name: str) -> int:
    """Axis of a state array that counts the streams."""
    return 0 if name == "filled" else 1


def rows(name: str, stream: int | None) -> tuple[Any, ...]:
    """Index of one stream's part of a state array, or of all of it."""
    return (...,) if stream is None else (*[slice(None)] * stream_axis(name), stream)


class Stepper:
    """What an engine remembers of one stream, or of several in step, one frame at a time; a backend fills `_runs`.

    `_runs`: calls, used in turn, each of which takes `_input` and the state to `_classes`, `_bass` and the next state.
    """

    def __init__(self, manifest: Manifest, host_array: Callable[..., NDArray[Any]] = np.zeros) -> None:
        streams, bins = manifest.streams, manifest.features.bins
        shape = (streams, bins) if manifest.window is None else (streams, manifest.window, bins)
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

    def _begin(self, runs: list[Callable[[], object]]) -> None:
        """Run each direction once, as a library may do at the first run what it does once; then forget."""
        self._runs = runs
        for run in runs:
            run()
        self.reset()

    def reset(self, stream: int | None = None) -> None:
        """Forget one stream, or all of them."""
        # Before a stream begins there was silence: a window is full from the start.
        self._input[... if stream is None else stream] = self._silence
        self._clear(stream)

    def _clear(self, stream: int | None) -> None:
        """Zero one stream's part of the state, or all of it."""

    def step(self, frame: Float32) -> tuple[Float32, Float32]:
        """Posteriors of the next feature frame, valid until the next step.

        `frame`: (bins,) -> classes (170,) and bass (13,); with several streams (streams, bins) -> (streams, 170) and
        (streams, 13).
        """
        if self._shift is not None:
            ctypes.memmove(*self._shift)
        self._newest[...] = frame
        return self._next()

    def look(self, window: Float32) -> tuple[Float32, Float32]:
        """The same for a whole window (window, bins), of one stream, whose older frames may have changed too."""
        self._input[0] = window
        return self._next()

    def _next(self) -> tuple[Float32, Float32]:
        self._runs[self._turn]()
        self._turn = (self._turn + 1) % len(self._runs)
        return self._answer


Bind = Callable[[dict[str, NDArray[Any]], dict[str, NDArray[Any]]], Callable[[], object]]


class HostStepper(Stepper):
    """The same on the CPU, where the state lies in NumPy arrays. `bind`: see `HostEngine`."""

    def __init__(self, manifest: Manifest, bind: Bind) -> None:
        super().__init__(manifest)
        shapes = state_shapes(manifest)
        self._states = [
            {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()} for _ in range(2 if shapes else 1)
        ]
        self._begin([
            bind(
                {input_name(manifest): self._input, **source},
                {"classes": self._classes, "bass": self._bass, **{f"next_{k}": v for k, v in target.items()}},
            )
            for source, target in zip(self._states, reversed(self._states), strict=True)
        ])  # fmt: skip

    def _clear(self, stream: int | None) -> None:
        for state in self._states:
            for name, array in state.items():
                array[rows(name, stream)] = 0


class HostEngine:
    """Base of the backends on the CPU: they give `_bind`, this class the rest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        try:
            self.stepper()  # what does not fit is told now
        except Exception as error:  # each library raises types of its own
            raise unfit(folder, error) from None

    def stepper(self) -> HostStepper:
        return HostStepper(self.manifest, self._bind)

    def _bind(self, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Callable[[], object]:
        """A call that reads and writes these arrays in place."""
        raise NotImplementedError
