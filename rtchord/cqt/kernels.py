"""Filters and kernel matrices, built once with NumPy; and the two inner loops that use them.

The inner loops are compiled so that a result depends on its own inputs alone, bit for bit: not on how many are
computed in one call, nor on how a stream was cut.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rtchord.cqt.features import Features

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HALF_BAND_TAPS = 23  # 92 dB, .0003 dB ripple for the band that the lower octaves keep
HALF_BAND_BETA = 8.0
# The centred chain: as sharp as librosa's resampler, as its kernels' leakage shows what lies above a lower octave.
SHARP_TAPS, SHARP_CUTOFF, SHARP_BETA = 383, 0.239, 12.5
SPARSITY = 0.01  # share of each spectral kernel's magnitude that librosa drops
UNROLL = 8  # kernel rows met at once


def half_band(taps: int = HALF_BAND_TAPS, beta: float = HALF_BAND_BETA) -> Float32:
    """(taps,) linear-phase half-band low-pass: a Kaiser-windowed sinc with its zero on fs / 4."""
    n = np.arange(taps) - taps // 2
    response = np.sinc(n / 2) * np.kaiser(taps, beta)
    normalised: Float32 = (response / response.sum()).astype(np.float32)
    return normalised


def sharp() -> Float32:
    """(SHARP_TAPS,) linear-phase low-pass that keeps what librosa's resampler (soxr HQ) keeps when it halves a rate."""
    n = np.arange(SHARP_TAPS) - SHARP_TAPS // 2
    response = np.sinc(2 * SHARP_CUTOFF * n) * np.kaiser(SHARP_TAPS, SHARP_BETA)
    normalised: Float32 = (response / response.sum()).astype(np.float32)
    return normalised


def minimum_phase(taps: Float32) -> Float32:
    """Filter with the same magnitude response and the least delay, newest sample last: zeros go inside the circle."""
    zeros = np.roots(np.trim_zeros(taps.astype(np.float64)))
    outside = np.abs(zeros) > 1
    zeros[outside] = 1 / zeros[outside].conj()
    response = np.real(np.poly(zeros))
    response *= taps.sum(dtype=np.float64) / response.sum()
    padded = np.zeros(taps.size)
    padded[: response.size] = response
    return padded[::-1].astype(np.float32)


def decimator(features: Features) -> tuple[Float32, int]:
    """Half-band taps of a right-aligned chain (oldest sample first), and which of two inputs each output ends on."""
    if features.decimator == "minimum":
        return minimum_phase(half_band()), 1
    return half_band(), 0


def decimator_delay(features: Features, frequency: float, octave: int) -> float:
    """Seconds by which content of `frequency` Hz reaches octave `octave` (0 = highest) late, right-aligned chain."""
    taps, phase = decimator(features)
    age = np.arange(taps.size)[::-1] + (1 - phase)  # samples before the newest
    total = 0.0
    for stage in range(octave + 1):
        rate = features.sample_rate / 2**stage
        turned = taps * np.exp(-2j * np.pi * frequency / rate * age)
        total += float(np.real((age * turned).sum() / turned.sum())) / rate  # group delay
    return total


def _stacked(waves: NDArray[np.complex128]) -> Float32:
    """Columns of (taps, bins) complex kernels: the real parts, then the imaginary parts."""
    return np.ascontiguousarray(np.concatenate((waves.real, waves.imag), axis=1).astype(np.float32))


