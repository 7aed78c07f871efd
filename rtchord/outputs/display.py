"""The terminal as a stage display: the chord so large that it is read from two metres, what came before it, and how the
session is doing.

`frame` says what stands in a window of a given size; it is pure. `Display` is the port, which draws the newest of what
it was given.

Drawn by hand: a frame costs 0.2 ms of the interpreter, which the MIDI path must have back (measured: 2.5 ms with
rich's layout, 0.9 ms with its plain text, and 45 ms to import it).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import threading
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs.text import clock, cover, printable, say, terminal_line, uncover
from rtchord.outputs.worker import Port
from rtchord.settings import LATENCIES, Settings

# fmt: off
FONT = {name: tuple(rows.split()) for name, rows in {
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "B": "####. #...# #...# ####. #...# #...# ####.",
    "C": ".###. #...# #.... #.... #.... #...# .###.",
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "F": "##### #.... #.... ####. #.... #.... #....",
    "G": ".###. #...# #.... #.### #...# #...# .###.",
    "#": "..... .#.#. ##### .#.#. ##### .#.#. .....",
    "b": "#... #... #... ###. #..# #..# ###.",
    "m": "..... ..... ##.#. #.#.# #.#.# #.#.# #.#.#",
    "a": ".... .... .##. ...# .### #..# .###",
    "j": "..# ... ..# ..# ..# #.# .#.",
    "d": "...# ...# ...# .### #..# #..# .###",
    "i": "# . # # # # #",
    "u": ".... .... #..# #..# #..# #..# .###",
    "g": ".... .... .### #..# .### ...# .##.",
    "s": ".... .... .### #... .##. ...# ###.",
    "2": ".##. #..# ...# ..#. .#.. #... ####",
    "4": "#..# #..# #..# #### ...# ...# ...#",
    "5": "#### #... ###. ...# ...# #..# .##.",
    "6": ".##. #... #... ###. #..# #..# .##.",
    "7": "#### ...# ..#. ..#. .#.. .#.. .#..",
    "(": ".# #. #. #. #. #. .#",
    ")": "#. .# .# .# .# .# #.",
    "/": "..# ..# .#. .#. .#. #.. #..",
    "-": ".... .... .... #### .... .... ....",
}.items()}
HALVES = {"##": "█", "#.": "▀", ".#": "▄", "..": " "}
# fmt: on
SLOW_SECONDS = 0.05  # from a block of sound until its chords are sent, from which on that is coloured
FONT_ROWS = 7
SILENCE = "-"  # what is shown for N
LAST = 8  # chords that are remembered
FLOOR_DBFS = -60.0  # left end of the level meter
CLIP_SECONDS = 2.0  # for which the clip light stays on
REPAINT = 10  # drawings after which everything is drawn anew, whatever others wrote over it
SAID = 50  # sentences that are kept for the time after the display

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"  # the other screen, no cursor, no line wrap
LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
STYLES = {"": "", "bold": "\x1b[1m", "dim": "\x1b[2m", "good": "\x1b[32m", "warn": "\x1b[33m", "bad": "\x1b[1;31m"}
GONE = (errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO)  # the terminal was closed

Line = Sequence[tuple[str, str]]  # (key of STYLES, text), left to right


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show. `clipped`: the input was at full scale a moment ago. `preset`: how names are decided."""

    last: tuple[ChordEvent, ...] = ()
    status: Status | None = None
    clipped: bool = False
    notice: str = ""
    preset: str = ""


class Signs(NamedTuple):
    """Characters that the terminal can show."""

    full: str
    empty: str
    dot: str
    halves: bool  # whether half blocks can be shown


BLOCKS, ASCII = Signs("█", "░", "·", True), Signs("#", "-", "|", False)


