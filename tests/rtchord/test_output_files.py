from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import mir_eval
import pytest

from rtchord.chords import NO_CHORD, chord_with_bass, class_index
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs import files
from rtchord.outputs.files import ChordText, NoRoomError, Recording, Track, encoder, variable_length
from rtchord.settings import MidiSettings

TRIADS = MidiSettings(voicing="triad", velocity=100, channel=2)
KINDS = (".mid", ".lab", ".jsonl")


def event(onset: float, root: int, quality: str, bass: int | None = None, sharps: int = 1) -> ChordEvent:
    symbol = chord_with_bass(class_index(root, quality), root if bass is None else bass)
    return ChordEvent(onset, onset + 0.1, symbol, 0.9, sharps)


def no_chord(onset: float) -> ChordEvent:
    return ChordEvent(onset, onset + 0.1, NO_CHORD, 0.9)


def state(time: float) -> Status:
    return Status(time, -20.0, -10.0, 0, 0, 0.0, True, 0.0)


SONG = [no_chord(0.0), event(1.0, 9, "min7"), event(2.5, 0, "maj", 4), no_chord(3.25)]


def recorded(path: Path, events: list[ChordEvent], end: float, midi: MidiSettings = TRIADS) -> bytes:
    """The recording of a session that ends at `end`."""
    recording = Recording(path, encoder(path, midi))
    for one in events:
        recording.send(one)
    recording.status(state(end))
    recording.release()
    recording.close()
    return path.read_bytes()


def read_midi(data: bytes) -> list[tuple[float, Any]]:
    """(s, message) of every message, as an independent reader finds them."""
    file = mido.MidiFile(file=io.BytesIO(data))
    assert (file.type, len(file.tracks)) == (0, 1)
    time, rows = 0.0, []
    for message in file:
        time += message.time
        rows.append((round(time, 6), message))
    return rows


def test_midi_file_is_byte_for_byte_as_the_module_says(tmp_path: Path) -> None:
    data = recorded(tmp_path / "a.mid", [event(0.5, 9, "min7")], 2.0, MidiSettings(voicing="root", velocity=64))
    assert data.hex(" ") == (
        "4d 54 68 64 00 00 00 06 00 00 00 01 01 f4 "
        "4d 54 72 6b 00 00 00 49 "
        "00 ff 51 03 07 a1 20 "
        "00 ff 03 07 72 74 63 68 6f 72 64 "
        "00 ff 7f 09 43 7b 00 58 46 30 32 00 00 "
        "83 74 90 39 40 "
        "00 ff 01 06 41 3a 6d 69 6e 37 "
        "00 ff 06 03 41 6d 37 "
        "00 ff 7f 07 43 7b 01 36 0a 7f 7f "
        "8b 5c 80 39 00 "
        "00 ff 2f 00"
    )


@pytest.mark.parametrize(
    ("number", "coded"),
    [(0, "00"), (0x40, "40"), (0x7F, "7f"), (0x80, "8100"), (0x2000, "c000"), (0x3FFF, "ff7f"), (0x4000, "818000"),
     (0x0FFFFFFF, "ffffff7f")],
)  # fmt: skip
def test_variable_length_is_that_of_the_standard(number: int, coded: str) -> None:
    assert variable_length(number).hex() == coded


def test_midi_file_holds_notes_names_and_xf_chords_at_the_onsets(tmp_path: Path) -> None:
    rows = read_midi(recorded(tmp_path / "a.mid", SONG, 5.0))
    notes = [(time, m.type, m.note, m.channel) for time, m in rows if m.type in ("note_on", "note_off")]
    assert notes == [
        *[(1.0, "note_on", note, 1) for note in (57, 60, 64)],
        *[(2.5, "note_off", note, 1) for note in (57, 60, 64)],
        *[(2.5, "note_on", note, 1) for note in (48, 52, 55)],
        *[(3.25, "note_off", note, 1) for note in (48, 52, 55)],
    ]
    assert [(time, m.text) for time, m in rows if m.type == "text"] == [
        (0.0, "N"), (1.0, "A:min7"), (2.5, "C:maj/3"), (3.25, "N"),
    ]  # fmt: skip
    assert [m.text for _, m in rows if m.type == "marker"] == ["N.C.", "Am7", "C/E", "N.C."]
    assert [bytes(m.data).hex(" ") for _, m in rows if m.type == "sequencer_specific"] == [
        "43 7b 00 58 46 30 32 00 00",
        "43 7b 01 31 22 7f 7f",
        "43 7b 01 36 0a 7f 7f",
        "43 7b 01 31 00 33 7f",
        "43 7b 01 31 22 7f 7f",
    ]
    assert rows[-1][0] == 5.0
    assert rows[-1][1].type == "end_of_track"


