"""From the audio driver to whoever listens: a ring buffer in memory that two processes may share.

It is written inside the callback of the audio driver, where waiting is forbidden: nothing in it ever waits for the
other side, and no array memory is allocated once it is built.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# Counters at the head of the memory, int64; the reader stores READ, the writer all others.
WRITTEN, READ, DROPPED, BLOCKS, OVERFLOWS, ARRIVED = range(6)
HEADER = 64  # bytes


def _mask(capacity: int) -> int:
    """A power of two of at least `capacity`, less one: positions wrap with a mask."""
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity}")
    return (1 << (capacity - 1).bit_length()) - 1


class RingBuffer:
    """Float32 frames of `channels` samples from one writer to one reader, in two threads or two processes.

    Each counter is stored by one side only, after the samples it speaks of. An aligned 64-bit store is seen whole or
    not at all; what keeps the order on processors that reorder stores is `_fence`. So the other side never sees
    samples that are not there yet.
    """

    def __init__(self, capacity: int, channels: int = 1, memory: Any = None) -> None:
        """`capacity`: frames, rounded up to a power of two. `memory`: a zeroed buffer of at least `nbytes`."""
        self._mask = _mask(capacity)
        self.capacity = self._mask + 1
        self.channels = channels
        if memory is None:
            memory = bytearray(self.nbytes(capacity, channels))
        self._counters = np.frombuffer(memory, np.int64, HEADER // 8)
        data = np.frombuffer(memory, np.float32, channels * self.capacity, HEADER)
        self._data = data.reshape(channels, self.capacity)
        # A lock that nobody else knows never waits. Taking and leaving it is the one memory barrier Python has:
        # stores before it cannot be seen after stores that follow it.
        self._fence = threading.Lock()

    @staticmethod
    def nbytes(capacity: int, channels: int = 1) -> int:
        """Bytes of memory that a buffer takes."""
        return HEADER + 4 * channels * (_mask(capacity) + 1)

    def __len__(self) -> int:
        """Frames ready to be read."""
        return int(self._counters[WRITTEN]) - int(self._counters[READ])

    @property
    def dropped(self) -> int:
        """Frames that found no room."""
        return int(self._counters[DROPPED])

    @property
    def blocks(self) -> int:
        """Calls of `write`."""
        return int(self._counters[BLOCKS])

    @property
    def overflows(self) -> int:
        """Blocks before which the driver had lost audio."""
        return int(self._counters[OVERFLOWS])

    @property
    def arrived(self) -> float:
        """When the newest block was written: s on the clock of time.perf_counter, which all processes share."""
        return int(self._counters[ARRIVED]) * 1e-9

    def write(self, block: Float32, columns: tuple[int, ...] = (0,), overflow: bool = False) -> int:
        """Append `columns`, one per channel, of a block (n, at least that many).

        What does not fit is dropped and counted. Returns how many frames were written.
        """
        counters = self._counters
        counters[ARRIVED] = time.perf_counter_ns()
        written = int(counters[WRITTEN])
        count = min(len(block), self.capacity - (written - int(counters[READ])))
        start = written & self._mask
        head = min(count, self.capacity - start)
        for row, column in zip(self._data, columns, strict=True):
            row[start : start + head] = block[:head, column]
            row[: count - head] = block[head:count, column]
        with self._fence:
            pass
        counters[WRITTEN] = written + count
        counters[BLOCKS] += 1
        if overflow:
            counters[OVERFLOWS] += 1
        if count < len(block):
            counters[DROPPED] += len(block) - count
        return int(count)

    def read_into(self, out: Float32) -> int:
        """Move up to n frames into `out` (channels, n); returns how many, 0 where there are none."""
        counters = self._counters
        read = int(counters[READ])
        count = min(out.shape[1], int(counters[WRITTEN]) - read)
        if not count:
            return 0
        with self._fence:
            pass
        start = read & self._mask
        head = min(count, self.capacity - start)
        out[:, :head] = self._data[:, start : start + head]
        out[:, head:count] = self._data[:, : count - head]
        with self._fence:
            pass
        counters[READ] = read + count
        return int(count)

    def silent(self, frames: int) -> bool:
        """Whether the last `frames` that were written are all exactly zero. For the writer's side."""
        written = int(self._counters[WRITTEN])
        columns = np.arange(written - min(frames, written, self.capacity), written) & self._mask
        return not bool(self._data[:, columns].any())