@functools.lru_cache(maxsize=256)  # a display hardly changes from one drawing to the next
def width(text: str) -> int:
    """Columns that printable `text` takes up."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def cut(text: str, columns: int) -> str:
    """As much of `text` as fits."""
    while width(text) > columns:
        text = text[: max(0, columns)] if len(text) > columns else text[:-1]
    return text


@functools.lru_cache(maxsize=4)
def large(name: str, columns: int, rows: int, halves: bool) -> tuple[str, ...]:
    """`name` in the largest letters that fit, all lines equally long; empty where none fit.

    A dot of the font is `across` columns wide and `down` half rows high. Cells are about twice as high as wide; where
    there is room, letters grow to half as high again.
    """
    dots = [".".join(FONT[char][row] for char in name) for row in range(FONT_ROWS)]
    across, down = columns // len(dots[0]), 2 * rows // FONT_ROWS
    if not halves:
        down -= down % 2
    across = min(across, down)
    down = min(down, across * 3 // 2)
    if not halves:
        down += down % 2
    if not across:
        return ()
    lines = [row for row in dots for _ in range(down)]
    lines += ["." * len(dots[0])] * (len(lines) % 2)
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    signs = HALVES if halves else {"##": "#", "..": " "}
    drawn = {pair: "".join(signs[a + b] * across for a, b in zip(*pair, strict=True)) for pair in set(pairs)}
    return tuple(drawn[pair] for pair in pairs)


def bar(share: float, cells: int, signs: Signs) -> str:
    """A meter that is `share` full."""
    full = round(cells * min(max(share, 0.0), 1.0))
    return signs.full * full + signs.empty * (cells - full)


def _title(view: View, signs: Signs) -> Line:
    status = view.status
    parts = ["rtchord", view.preset, *((status.engine, status.source) if status else ())]
    told = f" {signs.dot} ".join(printable(part) for part in parts if part)
    return [*([("bad", "NO INPUT  ")] if status and not status.connected else []), ("dim", told)]


def _confidence(view: View, columns: int, signs: Signs) -> Line:
    if not view.last:
        return []
    value = view.last[-1].confidence
    return [("", f"sure   {bar(value, _cells(columns), signs)} {value:.2f}")]


def _cells(columns: int) -> int:
    return min(max((columns - 8) // 2, 4), 40)


def _level(view: View, columns: int, signs: Signs) -> Line:
    status = view.status
    if status is None:
        return []
    style = "bad" if view.clipped else "warn" if status.peak > -6.0 else "good"
    meter = bar(1.0 - status.peak / FLOOR_DBFS, _cells(columns), signs)
    number = f" {status.peak:.0f} dBFS" if status.peak > -200.0 else " silent"
    return [("", "level  "), (style, meter), ("", number), *([("bad", "  CLIPPED")] if view.clipped else [])]


def _facts(view: View) -> Line:
    status = view.status
    if status is None:
        return []
    return [
        ("", f"time   {clock(status.time)}   "),
        ("warn" if status.delay > SLOW_SECONDS else "", f"delay {1000 * status.delay:.1f} ms   "),
        ("warn" if status.overflows or status.dropped else "", f"overflows {status.overflows}"),
        ("bad" if status.dropped else "", f"   lost {status.dropped:.1f} s"),
    ]


def _history(view: View, columns: int) -> list[Line]:
    """The last chords with their onsets, in reading order."""
    entries = [f"{clock(event.onset)} {event.name or SILENCE}" for event in view.last]
    cell = max([12, *map(len, entries)]) + 2
    across = max(1, columns // cell)
    newest = len(entries) - 1
    cells = [("bold" if i == newest else "dim", f"{entry:<{cell}}") for i, entry in enumerate(entries)]
    return [cells[i : i + across] for i in range(0, len(cells), across)]


def frame(view: View, columns: int, rows: int, signs: Signs) -> list[Line]:
    """The lines of a window of `columns` x `rows`, at most `rows` of them.

    What a player needs most keeps its place in a small window: the chord, then the last ones, the level, the rest.
    """
    name = (view.last[-1].name or SILENCE) if view.last else SILENCE
    height = FONT_ROWS if not signs.halves else (FONT_ROWS + 1) // 2
    spare = max(0, rows - height)
    history = _history(view, columns)
    least = min(len(history), 2)
    rest = [_level(view, columns, signs), _confidence(view, columns, signs), _title(view, signs), _facts(view)]
    notice: Line = [("warn", printable(view.notice))]
    wanted = [notice, *rest] if view.notice else rest
    wanted = [line for line in wanted if line][: max(0, spare - least)]
    history = history[-max(0, spare - len(wanted)) :] if spare > len(wanted) else []
    title = [line for line in wanted if line == rest[2]]
    below = [line for line in (*rest[:2], rest[3], notice) if line and line in wanted]

    space = max(1, rows - len(title) - len(history) - len(below))
    letters = large(name, columns, space, signs.halves) or (name,)
    above = max(0, space - len(letters)) // 2
    left = " " * max(0, (columns - len(letters[0])) // 2)
    silent = name == SILENCE or (view.status is not None and not view.status.connected)
    big: list[Line] = [[("dim" if silent else "bold", left + line)] for line in letters]
    blank: list[Line] = [[]]
    return [*title, *blank * above, *big, *blank * (space - above - len(letters)), *history, *below][:rows]


def painted(line: Line, columns: int, colours: bool) -> str:
    """A line as it is sent to the terminal, no wider than `columns`."""
    text = ""
    for style, part in line:
        part = cut(part, columns)
        columns -= width(part)
        text += f"{STYLES[style]}{part}\x1b[0m" if colours and style and part else part
    return text


def fits(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which a display can be drawn."""
    if sys.platform == "win32" and "WT_SESSION" not in os.environ:  # older consoles print the codes
        return False
    term = os.environ.get("TERM", "" if sys.platform != "win32" else "windows")
    return stream.isatty() and term not in ("", "dumb", "unknown")


