"""What one pass over a recording tells of it: silence, clipping, how much like speech it is, and a fingerprint.

Everything is read off short frames (64 ms Hann windows, 32 ms apart) at the recording's own rate.

Speech (after Scheirer & Slaney, ICASSP 1997): syllables make the energy of each band swing about four times a second,
but so do drums. What speech lacks beside is notes that last, so it is told by both: strong modulation, weak tonality.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

WINDOW = 0.064  # s
HOP = 0.032  # s
SILENT = -60.0  # dBFS, mean square of a frame
CLIPPED = 0.999  # of full scale

BANDS = 16
BAND_EDGES = (60.0, 3500.0)  # Hz, apart in equal ratios: what every codec and rate keeps
PARTS = 64  # of the time from the first sound to the last, in a fingerprint
ONSET = 30.0  # dB below the loudest frame: what is softer, before and after, is not yet and no longer the piece
DEPTH = 25.0  # dB below the loudest part that a fingerprint sees
FEATURELESS = 0.5  # dB: a fingerprint that varies less says nothing

SYLLABLES = (2.5, 7.0)  # Hz
MODULATION_SECONDS = 2.048  # of one modulation spectrum
FINE = (250.0, 2000.0)  # Hz, where partials are compared
FINE_SMOOTH = 125.0  # Hz to either side: what is wider is no partial
LASTING = 0.16  # s that a partial has to last


class Measures(BaseModel):
    """Of one recording. `silence`, `clipped`: shares of frames and of samples. `modulation`: energy of the bands'
    envelopes at syllabic rates over their mean energy. `tonality`: correlation of the spectrum's fine structure with
    itself 0.16 s later. `sounding`: s from the first sound to the last. `fingerprint`: base64 of int8 (64, 16)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    silence: float
    clipped: float
    modulation: float
    tonality: float
    sounding: float
    fingerprint: str