def kernels(features: Features) -> tuple[Float32, Float32]:
    """Right-aligned kernel matrices (1 or octaves, taps, 2 * bins_per_octave), and per-bin gains (bins,).

    Octave 0 is the highest. With constant Q all octaves share one matrix. Row 0 meets the oldest sample of the
    window; rows of zeros in front fill up to a multiple of UNROLL.
    """
    shared = features.gamma == 0
    lengths, frequencies = features.lengths, features.frequencies
    taps = 0
    found = []
    for octave in range(1 if shared else features.octaves):
        bins = slice(
            features.bins - (octave + 1) * features.bins_per_octave, features.bins - octave * features.bins_per_octave
        )
        rate = features.sample_rate / 2 ** (octave + 1)
        own = lengths[bins] / 2 ** (octave + 1)
        size = int(np.ceil(own.max()))
        age = np.arange(size)[::-1, None] + 0.5  # samples before "now"; half a sample keeps the window symmetric
        window = np.where(age < own, 0.5 - 0.5 * np.cos(2 * np.pi * age / own), 0.0)
        found.append(_stacked(window / window.sum(axis=0) * np.exp(2j * np.pi * frequencies[bins] / rate * age)))
        taps = max(taps, size)
    taps = -(-taps // UNROLL) * UNROLL
    matrices = np.zeros((len(found), taps, 2 * features.bins_per_octave), np.float32)
    for matrix, kernel in zip(matrices, found, strict=True):
        matrix[taps - len(kernel) :] = kernel
    return matrices, np.sqrt(lengths).astype(np.float32)


def sparsified(rows: NDArray[np.complex64], share: float) -> NDArray[np.complex64]:
    """Rows without their smallest entries: as many as together hold less than `share` of the row's magnitude."""
    magnitudes = np.abs(rows)
    order = np.sort(magnitudes, axis=1)
    below = np.cumsum(order / magnitudes.sum(axis=1, keepdims=True), axis=1) < share
    threshold = np.take_along_axis(order, np.argmin(below, axis=1)[:, None], axis=1)
    return np.where(magnitudes >= threshold, rows, 0)


def centred_kernels(features: Features) -> tuple[Float32, Float32]:
    """Centred kernel matrix (n_fft, 2 * bins_per_octave) shared by all octaves, and per-bin gains (bins,).

    librosa multiplies the spectrum of a frame with a sparsified one-sided spectral basis; the inverse transform of
    that basis does the same to the samples.
    """
    rate = features.sample_rate / 2
    frequencies = features.frequencies[-features.bins_per_octave :]
    lengths = features.q * rate / frequencies
    n_fft = int(2 ** np.ceil(np.log2(lengths.max())))
    basis = np.zeros((features.bins_per_octave, n_fft), np.complex128)
    for row, frequency, length in zip(basis, frequencies, lengths, strict=True):
        n = np.arange(-length // 2, length // 2)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n.size) / n.size)
        wave = window * np.exp(2j * np.pi * frequency / rate * n)
        start = (n_fft - n.size) // 2
        row[start : start + n.size] = wave / np.abs(wave).sum() * length / n_fft
    spectra = np.fft.fft(basis, axis=1)[:, : n_fft // 2 + 1].astype(np.complex64)
    samples = np.fft.fft(sparsified(spectra, SPARSITY).astype(np.complex128), n=n_fft, axis=1)
    octave = features.octaves - 1 - np.arange(features.bins) // features.bins_per_octave
    # sqrt(2) of amplitude at the first halving of the rate, 2 at each further one, and the root of the window length.
    gains = np.sqrt(2) * 2.0**octave / np.sqrt(features.q * rate / features.frequencies)
    return _stacked(samples.T), gains.astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def filtered(segment: Float32, taps: Float32) -> np.float32:
    """One output of a filter: `segment` and `taps` are as long."""
    total = np.float32(0.0)
    for k in range(taps.size):
        total += taps[k] * segment[k]
    return total


# Only contraction to fused multiply-adds is allowed: sums keep their order, so every row of `response` is the same
# number whatever the others are.
@njit(cache=True, nogil=True, fastmath={"contract"})
def respond(windows: Float32, matrix: Float32, first: int, response: Float32) -> None:
    """`response` (rows, columns) = `windows` (rows, taps) times `matrix` (taps, columns) from row `first` on.

    `first` and taps are multiples of UNROLL.
    """
    response[:] = np.float32(0.0)
    columns = matrix.shape[1]
    for t in range(first, matrix.shape[0], 8):
        m0, m1, m2, m3 = matrix[t], matrix[t + 1], matrix[t + 2], matrix[t + 3]
        m4, m5, m6, m7 = matrix[t + 4], matrix[t + 5], matrix[t + 6], matrix[t + 7]
        for row in range(windows.shape[0]):
            x = windows[row, t : t + 8]
            x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
            sums = response[row]
            for j in range(columns):
                total = sums[j]
                total += x0 * m0[j]
                total += x1 * m1[j]
                total += x2 * m2[j]
                total += x3 * m3[j]
                total += x4 * m4[j]
                total += x5 * m5[j]
                total += x6 * m6[j]
                total += x7 * m7[j]
                sums[j] = total
