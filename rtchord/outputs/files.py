"""Recordings, and the small file with the present chord.

    .mid     a standard MIDI file: notes as `rtchord.outputs.midi` sends them, names as text, markers and Yamaha XF
    .lab     1.920000<TAB>3.840000<TAB>A:min7        Harte, one line a segment, from 0 to the end without gaps
    .jsonl   {"onset": 1.92, "time": 2.08, "chord": "A:min7", "confidence": 0.91}

A recording is a whole, readable file at every moment, so that the one of a program that was killed is worth as much
as any other. It is therefore written in place, not renamed at the end: what is certain is appended, and behind it
comes a tail (the chord that still sounds, the end of the track) that the next event overwrites. A change is dated by
its onset, where it lies in the music, and not by when it was sent; only .jsonl has both.

MIDI files, byte by byte. 1 tick = 1 ms: 500 ticks a quarter note, 120 quarter notes a minute.

    4D 54 68 64  00 00 00 06  00 00  00 01  01 F4      MThd, type 0, one track, 500 ticks a quarter note
    4D 54 72 6B  ll ll ll ll                           MTrk, length of all that follows
    00 FF 51 03  07 A1 20                              tempo: 500 000 us a quarter note
    00 FF 03 07  72 74 63 68 6F 72 64                  name of the track: rtchord
    00 FF 7F 09  43 7B 00 58 46 30 32 00 00            XF version 2, nothing but chords
    dt ..                                              for each chord: note-offs, note-ons, and the names
    00 FF 01 ll  41 3A 6D 69 6E 37                     text: Harte label; N for no chord
    00 FF 06 ll  41 6D 37                              marker: name on a lead sheet; N.C. for no chord
    00 FF 7F 07  43 7B 01 36 0A 7F 7F                  XF chord, see `rtchord.outputs.messages`
    dt ..        00 FF 2F 00                           note-offs and the end of the track
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from rtchord.chords import NO_BASS, NO_CHORD, SPELLINGS, X, chord_with_bass, lead_sheet
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs.messages import change, velocity, voicing, yamaha_chord
from rtchord.outputs.text import lab_line, replace_text
from rtchord.outputs.worker import Port
from rtchord.settings import MidiSettings

TAIL_SECONDS = 1.0  # between renewals of the tail while nothing happens
MOST_NUMBERS = 10_000  # name.mid, name-2.mid, ..
LONGEST_NAME = 16  # characters
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_CHORD_MARKER = "N.C."
NOTHING = ChordEvent(0.0, 0.0, NO_CHORD, 1.0)

TICKS_PER_SECOND = 1000
META, TEXT, TRACK_NAME, MARKER, END_OF_TRACK, TEMPO, SPECIFIC = 0xFF, 0x01, 0x03, 0x06, 0x2F, 0x51, 0x7F
XF_VERSION = bytes((0x43, 0x7B, 0x00)) + b"XF02" + bytes(2)
XF_CHORD = bytes((0x43, 0x7B, 0x01))


class Encoder(Protocol):
    """What a recording consists of, as bytes. A value: `add` returns the next one.

    `length_at`: where the 32-bit length of all behind it stands, if there is one.
    """

    head: ClassVar[bytes]
    length_at: ClassVar[int | None]

    def add(self, event: ChordEvent) -> tuple[bytes, Encoder]:
        """What is certain once `event` has come, and the encoder that knows of it."""

    def tail(self, time: float) -> bytes:
        """What would make the recording whole if the session ended at `time`, s."""


@dataclass(frozen=True, slots=True)
class Lines:
    """JSON lines."""

    head: ClassVar[bytes] = b""
    length_at: ClassVar[int | None] = None

    def add(self, event: ChordEvent) -> tuple[bytes, Lines]:
        return f"{event.json()}\n".encode(), self

    def tail(self, time: float) -> bytes:  # noqa: ARG002
        return b""


@dataclass(frozen=True, slots=True)
class Segments:
    """Harte segments. One is certain when the next has begun; those shorter than 1 ms are left out.

    `event`: the chord that sounds, from `start`, s.
    """

    head: ClassVar[bytes] = b""
    length_at: ClassVar[int | None] = None

    event: ChordEvent = NOTHING
    start: float = 0.0

    def add(self, event: ChordEvent) -> tuple[bytes, Segments]:
        if _ticks(event.onset) <= _ticks(self.start):
            return b"", replace(self, event=event)
        return self._line(event.onset), replace(self, event=event, start=event.onset)

    def tail(self, time: float) -> bytes:
        return self._line(time) if _ticks(time) > _ticks(self.start) else b""

    def _line(self, stop: float) -> bytes:
        return lab_line(self.start, stop, self.event.chord).encode("ascii")


@dataclass(frozen=True, slots=True)
class Track:
    """A standard MIDI file of type 0. What is shorter than a tick is left out.

    `event`: the chord that sounds, from `start`, ticks; none at first. `tick`, `notes`: the time of the last message
    that is certain, and what sounds then.
    """

    head: ClassVar[bytes] = (
        b"MThd" + bytes((0, 0, 0, 6, 0, 0, 0, 1)) + (TICKS_PER_SECOND // 2).to_bytes(2, "big")
        + b"MTrk" + bytes(4)
        + bytes((0, META, TEMPO, 3)) + (500_000).to_bytes(3, "big")
        + bytes((0, META, TRACK_NAME, 7)) + b"rtchord"
        + bytes((0, META, SPECIFIC, len(XF_VERSION))) + XF_VERSION
    )  # fmt: skip
    length_at: ClassVar[int | None] = 18

    settings: MidiSettings
    event: ChordEvent | None = None
    start: int = 0
    tick: int = 0
    notes: tuple[int, ...] = ()

    def add(self, event: ChordEvent) -> tuple[bytes, Track]:
        start = _ticks(event.onset)
        if self.event is None or start <= self.start:
            return b"", replace(self, event=event, start=max(start, self.start))
        begun, notes = self._chord(self.event)
        return begun, replace(self, event=event, start=start, tick=self.start, notes=notes)

    def tail(self, time: float) -> bytes:
        stop, tick, notes, begun = _ticks(time), self.tick, self.notes, b""
        if self.event is not None and stop > self.start:
            begun, notes = self._chord(self.event)
            tick = self.start
        ends = [*change(notes, (), self.settings.channel - 1, 0), bytes((META, END_OF_TRACK, 0))]
        return begun + _at(max(stop, tick) - tick, ends)

    def _chord(self, event: ChordEvent) -> tuple[bytes, tuple[int, ...]]:
        """Messages with which the chord that sounds begins, and the notes that are on then."""
        how = self.settings
        notes = voicing(event.symbol, how.voicing, how.octave)
        loudness = velocity(event.confidence) if how.velocity is None else how.velocity
        messages = [
            *change(self.notes, notes, how.channel - 1, loudness, how.tie),
            _meta(TEXT, event.chord.encode("ascii")),
            _meta(MARKER, (lead_sheet(event.symbol, event.sharps) or NO_CHORD_MARKER).encode("ascii")),
            _meta(SPECIFIC, XF_CHORD + yamaha_chord(event.symbol, event.sharps)),
        ]
        return _at(self.start - self.tick, messages), notes


def _ticks(seconds: float) -> int:
    return round(seconds * TICKS_PER_SECOND)


def _meta(kind: int, data: bytes) -> bytes:
    return bytes((META, kind, len(data))) + data


def _at(delta: int, messages: Iterable[bytes]) -> bytes:
    """Messages at once, `delta` ticks after what went before."""
    return b"".join(variable_length(0 if i else delta) + message for i, message in enumerate(messages))


def variable_length(number: int) -> bytes:
    """A number of a MIDI file: seven bits a byte, highest first; all but the last have the eighth bit set."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def encoder(path: Path, midi: MidiSettings) -> Encoder:
    """The encoder for the ending of `path`, one of `rtchord.settings.RECORDINGS`."""
    made: dict[str, Encoder] = {".mid": Track(midi), ".lab": Segments(), ".jsonl": Lines()}
    return made[path.suffix.lower()]