class Meter:
    """Collects the measures of one recording: `push` its blocks in order, then `result`."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._window = 2 * round(WINDOW * rate / 2)
        self._hop = self._window // 2
        self._hann = np.hanning(self._window + 1)[:-1].astype(np.float32)
        frequencies = np.arange(self._window // 2 + 1) * rate / self._window
        edges = np.geomspace(*BAND_EDGES, BANDS + 1)
        band = np.searchsorted(edges, frequencies, side="right") - 1
        self._bands = (band[:, None] == np.arange(BANDS)).astype(np.float32)  # (bins, bands)
        self._fine = (frequencies >= FINE[0]) & (frequencies < FINE[1])
        self._reach = max(1, round(FINE_SMOOTH * self._window / rate))
        self._lag = round(LASTING / HOP)
        self._mono = np.zeros(0, np.float32)
        self._power = np.zeros(0, np.float32)
        self._structure = np.zeros((0, int(self._fine.sum())), np.float32)
        self._samples = self._clipped = 0
        self._levels: list[Float32] = []
        self._energies: list[Float32] = []
        self._lasting: list[Float32] = []

    def push(self, block: Float32) -> None:
        """The next (n, channels) samples, full scale 1."""
        self._samples += block.size
        self._clipped += int((np.abs(block) >= CLIPPED).sum())
        self._mono = np.concatenate((self._mono, block.mean(axis=1, dtype=np.float32)))
        # Power is averaged over channels, so that what cancels in the mean of the channels is not silence.
        self._power = np.concatenate((self._power, np.square(block).mean(axis=1, dtype=np.float32)))
        count = (len(self._mono) - self._window) // self._hop + 1
        if count <= 0:
            return
        frames = np.lib.stride_tricks.sliding_window_view(self._mono, self._window)[:: self._hop]
        self._levels.append(self._power[: count * self._hop].reshape(count, self._hop).mean(axis=1))
        spectrum = np.square(np.abs(np.fft.rfft(frames * self._hann, axis=1))).astype(np.float32)
        self._energies.append(spectrum @ self._bands)
        structure = np.concatenate((self._structure, self._fine_structure(spectrum[:, self._fine])))
        self._lasting.append(_correlation(structure[: -self._lag], structure[self._lag :]))
        self._structure = structure[-self._lag :]
        self._mono = self._mono[count * self._hop :]
        self._power = self._power[count * self._hop :]

    def _fine_structure(self, power: Float32) -> Float32:
        """Log power (frames, bins) less its mean over neighbouring bins: partials, without formants and tilt."""
        log = np.log(power + 1e-12)
        total = np.cumsum(np.pad(log, ((0, 0), (1, 0))), axis=1)
        bins = log.shape[1]
        low = np.maximum(np.arange(bins) - self._reach, 0)
        high = np.minimum(np.arange(bins) + self._reach + 1, bins)
        return log - (total[:, high] - total[:, low]) / (high - low)

    def result(self) -> Measures:
        if not self._levels:
            return Measures(silence=1.0, clipped=0.0, modulation=0.0, tonality=0.0, sounding=0.0, fingerprint="")
        levels = 10 * np.log10(np.concatenate(self._levels) + 1e-20)
        energies = np.concatenate(self._energies)
        lasting = np.concatenate(self._lasting)
        loud = levels >= SILENT
        # From the first sound to the last, by the loudest: a quieter copy begins where the louder one does.
        above = np.flatnonzero(levels >= levels.max() - ONSET)
        sounding = slice(int(above[0]), int(above[-1]) + 1)
        heard = loud[self._lag :] & loud[: len(loud) - self._lag]
        return Measures(
            silence=round(float(1 - loud.mean()), 4),
            clipped=round(self._clipped / self._samples, 6),
            modulation=round(modulation(energies[sounding]), 4),
            tonality=round(float(lasting[heard].mean()) if heard.any() else 0.0, 4),
            sounding=round((sounding.stop - sounding.start) * self._hop / self._rate, 3),
            fingerprint=base64.b64encode(fingerprint(energies[sounding]).tobytes()).decode(),
        )


def _correlation(first: Float32, second: Float32) -> Float32:
    """Of each row of two (n, bins) with mean zero (nearly): (n,)."""
    scale = np.sqrt(np.square(first).sum(axis=1) * np.square(second).sum(axis=1))
    return (first * second).sum(axis=1) / np.maximum(scale, 1e-9)


def modulation(energies: Float32) -> float:
    """Energy of band envelopes (frames, bands) between 2.5 and 7 Hz over the energy of their means."""
    length = round(MODULATION_SECONDS / HOP)
    pieces = len(energies) // length
    if not pieces:
        return 0.0
    envelopes = np.sqrt(energies[: pieces * length]).reshape(pieces, length, -1).astype(np.float64)
    spectrum = np.square(np.abs(np.fft.rfft(envelopes, axis=1))) / length**2
    rates = np.fft.rfftfreq(length, HOP)
    syllabic = (rates >= SYLLABLES[0]) & (rates < SYLLABLES[1])
    swing = 2 * spectrum[:, syllabic].sum(axis=(1, 2))
    steady = spectrum[:, 0].sum(axis=1)
    return float(swing.sum() / max(steady.sum(), 1e-30))


def fingerprint(energies: Float32) -> NDArray[np.int8]:
    """(1024,) int8 of band energies (frames, bands): dB of 64 equal parts of the time in 16 bands.

    The mean over time of each band and over the bands of each part are taken off, so level, equaliser and fades do not
    matter; what is left are the changes of timbre and harmony. Zero where there is nothing to tell pieces apart by.
    """
    if len(energies) < PARTS:
        return np.zeros(PARTS * BANDS, np.int8)
    total = np.concatenate((np.zeros((1, BANDS)), np.cumsum(energies.astype(np.float64), axis=0)))
    edges = np.linspace(0, len(energies), PARTS + 1)
    whole = edges.astype(int)
    after = np.minimum(whole + 1, len(energies))
    at_edges = total[whole] + (edges - whole)[:, None] * (total[after] - total[whole])
    parts = np.diff(at_edges, axis=0)
    levels = 10 * np.log10(np.maximum(parts, parts.max() * 10 ** (-DEPTH / 10)) + 1e-30)
    changes = levels - levels.mean(axis=0) - levels.mean(axis=1, keepdims=True) + levels.mean()
    if changes.std() < FEATURELESS:
        return np.zeros(PARTS * BANDS, np.int8)
    return np.rint(changes / np.abs(changes).max() * 127).astype(np.int8).ravel()


def normalised(fingerprints: list[str]) -> Float32:
    """(n, 1024) rows of unit length (or zero): their products are correlations."""
    empty = bytes(PARTS * BANDS)
    rows = [np.frombuffer(base64.b64decode(text) or empty, np.int8) for text in fingerprints]
    matrix = np.array(rows, np.float32).reshape(len(rows), PARTS * BANDS)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1.0)
