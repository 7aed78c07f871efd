"""Sliding-window constant-Q transform for a live stream.

Definition (``Features``): 6 octaves of 24 bins from C1. Every bin's window is *right-aligned*: it ends at the newest
sample, so nothing waits for the future and nothing of the past window is cut. Octave `o` (0 = highest) is computed at
``sample_rate / 2 ** (o + 1)``, reached by a chain of half-band decimators, so all octaves share one kernel matrix
(Schoerkhuber & Klapuri, SMC 2010).

    C[k] = sqrt(L_k) * |sum_n w_k[n] x[now - n] exp(-2 pi i f_k n / fs)| / sum_n w_k[n],   L_k = Q * sample_rate / f_k
    feature[k] = log(C[k] + log_offset)

with w_k a Hann window of length L_k and Q = (r^2 + 1) / (r^2 - 1), r = 2 ** (1 / 24): librosa 0.11's Q and scale.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Float32 = NDArray[np.float32]

HALF_BAND_TAPS = 23  # 92 dB, .0003 dB ripple for the band that the lower octaves keep
HALF_BAND_BETA = 8.0
LOUDEST = 1e12  # full scale is 1; beyond this the transform would overflow


class Features(BaseModel):
    """What a feature frame is. Travels in every engine's manifest; nothing else defines it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cqt"] = "cqt"
    alignment: Literal["right"] = "right"
    version: Literal[1] = 1
    sample_rate: int = Field(22_050, description="Hz")
    hop: int = Field(512, gt=0, description="samples between frames")
    octaves: int = Field(6, ge=1, le=8)
    bins_per_octave: int = Field(24, ge=12, le=96)
    fmin: float = Field(32.70319566257483, gt=0, description="Hz; C1")
    log_offset: float = Field(1e-3, gt=0)

    @model_validator(mode="after")
    def _hop_divides(self) -> Features:
        if self.hop % 2**self.octaves:
            raise ValueError(f"hop={self.hop} must be a multiple of {2**self.octaves} (2 ** octaves)")
        if self.frequencies[-1] > self.sample_rate / 5:
            raise ValueError(f"the highest bin ({self.frequencies[-1]:.0f} Hz) must be below sample_rate / 5")
        return self

    @property
    def bins(self) -> int:
        return self.octaves * self.bins_per_octave

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(bins,) centre frequencies in Hz, ascending."""
        steps: NDArray[np.float64] = np.arange(self.bins) / self.bins_per_octave
        return self.fmin * 2.0**steps

    @property
    def q(self) -> float:
        """Quality factor: centre frequency over bandwidth."""
        r2 = 2.0 ** (2 / self.bins_per_octave)
        return float((r2 + 1) / (r2 - 1))


def half_band() -> Float32:
    """(HALF_BAND_TAPS,) linear-phase half-band low-pass: a Kaiser-windowed sinc with its zero on fs / 4."""
    n = np.arange(HALF_BAND_TAPS) - HALF_BAND_TAPS // 2
    taps = np.sinc(n / 2) * np.kaiser(HALF_BAND_TAPS, HALF_BAND_BETA)
    normalised: Float32 = (taps / taps.sum()).astype(np.float32)
    return normalised


def kernels(features: Features) -> tuple[Float32, Float32]:
    """Kernel matrix (taps, 2 * bins_per_octave) shared by all octaves, and per-bin gains (bins,).

    Columns are the real parts, then the imaginary parts; row 0 meets the oldest sample of the window.
    """
    top = features.frequencies[-features.bins_per_octave :]
    rate = features.sample_rate / 2
    lengths = features.q * rate / top
    taps = int(np.ceil(lengths.max()))
    age = np.arange(taps)[::-1, None] + 0.5  # samples before "now"; half a sample keeps the window symmetric
    window = np.where(age < lengths, 0.5 - 0.5 * np.cos(2 * np.pi * age / lengths), 0.0)
    wave = window / window.sum(axis=0) * np.exp(2j * np.pi * top / rate * age)
    matrix = np.concatenate((wave.real, wave.imag), axis=1).astype(np.float32)
    gains = np.sqrt(features.q * features.sample_rate / features.frequencies).astype(np.float32)
    return np.ascontiguousarray(matrix), gains


@njit(cache=True, nogil=True, fastmath=True)
def _advance(
    samples: Float32,
    hop: int,
    taps: Float32,
    matrix: Float32,
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
    bins = response.size // 2
    for frame in range(out.shape[0]):
        size = hop
        work[order : order + size] = samples[frame * hop : (frame + 1) * hop]
        for octave in range(octaves):
            half = size // 2
            work[:order] = history[octave]
            history[octave] = work[size : size + order]
            # Decimate in place: output i only reads inputs 2i .. 2i + order, which lie at or after it.
            for i in range(half):
                segment = work[2 * i : 2 * i + order + 1]
                total = np.float32(0.0)
                for k in range(order + 1):
                    total += taps[k] * segment[k]
                work[i] = total
            window = windows[octave]
            if half < length:
                for i in range(length - half):
                    window[i] = window[i + half]
                window[length - half :] = work[:half]
            else:
                window[:] = work[half - length : half]
            response[:] = 0.0
            for t in range(length):
                x = window[t]
                row = matrix[t]
                for j in range(2 * bins):
                    response[j] += x * row[j]
            first = (octaves - 1 - octave) * bins
            for j in range(bins):
                magnitude = np.sqrt(response[j] * response[j] + response[bins + j] * response[bins + j])
                out[frame, first + j] = np.log(gains[first + j] * magnitude + offset)
            # Make room for the next stage's history in front of its input.
            for i in range(half - 1, -1, -1):
                work[order + i] = work[i]
            size = half


class SlidingCQT:
    """State of the transform over one stream; made once, pushed forward, reset by name."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self._taps = half_band()
        self._matrix, self._gains = kernels(features)
        self._history = np.zeros((features.octaves, HALF_BAND_TAPS - 1), np.float32)
        self._windows = np.zeros((features.octaves, self._matrix.shape[0]), np.float32)
        self._work = np.zeros(features.hop + HALF_BAND_TAPS - 1, np.float32)
        self._response = np.zeros(self._matrix.shape[1], np.float32)

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
            self._matrix,
            self._gains,
            self.features.log_offset,
            self._history,
            self._windows,
            self._work,
            self._response,
            out,
        )


