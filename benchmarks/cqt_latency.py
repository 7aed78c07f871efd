"""How long after a tone begins each octave shows it: measured in every mode, beside what the definition computes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtchord.cqt import CentredCQT, Features, FrameStream, latency

BEFORE, AFTER = 3.0, 3.0  # s of silence, then of the tone
SHARES = (0.5, 0.9)  # of the final magnitude
HOP = 64  # samples between looks: 2.9 ms
LOOKAHEADS = (0.0, 93.0, 186.0)  # ms of future that a provisional frame has


def burst(features: Features, k: int) -> NDArray[np.float32]:
    """Silence, then a tone in the middle of bin `k`."""
    t = np.arange(round(AFTER * features.sample_rate)) / features.sample_rate
    tone = 0.5 * np.sin(2 * np.pi * features.frequencies[k] * t)
    return np.concatenate((np.zeros(round(BEFORE * features.sample_rate)), tone)).astype(np.float32)


def times(seconds: NDArray[np.float64], magnitude: NDArray[np.float64], final: float) -> list[float | None]:
    """ms after the onset at which `magnitude`, known at `seconds` after it, first reaches each share of `final`."""
    found: list[float | None] = []
    for share in SHARES:
        there = np.flatnonzero(magnitude >= share * final)
        found.append(round(1000 * float(seconds[there[0]]), 1) if there.size else None)
    return found


def right_aligned(features: Features, k: int) -> list[float | None]:
    """Measured times of a right-aligned definition, at a fine hop."""
    fine = features.model_copy(update={"hop": HOP})
    magnitude = np.exp(FrameStream(fine.sample_rate, fine).push(burst(fine, k))[:, k].astype(float)) - fine.log_offset
    heard = (np.arange(magnitude.size) + 1) * HOP - round(BEFORE * fine.sample_rate)
    return times(heard / fine.sample_rate, magnitude, float(magnitude[-HOP:].mean()))


def centred(features: Features, k: int) -> dict[str, list[float | None]]:
    """Measured times of the centred definition: final frames, and provisional ones with some of their future."""
    fine = features.model_copy(update={"hop": HOP})
    samples, onset = burst(fine, k), round(BEFORE * fine.sample_rate)
    octave = fine.octaves - 1 - k // fine.bins_per_octave
    transform = CentredCQT(fine, keep=128)
    out = np.empty((transform.due(samples.size), fine.bins), np.float32)
    transform.push(samples, out)
    magnitude = np.exp(out[:, k].astype(float)) - fine.log_offset
    final = float(magnitude[-HOP:].mean())
    at = np.arange(len(out)) * HOP + transform.wait(octave) - onset
    result = {"final": times(at / fine.sample_rate, magnitude, final)}
    # Provisional frames: push on by a few ms, look at the frame that has the stated future by now.
    step = 4 * HOP
    looks = np.arange(onset - step, onset + fine.sample_rate, step) // HOP * HOP
    window, piece = np.empty((transform.keep, fine.bins), np.float32), np.empty((1024, fine.bins), np.float32)
    values = np.zeros((len(LOOKAHEADS), looks.size))
    transform.reset()
    done = 0
    for i, look in enumerate(looks):
        for start in range(done, look, 16_384):
            transform.push(samples[start : min(start + 16_384, look)], piece)
        done = look
        transform.window(window)
        for j, ahead in enumerate(LOOKAHEADS):
            frame = window[-1 - round(ahead * fine.sample_rate / 1000 / HOP), k]
            values[j, i] = np.exp(float(frame)) - fine.log_offset
    for ahead, seen in zip(LOOKAHEADS, values, strict=True):
        result[f"provisional, {ahead:g} ms of future"] = times((looks - onset) / fine.sample_rate, seen, final)
    return result


def onsets(modes: dict[str, Features]) -> list[dict[str, object]]:
    """One row per octave and mode: computed figures, and measured ms to each share of the final magnitude."""
    rows: list[dict[str, object]] = []
    for mode, features in modes.items():
        computed = latency(features)
        for octave in range(features.octaves):
            k = octave * features.bins_per_octave + features.bins_per_octave // 2
            row: dict[str, object] = {
                "mode": mode,
                "hz": round(float(features.frequencies[k]), 1),
                "window_ms": round(float(computed.window[k]), 1),
                "decimators_ms": round(float(computed.decimators[k]), 1),
                "computed_ms": round(float(computed.total[k]), 1),
            }
            row["measured_ms"] = (
                {"newest": right_aligned(features, k)} if features.alignment == "right" else centred(features, k)
            )
            rows.append(row)
    return rows