class _Written(NamedTuple):
    """How far a recording has come. One object, so that a signal finds it as it was or as it will be.

    `end`: of what is certain, in bytes; `tail`: what lies behind it; `event`: the next one, not yet written for sure.
    """

    encoder: Encoder
    end: int = 0
    tail: bytes = b""
    event: ChordEvent | None = None


class NoRoomError(UserError):
    """There is no room on the disk for an output. The others can do without it."""


def _refusal(deed: str, error: OSError | ValueError) -> UserError:
    """What to raise where an output cannot be made."""
    sentence = f"{deed}: {getattr(error, 'strerror', None) or error}"
    return (NoRoomError if getattr(error, "errno", None) in NO_ROOM else UserError)(sentence)


class Recording(Port[ChordEvent]):
    """A file that grows by each event. An existing one is never touched: the new one is given a number then.

    `report` is told where it is written, if not at `path`, and if writing fails. UserError where it cannot be made,
    NoRoomError where the disk is full.
    """

    def __init__(self, path: Path, encoder: Encoder, report: Callable[[str], None] = lambda _: None) -> None:
        self._report = report
        self._file, self.path = _create(path)
        self.name = f"{str(self.path)!r}"
        self._time = self._renewed = 0.0
        self._empty = True
        self._written = _Written(encoder)
        try:
            self._put(0, encoder.head + encoder.tail(0.0))
        except OSError as error:
            self.open = False
            self.close()
            raise _refusal(f"cannot record to {self.name}", error) from None
        self._written = _Written(encoder, len(encoder.head), encoder.tail(0.0))
        if self.path != path:
            report(f"{str(path)!r} is there already, so this is recorded to {self.name}")

    def send(self, event: ChordEvent) -> None:
        """Write one event."""
        if not self.open:
            return
        self._empty = False
        self._time = max(self._time, event.time)
        self._written = self._written._replace(event=event)
        self._write()

    def status(self, status: Status) -> None:
        """The chord lasts on."""
        self._time = max(self._time, status.time)
        if self.open and self._time - self._renewed >= TAIL_SECONDS:
            self._write()

    def release(self) -> None:
        """Write what was interrupted, and how long the last chord has lasted so far."""
        if self.open:
            self._write()

    def close(self) -> None:
        """End the recording; one of nothing at all, as when a session fails to start, is taken away."""
        if not self._file.closed:
            self.release()
            self.open = False
            self._file.close()
            if self._empty:
                with contextlib.suppress(OSError):
                    self.path.unlink()

    def _write(self) -> None:
        """Put what has become certain and a new tail in place of the old tail; where that fails, leave the old one.

        Two or three writes of some hundred bytes, whatever the length of the recording.
        """
        encoder, end, old_tail, event = self._written
        certain, encoder = encoder.add(event) if event is not None else (b"", encoder)
        tail = encoder.tail(self._time)
        try:
            self._put(end, certain + tail)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError, ValueError):
                self._put(end, old_tail)
            self.failed = True
            self.open = False
            self._report(f"cannot go on recording to {self.name}: {getattr(error, 'strerror', None) or error}")
            return
        self._written = _Written(encoder, end + len(certain), tail)
        self._renewed = self._time

    def _put(self, at: int, data: bytes) -> None:
        """Let the file end with `data`."""
        size = at + len(data)
        self._file.seek(at)
        while data:  # a disk that is nearly full takes a part first
            data = data[self._file.write(data) :]
        if os.fstat(self._file.fileno()).st_size > size:
            self._file.truncate(size)
        length_at = self._written.encoder.length_at
        if length_at is not None:
            self._file.seek(length_at)
            self._file.write((size - length_at - 4).to_bytes(4, "big"))


