"""Chords as text: JSON lines, terminal lines, .lab files; and the messages meant for the user.

JSON lines   {"onset": 1.92, "time": 2.08, "chord": "A:min7", "confidence": 0.91}      one object an event
terminal     0:01.9  A:min7    ########-- 0.91                                         onset, chord, confidence
.lab         1.920000<TAB>3.840000<TAB>A:min7                                          Harte, one line a segment
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rtchord.events import ChordEvent, Status

BAR_CELLS = 10
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def printable(text: str) -> str:
    """`text` with everything that a terminal would act on, or cannot show, escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


_cover: Callable[[str], bool] | None = None


def cover(listener: Callable[[str], bool] | None) -> None:
    """Tell `listener` every sentence, printable, before `say` writes it; where it answers True, `say` does not."""
    global _cover
    _cover = listener


def say(sentence: str) -> None:
    """One line to the user on stderr; or where a display covers that, see `cover`."""
    if _cover is not None and _cover(printable(sentence)):
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the terminal may have gone
        encoding = sys.stderr.encoding or "utf-8"
        line = f"rtchord: {printable(sentence)}\n".encode(encoding, "backslashreplace").decode(encoding)
        sys.stderr.write(line)
        sys.stderr.flush()


def json_line(event: ChordEvent) -> str:
    """The JSON lines format."""
    return event.json()


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths: ``1:01.9``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}"


def terminal_line(event: ChordEvent, bold: bool = False, blocks: bool = False) -> str:
    """A line for people; `bold` adds ANSI codes, `blocks` draws the bar with characters outside ASCII."""
    full, empty = ("█", "░") if blocks else ("#", "-")
    cells = round(BAR_CELLS * min(max(event.confidence, 0.0), 1.0))
    chord = f"{event.chord:<12}"
    chord = f"{BOLD}{chord}{PLAIN}" if bold else chord
    bar = full * cells + empty * (BAR_CELLS - cells)
    return f"{clock(event.onset):>8}   {chord} {bar} {event.confidence:.2f}"


class TextOutput:
    """Writes one line an event to `stream` and flushes it.

    When the reader has gone the output closes itself without a word; on any other failure `report` is told.
    """

    def __init__(self, stream: TextIO, style: str, report: Callable[[str], None] = lambda _: None) -> None:
        """`style`: a key of STYLES."""
        self.open = True
        self.failed = False  # closed by an error, not because its reader had enough
        self.name = "the standard output"
        self._stream = stream
        self._line = STYLES[style](stream)
        self._report = report

    def send(self, event: ChordEvent) -> None:
        if not self.open:
            return
        try:
            self._stream.write(self._line(event) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self._abandon()
        except (OSError, ValueError) as error:
            self._abandon()
            self.failed = True
            self._report(f"cannot go on writing to the standard output: {getattr(error, 'strerror', None) or error}")

    def status(self, status: Status) -> None:
        """Nothing is told of it here."""

    def release(self) -> None:
        """A line has no end."""

    def close(self) -> None:
        if self.open:
            self.open = False
            self._stream.flush()

    def _abandon(self) -> None:
        """Let the unwritten rest of the buffer go nowhere, or the interpreter complains about it at exit."""
        self.open = False
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def _json_style(_stream: TextIO) -> Callable[[ChordEvent], str]:
    return json_line


def _terminal_style(stream: TextIO) -> Callable[[ChordEvent], str]:
    bold = stream.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
    blocks = (stream.encoding or "").lower().replace("-", "") == "utf8"
    return lambda event: terminal_line(event, bold, blocks)


STYLES: dict[str, Callable[[TextIO], Callable[[ChordEvent], str]]] = {"plain": _terminal_style, "jsonl": _json_style}


def lab_line(start: float, end: float, label: str) -> str:
    """A line of a Harte .lab file; times in s."""
    return f"{start:.6f}\t{end:.6f}\t{label}\n"


def replace_text(path: Path, text: str) -> None:
    """Make `text` the whole of a file, in UTF-8, at one stroke: whoever reads it finds the old or the new. OSError."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """Make `data` the whole of a file at one stroke. OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)  # what leads nowhere, as a loop of links, is not replaced
    target = path.resolve()  # a link stays a link
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
