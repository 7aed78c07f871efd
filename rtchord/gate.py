"""Whether anybody plays. What is struck and rings is music at any level down to the noise; the noise is not.

Two kinds of frame are silence, whatever the student makes of them:

* one in which no bin holds a sinusoid of `floor` dBFS;
* one that holds the hum of the mains and nothing beside it. Hum is a chord to a network that treats all keys alike,
  since its harmonics are those of a dominant seventh. But it is the one noise whose pitch is known: the peaks of its
  spectrum lie on multiples of 50 or 60 Hz, which are no notes of an instrument in tune. So no time is needed to learn
  it, and no chord can be taken for it, however long it is held.

Hiss and talk are the student's to know: it says N of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtchord.compiled import compiled
from rtchord.cqt import Features

Float32 = NDArray[np.float32]

MAINS = (50.0, 60.0)  # Hz
# Cents that a peak may be off: 3.5 for mains that are 0.2 % off, the rest for the interpolation between bins. With
# more, a G major triad that is 30 cents sharp would lie on the comb of 50 Hz.
CENTS = 7.0
REACH_DB = 20.0  # below the strongest of the harmonics: what is weaker than that decides nothing
LEAD_DB = 20.0  # that the strongest bin of all may be above the strongest of the harmonics
LEADING = 6  # the strongest peak is one of the first harmonics: their nearest note is 22 cents away (B, 250 Hz)
APART = 4  # bins between two harmonics that have peaks of their own, as wide as the window's main lobe
_NATS_PER_DB = np.log(10) / 20


class Gate:
    """Tells frames in which nobody plays. Has no memory: a frame is judged by itself.

    `features`: what a frame is; `floor`: dBFS of a sinusoid below which there is silence. A frame is below it if its
    first set of bins is, which are narrow and hold the least noise. It holds hum alone if any set says so: the narrow
    bins know it beside hiss, the wide ones a tenth of a second after it began.
    """

    def __init__(self, features: Features, floor: float) -> None:
        octave = features.bins_per_octave
        full_scale = np.log(np.sqrt(features.lengths) / 2)  # log magnitude of a sinusoid of 0 dBFS
        limits = np.log(np.exp(full_scale + floor * _NATS_PER_DB) + features.log_offset)
        self._full_scale, self._floors = (
            np.stack((full_scale, limits)).reshape(2, len(features.sets), -1).astype(np.float32)
        )
        self._levels = np.empty_like(self._floors)
        harmonics = np.arange(1, int(1 / (2 ** (APART / octave) - 1)) + 1)
        self._combs = octave * np.log2(np.outer(MAINS, harmonics) / features.fmin)  # in bins, fractions included
        self._tolerance = CENTS * octave / 1200  # bins

    def silent(self, frame: Float32) -> bool:
        """Whether nobody plays in this frame (bins,) of log magnitudes."""
        sets = frame.reshape(self._levels.shape)
        if (sets[0] < self._floors[0]).all():
            return True
        np.subtract(sets, self._full_scale, out=self._levels)
        return bool(_hums(sets, self._floors, self._levels, self._combs, self._tolerance))


@compiled()
def _hums(sets: Float32, floors: Float32, levels: Float32, combs: NDArray[np.float64], tolerance: float) -> bool:
    """Whether any of `sets` (sets, bins) of log magnitudes has its peaks on one of `combs` (mains, harmonics), in bins.

    `floors`, `levels` (sets, bins): what is silence, and the log magnitudes over full scale.
    """
    for number in range(len(sets)):
        for comb in combs:
            top = min(int(comb[-1]) + APART // 2, sets.shape[1] - 1)
            heard = levels[number, :top].max() >= levels[number].max() - LEAD_DB * _NATS_PER_DB
            if heard and _lies_on(sets[number, : top + 1], floors[number], comb, tolerance):
                return True
    return False


@compiled()
def _lies_on(frame: Float32, floor: Float32, comb: NDArray[np.float64], tolerance: float) -> bool:
    """Whether all that stands out of `frame` (bins,) and is no silence lies on `comb`.

    A peak's place between bins is that of the parabola through it and its neighbours.
    """
    strongest = frame[:-1].max()
    leader, loudest = -1, -np.inf
    for i in range(1, frame.size - 1):
        before, peak, after = frame[i - 1], frame[i], frame[i + 1]
        if peak < before or peak <= after or peak < max(floor[i], strongest - REACH_DB * _NATS_PER_DB):
            continue
        place = i + 0.5 * (before - after) / (before - 2 * peak + after)
        harmonic, away = 0, np.inf
        for k in range(comb.size):
            if abs(comb[k] - place) < away:
                harmonic, away = k, abs(comb[k] - place)
        if away > tolerance:
            return False
        if peak > loudest:
            leader, loudest = harmonic, peak
    return 0 <= leader < LEADING
