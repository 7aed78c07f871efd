from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


# What was never finished, or is cut off.

SOUND = np.random.default_rng(5).uniform(-0.5, 0.5, (20_000, 2)).astype(np.float32)
RATE = 8_000


def written(path: Path, form: str, subtype: str | None = None, sound: np.ndarray = SOUND) -> bytearray:
    """The bytes of `sound` in a format."""
    soundfile.write(path, sound, RATE, format=form, subtype=subtype)
    return bytearray(path.read_bytes())


def decoded(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def heard(path: Path, size: int = 441) -> tuple[np.ndarray, list[str]]:
    """All samples, and what was reported."""
    told: list[str] = []
    audio = AudioFile(path, told.append)
    try:
        return np.concatenate(list(audio.blocks(size))), told
    finally:
        audio.close()


# format, subtype -> what stands in the header until the file is finished: (after this name, at this offset, bytes).
UNFINISHED = {
    "a recorder without power": ("WAV", "PCM_16", [(b"RIFF", 4, bytes(4)), (b"data", 4, bytes(4))]),
    "float": ("WAV", "FLOAT", [(b"RIFF", 4, bytes(4)), (b"data", 4, bytes(4))]),
    "24 bit": ("WAVEX", "PCM_24", [(b"RIFF", 4, bytes(4)), (b"data", 4, bytes(4))]),
    "libsndfile": ("WAV", "PCM_16", [(b"RIFF", 4, b"\x08\0\0\0"), (b"data", 4, bytes(4))]),
    "ffmpeg": ("WAV", "PCM_16", [(b"RIFF", 4, b"\xff" * 4), (b"data", 4, b"\xff" * 4)]),
    "sox": ("WAV", "PCM_16", [(b"RIFF", 4, b"\x24\xf0\xff\x7f"), (b"data", 4, b"\0\xf0\xff\x7f")]),
    "RF64": ("RF64", "PCM_24", [(b"ds64", 8, bytes(24))]),
    "W64": ("W64", "PCM_16", [(b"riff", 16, bytes(8)), (b"data", 16, bytes(8))]),
    "W64, streamed": ("W64", "PCM_16", [(b"riff", 16, b"\xff" * 7 + b"\x7f"), (b"data", 16, b"\xff" * 7 + b"\x7f")]),
    "AIFF": ("AIFF", "PCM_16", [(b"FORM", 4, bytes(4)), (b"COMM", 10, bytes(4)), (b"SSND", 4, b"\0\0\0\x08")]),
}


@pytest.fixture(params=UNFINISHED)
def unfinished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A file, and the same as its recorder left it."""
    form, subtype, edits = UNFINISHED[request.param]
    whole, path = tmp_path / "whole", tmp_path / "unfinished.wav"
    data = written(whole, form, subtype)
    for name, offset, patch in edits:
        at = data.index(name) + offset
        data[at : at + len(patch)] = patch
    path.write_bytes(data)
    return whole, path


def test_a_file_that_was_not_finished_is_heard_to_its_end_with_a_note(unfinished: tuple[Path, Path]) -> None:
    whole, path = unfinished
    samples, told = heard(path)
    assert np.array_equal(samples, decoded(whole))
    assert len(told) == 1
    assert "unfinished.wav" in told[0]
    assert "not finished" in told[0]
    assert "2.5 s" in told[0]


def test_an_unfinished_file_too_starts_over(tmp_path: Path) -> None:
    data = written(tmp_path / "a.wav", "WAV", "PCM_16")
    data[4:8] = data[40:44] = bytes(4)
    (tmp_path / "a.wav").write_bytes(data)
    audio = AudioFile(tmp_path / "a.wav")
    first = np.concatenate(list(audio.blocks(4096)))
    assert np.array_equal(np.concatenate(list(audio.blocks(1000))), first)
    assert (audio.frames, len(first)) == (len(SOUND), len(SOUND))


def test_an_empty_file_with_a_title_behind_is_empty(tmp_path: Path) -> None:
    data = written(tmp_path / "a.wav", "WAV", "PCM_16", SOUND[:0])
    (tmp_path / "a.wav").write_bytes(data + b"LIST\x1a\0\0\0INFOINAM\x0e\0\0\0a long title\0\0")
    assert "holds no audio" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("form", ["WAV", "RF64", "W64", "AIFF"])
def test_a_file_that_was_cut_off_is_heard_to_its_end_with_a_note(form: str, tmp_path: Path) -> None:
    data = written(tmp_path / "whole", form, "PCM_16")
    (tmp_path / "half.wav").write_bytes(data[: len(data) // 2])
    samples, told = heard(tmp_path / "half.wav")
    assert 9_900 < len(samples) < 10_000
    assert np.array_equal(samples, decoded(tmp_path / "whole")[: len(samples)])
    assert len(told) == 1
    assert "half.wav" in told[0]
    assert "cut off" in told[0]


@pytest.mark.parametrize(("form", "subtype"), [("FLAC", "PCM_16"), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_so_is_one_that_is_compressed(form: str, subtype: str | None, tmp_path: Path) -> None:
    data = written(tmp_path / "whole", form, subtype, np.tile(SOUND, (3, 1)))
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    samples, told = heard(tmp_path / "half")
    whole = decoded(tmp_path / "whole")
    assert 0.3 * len(whole) < len(samples) < 0.7 * len(whole)
    assert len(told) == 1
    assert "cut off" in told[0]


@pytest.mark.parametrize("size", [441, 4096, 100_000])
def test_of_what_is_damaged_little_is_lost_however_it_is_read(size: int, tmp_path: Path) -> None:
    data = written(tmp_path / "whole", "FLAC", "PCM_16", np.tile(SOUND, (10, 1)))
    (tmp_path / "half.flac").write_bytes(data[: len(data) // 2])
    samples, told = heard(tmp_path / "half.flac", size)
    assert len(samples) > 90_000
    assert np.array_equal(samples, decoded(tmp_path / "whole")[: len(samples)])
    assert f"{len(samples) / RATE:.1f} s" in told[0]


def test_without_anybody_to_tell_what_is_damaged_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "whole", "FLAC", "PCM_16")
    (tmp_path / "half.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cannot go on reading .*half\.flac"):
        read_mono(tmp_path / "half.flac")


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "FLOAT"),
     ("FLAC", "PCM_24"), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")],
)  # fmt: skip
def test_of_a_good_file_nothing_is_said(form: str, subtype: str | None, tmp_path: Path) -> None:
    written(tmp_path / "good", form, subtype)
    samples, told = heard(tmp_path / "good")
    assert np.array_equal(samples, decoded(tmp_path / "good"))
    assert told == []


def test_a_flac_of_unknown_length_is_heard_to_its_end(tmp_path: Path) -> None:
    data = written(tmp_path / "a.flac", "FLAC", "PCM_16")
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "streamed.flac").write_bytes(data)
    samples, told = heard(tmp_path / "streamed.flac")
    assert np.array_equal(samples, decoded(tmp_path / "a.flac"))
    assert told == []


def test_a_file_that_becomes_shorter_while_it_is_read_ends_there_with_a_note(tmp_path: Path) -> None:
    path, told = tmp_path / "shrinks.wav", []
    data = written(path, "WAV", "PCM_16")
    blocks = AudioFile(path, told.append).blocks(1000)
    got = [next(blocks)]
    os.truncate(path, len(data) // 2)
    got += blocks
    assert 9_900 < sum(map(len, got)) < 12_000
    assert len(told) == 1
    assert "shrinks.wav" in told[0]
    assert "its header tells of 2.5 s" in told[0]


def test_a_tag_that_is_longer_than_the_file_is_named(tmp_path: Path) -> None:
    data = written(tmp_path / "a.mp3", "MP3")
    (tmp_path / "tag.mp3").write_bytes(b"ID3\x04\0\0\0\x1e\x42\x20" + bytes(100) + data)
    sentence = refusal(tmp_path / "tag.mp3")
    assert "ID3 tag claims 500000 bytes" in sentence
    assert f"the file has {110 + len(data)}" in sentence


def test_a_wav_without_channels_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "none.wav", "WAV", "PCM_16")
    data[22:24] = bytes(2)
    (tmp_path / "none.wav").write_bytes(data)
    assert "cannot read" in refusal(tmp_path / "none.wav")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
def test_a_name_need_not_be_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"M\xfcller.flac")
    (tmp_path / "a.flac").write_bytes(written(tmp_path / "b", "FLAC", "PCM_16"))
    (tmp_path / "a.flac").rename(path)
    assert len(heard(path)[0]) == len(SOUND)


# Pipes.

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


@contextmanager
def fed(path: Path, data: bytes) -> Iterator[Path]:
    """A pipe into which a thread writes `data`."""
    os.mkfifo(path)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            path.write_bytes(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield path
    finally:
        writer.join(10)


@pipes
@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("WAV", "ULAW"), ("RF64", "PCM_24"),
     ("W64", "PCM_32"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AIFF", "PCM_S8")],
)  # fmt: skip
def test_a_pipe_is_heard_as_it_comes(form: str, subtype: str, tmp_path: Path) -> None:
    data = written(tmp_path / "whole", form, subtype)
    with fed(tmp_path / "pipe", bytes(data)) as pipe:
        samples, told = heard(pipe)
    assert np.array_equal(samples, decoded(tmp_path / "whole"))
    assert told == []


@pipes
@pytest.mark.parametrize(
    ("form", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None), ("WAV", "IMA_ADPCM")]
)
def test_what_cannot_be_heard_as_it_comes_is_heard_afterwards_and_that_is_said(
    form: str, subtype: str | None, tmp_path: Path
) -> None:
    data = written(tmp_path / "whole", form, subtype)
    with fed(tmp_path / "pipe", bytes(data)) as pipe:
        samples, told = heard(pipe)
    assert np.array_equal(samples, decoded(tmp_path / "whole"))
    assert len(told) == 1
    assert "to its end first" in told[0]


@pipes
def test_a_pipe_whose_length_is_not_known_is_heard_to_its_end(unfinished: tuple[Path, Path], tmp_path: Path) -> None:
    whole, path = unfinished
    with fed(tmp_path / "pipe", path.read_bytes()) as pipe:
        samples, _ = heard(pipe)
    assert np.array_equal(samples, decoded(whole))


@pipes
def test_what_follows_the_sound_in_a_pipe_is_not_heard(tmp_path: Path) -> None:
    data = written(tmp_path / "whole", "WAV", "PCM_16")
    with fed(tmp_path / "pipe", bytes(data) + b"LIST\x10\0\0\0" + bytes(16)) as pipe:
        assert len(heard(pipe)[0]) == len(SOUND)


@pipes
def test_a_picture_may_come_before_the_sound(tmp_path: Path) -> None:
    data = written(tmp_path / "whole", "WAV", "PCM_16")
    picture = b"id3 " + (30_000).to_bytes(4, "little") + bytes(30_000)
    with fed(tmp_path / "pipe", bytes(data[:12] + picture + data[12:])) as pipe:
        samples, told = heard(pipe)
    assert np.array_equal(samples, decoded(tmp_path / "whole"))
    assert told == []


@pipes
def test_the_first_sound_of_a_pipe_is_heard_before_the_last_has_come(tmp_path: Path) -> None:
    data = written(tmp_path / "whole", "WAV", "PCM_16")
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that the writer need not wait
    with path.open("wb", buffering=0) as writer:
        os.set_blocking(reading, True)
        writer.write(data[:20_000])
        first = next(AudioFile(path).blocks(1000))
        assert np.array_equal(first, decoded(tmp_path / "whole")[:1000])
    os.close(reading)


@pipes
def test_a_pipe_that_ends_too_early_is_noted(tmp_path: Path) -> None:
    data = written(tmp_path / "whole", "WAV", "PCM_16")
    with fed(tmp_path / "pipe", bytes(data[: len(data) // 2])) as pipe:
        samples, told = heard(pipe)
    assert 9_900 < len(samples) < 10_000
    assert len(told) == 1
    assert "its header tells of 2.5 s" in told[0]


@pipes
@pytest.mark.parametrize(("data", "reason"), [(b"", "nothing came"), (b"Dear Sir or Madam, " * 500, "use WAV, FLAC")])
def test_a_pipe_without_sound_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    with fed(tmp_path / "pipe", data) as pipe:
        assert reason in refusal(pipe)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_device_is_no_sound_file() -> None:
    assert "neither a file nor a pipe" in refusal(Path("/dev/zero"))
