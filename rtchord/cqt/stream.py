"""Samples of any rate and block size in, feature frames out."""

from __future__ import annotations

import time

import numpy as np
from numba import njit

from rtchord.cqt.centred import CentredCQT
from rtchord.cqt.features import Features
from rtchord.cqt.kernels import Float32
from rtchord.cqt.latency import Latency, latency, resampler_of
from rtchord.cqt.sliding import SlidingCQT

LOUDEST = 1e12  # full scale is 1; beyond this the transform would overflow
QUIETEST = 1e-20  # -400 dBFS; below, sums would reach denormal numbers, which cost a hundred times as much

BLOCK = 32_768  # samples taken on at a time, so that a whole recording stays in the cache


@njit(cache=True, nogil=True)
def _clean(samples: Float32) -> int:
    """Put silence where `samples` are no sound, or too quiet to matter; how many were no sound."""
    replaced = 0
    for i in range(samples.size):
        size = abs(samples[i])
        sound = size < LOUDEST  # false for NaN
        if not sound or size <= QUIETEST:
            samples[i] = 0.0
        replaced += not sound
    return replaced


class FrameStream:
    """The resampler, the hop buffer and the transform.

    Right-aligned frames come with every hop and never change. Centred frames come out of `push` when they are final;
    `window` gives the newest ones before.
    """

    def __init__(self, rate: int, features: Features, keep: int = 108) -> None:
        self.features = features
        self.resampler = resampler_of(rate, features)
        self._cqt = SlidingCQT(features) if features.alignment == "right" else CentredCQT(features, keep)
        self._pending = np.zeros(0, np.float32)
        self.frames = 0  # frames emitted so far
        self.replaced = 0  # samples that were no sound (NaN, infinite, beyond LOUDEST) and became silence

    def reset(self) -> None:
        """Begin a new stream."""
        self.resampler.reset()
        self._cqt.reset()
        self._pending = np.zeros(0, np.float32)
        self.frames = 0
        self.replaced = 0

    def warm_up(self) -> float:
        """Compile what is compiled at first use, then begin a new stream; s it took. Call before a device opens."""
        start = time.perf_counter()
        self.push(np.zeros(self.resampler.rate_in // 5, np.float32))
        if isinstance(self._cqt, CentredCQT):
            self.window(1)
        self.reset()
        return time.perf_counter() - start

    def time_of(self, frame: int) -> float:
        """Seconds of input that must have been heard before frame number `frame` (from 0) is pushed out."""
        transform, hop = self._cqt, self.features.hop
        samples = transform.needed(frame) if isinstance(transform, CentredCQT) else (frame + 1) * hop
        return self.resampler.consumed(samples) / self.resampler.rate_in

    def latency(self) -> Latency:
        """How late each bin is, resampler included."""
        return latency(self.features, self.resampler.rate_in)

    def push(self, samples: Float32) -> Float32:
        """New frames (n, bins) float32; `samples` is (m,) float32. What is no sound (NaN, inf, 1e12) is silence."""
        if samples.ndim != 1:
            raise ValueError(f"samples must be mono, of shape (n,), not {samples.shape}")
        if samples.dtype.kind != "f":
            raise TypeError(f"samples must be floating point, full scale 1.0, not {samples.dtype}")
        found = []
        for start in range(0, max(samples.size, 1), BLOCK):
            with np.errstate(over="ignore"):  # what float64 holds and float32 does not becomes infinite, so silence
                clean = samples[start : start + BLOCK].astype(np.float32)  # a copy
            self.replaced += _clean(clean)
            found.append(self._push(self.resampler.push(clean)))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _push(self, samples: Float32) -> Float32:
        """New frames of samples at the transform's rate."""
        if isinstance(self._cqt, CentredCQT):
            out = np.empty((self._cqt.due(samples.size), self.features.bins), np.float32)
            self._cqt.push(samples, out)
        else:
            pending = np.concatenate((self._pending, samples))
            out = np.empty((pending.size // self.features.hop, self.features.bins), np.float32)
            used = len(out) * self.features.hop
            self._cqt.push(pending[:used], out)
            self._pending = pending[used:].copy()
        self.frames += len(out)
        return out

    def window(self, frames: int) -> Float32:
        """The newest centred frames (frames, bins), final or not, the very newest last; silence before the stream."""
        if not isinstance(self._cqt, CentredCQT):
            raise ValueError("right-aligned frames are final when they are pushed; there is no window of others")
        out = np.empty((frames, self.features.bins), np.float32)
        self._cqt.window(out)
        return out

    def finish(self) -> Float32:
        """Frames (n, bins) still owed at the end of the stream, which is then reset."""
        out = self._push(self.resampler.finish())
        if isinstance(self._cqt, CentredCQT):
            out = np.concatenate((out, self._cqt.finish()))
        self.reset()
        return out
