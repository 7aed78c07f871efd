"""`rtchord transcribe`: a sound file to a transcript, with the whole of it at hand."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.rig import ROOT, RTCHORD, Program, environment
from rtchord.audio.files import read_mono
from rtchord.cli import main
from rtchord.decoder import TUNED_HOP, Smoother
from rtchord.engine import load
from rtchord.recognizer import posteriors, segment, transcribe

DEMO = ROOT / "tests" / "data" / "demo.ogg"
RATE = 22_050


def chord(frequencies: list[float], seconds: float, level: float) -> np.ndarray:
    """Tones with two overtones, together of `level` dBFS (root mean square)."""
    t = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * f * k * t) / k for f in frequencies for k in (1, 2, 3))
    return (sound / np.sqrt(np.mean(sound**2)) * 10 ** (level / 20)).astype(np.float32)


C, F = [130.8, 261.6, 329.6, 392.0], [174.6, 220.0, 261.6, 349.2]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of C, two of F; the second channel is silent."""
    path = tmp_path_factory.mktemp("sound") / "c.wav"
    music = np.concatenate([chord(C, 2, -25), chord(F, 2, -25)])
    soundfile.write(path, np.stack([music, np.zeros_like(music)], axis=1), RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first twelve seconds of the demo."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    samples, rate = read_mono(DEMO)
    soundfile.write(path, samples[: 12 * rate], rate, subtype="FLOAT")
    return path


def told(capsys: pytest.CaptureFixture, *args: str | Path) -> list[tuple[float, float, str]]:
    """What `transcribe` prints as .lab lines."""
    assert main(["transcribe", *map(str, args)]) == 0
    rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    return [(float(start), float(end), label) for start, end, label in rows]


def labels(rows: list[tuple[float, float, str]]) -> list[str]:
    return [label for _, _, label in rows if label != "N"]


# The decode.


def plain_viterbi(log_posterior: np.ndarray, penalty: float) -> np.ndarray:
    """The best path as textbooks find it, with the origin of every state kept."""
    cost = np.where(np.eye(log_posterior.shape[1], dtype=bool), 0.0, penalty)
    score, origins = log_posterior[0], []
    for row in log_posterior[1:]:
        through = score[:, None] - cost
        origins.append(through.argmax(axis=0))
        score = through.max(axis=0) + row
    path = [int(score.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


@pytest.mark.parametrize("seed", range(5))
def test_frame_by_frame_the_best_path_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = rng.dirichlet(np.full(170, 0.02), 12).repeat(25, axis=0)
    classes = np.stack([rng.dirichlet(mean * 3 + 1e-3) for mean in means]).astype(np.float32)
    bass = np.eye(13, dtype=np.float32)[np.zeros(len(classes), int)]
    smoother = Smoother(6.0, TUNED_HOP)
    for row, low in zip(classes, bass, strict=True):
        smoother.push(row, low)
    logs = np.log(np.maximum(classes.astype(float), 1e-6))
    logs[:, 168] = np.log(1e-6)  # X
    expected = plain_viterbi(logs, 6.0)
    segments = smoother.segments()
    found = np.concatenate([[s.chord.index] * (s.end - s.first) for s in segments])
    assert np.array_equal(found, expected)
    assert len({s.chord.index for s in segments}) > 3
    for index, run in itertools.groupby(range(len(expected)), key=expected.__getitem__):
        frames = list(run)
        mean = pytest.approx(float(classes[frames, index].mean()), rel=1e-5)
        assert all(s.confidence == mean for s in segments if frames[0] <= s.first <= frames[-1])


def test_block_by_block_it_is_what_the_whole_recording_gives(song: Path) -> None:
    samples, rate = read_mono(song)
    engine = load()
    manifest = engine.manifest
    whole = posteriors(samples, rate, engine)
    expected = segment(*whole, samples.size / rate, manifest.delay, 1 / manifest.features.frame_rate)
    assert [span[:3] for span in transcribe(song, engine)] == expected
    assert len(expected) > 3


def test_the_gate_says_what_is_silence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    soundfile.write(tmp_path / "quiet.wav", chord(C, 3, -50), RATE, subtype="FLOAT")
    assert labels(told(capsys, tmp_path / "quiet.wav", "--gate", "-110")) == ["C:maj"]
    assert labels(told(capsys, tmp_path / "quiet.wav", "--gate", "-20")) == []


def test_the_recording_is_not_held_in_memory(tmp_path: Path) -> None:
    engine, silence = load(), np.zeros((10 * 192_000, 1), np.int16)
    soundfile.write(tmp_path / "short.flac", silence[:192_000], 192_000)
    soundfile.write(tmp_path / "long.flac", silence, 192_000)
    transcribe(tmp_path / "short.flac", engine)  # compiles

    def peak(name: str) -> int:
        tracemalloc.start()
        try:
            transcribe(tmp_path / name, engine)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak("long.flac") - peak("short.flac") < 10 * 192_000 * 4 / 20


def test_of_a_frame_a_hundred_bytes_are_kept() -> None:
    smoother = Smoother(20.0)
    classes, bass = np.full(170, 1 / 170, np.float32), np.full(13, 1 / 13, np.float32)
    tracemalloc.start()
    try:
        for _ in range(3_000):
            smoother.push(classes, bass)
        assert tracemalloc.get_traced_memory()[0] < 3_000 * 100
    finally:
        tracemalloc.stop()


def test_channels_are_chosen(sound: Path, capsys: pytest.CaptureFixture) -> None:
    assert labels(told(capsys, sound, "--channels", "1")) == ["C:maj", "F:maj"]
    assert labels(told(capsys, sound, "--channels", "2")) == []


def test_names_are_those_that_were_asked_for(sound: Path, song: Path, capsys: pytest.CaptureFixture) -> None:
    assert labels(told(capsys, sound, "--transpose", "1", "--spelling", "flats")) == ["Db:maj", "Gb:maj"]
    assert labels(told(capsys, sound, "--transpose", "1", "--spelling", "sharps")) == ["C#:maj", "F#:maj"]
    full, small = (told(capsys, song, *args) for args in ((), ("--vocabulary", "majmin", "--no-bass")))
    assert any(":maj7" in label or "/" in label for label in labels(full))
    assert {label.split(":")[1] for label in labels(small)} <= {"maj", "min"}
    assert (small[0][0], small[-1][1]) == (full[0][0], full[-1][1])
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(small))


def test_a_recording_without_numbers_in_places_is_transcribed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    music = chord(C, 3, -25)
    music[RATE : RATE + 500] = np.nan
    music[RATE + 500 : RATE + 600] = np.inf
    soundfile.write(tmp_path / "nan.wav", music, RATE, subtype="FLOAT")
    assert "C:maj" in labels(told(capsys, tmp_path / "nan.wav"))


@pytest.mark.parametrize("frames", [1, 100, 2_000])
def test_a_very_short_recording_is_covered(frames: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", chord(C, 1, -25)[:frames], RATE)
    spans = transcribe(tmp_path / "short.wav")
    assert (spans[0].start, spans[-1].end) == (0.0, frames / RATE)


# Files in, files out.


def test_every_format_tells_the_same_chords(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = told(capsys, sound)
    for form in ("lab", "mid", "jsonl", "csv"):
        assert main(["transcribe", str(sound), "-o", str(tmp_path / f"a.{form}")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "a.lab").read_text() == "".join(f"{a:.6f}\t{b:.6f}\t{label}\n" for a, b, label in rows)
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [list(event) for event in events] == [["onset", "time", "chord", "confidence"]] * len(rows)
    assert [(event["onset"], event["time"], event["chord"]) for event in events] == [(a, a, c) for a, _, c in rows]
    assert all(0.3 < event["confidence"] <= 1 for event in events)
    table = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [(float(row["start"]), float(row["end"]), row["chord"]) for row in table] == rows
    midi = (tmp_path / "a.mid").read_bytes()
    assert midi.startswith(b"MThd")
    assert all(label.encode() in midi for _, _, label in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "a.lab", "a.mid"]


def test_an_unfinished_recording_is_transcribed_with_a_note(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    soundfile.write(tmp_path / "a.wav", read_mono(sound)[0] * 2, RATE, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    (tmp_path / "a.wav").write_bytes(data)
    assert main(["transcribe", str(tmp_path / "a.wav")]) == 0
    said = capsys.readouterr()
    assert [line.split("\t")[2] for line in said.out.splitlines()][-2:] == ["C:maj", "F:maj"]
    assert "was not finished" in said.err
    assert "4.0 s" in said.err


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="needs /dev/stdin")
def test_it_reads_and_writes_pipes_and_a_reader_may_leave(sound: Path) -> None:
    """`cat c.wav | rtchord transcribe - | head -1`, with a reader that has gone before anything was written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*RTCHORD, "transcribe", "-"]
    for stdout, code in ((subprocess.PIPE, 0), (writing, 0)):
        done = subprocess.run(
            command, input=sound.read_bytes(), stdout=stdout, stderr=subprocess.PIPE, env=environment(), check=False
        )
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == 1
        assert b"engine" in done.stderr
        if stdout == subprocess.PIPE:
            assert [line.split(b"\t")[2] for line in done.stdout.splitlines()][-2:] == [b"C:maj", b"F:maj"]
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_sentence(sound: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [*RTCHORD, "transcribe", str(sound)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "rtchord: cannot write to the standard output: No space left on device"


def test_a_file_that_is_there_is_kept_and_no_work_is_done(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lab"
    path.write_text("mine")
    with monkeypatch.context() as patched:
        patched.setattr("rtchord.recognizer.transcribe", lambda *_, **__: pytest.fail("it began"))
        assert main(["transcribe", str(sound), "-o", str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["transcribe", str(sound), "-o", str(path), "--overwrite"]) == 0
    assert path.read_text().endswith("F:maj\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    ("command", "code"), [("transcribe {pipe} -o {out}", 130), ("listen --no-midi --input {pipe}", 0)]
)
def test_ctrl_c_ends_the_wait_for_a_pipe_and_leaves_nothing(
    command: str, code: int, sound: Path, tmp_path: Path
) -> None:
    import fcntl
    import termios

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    args = [word.format(pipe=pipe, out=tmp_path / "out.lab") for word in command.split()]
    program = Program([*RTCHORD, *args], environment())
    with pipe.open("wb", buffering=0) as writer:
        writer.write(sound.read_bytes()[:40_000])  # and then nothing comes
        program.wait_for(lambda _: fcntl.ioctl(writer, termios.FIONREAD, bytes(4)) == bytes(4), 60)
        assert program.stop(signal.SIGINT, seconds=20) == code
    assert list(tmp_path.iterdir()) == [pipe]
    assert not any("Traceback" in line for line in program.err)
