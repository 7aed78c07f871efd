"""The terminal display: what stands in a window, and what becomes of the terminal. Driven in tmux where it is there."""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rig import ROOT, RTCHORD, environment
from rtchord.chords import NO_CHORD, Chord, X, class_index, lead_sheet
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs import display
from rtchord.outputs.display import (
    ASCII,
    BLOCKS,
    ENTER,
    FONT,
    LEAVE,
    Display,
    Line,
    View,
    chosen_format,
    frame,
    large,
    painted,
    width,
)  # fmt: skip
from rtchord.outputs.text import say
from rtchord.outputs.worker import Worker
from rtchord.settings import Settings

DEMO = ROOT / "tests" / "data" / "demo.ogg"
STATUS = Status(12.3, -20.0, -11.6, 0, 0, 0.0, True, 0.0032, "audio input 3 'USB'", "2e1d-live-7")
NAMES = [(0, "maj", 0), (9, "min7", 9), (5, "maj7", 5), (7, "7", 11), (6, "hdim7", 6), (11, "7", 11), (4, "min", 4)]
NAMES += [(10, "maj7", 2), (2, "sus4", 2)]
EVENTS = [ChordEvent(i, i + 0.1, Chord(class_index(r, q), b), 0.5 + i / 20) for i, (r, q, b) in enumerate(NAMES)]
VIEW = View(tuple(EVENTS[-8:]), STATUS, preset="balanced, 96-113 ms")
SIZES = st.tuples(st.integers(1, 250), st.integers(1, 80))


def text(lines: list[Line], columns: int = 1000) -> list[str]:
    return [painted(line, columns, False) for line in lines]


def shown(columns: int, rows: int, view: View = VIEW, signs: display.Signs = BLOCKS) -> str:
    return "\n".join(text(frame(view, columns, rows, signs), columns))


def test_every_name_can_be_drawn() -> None:
    for index in range(X):
        for sharps in range(6):
            for tone in range(12):
                assert set(lead_sheet(Chord(index, tone), sharps)) <= set(FONT)


def test_every_letter_has_seven_equally_long_rows() -> None:
    assert {(len(rows), len({len(row) for row in rows})) for rows in FONT.values()} == {(7, 1)}


def test_letters_in_half_blocks() -> None:
    assert large("C", 5, 4, True) == ("▄▀▀▀▄", "█    ", "█   ▄", " ▀▀▀ ")


def test_letters_in_ascii() -> None:
    assert large("F", 5, 7, False) == ("#####", "#    ", "#    ", "#### ", "#    ", "#    ", "#    ")


