"""The transcript of a recording, written whole once it is known.

lab, jsonl, mid   as a session records them, see `rtchord.outputs.files`; in jsonl `time` is `onset`
csv               start,end,chord,name,confidence             a row a chord: s, s, Harte label, lead sheet, 0..1
                  1.920000,3.840000,A:min7,Am7,0.9100
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, ClassVar

from rtchord.errors import UserError
from rtchord.events import ChordEvent
from rtchord.outputs.files import NOTHING, Encoder, Lines, Segments, Track
from rtchord.outputs.text import check_stdout, replace_bytes, say
from rtchord.settings import MidiSettings

STDOUT = ("-", "/dev/stdout")
NOTICE_SECONDS = 1.0  # that opening may take without a word


@dataclass(frozen=True, slots=True)
class Rows:
    """Comma-separated values. `event`: the chord that sounds."""

    head: ClassVar[bytes] = b"start,end,chord,name,confidence\n"
    length_at: ClassVar[int | None] = None

    event: ChordEvent = NOTHING

    def add(self, event: ChordEvent) -> tuple[bytes, Rows]:
        return self._row(event.onset), replace(self, event=event)

    def tail(self, time: float) -> bytes:
        return self._row(time)

    def _row(self, stop: float) -> bytes:
        event = self.event
        if stop <= event.onset:
            return b""
        return f"{event.onset:.6f},{stop:.6f},{event.chord},{event.name},{event.confidence:.4f}\n".encode("ascii")


FORMATS: dict[str, Callable[[], Encoder]] = {
    "lab": Segments,
    "mid": lambda: Track(MidiSettings()),
    "jsonl": Lines,
    "csv": Rows,
}


def encoded(form: str, events: Iterable[ChordEvent], end: float) -> bytes:
    """The file in a format of FORMATS; the last chord sounds until `end`, s."""
    encoder = FORMATS[form]()
    data = bytearray(encoder.head)
    for event in events:
        certain, encoder = encoder.add(event)
        data += certain
    data += encoder.tail(end)
    if (at := encoder.length_at) is not None:
        data[at : at + 4] = (len(data) - at - 4).to_bytes(4, "big")
    return bytes(data)


class Target:
    """Where a transcript goes and in which format. UserError, before any work, where it cannot go there.

    `name`: a file, a pipe, a device, or one of STDOUT. `form`: a key of FORMATS, or None for what the name ends in.
    `recording`: what is transcribed. A file that is there is not touched unless `overwrite`.
    """

    def __init__(self, name: str, form: str | None, recording: Path, overwrite: bool) -> None:
        self._stdout = name in STDOUT
        self._path, self._overwrite = Path(name), overwrite
        if self._stdout:
            check_stdout()
        try:
            self._special = self._stdout or (self._path.exists() and not self._path.is_file())
            if not self._stdout:
                self._check(recording)
        except OSError as error:
            raise self._cannot(error.strerror or str(error)) from None
        ending = self._path.suffix.lower().removeprefix(".")
        self.form = form or (ending if ending in FORMATS else "lab" if self._special else "")
        if not self.form:
            endings = ", ".join(f".{known}" for known in FORMATS)
            raise self._cannot(f"write a name that ends in {endings}, or say --format")
        if self._stdout and self.form == "mid" and sys.stdout.isatty():
            raise UserError("cannot show a MIDI file on a terminal: say -o FILE.mid")

    def write(self, data: bytes) -> None:
        """Write the transcript, whole or not at all where that is in our hands. UserError; OSError from stdout."""
        if self._stdout:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            return
        try:
            if self._special:
                with self._opened() as file:
                    file.write(data)
                return
            self._refuse_existing()  # that came meanwhile
            replace_bytes(self._path, data)
        except BrokenPipeError:  # the reader had enough
            raise
        except OSError as error:
            raise self._cannot(error.strerror or str(error)) from None

    def _opened(self) -> BinaryIO:
        """A pipe or device to write to. A pipe waits for its reader, as for every program's; but we say so."""
        notice = threading.Timer(NOTICE_SECONDS, say, [f"waiting for somebody to read {str(self._path)!r}"])
        notice.daemon = True
        notice.start()
        try:
            return self._path.open("wb")
        finally:
            notice.cancel()

    def _check(self, recording: Path) -> None:
        if self._path.is_dir():
            raise self._cannot("it is a folder")
        if self._special:
            return
        folder = self._path.resolve().parent
        if not folder.is_dir():
            raise self._cannot("there is no such folder")
        if self._path.exists() and recording.exists() and self._path.samefile(recording):
            raise UserError(f"will not overwrite the recording {str(recording)!r}: name another output")
        self._refuse_existing()
        if not os.access(folder, os.W_OK):
            raise self._cannot("its folder may not be written to")

    def _refuse_existing(self) -> None:
        if self._path.exists() and not self._overwrite:
            raise UserError(f"{str(self._path)!r} is there already: say --overwrite, or name another output")

    def _cannot(self, reason: str) -> UserError:
        return UserError(f"cannot write {str(self._path)!r}: {reason}")