class FrameStream:
    """Samples of any block size in, feature frames out: the resampler, the hop buffer and the transform."""

    def __init__(self, rate: int, features: Features) -> None:
        from rtchord.audio.resample import Resampler

        self.features = features
        self.resampler = Resampler(rate, features.sample_rate, passband=1.05 * float(features.frequencies[-1]))
        self._cqt = SlidingCQT(features)
        self._pending = np.zeros(0, np.float32)
        self.frames = 0  # frames emitted so far

    def reset(self) -> None:
        """Begin a new stream."""
        self.resampler.reset()
        self._cqt.reset()
        self._pending = np.zeros(0, np.float32)
        self.frames = 0

    def time_of(self, frame: int) -> float:
        """Seconds of input that must have been heard before frame number `frame` (from 0) exists."""
        return self.resampler.consumed((frame + 1) * self.features.hop) / self.resampler.rate_in

    def push(self, samples: Float32) -> Float32:
        """New frames (n, bins) float32; `samples` is (m,) float32. What is no sound (NaN, inf, 1e12) is silence."""
        samples = samples.astype(np.float32, copy=False)
        clean = np.where(np.abs(samples) < LOUDEST, samples, np.float32(0.0))
        pending = np.concatenate((self._pending, self.resampler.push(clean)))
        frames = pending.size // self.features.hop
        out = np.empty((frames, self.features.bins), np.float32)
        used = frames * self.features.hop
        self._cqt.push(pending[:used], out)
        self._pending = pending[used:].copy()
        self.frames += frames
        return out