def test_midi_file_spells_as_the_events_do(tmp_path: Path) -> None:
    events = [event(0.0, 6, "min", sharps=0), event(1.0, 6, "min", sharps=5)]
    rows = read_midi(recorded(tmp_path / "a.mid", events, 2.0))
    assert [m.text for _, m in rows if m.type == "marker"] == ["Gbm", "F#m"]
    assert [m.data[3] for _, m in rows if m.type == "sequencer_specific" and m.data[2] == 1] == [0x25, 0x44]


@pytest.mark.parametrize("tie", [False, True])
def test_midi_file_has_every_note_ended(tmp_path: Path, tie: bool) -> None:
    events = [event(i * 0.7, i * 5 % 12, ("maj", "min7", "sus4")[i % 3]) for i in range(50)]
    held: set[int] = set()
    for _, message in read_midi(recorded(tmp_path / "a.mid", events, 40.0, MidiSettings(tie=tie))):
        if message.type == "note_on":
            assert message.note not in held
            held.add(message.note)
        elif message.type == "note_off":
            held.remove(message.note)
    assert held == set()


def test_midi_file_keeps_a_millisecond_after_hours(tmp_path: Path) -> None:
    """Ticks are counted from the start, so roundings do not add up."""
    onsets = [i * 10.0004 for i in range(3600)]
    recording = Recording(tmp_path / "a.mid", encoder(tmp_path / "a.mid", MidiSettings(voicing="root")))
    for i, onset in enumerate(onsets):
        recording.send(event(onset, i % 12, "maj"))
    recording.close()
    found = [time for time, m in read_midi((tmp_path / "a.mid").read_bytes()) if m.type == "note_on"]
    assert len(found) == len(onsets)
    assert max(abs(a - b) for a, b in zip(found, onsets, strict=True)) <= 0.000_51


def test_lab_covers_the_session_without_gaps(tmp_path: Path) -> None:
    recorded(tmp_path / "a.lab", SONG, 5.0)
    intervals, labels = mir_eval.io.load_labeled_intervals(str(tmp_path / "a.lab"))
    assert labels == ["N", "A:min7", "C:maj/3", "N"]
    assert intervals.tolist() == [[0.0, 1.0], [1.0, 2.5], [2.5, 3.25], [3.25, 5.0]]


def test_jsonl_holds_the_events_themselves(tmp_path: Path) -> None:
    lines = recorded(tmp_path / "a.jsonl", SONG, 5.0).decode().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(one.json()) for one in SONG]


@pytest.mark.parametrize("kind", KINDS)
def test_a_chord_renamed_at_once_is_recorded_by_its_last_name(tmp_path: Path, kind: str) -> None:
    events = [no_chord(0.0), event(1.0, 0, "maj"), event(1.0, 0, "7"), event(1.0002, 0, "maj7")]
    data = recorded(tmp_path / f"a{kind}", events, 2.0)
    if kind == ".mid":
        assert [m.text for _, m in read_midi(data) if m.type == "text"] == ["N", "C:maj7"]
    elif kind == ".lab":
        assert data.decode() == "0.000000\t1.000000\tN\n1.000000\t2.000000\tC:maj7\n"
    else:
        assert data.count(b"\n") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_after_every_event_the_file_is_whole_as_if_killed_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"live{kind}"
    recording = Recording(path, encoder(path, TRIADS))
    for count, one in enumerate(SONG, 1):
        recording.send(one)
        alone = recorded(tmp_path / f"{count}{kind}", SONG[:count], one.time)
        assert path.read_bytes() == alone
    recording.close()


@pytest.mark.parametrize("kind", [".mid", ".lab"])
def test_a_chord_that_lasts_lasts_in_the_file_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"live{kind}"
    recording = Recording(path, encoder(path, TRIADS))
    for one in SONG[:2]:
        recording.send(one)
    for tenth in range(11, 100):
        recording.status(state(tenth / 10))
    data = path.read_bytes()
    end = read_midi(data)[-1][0] if kind == ".mid" else float(data.split()[-2])
    assert 8.9 <= end <= 9.9
    recording.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_anywhere_in_a_write_costs_nothing(tmp_path: Path, kind: str) -> None:
    """Interrupted at each step of each event; what is released then is what would have been written."""
    expected = [recorded(tmp_path / f"{count}{kind}", SONG[:count], SONG[count - 1].time) for count in (1, 2, 3, 4)]
    for count in (1, 2, 3, 4):
        for step in range(40):
            path = tmp_path / f"cut-{count}-{step}{kind}"
            recording = Recording(path, encoder(path, TRIADS))
            for one in SONG[: count - 1]:
                recording.send(one)
            file = recording._file
            recording._file = Interrupting(file, step)  # type: ignore[assignment]
            try:
                recording.send(SONG[count - 1])
                done = True
            except KeyboardInterrupt:
                done = False
            recording._file = file
            recording.release()
            recording.close()
            assert path.read_bytes() == expected[count - 1], step
            if done:
                break
        else:
            pytest.fail("never got through")


