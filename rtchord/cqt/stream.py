"""Samples of any rate and block size in, feature frames out."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from rtchord.compiled import compiled
from rtchord.cqt.centred import CentredCQT
from rtchord.cqt.features import Features
from rtchord.cqt.kernels import Float32
from rtchord.cqt.latency import Latency, latency, resampler_of
from rtchord.cqt.sliding import SlidingCQT

LOUDEST = 1e12  # full scale is 1; beyond this the transform would overflow
QUIETEST = 1e-20  # -400 dBFS; below, sums would reach denormal numbers, which cost a hundred times as much

BLOCK = 32_768  # samples taken on at a time, so that a whole recording stays in the cache


@compiled()
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


class _Stream:
    """The resampler in front of a transform, and what both kinds of stream do alike."""

    _cqt: SlidingCQT | CentredCQT

    def __init__(self, rate: int, features: Features) -> None:
        self.features = features
        self.resampler = resampler_of(rate, features)
        self.frames = 0  # frames, or windows, pushed out so far
        self.replaced = 0  # samples that were no sound (NaN, infinite, beyond LOUDEST) and became silence

    def reset(self) -> None:
        """Begin a new stream."""
        self.resampler.reset()
        self._cqt.reset()
        self.frames = 0
        self.replaced = 0

    def latency(self) -> Latency:
        """How late each bin is, resampler included."""
        return latency(self.features, self.resampler.rate_in)

    def _resampled(self, samples: Float32) -> Iterator[Float32]:
        """Blocks at the transform's rate. What is no sound (NaN, inf, 1e12) is silence."""
        if not isinstance(samples, np.ndarray):
            raise TypeError(f"samples must be a NumPy array, not {type(samples).__name__}")
        if samples.ndim != 1:
            raise ValueError(f"samples must be mono, of shape (n,), not {samples.shape}")
        if samples.dtype.kind != "f":
            raise TypeError(f"samples must be floating point, full scale 1.0, not {samples.dtype}")
        for start in range(0, max(samples.size, 1), BLOCK):
            with np.errstate(over="ignore"):  # what float64 holds and float32 does not becomes infinite, so silence
                clean = samples[start : start + BLOCK].astype(np.float32)  # a copy
            self.replaced += _clean(clean)
            yield self.resampler.push(clean)


class FrameStream(_Stream):
    """The resampler, the hop buffer and the transform.

    Right-aligned frames come with every hop and never change. Centred frames come out of `push` when they are final;
    `window` gives the newest ones before.
    """

    def __init__(self, rate: int, features: Features, keep: int = 108) -> None:
        super().__init__(rate, features)
        self._cqt = SlidingCQT(features) if features.alignment == "right" else CentredCQT(features, keep)
        self._pending = np.zeros(0, np.float32)

    def reset(self) -> None:
        """Begin a new stream."""
        super().reset()
        self._pending = np.zeros(0, np.float32)

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

    @property
    def lag(self) -> float:
        """Seconds from the beginning of the sound that a frame stands for until the frame is pushed out."""
        transform, hop = self._cqt, self.features.hop
        samples = hop / 2 + transform.wait(self.features.octaves - 1) if isinstance(transform, CentredCQT) else hop
        return samples / self.features.sample_rate

    def push(self, samples: Float32) -> Float32:
        """New frames (n, bins) float32; `samples` is (m,) float32. What is no sound (NaN, inf, 1e12) is silence."""
        found = [self._push(block) for block in self._resampled(samples)]
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


class WindowStream(_Stream):
    """Windows of centred frames, one a hop, for a model that looks at the last seconds anew each time.

    Window number n holds the `keep` frames up to frame n, as they are when `future` samples (at the transform's rate)
    after the centre of frame n have been heard: the last frames as if the stream ended there, silence before its
    beginning. The windows are bit for bit the same for every way of cutting the stream.
    """

    def __init__(self, rate: int, features: Features, keep: int, future: int) -> None:
        super().__init__(rate, features)
        self._cqt: CentredCQT = CentredCQT(features, keep)
        longest = self._cqt.wait(features.octaves - 1)
        if not 0 < future <= longest:
            raise ValueError(f"future={future} must be 1 to {longest} samples: after these a frame is final")
        self.future = future
        self._window = np.empty((keep, features.bins), np.float32)
        self._final = np.empty((max(future, features.hop) // features.hop + 3, features.bins), np.float32)

    def time_of(self, window: int) -> float:
        """Seconds of input that must have been heard before window number `window` (from 0) is pushed out."""
        samples = window * self.features.hop + self.future
        return self.resampler.consumed(samples) / self.resampler.rate_in

    @property
    def lag(self) -> float:
        """Seconds from the beginning of the sound that a window's last frame stands for until it is pushed out."""
        return (self.features.hop / 2 + self.future) / self.features.sample_rate

    def push(self, samples: Float32) -> Iterator[Float32]:
        """New windows (keep, bins), each overwritten by the next; `samples` as for `FrameStream.push`."""
        for block in self._resampled(samples):
            while block.size:
                wanted = self.frames * self.features.hop + self.future - self._cqt.samples
                self._cqt.push(block[:wanted], self._final)
                if block.size >= wanted:
                    self._cqt.window(self._window, last=self.frames)
                    self.frames += 1
                    yield self._window
                block = block[wanted:]
