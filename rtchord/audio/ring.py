"""From the audio callback to the main thread: mono mix and ring buffer.

Both run inside the callback of the audio driver, where waiting is forbidden: no lock is taken, and no array memory is
allocated once they are built.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class MonoMix:
    """The mean of chosen channels of interleaved blocks.

    `channels`: indices from 0, at least one. `frames`: the longest block `mix` takes.
    """

    def __init__(self, channels: tuple[int, ...], frames: int) -> None:
        if not channels:
            raise ValueError("at least one channel is needed")
        self.frames = frames
        self._first, *self._others = channels
        self._gain = np.float32(1.0 / len(channels))
        self._scratch = np.zeros(frames, np.float32)

    def mix(self, block: Float32) -> Float32:
        """(n, channels) float32 -> (n,) float32, n <= `frames`; a view that the next call overwrites."""
        out = self._scratch[: len(block)]
        np.copyto(out, block[:, self._first])
        for channel in self._others:
            np.add(out, block[:, channel], out=out)
        if self._others:
            np.multiply(out, self._gain, out=out)
        return out


class RingBuffer:
    """Mono float32 samples from one writing thread to one reading thread, without locks.

    Each counter is stored by one side only, after the samples it speaks of; storing a Python int is atomic, so the
    other side sees either the old or the new value, never samples that are not there yet.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity`: samples, rounded up to a power of two so that positions wrap with a mask."""
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = 1 << (capacity - 1).bit_length()
        self._mask = self.capacity - 1
        self._data = np.zeros(self.capacity, np.float32)
        self._written = 0  # stored by the writer only
        self._read = 0  # stored by the reader only
        self.dropped = 0  # samples that found no room

    def __len__(self) -> int:
        """Samples ready to be read."""
        return self._written - self._read

    def write(self, block: Float32) -> int:
        """Append (n,) samples; what does not fit is dropped and counted. Returns how many were written."""
        written = self._written
        count = min(len(block), self.capacity - (written - self._read))
        start = written & self._mask
        head = min(count, self.capacity - start)
        self._data[start : start + head] = block[:head]
        self._data[: count - head] = block[head:count]
        self._written = written + count
        self.dropped += len(block) - count
        return count

    def read_into(self, out: Float32) -> int:
        """Move up to `out.size` samples into `out`; returns how many, 0 where there are none."""
        read = self._read
        count = min(len(out), self._written - read)
        start = read & self._mask
        head = min(count, self.capacity - start)
        out[:head] = self._data[start : start + head]
        out[head:count] = self._data[: count - head]
        self._read = read + count
        return count