class Interrupting:
    """A file at whose `step`-th use a signal comes, before or after the deed."""

    def __init__(self, file: Any, step: int) -> None:
        self._file, self._left = file, step

    def __getattr__(self, name: str) -> Any:
        deed = getattr(self._file, name)

        def done(*args: Any) -> Any:
            self._count()
            result = deed(*args)
            self._count()
            return result

        return done

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


def test_an_earlier_recording_is_never_touched(tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("set.mid", "set-2.mid"):
        (tmp_path / name).write_bytes(b"earlier")
    recording = Recording(tmp_path / "set.mid", Track(TRIADS), said.append)
    recording.send(SONG[1])
    recording.close()
    assert recording.path == tmp_path / "set-3.mid"
    assert recording.path.read_bytes()[:4] == b"MThd"
    assert {(tmp_path / name).read_bytes() for name in ("set.mid", "set-2.mid")} == {b"earlier"}
    assert len(said) == 1
    assert "set-3.mid" in said[0]


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "set.lab").symlink_to(tmp_path / "elsewhere.lab")
    recording = Recording(tmp_path / "set.lab", encoder(tmp_path / "set.lab", TRIADS))
    recording.close()
    assert recording.path.name == "set-2.lab"
    assert not (tmp_path / "elsewhere.lab").exists()


def test_a_session_without_any_event_leaves_no_recording(tmp_path: Path) -> None:
    Recording(tmp_path / "a.mid", Track(TRIADS)).close()
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The system refuses, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", KINDS)
def test_wherever_the_disk_is_full_it_is_one_sentence_and_the_recording_stays_whole(tmp_path: Path, kind: str) -> None:
    """At every byte of a short recording: what is there is what was recorded before."""
    wholes = [
        recorded(tmp_path / f"{count}{kind}", SONG[:count], SONG[count - 1].time) for count in range(1, len(SONG) + 1)
    ]
    for size in range(len(wholes[-1])):
        path, said = tmp_path / f"full-{size}{kind}", []
        with no_file_beyond(size):
            if size < len(encoder(path, TRIADS).head + encoder(path, TRIADS).tail(0.0)):
                with pytest.raises(NoRoomError, match="File too large"):
                    Recording(path, encoder(path, TRIADS), said.append)
                assert not path.exists()
                continue
            recording = Recording(path, encoder(path, TRIADS), said.append)
            for one in SONG:
                recording.send(one)
                recording.status(state(one.time))
            recording.release()
            recording.close()
        assert recording.failed
        assert len(said) == 1
        assert "File too large" in said[0]
        if kind == ".mid" and path.stat().st_size:
            assert read_midi(path.read_bytes())[-1][1].type == "end_of_track"
        assert path.read_bytes() in (b"", *wholes) or kind == ".mid"  # of which none has just the head


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_disk_is_full_what_was_written_stays_whole(tmp_path: Path, kind: str) -> None:
    said: list[str] = []
    path = tmp_path / f"a{kind}"
    with no_file_beyond(600):
        recording = Recording(path, encoder(path, TRIADS), said.append)
        sent = []
        while recording.open and len(sent) < 100:
            one = event(len(sent) * 1.0, len(sent) % 12, "min7")
            recording.send(one)
            sent.append(one)
        recording.send(sent[-1])
        recording.status(state(1000.0))
        recording.close()
    assert recording.failed
    assert len(said) == 1
    assert "File too large" in said[0]
    assert 0 < path.stat().st_size <= 600
    whole = recorded(tmp_path / f"b{kind}", sent[:-1], sent[-2].time)
    assert path.read_bytes() == whole


def test_text_is_the_name_a_musician_reads(tmp_path: Path) -> None:
    path = tmp_path / "chord.txt"
    text = ChordText(path)
    events = [event(0, 9, "min7"), event(0, 0, "maj", 4), event(0, 6, "dim"), no_chord(1.0), event(2, 7, "7")]
    for one, name in zip(events, ["Am7", "C/E", "F#dim", "", "G7"], strict=True):
        text.send(one)
        assert path.read_text(encoding="utf-8") == name, name
    text.close()
    assert [path.name for path in tmp_path.iterdir()] == ["chord.txt"]