@given(st.sampled_from([event.name for event in EVENTS]), SIZES, st.booleans())
def test_letters_fit_and_are_no_smaller_than_they_must_be(name: str, size: tuple[int, int], halves: bool) -> None:
    columns, rows = size
    lines = large(name, columns, rows, halves)
    dots = sum(len(FONT[char][0]) + 1 for char in name) - 1
    assert bool(lines) == (columns >= dots and rows >= (4 if halves else 7))
    if lines:
        assert len({len(line) for line in lines}) == 1
        assert len(lines[0]) <= columns
        assert len(lines) <= rows
        larger = len(lines[0]) // dots + 1
        assert larger * dots > columns or larger > (2 * rows // 7 if halves else 2 * (rows // 7))


@given(
    SIZES,
    st.integers(0, 8),
    st.one_of(st.none(), st.just(STATUS), st.just(replace(STATUS, connected=False, clipped=3, level=-math.inf))),
    st.text(),
    st.booleans(),
)
def test_a_frame_fits_its_window_and_always_tells_the_chord(
    size: tuple[int, int], chords: int, status: Status | None, notice: str, blocks: bool
) -> None:
    columns, rows = size
    signs = BLOCKS if blocks else ASCII
    if status:
        status = replace(status, source=notice, peak=status.level)
    lines = frame(View(tuple(EVENTS[:chords]), status, True, notice, "fast"), columns, rows, signs)
    assert 1 <= len(lines) <= rows
    rendered = text(lines, columns)
    assert all(width(line) <= columns and line.isprintable() for line in rendered)
    name = EVENTS[chords - 1].name if chords else "-"
    letters = large(name, columns, rows, blocks) and any(sign in "".join(rendered) for sign in "█▀▄#")
    assert letters or any(name[:columns] in line for line in rendered)


def test_a_full_window_shows_everything() -> None:
    window = shown(80, 24)
    assert all(event.name in window for event in VIEW.last)
    assert "0:08.0 Dsus4" in window
    for part in ("-12 dBFS", "0.90", "overflows 0", "delay 3.2 ms", "2e1d-live-7", "USB", "balanced, 96-113 ms"):
        assert part in window
    assert "NO INPUT" not in window
    assert "CLIPPED" not in window


def test_a_small_window_shows_the_chord_the_last_ones_and_the_level() -> None:
    window = shown(40, 10, replace(VIEW, notice="the driver reported an overflow"))
    assert "█" in window
    assert "Dsus4" in window
    assert "level" in window


def test_a_lost_input_clipping_and_overflows_are_shown() -> None:
    bad = replace(STATUS, connected=False, overflows=7, dropped=0.5)
    window = shown(80, 24, replace(VIEW, status=bad, clipped=True))
    for part in ("NO INPUT", "CLIPPED", "overflows 7", "lost 0.5 s"):
        assert part in window


def test_digital_silence_has_a_level() -> None:
    assert "silent" in shown(80, 24, replace(VIEW, status=replace(STATUS, level=-math.inf, peak=-math.inf)))


def test_ascii_stays_ascii() -> None:
    assert shown(100, 30, VIEW, ASCII).isascii()


def test_wide_characters_are_counted() -> None:
    assert width("声音") == 4
    assert painted([("", "声音入力")], 5, False) == "声音"


def test_control_characters_of_a_device_are_escaped() -> None:
    view = replace(VIEW, status=replace(STATUS, source="\x1b[2Jevil\u202e"), notice="\x07")
    assert r"\x1b[2Jevil\u202e" in shown(120, 24, view)
    assert r"\x07" in shown(120, 24, view)


@pytest.mark.parametrize(("colours", "codes"), [(True, 1), (False, 0)])
def test_colours_can_be_left_out(colours: bool, codes: int) -> None:
    assert painted([("bold", "C")], 10, colours).count("\x1b[1m") == codes


class Screen(io.StringIO):
    def __init__(self, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize(
    ("tty", "term", "wanted", "file", "chosen"),
    [
        (True, "xterm", "auto", {}, "display"),
        (True, "dumb", "auto", {}, "plain"),
        (True, "", "auto", {}, "plain"),
        (False, "xterm", "auto", {}, "plain"),
        (True, "xterm", "plain", {}, "plain"),
        (True, "xterm", "jsonl", {}, "jsonl"),
        (True, "xterm", "auto", {"file": "a.wav"}, "display"),
        (True, "xterm", "auto", {"file": "a.wav", "realtime": False}, "plain"),
        (True, "xterm", "display", {"file": "a.wav", "realtime": False}, "display"),
    ],
)
def test_the_display_is_drawn_where_it_can_be_read(
    tty: bool, term: str, wanted: str, file: dict[str, object], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    settings = Settings.model_validate({"screen": {"format": wanted}, "input": file})
    assert chosen_format(settings, Screen(tty)) == chosen


def test_a_display_without_a_terminal_is_refused() -> None:
    with pytest.raises(UserError, match="--plain"):
        chosen_format(Settings.model_validate({"screen": {"format": "display"}}), Screen(False))


class Terminal:
    """A pseudo-terminal and all that was written to it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.stream = open(slave, "w", encoding=encoding)  # noqa: SIM115 (closed with the terminal)
        self.written = b""
        self.reading = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self.written += data

    def close(self) -> None:
        """The reader first, or it would go on with whatever is opened next under the same number."""
        with contextlib.suppress(OSError):
            self.stream.close()
        self.reading.join(20)
        os.close(self.master)

    def wait_for(self, found: Callable[[bytes], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not found(self.written):
            assert time.monotonic() < deadline, self.written
            time.sleep(0.01)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    made.reading.start()
    yield made
    made.close()


def drawn(terminal: Terminal, report: Callable[[str], None] = say) -> Worker[ChordEvent]:
    """A display, and the thread that draws it."""
    return Worker(Display(terminal.stream, "balanced", report), report)


def test_the_terminal_is_given_back_with_the_chords_and_sentences_left_behind(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", terminal.stream)
    shown = drawn(terminal)
    shown.send(EVENTS[0])
    shown.status(STATUS)
    terminal.wait_for(lambda written: b"dBFS" in written)
    say("a cable was pulled")
    shown.status(STATUS)
    terminal.wait_for(lambda written: b"a cable was pulled" in written)
    assert b"rtchord: a cable was pulled" not in terminal.written
    shown.close()
    assert not shown.open
    assert not shown.failed
    terminal.wait_for(lambda written: written.endswith(b"rtchord: a cable was pulled\n"))
    before, after = terminal.written.decode().split(LEAVE)
    assert before.startswith(ENTER)
    assert "C:maj" in after
    say("and later")
    terminal.wait_for(lambda written: written.endswith(b"rtchord: and later\n"))


def test_a_sentence_that_goes_elsewhere_is_written_at_once(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr("sys.stderr", log)
    shown = drawn(terminal)
    shown.send(EVENTS[0])
    terminal.wait_for(lambda written: b"0:00.0 C" in written)
    say("a cable was pulled")
    assert log.buffer.getvalue() == b"rtchord: a cable was pulled\n"  # type: ignore[attr-defined]
    shown.status(STATUS)
    terminal.wait_for(lambda written: b"a cable was pulled" in written)
    shown.close()


def test_before_anything_is_heard_the_terminal_is_left_alone(terminal: Terminal) -> None:
    shown = drawn(terminal)
    shown.close()
    terminal.stream.write("end")
    terminal.stream.flush()
    terminal.wait_for(lambda written: written == b"end")


def test_another_encoding_gets_ascii() -> None:
    terminal = Terminal("latin-1")
    terminal.reading.start()
    shown = drawn(terminal)
    shown.status(replace(STATUS, source="声"))
    shown.send(EVENTS[0])
    terminal.wait_for(lambda written: b"0:00.0 C" in written)
    shown.close()
    assert terminal.written.isascii()
    terminal.close()


def test_a_window_that_is_resized_is_filled_anew(terminal: Terminal) -> None:
    shown = drawn(terminal)
    shown.send(EVENTS[0])
    terminal.wait_for(lambda written: b"\x1b[24;1H" in written)
    fcntl.ioctl(terminal.stream, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    shown.send(EVENTS[1])
    terminal.wait_for(lambda written: b"\x1b[40;1H" in written)
    shown.close()


def test_of_what_came_while_the_terminal_was_stopped_the_newest_is_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody reads the other end, so that writing is stuck once the system's buffer is full."""
    monkeypatch.setattr(display, "REPAINT", 1)
    frames: list[View] = []

    def counted(view: View, *rest: object) -> list[Line]:
        frames.append(view)
        return frame(view, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(display, "frame", counted)
    terminal = Terminal()
    shown = drawn(terminal)
    deadline = time.monotonic() + 60
    while not shown.left_out or len(shown._items) < 20:  # the thread takes no more
        shown.send(EVENTS[0])
        time.sleep(0.01)
        assert time.monotonic() < deadline
    drawings = len(frames)
    for event in EVENTS:
        shown.send(event)
        shown.status(STATUS)
    terminal.reading.start()
    terminal.wait_for(lambda written: b"0:08.0 Dsus4" in written)
    shown.close()
    terminal.close()
    assert len(frames) - drawings <= 2
    assert frames[-1].last == tuple(EVENTS[-8:])


def test_a_terminal_that_is_closed_closes_the_display_quietly() -> None:
    said: list[str] = []
    terminal = Terminal()
    shown = drawn(terminal, said.append)
    os.close(terminal.master)
    deadline = time.monotonic() + 20
    while shown.open and time.monotonic() < deadline:
        shown.status(STATUS)
        time.sleep(0.01)
    assert not shown.open
    assert not shown.failed
    assert said == []


def test_a_display_that_fails_says_so_and_gives_the_terminal_back(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    shown = drawn(terminal, said.append)
    shown.send(EVENTS[0])
    terminal.wait_for(lambda written: b"0:00.0 C" in written)

    def broken(*_: object) -> list[Line]:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(display, "frame", broken)
    shown.send(EVENTS[1])
    terminal.wait_for(lambda written: LEAVE.encode() in written)
    shown.close()
    assert shown.failed
    assert len(said) == 1
    assert "of the test" in said[0]


TMUX = shutil.which("tmux")


class Tmux:
    """A real terminal emulator; `screen` is what it shows."""

    def __init__(self, columns: int, rows: int) -> None:
        self.socket = f"rtchord-{uuid.uuid4().hex[:8]}"
        self.run("-f", os.devnull, "new-session", "-d", "-x", str(columns), "-y", str(rows), "env PS1='ready$ ' sh")
        self.wait_for(lambda screen: "ready$" in screen)

    def run(self, *args: str) -> str:
        env = environment(TERM="xterm-256color", LC_ALL="C.UTF-8")
        command = [str(TMUX), "-u", "-L", self.socket, *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, encoding="utf-8").stdout

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def type(self, line: str) -> None:
        self.run("send-keys", "-l", line)
        self.run("send-keys", "Enter")

    def wait_for(self, found: Callable[[str], object], seconds: float = 60.0) -> str:
        deadline = time.monotonic() + seconds
        while not found(screen := self.screen()):
            assert time.monotonic() < deadline, screen
            time.sleep(0.1)
        return screen

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("kill-server")


@pytest.mark.skipif(TMUX is None, reason="needs tmux")
def test_in_a_terminal_the_chord_is_large_and_the_end_leaves_a_clean_screen(tmp_path: Path) -> None:
    with Tmux(80, 24) as terminal:
        command = " ".join([*RTCHORD, "listen", "--input", str(DEMO), "--no-midi", "--capo", "2"])
        terminal.type(f"{command}; echo code $? > {tmp_path / 'code'}")
        screen = terminal.wait_for(lambda s: "rtchord ·" in s and len(re.findall(r"\d:\d\d\.\d ", s)) >= 5)
        assert screen.count("█") + screen.count("▀") > 40
        assert "listening to" not in screen.splitlines()[0]
        assert len(re.findall(r"\d:\d\d\.\d \S+", screen)) <= 8 + 1  # and the time
        assert terminal.run("display-message", "-p", "#{cursor_flag} #{alternate_on}").split() == ["0", "1"]
        terminal.run("resize-window", "-x", "40", "-y", "10")
        terminal.wait_for(lambda s: "rtchord ·" in s and len(s.splitlines()) <= 10 and "█" in s)
        terminal.run("resize-window", "-x", "100", "-y", "30")
        terminal.run("send-keys", "C-c")
        screen = terminal.wait_for(lambda s: s.rstrip().endswith("ready$"))
        assert terminal.run("display-message", "-p", "#{cursor_flag} #{alternate_on}").split() == ["1", "0"]
        assert (tmp_path / "code").read_text() == "code 0\n"
        assert "rtchord: listening to" in screen
        assert re.search(r"0:0\d\.\d   \S+ +█", screen)


@pytest.mark.skipif(TMUX is None, reason="needs tmux")
@pytest.mark.parametrize(
    ("name", "signal_number"), [("TERM", signal.SIGTERM), ("HUP", signal.SIGHUP)], ids=lambda value: str(value)
)
def test_signals_leave_a_clean_screen_too(name: str, signal_number: int, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with Tmux(80, 24) as terminal:
        command = " ".join([*RTCHORD, "listen", "--input", str(DEMO), "--no-midi"])
        terminal.type(f"sh -c 'echo $$ > {pid}; exec {command}'")
        terminal.wait_for(lambda s: "rtchord ·" in s)
        os.kill(int(pid.read_text()), signal_number)
        terminal.wait_for(lambda s: s.rstrip().endswith("ready$"))
        assert terminal.run("display-message", "-p", "#{cursor_flag} #{alternate_on}").split() == ["1", "0"], name


@pytest.mark.skipif(TMUX is None, reason="needs tmux")
@pytest.mark.parametrize("prefix", ["TERM=dumb ", ""], ids=["dumb", "plain"])
def test_a_dumb_terminal_and_plain_get_lines(prefix: str) -> None:
    with Tmux(100, 24) as terminal:
        plain = "" if prefix else "--plain"
        terminal.type(f"{prefix}{' '.join(RTCHORD)} listen --input {DEMO} --no-midi {plain}")
        terminal.wait_for(lambda s: re.search(r"^ +0:0\d\.\d   \S+", s, re.MULTILINE))
        assert terminal.run("display-message", "-p", "#{alternate_on}").split() == ["0"]


def test_no_chord_is_a_dash() -> None:
    silence = View((ChordEvent(0.0, 0.1, NO_CHORD, 1.0),), STATUS)
    assert "0:00.0 -" in shown(80, 24, silence)