def _create(path: Path) -> tuple[FileIO, Path]:
    """A new file at `path`, or at the first number that is free: ``set.mid``, ``set-2.mid``, .."""
    for number in range(1, MOST_NUMBERS):
        free = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            # Unbuffered: what is written is the operating system's, whatever becomes of us.
            return open(free, "xb", buffering=0), free
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            raise _refusal(f"cannot write {str(path)!r}", error) from None
    raise UserError(f"cannot write {str(path)!r}: there are too many of that name; name another")


class ChordText(Port[ChordEvent]):
    """A small file that holds the name of the present chord as musicians write it, and nothing for no chord.

    It is replaced as a whole at each change, and emptied at the end. What cannot be written is tried again.
    `heard`: the file that is listened to, if any. UserError where `path` cannot be written, or holds anything but the
    name of a chord; NoRoomError where the disk is full.
    """

    every = False

    def __init__(self, path: Path, heard: Path | None = None, report: Callable[[str], None] = lambda _: None) -> None:
        self.name = f"{str(path)!r}"
        self._path, self._report = path, report
        try:
            if heard is not None and path.exists() and path.samefile(heard):
                raise UserError(f"will not replace the recording {self.name}: name another text file")
            if path.exists() and not path.is_file():
                raise UserError(f"cannot keep the chord in {self.name}: it is no ordinary file")
            if path.exists() and not _replaceable(path):
                raise UserError(f"will not replace {self.name}: it holds more than the name of a chord; name another")
            replace_text(path, "")
        except (OSError, ValueError) as error:
            raise _refusal(f"cannot write {self.name}", error) from None
        self._wanted = self._written = ""
        self._failing = False

    def send(self, event: ChordEvent) -> None:
        """Replace the file."""
        self._keep(event.name)

    def status(self, status: Status) -> None:  # noqa: ARG002
        """Try again what could not be written: a full disk, a reader that held the file on Windows."""
        self._keep(self._wanted)

    def release(self) -> None:
        """Empty the file."""
        self._keep("")

    def _keep(self, wanted: str) -> None:
        self._wanted = wanted
        if wanted == self._written:
            return
        try:
            replace_text(self._path, wanted)
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._report(f"cannot write {self.name}: {error.strerror or error}; it is tried again")
            return
        self._written, self._failing = wanted, False


def _replaceable(path: Path) -> bool:
    """Whether a file is empty, or holds what `ChordText` leaves behind when it is killed: one name and nothing else."""
    with open(path, "rb") as file:
        held = file.read(LONGEST_NAME + 1)
    return not held or held in _names()


def _names() -> set[bytes]:
    """All that a chord can be called; no more than LONGEST_NAME characters each."""
    chords = [chord_with_bass(index, bass) for index in range(X) for bass in range(NO_BASS)]
    return {lead_sheet(chord, sharps).encode("ascii") for chord in chords for sharps in range(len(SPELLINGS))}
