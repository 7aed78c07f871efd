"""How long a sample waits inside a streaming resampler: ours against soxr's, at the rates devices have."""

from __future__ import annotations

import numpy as np
import soxr

from rtchord.cqt import Features
from rtchord.cqt.latency import resampler_of

RATES = (8_000, 16_000, 44_100, 48_000, 96_000, 192_000)
QUALITIES = ("LQ", "MQ", "HQ", "VHQ")
BLOCK_S = 0.002  # s of audio a push


def longest_wait(push: object, rate: int, rate_out: int, seconds: float = 4.0) -> float:
    """Largest lag in ms of the output handed over behind the input pushed, after the first half second."""
    block = round(rate * BLOCK_S)
    noise = np.random.default_rng(0).standard_normal(round(rate * seconds)).astype(np.float32)
    given, worst = 0, 0.0
    for start in range(0, noise.size - block, block):
        given += push(noise[start : start + block]).size  # type: ignore[operator]
        heard = (start + block) / rate
        if heard > 0.5:
            worst = max(worst, heard - given / rate_out)
    return round(1000 * worst, 2)


def alias_db(rate: int, features: Features) -> float:
    """Loudest alias below the highest bin, in dB of the tone above the pass band that makes it."""
    top = float(features.frequencies[-1])
    worst = -np.inf
    t = np.arange(rate) / rate
    for frequency in np.linspace(features.sample_rate - 1.05 * top, min(rate / 2, 3 * features.sample_rate), 24):
        if frequency >= rate / 2:
            continue
        resampler = resampler_of(rate, features)
        out = resampler.push(np.sin(2 * np.pi * frequency * t).astype(np.float32))[2000:]
        spectrum = np.abs(np.fft.rfft(out * np.hanning(out.size))) / (out.size / 4)
        band = spectrum[: int(top * out.size / features.sample_rate)]
        worst = max(worst, 20 * np.log10(band.max() + 1e-12))
    return round(float(worst), 1)


def resampling() -> dict[str, object]:
    """Longest waits in ms at every rate."""
    features = Features()
    passband = 1.05 * float(features.frequencies[-1])
    table: dict[str, dict[str, float]] = {}
    for rate in RATES:
        ours = resampler_of(rate, features)
        row = {"rtchord_ms": longest_wait(ours.push, rate, features.sample_rate)}
        for quality in QUALITIES:
            stream = soxr.ResampleStream(rate, features.sample_rate, 1, dtype="float32", quality=quality)
            row[f"soxr_{quality}_ms"] = longest_wait(stream.resample_chunk, rate, features.sample_rate)
        if rate > 2 * features.sample_rate - 2 * passband:
            row["alias_db"] = alias_db(rate, features)
        table[str(rate)] = row
    return {"block_ms": 1000 * BLOCK_S, "rate_out": features.sample_rate, "waits": table}
