"""Chords as MIDI notes.

Wire format, as most instruments and harmonisers read chords: the notes of the chord on one channel, in close root
position, the third always among them, the bass below. All note-offs and note-ons of a change go out back to back,
because receivers that sample the held notes re-voice on every gap. Notes are released one by one before CC 123, which
much hardware ignores.

    status      data            meaning
    8c          note 00         note off
    9c          note velocity   note on, velocity from the confidence
    bc          7b 00           all notes off

The functions are pure and speak in messages (bytes); `MidiOutput` is the port.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rtchord.chords import NO_BASS, QUALITIES, Chord
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status

NOTE_OFF, NOTE_ON, CONTROL_CHANGE = 0x80, 0x90, 0xB0
ALL_NOTES_OFF = 123
ROOT_NOTE = 48  # C3: roots lie in 48..59, so chord tones in 48..70
BASS_NOTE = 36  # C2: basses lie in 36..47
SOFTEST, LOUDEST = 40, 127  # velocities of confidence 0 and 1; softer notes are lost on many patches

CLIENT, PORT = "rtchord", "chords"
DRAIN_SECONDS = 0.05  # JACK and CoreMIDI send in a later cycle; a port closed at once takes the last note-offs with it

NO_SYSTEM = "there is no MIDI system here (neither ALSA's sequencer nor a JACK server runs)"
# In order of preference: the rtmidi constant, how people call it, whether it can make a port of its own.
APIS = (
    ("API_LINUX_ALSA", "ALSA", True),
    ("API_UNIX_JACK", "JACK", True),
    ("API_MACOSX_CORE", "CoreMIDI", True),
    ("API_WINDOWS_MM", "Windows MIDI", False),
)

Message = bytes


class NoMidiError(UserError):
    """No MIDI port can be made on this machine."""


def voicing(chord: Chord) -> tuple[int, ...]:
    """MIDI notes, lowest first: the bass in 36..47, then the chord in close root position from 48..59 up.

    Empty for N and X.
    """
    if chord.root < 0:
        return ()
    bass = chord.root if chord.bass == NO_BASS else chord.bass
    tones = QUALITIES[chord.index % len(QUALITIES)].tones
    return (BASS_NOTE + bass, *(ROOT_NOTE + chord.root + tone for tone in tones))


def velocity(confidence: float) -> int:
    """Note-on velocity: linear from SOFTEST at confidence 0 to LOUDEST at 1."""
    share = min(max(confidence, 0.0), 1.0) if confidence == confidence else 0.0
    return round(SOFTEST + share * (LOUDEST - SOFTEST))


def change(sounding: Sequence[int], new: Sequence[int], channel: int, velocity: int) -> Iterator[Message]:
    """Messages that turn the notes `sounding` into `new`; `channel` counts from 0."""
    for note in sounding:
        yield bytes((NOTE_OFF | channel, note, 0))
    for note in new:
        yield bytes((NOTE_ON | channel, note, velocity))


def release(sounding: Sequence[int], channel: int) -> Iterator[Message]:
    """Messages that end every note: one by one, then CC 123; `channel` counts from 0."""
    yield from change(sounding, (), channel, 0)
    yield bytes((CONTROL_CHANGE | channel, ALL_NOTES_OFF, 0))


class MidiOutput:
    """A MIDI port that holds the present chord.

    `port`: None makes a virtual port, else part of the name of an existing one. `channel`: 1..16.
    `prefer`: an API of APIS to be tried first. `report`: told once, in a sentence, if sending fails.
    NoMidiError where no port can be made, UserError where `port` names none or several.
    """

    def __init__(
        self,
        port: str | None = None,
        channel: int = 1,
        prefer: str | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.open = True
        self._channel = channel - 1
        self._report = report
        self._sounding: tuple[int, ...] = ()  # every note that may be on, at any instant
        self._released = False
        self._port, self.name = _virtual_port(prefer) if port is None else _existing_port(port, prefer)

    def send(self, event: ChordEvent) -> None:
        """Change to the chord of `event`; N is silence."""
        old, new = self._sounding, voicing(event.symbol)
        # Whatever interrupts the sending, a signal included, the notes to be released are known.
        self._sounding = tuple(dict.fromkeys(old + new))
        self._released = False
        self._send(change(old, new, self._channel, velocity(event.confidence)))
        self._sounding = new

    def status(self, status: Status) -> None:
        """Nothing is told of it here."""

    def release(self) -> None:
        """End every note; the port stays. Never waits."""
        if self._released:
            return
        self._send(release(self._sounding, self._channel))
        self._sounding, self._released = (), True

    def close(self) -> None:
        """End every note and take the port away.

        python-rtmidi waits for the driver here with the interpreter locked, so no audio callback may be running: in a
        synchronous JACK server the two would wait for each other.
        """
        if not self.open:
            return
        self.release()
        self.open = False
        time.sleep(DRAIN_SECONDS)
        with contextlib.suppress(Exception):
            self._port.close_port()
            self._port.delete()

    def _send(self, messages: Iterator[Message]) -> None:
        for message in messages:
            try:
                self._port.send_message(message)
            except Exception as error:  # a lost cable must not end the session
                self._report(f"MIDI messages are being lost: {error}")
                self._report = lambda _: None


def list_ports() -> list[tuple[str, str]]:
    """(API, port name) of every MIDI port that can be sent to. NoMidiError where there is no MIDI system."""
    clients = _clients(None, virtual=False)
    if not clients:
        raise NoMidiError(NO_SYSTEM)
    ports = [(api, str(name)) for api, client in clients for name in client.get_ports()]
    _forget(client for _, client in clients)
    return ports


def _virtual_port(prefer: str | None) -> tuple[Any, str]:
    reason = NO_SYSTEM
    if sys.platform == "win32":
        reason = "Windows cannot make a MIDI port: install loopMIDI, then say --midi-port loopMIDI"
    clients = _clients(prefer, virtual=True)
    for index, (api, client) in enumerate(clients):
        try:
            client.open_virtual_port(PORT)
        except Exception as error:
            reason = str(error).strip().rstrip(".")
            _forget([client])
            continue
        _forget(other for _, other in clients[index + 1 :])
        return client, f"MIDI port {f'{CLIENT}:{PORT}'!r} ({api})"
    raise NoMidiError(f"no MIDI is sent, because {reason}")


def _existing_port(query: str, prefer: str | None) -> tuple[Any, str]:
    clients = _clients(prefer, virtual=False)
    ports = [(api, client, i, str(name)) for api, client in clients for i, name in enumerate(client.get_ports())]
    text = query.casefold()
    exact = [port for port in ports if port[3] == query]
    matches = exact[:1] or [port for port in ports if text and text in port[3].casefold()]
    if len(matches) != 1:
        near = ", ".join(repr(port[3]) for port in matches or ports)
        _forget(client for _, client in clients)
        if matches:
            raise UserError(f"{query!r} names several MIDI ports: {near}; see `rtchord devices`")
        there = f"there is {near}" if near else "there is none at all"
        hint = "; on Windows install loopMIDI and make one" if sys.platform == "win32" else ""
        raise UserError(f"there is no MIDI port {query!r}; {there}{hint}; see `rtchord devices`")
    api, client, index, name = matches[0]
    _forget(other for _, other in clients if other is not client)
    try:
        client.open_port(index, PORT)
    except Exception as error:
        raise UserError(f"cannot open MIDI port {name!r}: {str(error).strip().rstrip('.')}") from None
    return client, f"MIDI port {name!r} ({api})"


def _clients(prefer: str | None, virtual: bool) -> list[tuple[str, Any]]:
    """(API, rtmidi client) of every MIDI system that answers, the preferred one first.

    Each API is named: rtmidi's own choice stops at the first compiled one, running or not.
    """
    from rtchord.audio.device import quiet_stderr

    try:
        with quiet_stderr():
            import rtmidi
    except ImportError as error:
        raise NoMidiError(f"no MIDI is sent, because python-rtmidi does not load: {error}") from None
    compiled = set(rtmidi.get_compiled_api())
    clients = []
    for constant, api, can_make_ports in sorted(APIS, key=lambda row: row[1] != prefer):
        code = getattr(rtmidi, constant, None)
        if code not in compiled or (virtual and not can_make_ports):
            continue
        with quiet_stderr(), contextlib.suppress(Exception):
            clients.append((api, rtmidi.MidiOut(rtapi=code, name=CLIENT)))
    return clients


def _forget(clients: Any) -> None:
    for client in clients:
        with contextlib.suppress(Exception):
            client.delete()
