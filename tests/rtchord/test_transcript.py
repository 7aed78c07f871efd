"""The transcript of a recording: its formats, and where it may be written."""

from __future__ import annotations

import csv
import json
import os
import threading
from itertools import pairwise
from pathlib import Path

import mir_eval
import pytest

from rtchord.chords import NO_CHORD, chord_with_bass, class_index
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs.files import Recording, encoder
from rtchord.outputs.text import cover, uncover
from rtchord.outputs.transcript import FORMATS, Target, encoded
from rtchord.settings import MidiSettings

C, FIS = chord_with_bass(class_index(0, "maj"), 4), chord_with_bass(class_index(6, "hdim7"), 6)
EVENTS = [ChordEvent(t, t, symbol, p) for t, symbol, p in ((0.0, NO_CHORD, 1.0), (1.25, C, 0.75), (3.5, FIS, 0.5))]
END = 4.0000004
RECORDING = Path("song.wav")


def target(path: Path | str, form: str | None = None, overwrite: bool = False) -> Target:
    return Target(str(path), form, RECORDING, overwrite)


def test_lab_reads_back_with_mir_eval(tmp_path: Path) -> None:
    (tmp_path / "a.lab").write_bytes(encoded("lab", EVENTS, END))
    intervals, labels = mir_eval.io.load_labeled_intervals(str(tmp_path / "a.lab"))
    assert labels == ["N", "C:maj/3", "F#:hdim7"]
    assert intervals.tolist() == [[0.0, 1.25], [1.25, 3.5], [3.5, 4.0]]
    for label in labels:
        mir_eval.chord.validate_chord_label(label)


def test_jsonl_has_the_keys_of_events() -> None:
    rows = [json.loads(line) for line in encoded("jsonl", EVENTS, END).splitlines()]
    assert rows == [json.loads(event.json()) for event in EVENTS]


def test_csv_has_a_header_and_a_row_a_chord() -> None:
    rows = list(csv.DictReader(encoded("csv", EVENTS, END).decode("ascii").splitlines()))
    assert [(float(row["start"]), float(row["end"]), row["chord"], row["name"]) for row in rows] == [
        (0.0, 1.25, "N", ""),
        (1.25, 3.5, "C:maj/3", "C/E"),
        (3.5, 4.0, "F#:hdim7", "F#m7b5"),
    ]
    assert [float(row["confidence"]) for row in rows] == [1.0, 0.75, 0.5]


@pytest.mark.parametrize("form", ["mid", "lab", "jsonl"])
def test_a_transcript_is_what_a_session_records(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    recording = Recording(path, encoder(path, MidiSettings()))
    for event in EVENTS:
        recording.send(event)
    recording.status(Status(END, 0.0, 0.0, 0, 0, 0.0, True, 0.0))
    recording.close()
    assert encoded(form, EVENTS, END) == path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_the_ending_of_the_name_says_the_format_in_any_case(form: str, tmp_path: Path) -> None:
    assert target(tmp_path / f"a.{form}").form == target(tmp_path / f"A.{form.upper()}").form == form


def test_the_format_may_be_said(tmp_path: Path) -> None:
    assert target(tmp_path / "a.txt", "csv").form == "csv"
    assert (target("-").form, target("-", "jsonl").form) == ("lab", "jsonl")


def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.txt.*\.lab, \.mid, \.jsonl, \.csv, or say --format"):
        target(tmp_path / "a.txt")


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_file_that_is_there_is_refused_and_kept(when: str, tmp_path: Path) -> None:
    path = tmp_path / "a.lab"
    if when == "before":
        path.write_text("mine")
        with pytest.raises(UserError, match=r"a\.lab.*--overwrite"):
            target(path)
    else:
        late = target(path)
        path.write_text("mine")
        with pytest.raises(UserError, match=r"a\.lab.*--overwrite"):
            late.write(b"new")
    assert path.read_text() == "mine"


def test_a_file_is_replaced_where_that_is_said_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.lab"
    path.write_text("old and longer")
    target(path, overwrite=True).write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.lab").write_text("old")
    link = tmp_path / "link.lab"
    link.symlink_to("real.lab")
    target(link, overwrite=True).write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "real.lab").read_bytes() == b"new"


def test_the_recording_is_never_overwritten(tmp_path: Path) -> None:
    recording = tmp_path / "a.lab"
    recording.write_text("sound")
    with pytest.raises(UserError, match="will not overwrite the recording"):
        Target(str(recording), None, recording, overwrite=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/a.lab", "no such folder"), ("folder.lab", "it is a folder"), ("x" * 300 + ".lab", "too long")],
)
def test_what_cannot_be_written_is_told_before_the_work(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder.lab").mkdir()
    with pytest.raises(UserError, match=reason):
        target(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written_to_is_told_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="may not be written to"):
        target(tmp_path / "a.lab")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_named() -> None:
    with pytest.raises(UserError, match=r"/dev/full.*No space left"):
        target("/dev/full").write(b"x")


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "a.mid"
    path.write_text("old")
    new = target(path, overwrite=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"a\.mid.*too large"):
            new.write(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    writing = target(pipe)
    assert writing.form == "lab"
    writing.write(b"chords")
    reader.join()
    assert got == [b"chords"]
    assert pipe.is_fifo()


def test_a_midi_file_is_not_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(UserError, match=r"terminal.*-o FILE\.mid"):
        target("-", "mid")


def test_events_of_no_length_are_no_rows() -> None:
    events = [EVENTS[0], *EVENTS]
    assert len(encoded("csv", events, END).splitlines()) == 1 + len(EVENTS)
    assert all(a.onset < b.onset for a, b in pairwise(EVENTS))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_waits_for_its_reader_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    told: list[str] = []

    def told_of(sentence: str) -> bool:
        told.append(sentence)
        late.cancel()
        reader.start()
        return True

    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    late = threading.Timer(10, reader.start)  # where nothing is said
    late.start()
    cover(told_of)
    try:
        target(path).write(b"0.0\t1.0\tN\n")
    finally:
        uncover(told_of)
    reader.join(10)
    assert read == [b"0.0\t1.0\tN\n"]
    assert told == [f"waiting for somebody to read {str(path)!r}"]
