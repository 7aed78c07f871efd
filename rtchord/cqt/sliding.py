"""The right-aligned transform: every window ends at the newest sample."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rtchord.cqt.features import Features
from rtchord.cqt.kernels import UNROLL, Float32, decimator, filtered, kernels, respond


@njit(cache=True, nogil=True, fastmath=True)
def _advance(
    samples: Float32,
    hop: int,
    taps: Float32,
    phase: int,
    matrices: Float32,
    firsts: NDArray[np.int64],
    gains: Float32,
    offset: float,
    history: Float32,
    windows: Float32,
    work: Float32,
    response: Float32,
    out: Float32,
) -> None:
    """Push whole hops: `samples` (frames * hop,) in, `out` (frames, bins) filled. Work is per hop, so the result does
    not depend on how many hops come at once."""
    octaves, length = windows.shape
    order = taps.size - 1
    bins = response.shape[1] // 2
    for frame in range(out.shape[0]):
        size = hop
        work[order : order + size] = samples[frame * hop : (frame + 1) * hop]
        for octave in range(octaves):
            half = size // 2
            work[:order] = history[octave]
            history[octave] = work[size : size + order]
            # Decimate in place: output i only reads inputs 2i .. 2i + order + 1, which lie at or after it.
            for i in range(half):
                work[i] = filtered(work[2 * i + phase : 2 * i + phase + order + 1], taps)
            window = windows[octave]
            if half < length:
                for i in range(length - half):
                    window[i] = window[i + half]
                window[length - half :] = work[:half]
            else:
                window[:] = work[half - length : half]
            # Make room for the next stage's history in front of its input.
            for i in range(half - 1, -1, -1):
                work[order + i] = work[i]
            size = half
        if matrices.shape[0] == 1:
            respond(windows, matrices[0], firsts[0], response)
        else:
            for octave in range(octaves):
                row = response[octave : octave + 1]
                respond(windows[octave : octave + 1], matrices[octave], firsts[octave], row)
        for octave in range(octaves):
            first = (octaves - 1 - octave) * bins
            found = response[octave]
            for j in range(bins):
                magnitude = np.sqrt(found[j] * found[j] + found[bins + j] * found[bins + j])
                out[frame, first + j] = np.log(gains[first + j] * magnitude + offset)


class SlidingCQT:
    """State of the right-aligned transform over one stream; made once, pushed forward, reset by name."""

    def __init__(self, features: Features) -> None:
        if features.alignment != "right":
            raise ValueError(f"SlidingCQT computes right-aligned features, not {features.alignment!r} ones")
        self.features = features
        self._taps, self._phase = decimator(features)
        self._matrices, self._gains = kernels(features)
        # Rows of zeros in front of a matrix are not met.
        self._firsts = np.array([np.flatnonzero(m.any(axis=1))[0] // UNROLL * UNROLL for m in self._matrices])
        self._history = np.zeros((features.octaves, self._taps.size - 1), np.float32)
        self._windows = np.zeros((features.octaves, self._matrices.shape[1]), np.float32)
        self._work = np.zeros(features.hop + self._taps.size - 1, np.float32)
        self._response = np.zeros((features.octaves, self._matrices.shape[2]), np.float32)

    def reset(self) -> None:
        """Forget the past: the stream begins again after silence."""
        self._history[:] = 0.0
        self._windows[:] = 0.0

    def push(self, samples: Float32, out: Float32) -> None:
        """Advance by whole hops.

        `samples`: (frames * hop,) float32, finite, at `features.sample_rate`.
        `out`: (frames, bins) float32, C-contiguous; filled with log magnitudes. Nothing is allocated.
        """
        if samples.size != out.shape[0] * self.features.hop:
            raise ValueError(f"{samples.size} samples are not {out.shape[0]} hops of {self.features.hop}")
        _advance(
            samples,
            self.features.hop,
            self._taps,
            self._phase,
            self._matrices,
            self._firsts,
            self._gains,
            self.features.log_offset,
            self._history,
            self._windows,
            self._work,
            self._response,
            out,
        )
