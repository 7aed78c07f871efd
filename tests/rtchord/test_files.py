from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtchord.audio.files import AudioFile, read_mono
from rtchord.errors import UserError

SAMPLES = np.random.default_rng(3).uniform(-0.9, 0.9, (1_000, 3)).astype(np.float32)


def refusal(path: Path) -> str:
    """The sentence that opening `path` ends in: one line, with the file's name."""
    with pytest.raises(UserError) as caught:
        AudioFile(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert path.name in sentence
    assert "Traceback" not in sentence
    return sentence


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "three.wav"
    soundfile.write(path, SAMPLES, 32_000, subtype="FLOAT")
    return path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.wav")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    assert "cannot read" in refusal(path)


def test_a_file_that_is_no_sound_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "letter.wav"
    path.write_text("Dear Sir or Madam, this is not a sound.\n" * 50)
    assert "use WAV, FLAC, Ogg" in refusal(path)


def test_a_sound_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "header.wav"
    soundfile.write(path, SAMPLES[:0], 44_100)
    assert "holds no audio" in refusal(path)


@pytest.mark.parametrize("rate", [1_000, 400_000])
def test_a_rate_out_of_range_is_refused_by_value(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, SAMPLES, rate)
    assert str(rate) in refusal(path)


def test_a_file_tells_rate_channels_and_duration(wav: Path) -> None:
    audio = AudioFile(wav)
    assert (audio.rate, audio.channels, audio.frames, audio.duration) == (32_000, 3, 1_000, 1_000 / 32_000)


@pytest.mark.parametrize("size", [1, 7, 1_000, 5_000])
def test_blocks_hold_every_sample_once(wav: Path, size: int) -> None:
    blocks = list(AudioFile(wav).blocks(size))
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert np.array_equal(np.concatenate(blocks), SAMPLES)


def test_blocks_start_over_each_time(wav: Path) -> None:
    audio = AudioFile(wav)
    next(audio.blocks(10))
    assert np.array_equal(next(audio.blocks(10)), SAMPLES[:10])


def test_read_mono_is_the_mean_of_the_channels(wav: Path) -> None:
    samples, rate = read_mono(wav)
    assert (samples.dtype, samples.shape, rate) == (np.float32, (1_000,), 32_000)
    assert samples == pytest.approx(SAMPLES.mean(axis=1), abs=1e-6)


def test_a_file_cut_off_half_way_gives_what_is_there_or_is_refused_by_name(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.flac", tmp_path / "half.flac"
    soundfile.write(whole, SAMPLES.repeat(100, axis=0), 44_100)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    try:
        outcome = f"{read_mono(half)[0].size} samples"
    except UserError as error:
        outcome = str(error)
    assert "half.flac" in outcome or 0 < int(outcome.split()[0]) <= 100_000
