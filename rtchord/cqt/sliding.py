"""The right-aligned transform: every window ends at the newest sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtchord.compiled import compiled
from rtchord.cqt.features import Features
from rtchord.cqt.kernels import Float32, decimator, halve, kernels
from rtchord.cqt.tile import respond


@compiled(fastmath=True)
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
    recent: Float32,
    starts: NDArray[np.int64],
    scratch: Float32,
    response: Float32,
    column: int,
    out: Float32,
) -> None:
    """Push whole hops: `samples` (frames * hop,) in, the bins of `out` (frames, bins) from `column` on filled. Work is
    per hop, so the result does not depend on how many hops come at once."""
    octaves, capacity = recent.shape
    order = taps.size - 1
    length = matrices.shape[1]
    bins = gains.size // octaves
    flat = recent.reshape(-1)
    work, even, odd = scratch[0], scratch[1], scratch[2]
    for frame in range(out.shape[0]):
        size = hop
        work[order : order + size] = samples[frame * hop : (frame + 1) * hop]
        for octave in range(octaves):
            half = size // 2
            work[:order] = history[octave]
            history[octave] = work[size : size + order]
            ready = work[phase:]
            pairs = half + order // 2
            for i in range(pairs):
                even[i] = ready[2 * i]
            for i in range(pairs - 1):
                odd[i] = ready[2 * i + 1]
            row = recent[octave]
            end = starts[octave] - octave * capacity + length
            if end + half > capacity:
                for i in range(length):
                    row[i] = row[end - length + i]
                end = length
            fresh = row[end : end + half]
            halve(even, odd, taps, fresh)
            starts[octave] = octave * capacity + end + half - length
            work[order : order + half] = fresh
            size = half
        if matrices.shape[0] == 1:
            respond(flat, starts, 1, matrices[0], firsts[0], response)
        else:
            for octave in range(octaves):
                one = slice(octave, octave + 1)
                respond(flat, starts[one], 1, matrices[octave], firsts[octave], response[one])
        for octave in range(octaves):
            first = (octaves - 1 - octave) * bins
            found = response[octave]
            for j in range(bins):
                magnitude = np.sqrt(found[j] * found[j] + found[bins + j] * found[bins + j])
                out[frame, column + first + j] = np.log(gains[first + j] * magnitude + offset)


class _Chain:
    """State of one set of bins, which go to the columns of a frame from `column` on."""

    def __init__(self, features: Features, column: int) -> None:
        self.features, self._column = features, column
        self._taps, self._phase = decimator(features)
        self._matrices, self._gains = kernels(features)
        # Rows of zeros in front of a matrix are not met.
        self._firsts = np.array([np.flatnonzero(matrix.any(axis=1))[0] for matrix in self._matrices])
        _, length, columns = self._matrices.shape
        self._history = np.zeros((features.octaves, self._taps.size - 1), np.float32)
        # Newest samples of each octave: they move to the front when the room behind them is used up.
        self._recent = np.zeros((features.octaves, length + max(features.hop, 1024)), np.float32)
        self._starts = np.zeros(features.octaves, np.int64)  # of the windows, in the flat array
        self._scratch = np.zeros((3, features.hop + self._taps.size), np.float32)
        self._response = np.zeros((features.octaves, columns), np.float32)
        self.reset()

    def reset(self) -> None:
        self._history[:] = 0.0
        self._recent[:] = 0.0
        self._starts[:] = np.arange(len(self._recent)) * self._recent.shape[1]

    def push(self, samples: Float32, out: Float32) -> None:
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
            self._recent,
            self._starts,
            self._scratch,
            self._response,
            self._column,
            out,
        )


class SlidingCQT:
    """State of the right-aligned transform over one stream; made once, pushed forward, reset by name."""

    def __init__(self, features: Features) -> None:
        if features.alignment != "right":
            raise ValueError(f"SlidingCQT computes right-aligned features, not {features.alignment!r} ones")
        self.features = features
        sets = features.sets
        self._chains = [_Chain(each, number * each.bins) for number, each in enumerate(sets)]

    def reset(self) -> None:
        """Forget the past: the stream begins again after silence."""
        for chain in self._chains:
            chain.reset()

    def push(self, samples: Float32, out: Float32) -> None:
        """Advance by whole hops.

        `samples`: (frames * hop,) float32, finite, at `features.sample_rate`.
        `out`: (frames, bins) float32, C-contiguous; filled with log magnitudes. Nothing is allocated.
        """
        if samples.size != out.shape[0] * self.features.hop:
            raise ValueError(f"{samples.size} samples are not {out.shape[0]} hops of {self.features.hop}")
        for chain in self._chains:
            chain.push(samples, out)
