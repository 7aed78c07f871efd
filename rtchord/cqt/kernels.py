"""Filters and kernel matrices, built once with NumPy; and the loops that filter.

The loops are compiled so that a result depends on its own inputs alone, bit for bit: not on how many are computed in
one call, nor on how a stream was cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtchord.compiled import compiled
from rtchord.cqt.features import Features
from rtchord.cqt.tile import COLUMNS

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HALF_BAND_TAPS = 23  # 92 dB, .0003 dB ripple for the band that the lower octaves keep
HALF_BAND_BETA = 8.0
# The centred chain: as sharp as librosa's resampler, as its kernels' leakage shows what lies above a lower octave.
SHARP_TAPS, SHARP_CUTOFF, SHARP_BETA = 383, 0.239, 12.5
SPARSITY = 0.01  # share of each spectral kernel's magnitude that librosa drops


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


def halving_banks(taps: Float32) -> tuple[Float32, Float32]:
    """Matrices that make COLUMNS successive outputs at half the rate at once, for an odd number of taps.

    The first meets the samples of the first output's window from its oldest on, with the taps up to the centre; the
    second meets those of the last output's from its newest back, with the taps after the centre. So sums grow from
    the small outer taps to the large inner ones, which keeps float32 exact where little is left of a loud input. The
    zeros around each column's taps add nothing: an output is the same number in every column.
    """
    centre = taps.size // 2
    shape = (centre + 1 + 2 * (COLUMNS - 1), COLUMNS)
    rising, falling = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for j in range(COLUMNS):
        rising[2 * j : 2 * j + centre + 1, j] = taps[: centre + 1]
        back = 2 * (COLUMNS - 1 - j)
        falling[back : back + centre, j] = taps[:centre:-1]
    return rising, falling


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
    """Columns of (taps, bins) complex kernels: the real parts, the imaginary parts, zeros to a multiple of COLUMNS."""
    bins = waves.shape[1]
    matrix = np.zeros((len(waves), -(-2 * bins // COLUMNS) * COLUMNS), np.float32)
    matrix[:, :bins], matrix[:, bins : 2 * bins] = waves.real, waves.imag
    return matrix


def kernels(features: Features) -> tuple[Float32, Float32]:
    """Right-aligned kernel matrices (1 or octaves, taps, columns), and per-bin gains (bins,).

    Octave 0 is the highest. With constant Q all octaves share one matrix; with variable Q shorter ones begin with
    rows of zeros. Row 0 meets the oldest sample. Columns: see `_stacked`. ValueError for several sets of bins: each has
    kernels of its own.
    """
    if features.companion:
        raise ValueError("these features have two sets of bins; ask for the kernels of one of `features.sets`")
    shared, per = features.gamma == 0, features.bins_per_octave
    lengths, frequencies = features.lengths, features.frequencies
    found = []
    for octave in range(1 if shared else features.octaves):
        bins = slice(features.bins - (octave + 1) * per, features.bins - octave * per)
        rate = features.sample_rate / 2 ** (octave + 1)
        own = lengths[bins] / 2 ** (octave + 1)
        age = np.arange(int(np.ceil(own.max())))[::-1, None] + 0.5  # samples before "now", half for symmetry
        window = np.where(age < own, 0.5 - 0.5 * np.cos(2 * np.pi * age / own), 0.0)
        found.append(_stacked(window / window.sum(axis=0) * np.exp(2j * np.pi * frequencies[bins] / rate * age)))
    taps = max(map(len, found))
    matrices = np.zeros((len(found), taps, found[0].shape[1]), np.float32)
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
    """Centred kernel matrix (n_fft, columns) shared by all octaves, and per-bin gains (bins,).

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


# Only contraction to fused multiply-adds is allowed: sums keep the order that is written.
@compiled(fastmath={"contract"})
def halve(even: Float32, odd: Float32, taps: Float32, out: Float32) -> None:
    """`out[i]` = sum of ``taps[k] * x[2 * i + k]``, 23 taps, where even and odd samples of x come apart.

    The order of the sum is eight lanes of two, folded in halves, then the other seven taps.
    """
    e1, e2, e3, e4, e5, e6 = even[1:], even[2:], even[3:], even[4:], even[5:], even[6:]
    e7, e8, e9, e10, e11 = even[7:], even[8:], even[9:], even[10:], even[11:]
    o1, o2, o3, o4, o5 = odd[1:], odd[2:], odd[3:], odd[4:], odd[5:]
    o6, o7, o8, o9, o10 = odd[6:], odd[7:], odd[8:], odd[9:], odd[10:]
    t0, t1, t2, t3, t4, t5, t6, t7 = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    t8, t9, t10, t11, t12, t13, t14, t15 = taps[8], taps[9], taps[10], taps[11], taps[12], taps[13], taps[14], taps[15]
    t16, t17, t18, t19, t20, t21, t22 = taps[16], taps[17], taps[18], taps[19], taps[20], taps[21], taps[22]
    for i in range(out.size):
        s0 = t8 * e4[i] + t0 * even[i]
        s1 = t9 * o4[i] + t1 * odd[i]
        s2 = t10 * e5[i] + t2 * e1[i]
        s3 = t11 * o5[i] + t3 * o1[i]
        s4 = t12 * e6[i] + t4 * e2[i]
        s5 = t13 * o6[i] + t5 * o2[i]
        s6 = t14 * e7[i] + t6 * e3[i]
        s7 = t15 * o7[i] + t7 * o3[i]
        total = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
        total += t16 * e8[i]
        total += t17 * o8[i]
        total += t18 * e9[i]
        total += t19 * o9[i]
        total += t20 * e10[i]
        total += t21 * o10[i]
        total += t22 * e11[i]
        out[i] = total
