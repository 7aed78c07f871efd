"""Idle amplifiers: how long a chord is named while nobody plays.

Eleven made-up noises (hum of 50 and 60 Hz whose harmonics fall slowly or fast, with weak or strong even ones; white and
pink hiss; both together), each 20 s at several levels, through the live path with the gate and without.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtchord.recognizer import Recognizer
from rtchord.settings import GATE_DBFS

RATE, SECONDS = 48_000, 20
LEVELS = (-40.0, -50.0, -57.0, -65.0)  # dBFS, root mean square
OPEN = -120.0  # dBFS: no gate
HARMONICS = 40


def noises(seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Name -> (n,) noise of root mean square 1."""
    rng = np.random.default_rng(seed)
    t = np.arange(RATE * SECONDS) / RATE

    def hum(mains: float, slope: float, even: float) -> NDArray[np.float64]:
        found = np.zeros(t.size)
        for k in range(1, HARMONICS + 1):
            amplitude = k**-slope * (1 if k % 2 else even) * 10 ** (rng.normal(0, 4) / 20)
            found += amplitude * np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 2 * np.pi))
        return found

    white = rng.standard_normal(t.size)
    pink = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(t.size)) / np.sqrt(np.maximum(np.fft.rfftfreq(t.size, 1 / RATE), 20))
    )
    found = {
        f"{mains:.0f} Hz, slope {slope}, even {even}": hum(mains, slope, even)
        for mains in (50.0, 60.0)
        for slope in (0.3, 1.0)
        for even in (0.3, 1.0)
    } | {"white": white, "pink": pink}
    found = {name: sound / np.sqrt(np.mean(sound**2)) for name, sound in found.items()}
    both = found["50 Hz, slope 0.3, even 1.0"] + 0.5 * found["white"]
    return found | {"50 Hz and white": both / np.sqrt(np.mean(both**2))}


def named(recognizer: Recognizer, samples: NDArray[np.float32]) -> float:
    """Share of the time for which a chord was shown."""
    recognizer.reset()
    events = recognizer.push(samples)
    ends = [event.time for event in events[1:]] + [samples.size / RATE]
    return sum(end - e.time for e, end in zip(events, ends, strict=True) if e.chord != "N") / SECONDS


def gate(engine: Path | None) -> dict[str, object]:
    """Shares of every noise at every level, and how many noises were ever named."""
    recognizers = {level: Recognizer(RATE, engine, gate=level) for level in (GATE_DBFS, OPEN)}
    shares = {
        f"gate {threshold:.0f}": {
            name: [round(named(recognizer, (sound * 10 ** (level / 20)).astype(np.float32)), 3) for level in LEVELS]
            for name, sound in noises().items()
        }
        for threshold, recognizer in recognizers.items()
    }
    return {
        "levels_dbfs": LEVELS,
        "shares": shares,
        "named": {
            f"{key}, {level:.0f} dBFS": f"{sum(row[i] > 0 for row in rows.values())} of {len(rows)}"
            for key, rows in shares.items()
            for i, level in enumerate(LEVELS)
        },
    }
