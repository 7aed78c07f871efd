"""Channels to the one signal that is recognised, measured on the way."""

from __future__ import annotations

from math import inf, isfinite, log10
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

CLIPPED = 0.9999  # of full scale; the largest 16-bit sample is 0.99997


class Level(NamedTuple):
    """`rms` of the mixed signal and `peak` of its channels in dBFS (-inf for digital silence); samples `clipped`."""

    rms: float
    peak: float
    clipped: int


def _dbfs(amplitude: float) -> float:
    return 20 * log10(amplitude) if amplitude > 0 else -inf


class MonoMix:
    """The mean of chosen channels, and how loud they were.

    `channels`: indices from 0, at least one. `frames`: the longest block `mix` takes.
    """

    def __init__(self, channels: tuple[int, ...], frames: int) -> None:
        if not channels:
            raise ValueError("at least one channel is needed")
        self.frames = frames
        self._channels = channels
        self._gain = np.float32(1.0 / len(channels))
        self._scratch = np.zeros(frames, np.float32)
        self._squares, self._count, self._peak, self._clipped = 0.0, 0, 0.0, 0

    def mix(self, block: Float32) -> Float32:
        """(n, channels) float32 -> (n,) float32, n <= `frames`; a view that the next call overwrites."""
        out = self._scratch[: len(block)]
        if not len(block):
            return out
        first, *others = self._channels
        np.copyto(out, block[:, first])
        self._measure(block[:, first])
        for channel in others:
            np.add(out, block[:, channel], out=out)
            self._measure(block[:, channel])
        if others:
            np.multiply(out, self._gain, out=out)
        squares = float(np.dot(out, out))
        if isfinite(squares):
            self._squares += squares
            self._count += len(block)
        return out

    def take(self) -> Level:
        """The level since this was last asked. What is no number counts for nothing."""
        level = Level(_dbfs((self._squares / max(self._count, 1)) ** 0.5), _dbfs(self._peak), self._clipped)
        self._squares, self._count, self._peak, self._clipped = 0.0, 0, 0.0, 0
        return level

    def _measure(self, samples: Float32) -> None:
        peak = max(float(samples.max()), -float(samples.min()))
        if isfinite(peak) and peak > self._peak:
            self._peak = peak
        if peak >= CLIPPED:
            self._clipped += int(np.count_nonzero(np.abs(samples) >= CLIPPED))