def chosen_format(settings: Settings, stream: TextIO) -> str:
    """``display``, ``plain`` or ``jsonl``. UserError where a display is wanted that `stream` cannot show."""
    wanted, source = settings.screen.format, settings.input
    if wanted == "display" and not fits(stream):
        raise UserError("cannot draw the display: the standard output is no terminal that can; say --plain instead")
    if wanted != "auto":
        return wanted
    # A file at full speed is over before anybody has read a chord.
    return "display" if fits(stream) and (source.file is None or source.realtime) else "plain"


class Display(Port[ChordEvent]):
    """Draws on the terminal `stream` until it is closed; then the last chords and all sentences stay behind as lines.

    `preset`: a key of LATENCIES. `report` is told once, in a sentence, if drawing fails.
    """

    name = "this terminal"

    def __init__(self, stream: TextIO, preset: str, report: Callable[[str], None] = say) -> None:
        self._stream: Any = stream
        self._report = report
        self._signs = BLOCKS if (stream.encoding or "").lower().replace("-", "") == "utf8" else ASCII
        self._colours = "NO_COLOR" not in os.environ
        measured = LATENCIES[preset]  # type: ignore[index]
        self._preset = f"{preset}, {measured.strums_ms}-{measured.songs_ms} ms"
        self._last: tuple[ChordEvent, ...] = ()
        self._status: Status | None = None
        self._clipped = -CLIP_SECONDS
        self._notice = ""
        self._shown: list[str] = []  # lines that stand on the terminal
        self._shown_size = (0, 0)
        self._drawings = 0
        self._entered = False
        self._later: deque[str] = deque(maxlen=SAID)
        self._hearing = threading.Lock()  # sentences come from any thread
        cover(self._hear)

    def send(self, event: ChordEvent) -> None:
        """Take the chord up."""
        self._last = (*self._last[1 - LAST :], event)

    def status(self, status: Status) -> None:
        """Take the state up."""
        if status.clipped:
            self._clipped = status.time
        self._status = status

    def flush(self) -> None:
        """Draw. Before anything is heard, whatever goes wrong is told on the plain terminal."""
        if not self._last and self._status is None:
            return
        try:
            self._draw()
        except Exception as error:  # whatever it is, the chords must go on sounding
            self.failed = getattr(error, "errno", None) not in GONE
            self.release()
            if self.failed:
                self._report(f"the display has ended: {getattr(error, 'strerror', None) or repr(error)}")

    def release(self) -> None:
        """Give the terminal back as it was."""
        with contextlib.suppress(OSError):
            if self._entered:
                lines = [terminal_line(event, blocks=self._signs.halves) for event in self._last]
                self._write(LEAVE + "".join(line + "\n" for line in lines))
        with self._hearing:
            self._entered = False
        uncover(self._hear)
        while self._later:
            say(self._later.popleft())
        self.open = False

    def view(self) -> View:
        """What there is to show now."""
        status = self._status
        clipped = status is not None and status.time - self._clipped < CLIP_SECONDS
        return View(self._last, status, clipped, self._notice, self._preset)

    def _hear(self, sentence: str) -> bool:
        """A sentence for the user: shown from now on; whether it is told later because the display covers stderr."""
        self._notice = sentence
        with self._hearing:
            hidden = self._entered and sys.stderr is not None and sys.stderr.isatty()
            if hidden:
                self._later.append(sentence)
        return hidden

    def _draw(self) -> None:
        if not self._entered:
            self._entered = True
            self._write(ENTER)
        before, self._shown_size = self._shown_size, self._size()
        if self._shown_size != before or self._drawings % REPAINT == 0:
            self._shown = []
        self._drawings += 1
        columns, rows = self._shown_size
        lines = [painted(line, columns, self._colours) for line in frame(self.view(), columns, rows, self._signs)]
        lines += [""] * (rows - len(lines))
        # A line is cleared first: once its last column is written, some terminals would erase that.
        self._write(
            "".join(
                f"\x1b[{row};1H\x1b[2K{line}"
                for row, line in enumerate(lines, 1)
                if self._shown[row - 1 : row] != [line]
            )
            + "\x1b[H"  # what is typed by mistake is echoed there, and scrolls nothing
        )
        self._shown = lines

    def _size(self) -> tuple[int, int]:
        """Columns and rows of the window."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except OSError:
            columns, rows = 0, 0
        return columns or 80, rows or 24

    def _write(self, text: str) -> None:
        """Past Python's buffer, whose lock, held in a write that is stuck, would keep the program from ending."""
        raw = getattr(self._stream.buffer, "raw", self._stream.buffer)  # `python -u` has no buffer
        data = memoryview(text.encode(self._stream.encoding or "ascii", "replace"))
        while data:
            data = data[raw.write(data) or len(data) :]  # what would block is let go