def test_text_is_empty_at_the_beginning_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "chord.txt"
    path.write_text("Am7")
    text = ChordText(path)
    assert path.read_bytes() == b""
    text.send(SONG[1])
    text.release()
    text.close()
    assert path.read_bytes() == b""


def test_text_is_replaced_at_one_stroke(tmp_path: Path) -> None:
    """A reader that holds the file open goes on reading what it opened."""
    path = tmp_path / "chord.txt"
    text = ChordText(path)
    text.send(SONG[1])
    assert path.read_text(encoding="utf-8") == "Am7"
    with open(path) as reader:
        text.send(SONG[2])
        assert path.read_text(encoding="utf-8") == "C/E"
        assert reader.read() == "Am7"
    text.close()


def test_text_that_could_not_be_written_is_told_once_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    said: list[str] = []
    text = ChordText(folder / "chord.txt", None, said.append)
    folder.rename(tmp_path / "away")
    text.send(SONG[1])
    for _ in range(5):
        text.status(state(1.0))
    assert len(said) == 1
    assert "chord.txt" in said[0]
    (tmp_path / "away").rename(folder)
    text.status(state(2.0))
    assert (folder / "chord.txt").read_text() == "Am7"
    text.close()


@pytest.mark.parametrize("held", ["la " * 100, "hi", "Am7\n", "H", "Am7 C", "N", " ", "\0", "C/E/G"])
@pytest.mark.parametrize("link", [False, True])
def test_text_does_not_replace_what_is_no_chord_of_ours(tmp_path: Path, held: str, link: bool) -> None:
    lyrics = path = tmp_path / "lyrics.txt"
    lyrics.write_text(held)
    if link:
        path = tmp_path / "chord.txt"
        path.symlink_to(lyrics.name)
    with pytest.raises(UserError, match=rf"will not replace .*{path.name}"):
        ChordText(path)
    assert lyrics.read_text() == held
    assert path.is_symlink() == link


@pytest.mark.parametrize("held", ["", "C", "F#m7b5", "Gm(maj7)/Bb", "Cdim7/Gb"])
def test_text_replaces_what_a_session_left_behind_that_was_killed(tmp_path: Path, held: str) -> None:
    path = tmp_path / "chord.txt"
    path.write_text(held)
    ChordText(path)
    assert path.read_text() == ""


def test_all_names_of_chords_are_ours() -> None:
    """Also those under a capo, which are names of other chords."""
    names = files._names()
    assert max(map(len, names)) <= files.LONGEST_NAME
    assert names >= {one.name.encode() for one in SONG if one.name}
    assert b"" not in names


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_text_keeps_the_permissions_of_a_file_and_a_link_a_link(tmp_path: Path, mode: int) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "chord.txt"
    real.touch()
    real.chmod(mode)
    link.symlink_to(real.name)
    text = ChordText(link)
    text.send(SONG[1])
    assert link.is_symlink()
    assert real.read_text() == "Am7"
    assert stat.S_IMODE(real.stat().st_mode) == mode
    text.release()
    assert stat.S_IMODE(real.stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to anything")
def test_text_does_not_replace_what_may_not_be_written_to(tmp_path: Path) -> None:
    path = tmp_path / "chord.txt"
    path.touch(mode=0o400)
    with pytest.raises(UserError, match="Permission denied"):
        ChordText(path)
    assert [one.name for one in tmp_path.iterdir()] == ["chord.txt"]


def test_text_on_a_full_disk_keeps_what_it_had_until_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    text = ChordText(tmp_path / "chord.txt", None, said.append)
    with no_file_beyond(0):
        text.send(SONG[1])
        text.status(state(1.0))
        assert (tmp_path / "chord.txt").read_text() == ""
    text.status(state(2.0))
    assert (tmp_path / "chord.txt").read_text() == "Am7"
    assert len(said) == 1
    assert "File too large" in said[0]
    assert [one.name for one in tmp_path.iterdir()] == ["chord.txt"]


def test_text_does_not_replace_what_is_listened_to(tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(b"short")
    with pytest.raises(UserError, match=r"song\.wav"):
        ChordText(tmp_path / "." / "song.wav", song)
    assert song.read_bytes() == b"short"


def test_text_goes_into_no_folder_and_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "chord.txt", tmp_path / ("x" * 300)):
        with pytest.raises(UserError) as caught:
            ChordText(path)
        assert path.name in str(caught.value)


@pytest.mark.parametrize("name", ["missing/a.mid", "x" * 300 + ".lab"])
def test_a_recording_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot write"):
        Recording(tmp_path / name, encoder(Path(name), TRIADS))
