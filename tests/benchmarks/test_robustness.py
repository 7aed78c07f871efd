"""What is done to the songs is what is said to be done."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import charts
from benchmarks import robustness as rob
from benchmarks.robustness import (
    CONDITIONS,
    VOICES,
    Condition,
    SkippedError,
    added,
    babble,
    cut,
    degraded,
    detuned,
    hum,
    lag,
    level,
    no_music,
    noise,
    rms,
    room,
    speech,
    transposed,
    without_music,
)
from rtchord import engine as engines
from train.render import SOUNDFONTS

RATE = 44_100
DATA = Path(__file__).parents[1] / "data"
FONT = next((font for font in (SOUNDFONTS[1], *SOUNDFONTS, charts.FONT) if font.exists()), None)  # the smallest
needs_font = pytest.mark.skipif(
    FONT is None or shutil.which("fluidsynth") is None, reason="there is no fluidsynth with a soundfont"
)
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def tone(hz: float = 440.0, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def peak_hz(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size), 8 * samples.size))
    return float(spectrum.argmax() * rate / (8 * samples.size))


@pytest.mark.parametrize("snr", [20, 10, 0])
def test_noise_lies_so_many_decibels_under_the_song(snr: int) -> None:
    clean = tone()
    noisy = added(lambda size, _, source: noise(size, 0.0, source), snr)(clean, RATE, rng())
    assert 20 * np.log10(rms(clean) / rms(noisy - clean)) == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize(("slope", "decibels"), [(0.0, 0.0), (0.5, -3.0)])
def test_white_noise_is_even_and_pink_falls_by_3_db_an_octave(slope: float, decibels: float) -> None:
    power = np.abs(np.fft.rfft(noise(1 << 18, slope, rng()))) ** 2
    octaves = [power[1 << k : 2 << k].mean() for k in range(11, 16)]
    assert np.diff(10 * np.log10(octaves)) == pytest.approx(np.full(4, decibels), abs=0.4)


@pytest.mark.parametrize("cents", [-50, 30])
def test_a_detuned_song_is_higher_and_shorter(cents: int) -> None:
    factor = 2 ** (cents / 1200)
    changed = detuned(cents)(tone(), RATE, rng())
    assert peak_hz(changed) == pytest.approx(440 * factor, rel=1e-3)
    assert changed.size == pytest.approx(2 * RATE / factor, rel=1e-3)
    named = next(c for c in CONDITIONS if c.name == f"{cents:+d} cents")
    assert named.faster == pytest.approx(factor)


def test_a_room_decays_by_60_db_in_its_time() -> None:
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    heard = room(0.4, 0.0)(click, RATE, rng())
    assert heard[0] == pytest.approx(1, abs=0.1)
    assert np.sum(heard[1:] ** 2) == pytest.approx(1, rel=0.05)  # as much as the direct sound
    at = [rms(heard[round(t * RATE) : round((t + 0.04) * RATE)]) for t in (0.02, 0.22)]
    assert 20 * np.log10(at[1] / at[0]) == pytest.approx(-30, abs=1.5)
    assert rms(heard[round(0.41 * RATE) :]) < 1e-6


def test_levels_and_clipping() -> None:
    quiet, clipped = level(-40)(tone(), RATE, rng()), level(12)(tone(), RATE, rng())
    assert np.abs(quiet).max() == pytest.approx(0.01, rel=1e-3)
    assert np.abs(clipped).max() == 1
    assert np.mean(np.abs(clipped) == 1) > 0.8


@pytest.mark.parametrize(
    "codec",
    [c.change for c in CONDITIONS if c.family == "codec"],
    ids=[c.name for c in CONDITIONS if c.family == "codec"],
)
def test_a_codec_keeps_the_time_and_the_tone(codec) -> None:
    sound = np.concatenate((np.zeros(RATE), tone(330, 1.0), np.zeros(RATE // 2), tone(550, 0.7))).astype(np.float32)
    try:
        changed = codec(sound, RATE, rng())
    except SkippedError as reason:
        pytest.skip(str(reason))
    assert changed.size == pytest.approx(sound.size, abs=2)
    assert not np.array_equal(changed[: sound.size], sound[: changed.size])
    attack = int(np.argmax(np.abs(changed) > 0.1))
    assert attack == pytest.approx(RATE, abs=0.01 * RATE)
    assert peak_hz(changed[RATE : 2 * RATE]) == pytest.approx(330, abs=1)


def test_a_lag_is_found() -> None:
    sound = noise(50_000, 0.0, rng())
    assert lag(sound, np.concatenate((np.zeros(1105, np.float32), sound))) == 1105
    assert lag(sound, sound) == 0


@needs_espeak
def test_talk_and_babble_are_loud_as_said_and_differ() -> None:
    one, other = speech(VOICES[0], RATE), speech(VOICES[1], RATE)
    assert rms(one) == pytest.approx(1, rel=1e-3)
    assert rms(babble(RATE)) == pytest.approx(1, rel=1e-3)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_without_a_speaker_the_condition_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rob.shutil, "which", lambda _: None)
    speech.cache_clear()
    talk = tuple(c for c in CONDITIONS if c.family == "speech")[:1]
    rows = list(degraded(DATA, engines.load(), 1, 4.0, 0, talk))
    assert rows[-1] == {"family": "speech", "condition": talk[0].name, "skipped": "espeak-ng is not installed"}


def test_references_are_cut_to_what_is_heard() -> None:
    times, labels = cut((np.array([[0.0, 2.0], [2.0, 5.0], [5.0, 6.0]]), ["N", "C:maj", "G:maj"]), 4.0)
    assert times.tolist() == [[0, 2], [2, 4]]
    assert labels == ["N", "C:maj"]


def test_a_condition_is_compared_with_the_clean_song() -> None:
    quieter = Condition("level", "half", lambda samples, *_: samples / 2)
    gone = Condition("level", "nothing", lambda samples, *_: 0 * samples)
    clean, half, nothing = degraded(DATA, engines.load(), 1, 8.0, 0, (quieter, gone))
    assert clean["gained"] == 0
    assert abs(half["gained"]) < 0.1
    assert nothing["gained"] == pytest.approx(nothing["scores"]["mean7"] - clean["scores"]["mean7"], abs=2e-4)
    assert nothing["scores"]["hit"] == 0


@needs_font
def test_sounds_without_music(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "FONT", FONT)
    sounds = no_music(1.0)
    assert not sounds["silence"](RATE, rng()).any()
    assert 20 * np.log10(rms(sounds["pink noise, -20 dB"](RATE, rng()))) == pytest.approx(-20, abs=0.01)
    assert peak_hz(hum(RATE, RATE)) == pytest.approx(50, abs=1)
    rows = {row["condition"]: row for row in without_music(engines.load(), 0, 1.0)}
    assert rows["silence"]["no_chord"] == 1
    assert rows["silence"]["changes_per_minute"] == 0
    assert set(rows) == set(sounds)


@needs_font
def test_the_charts_are_played_in_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "FONT", FONT)
    short = charts.pieces(0)
    for piece in short.values():
        piece.segments[:] = piece.segments[:4]
        piece.duration = piece.segments[-1][1]
        for part in piece.midi.instruments:
            part.notes[:] = [note for note in part.notes if note.end < piece.duration]
    monkeypatch.setattr(charts, "pieces", lambda _: short)
    rows = list(transposed(engines.load(), 0, range(0, 2), 1))
    assert [row["condition"] for row in rows] == ["+0", "+1"]
    assert rows[0]["gained"] == 0
    assert rows[0]["scores"]["mean7"] > 0.3


def test_soundfile_can_write_what_the_codecs_need() -> None:
    assert {"MP3", "OGG"} <= soundfile.available_formats().keys()
