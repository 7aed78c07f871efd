from __future__ import annotations

import numpy as np
import pytest

from train import strings

RATE = 22_050


@pytest.mark.parametrize("pitch", [40, 52, 64, 76])
def test_a_string_sounds_at_its_pitch(pitch: int) -> None:
    audio = strings.play([(pitch, 0.0, 2.0, 0.8)], 2.0, np.random.default_rng(3), RATE)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(audio.size), 1 << 18))
    frequency = np.fft.rfftfreq(1 << 18, 1 / RATE)
    expected = 440 * 2 ** ((pitch - 69) / 12)
    near = (frequency > 0.94 * expected) & (frequency < 1.06 * expected)
    peak = frequency[near][spectrum[near].argmax()]
    assert abs(1200 * np.log2(peak / expected)) < 15  # cents: instruments are a little out of tune


def partials(seed: int) -> np.ndarray:
    """dB of the partials of a low note."""
    audio = strings.play([(40, 0.0, 2.0, 0.8)], 2.0, np.random.default_rng(seed), RATE)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(audio.size)))
    fundamental = 440 * 2 ** ((40 - 69) / 12) * 2.0  # bins: two seconds
    near = [slice(round(k * fundamental * 0.98), round(k * fundamental * 1.02)) for k in range(1, 12)]
    return 20 * np.log10([spectrum[band].max() for band in near])


def test_a_body_makes_neighbouring_partials_unlike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "BODIES", 0.0)
    plain = [partials(seed) for seed in range(6)]
    monkeypatch.setattr(strings, "BODIES", 1.0)
    added = [np.diff(partials(seed) - before) for seed, before in enumerate(plain)]
    assert 1.0 < np.std(added) < 10.0  # dB


def test_a_string_that_is_let_go_falls_silent() -> None:
    audio = strings.play([(60, 0.0, 0.5, 1.0)], 2.0, np.random.default_rng(0), RATE)
    assert np.abs(audio[int(0.7 * RATE) :]).max() < 0.01 * np.abs(audio).max()


def test_the_same_seed_plays_the_same() -> None:
    notes = [(60, 0.0, 0.5, 1.0), (64, 0.1, 0.5, 0.5)]
    first, second = (strings.play(notes, 1.0, np.random.default_rng(5), RATE) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.size == RATE


def test_no_instrument_runs_away() -> None:
    notes = [(40 + i % 50, 0.05 * i, 0.05 * i + 1.0, 1.0) for i in range(40)]
    for seed in range(10):
        audio = strings.play(notes, 3.0, np.random.default_rng(seed), RATE)
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() < 100
