"""How late each bin is, and why: the window, the decimators in front of it, the resampler in front of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtchord.audio.resample import Resampler
from rtchord.cqt.centred import CentredCQT, above
from rtchord.cqt.features import Features
from rtchord.cqt.kernels import decimator_delay

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """Per bin (bins,), in ms. Waiting for the next hop is not in it: half a hop on average, in every mode.

    `window`: length of the bin's window. `decimators`: group delay of the half-band chain at the bin's frequency
    (right-aligned), or the future that the chain waits for (centred). `resampler`: delay of the conversion from the
    device's rate. `total`: from a change of the sound to the moment at which the newest frame shows half of it
    (right-aligned), or at which the frame centred on it is final in this bin (centred).
    """

    frequency: Float64
    window: Float64
    decimators: Float64
    resampler: float
    total: Float64


def latency(features: Features, rate: int | None = None) -> Latency:
    """Latency table of a definition, for a device at `rate` Hz (default: the definition's own)."""
    window = 1000 * features.lengths / features.sample_rate
    resampler = 1000 * resampler_of(rate or features.sample_rate, features).delay
    octave = features.octaves - 1 - np.arange(features.sets[0].bins) // features.bins_per_octave
    if features.alignment == "right":
        delays = [
            decimator_delay(each, float(f), int(o))
            for each in features.sets
            for f, o in zip(each.frequencies, octave, strict=True)
        ]
        decimators = 1000 * np.array(delays)
        total = resampler + decimators + window / 2
    else:
        transform = CentredCQT(features, keep=1)
        decimators = 1000 * np.array([above(1, int(o)) - 1 for o in octave]) / features.sample_rate
        total = resampler + 1000 * np.array([transform.wait(int(o)) for o in octave]) / features.sample_rate
    return Latency(features.frequencies, window, decimators, resampler, total)


def resampler_of(rate: int, features: Features) -> Resampler:
    """The converter in front of the transform: exact up to the highest bin."""
    return Resampler(rate, features.sample_rate, passband=1.05 * float(features.frequencies[-1]))
