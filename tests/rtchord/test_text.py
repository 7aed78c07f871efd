from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest

from rtchord.chords import NO_CHORD, chord_with_bass, class_index
from rtchord.events import ChordEvent
from rtchord.outputs.text import TextOutput, cover, printable, replace_text, say, terminal_line, uncover

EVENT = ChordEvent(61.92, 62.08, chord_with_bass(class_index(0, "maj"), 4), 0.62)


class Stream(io.StringIO):
    def __init__(self, tty: bool = False) -> None:
        super().__init__()
        self.tty, self.flushed = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def flush(self) -> None:
        self.flushed = self.getvalue()


def test_jsonl_flushes_a_line_at_once() -> None:
    stream = Stream()
    TextOutput(stream, "jsonl").send(EVENT)
    assert json.loads(stream.flushed) == {"onset": 61.92, "time": 62.08, "chord": "C:maj/3", "confidence": 0.62}
    assert stream.flushed.endswith("}\n")


def test_terminal_line_shows_time_chord_and_confidence() -> None:
    assert terminal_line(EVENT) == "  1:01.9   C:maj/3      ######---- 0.62"


def test_seconds_never_read_sixty() -> None:
    assert terminal_line(ChordEvent(59.97, 60.1, NO_CHORD, 1.0)).split()[0] == "1:00.0"


@pytest.mark.parametrize(("tty", "codes"), [(True, 1), (False, 0)])
def test_only_a_terminal_gets_bold(tty: bool, codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Stream(tty)
    TextOutput(stream, "plain").send(EVENT)
    assert stream.getvalue().count("\x1b[1m") == codes


def test_a_reader_that_leaves_closes_the_output_quietly() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    said: list[str] = []
    output = TextOutput(stream, "jsonl", said.append)
    os.close(reading)
    output.send(EVENT)
    assert not output.open
    output.send(EVENT)
    stream.close()  # would raise if the unwritten line were still to go into the pipe
    assert said == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_once() -> None:
    said: list[str] = []
    with open("/dev/full", "w") as stream:
        output = TextOutput(stream, "jsonl", said.append)
        output.send(EVENT)
        output.send(EVENT)
    assert len(said) == 1
    assert "No space left" in said[0]


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[31m\n\u202eé♯") == "a\\x1b[31m\\n\\u202eé♯"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "out.lab"
    path.touch()
    path.chmod(mode)
    replace_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_sentences_are_told_to_the_newest_listener_first(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    def old(sentence: str) -> bool:
        told.append(f"old: {sentence}")
        return True

    def new(sentence: str) -> bool:
        told.append(f"new: {sentence}")
        return sentence == "hidden"

    cover(old)
    cover(new)
    say("hidden")
    say("s\x1bn")
    uncover(new)
    say("late")
    uncover(old)
    say("later")
    assert told == ["new: hidden", "new: s\\x1bn", "old: s\\x1bn", "old: late"]
    assert capsys.readouterr().err == "rtchord: later\n"
