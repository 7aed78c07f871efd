from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtchord.errors import UserError
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


def tone(pitch: float, rate: int = RATE, seconds: float = 2.0, lead: float = 0.0) -> np.ndarray:
    """A decaying tone of six partials after `lead` s of nothing."""
    n = np.arange(round(seconds * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    partials = sum(np.sin(2 * np.pi * k * frequency * n) / k for k in range(1, 7)) * np.exp(-2 * n)
    return np.concatenate([np.zeros(round(lead * rate)), 0.3 * partials]).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recorded notes at 44.1 kHz, as a sample library has them: names with s or # for a sharp, silence before."""
    for name, pitch in (("E2", 40), ("As2", 46), ("E3", 52), ("A#3", 58), ("E4", 64)):
        soundfile.write(tmp_path / f"{name}.wav", tone(pitch, 44_100, lead=0.03), 44_100)
    (tmp_path / "README.md").write_text("notes")
    soundfile.write(tmp_path / "clap.wav", tone(60), RATE)
    return tmp_path


def test_recorded_notes_are_named_by_pitch_and_begin_with_their_attack(folder: Path) -> None:
    notes = strings.recorded(folder, RATE)
    assert sorted(notes) == [40, 46, 52, 58, 64]
    for note in notes.values():
        assert np.abs(note).max() == pytest.approx(1.0)
        assert np.argmax(np.abs(note) > 0.05) < 0.003 * RATE


def test_a_recorded_note_of_another_pitch_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(folder / "D5.wav", tone(75), RATE)
    assert 74 not in strings.recorded(folder, RATE)
    assert "'D5.wav'" in capsys.readouterr().err


def test_a_folder_without_named_notes_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loop.wav", tone(60), RATE)
    with pytest.raises(UserError, match="name the files by their pitch"):
        strings.recorded(tmp_path, RATE)


@pytest.fixture
def guitar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> strings.Recorded:
    monkeypatch.setattr(strings, "RECORDED", 1.0)
    return strings.recorded(folder, RATE)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pitch", [41, 55, 67])
def test_a_recorded_guitar_sounds_at_its_pitch(guitar: strings.Recorded, pitch: int, seed: int) -> None:
    audio = strings.play([(pitch, 0.2, 2.0, 0.8)], 2.0, np.random.default_rng(seed), RATE, 20.0, [guitar])
    assert strings.cents_off(audio[round(0.2 * RATE) :], pitch, RATE) == pytest.approx(20.0, abs=15.0)
    assert np.abs(audio[: round(0.19 * RATE)]).max() < 1e-4 * np.abs(audio).max()


def test_a_recorded_note_that_is_let_go_falls_silent(guitar: strings.Recorded) -> None:
    audio = strings.play([(60, 0.0, 0.5, 1.0)], 2.0, np.random.default_rng(0), RATE, 0.0, [guitar])
    assert np.abs(audio[int(0.7 * RATE) :]).max() < 0.01 * np.abs(audio).max()


def test_instruments_of_recorded_notes_differ(guitar: strings.Recorded) -> None:
    first, second = (
        strings.play([(60, 0.0, 0.5, 1.0)], 1.0, np.random.default_rng(s), RATE, 0.0, [guitar]) for s in (1, 2)
    )
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.99


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
