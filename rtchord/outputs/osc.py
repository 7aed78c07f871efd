"""Chords as Open Sound Control messages over UDP.

Flat typed arguments, so that SuperCollider, Max or Pd can route them without parsing:

    /rtchord/chord ,isisfdd        one a change, and a last one that says N
        i root         pitch class, C = 0; -1 for N
        s quality      Harte shorthand: maj, min7, ..; N
        i bass         pitch class; -1 for N
        s label        Harte label: A:min7, C:maj/3, N
        f confidence   0..1
        d onset        s from the first sample, when the chord began
        d time         s from the first sample, when this was sent

    /rtchord/state ,ffifid         once a second, also while the input is away
        f level        dBFS, root mean square of the last tenth of a second; SILENCE for digital silence
        f peak         dBFS, largest sample since the message before
        i overflows    that the audio driver reported since the start
        f dropped      s of audio lost on our side since the start
        i connected    1 while the input is there, else 0
        d time         s, as above

They are bare messages. By OSC 1.0 those are acted on at once, as is a bundle with the time tag 1, which small receivers
do not read; a bundle stamped with the onset would be scheduled in the past.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder

from rtchord.chords import NO_BASS, NO_CHORD
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs.worker import Port
from rtchord.settings import Target

CHORD, STATE = "/rtchord/chord", "/rtchord/state"
CHORD_TYPES, STATE_TYPES = "isisfdd", "ffifid"
SILENCE = -120.0  # dBFS; not all receivers know infinity
HEARTBEAT_SECONDS = 1.0


def encode(event: ChordEvent) -> bytes:
    """The datagram of an event."""
    chord = event.symbol
    bass = -1 if chord.root < 0 else chord.root if chord.bass == NO_BASS else chord.bass
    values = (chord.root, chord.quality, bass, event.chord, event.confidence, event.onset, event.time)
    return _message(CHORD, CHORD_TYPES, values)


def encode_state(status: Status, peak: float) -> bytes:
    """The datagram of a state; `peak` in dBFS."""
    level, peak = max(status.level, SILENCE), max(peak, SILENCE)
    values = (level, peak, status.overflows, status.dropped, int(status.connected), status.time)
    return _message(STATE, STATE_TYPES, values)


def _message(address: str, types: str, values: Iterable[str | int | float]) -> bytes:
    builder = OscMessageBuilder(address)
    for kind, value in zip(types, values, strict=True):
        builder.add_arg(value, kind)
    return bytes(builder.build().dgram)


class OscOutput(Port[ChordEvent]):
    """A UDP socket to one target. UserError where the host cannot be found, which is looked for only once, here.

    A name that has addresses of both kinds, as localhost has, is that of its IPv4 address: most receivers listen to
    IPv4 alone, and one that listens to both would hear everything twice if both were sent to.

    `report` is told, in a sentence, when sending fails and when it works again; nobody listening is no failure.
    """

    every = False

    def __init__(self, target: Target, report: Callable[[str], None] = lambda _: None) -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            raise UserError(f"cannot send OSC to {target.host!r}: there is no such host") from None
        family, kind, protocol, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)
        self._address: tuple[Any, ...] = address
        self.name = f"OSC at {target}"
        self._report = report
        self._failing = False
        self._time = 0.0  # s of the session
        self._silent = True  # whether N is what was sent last
        self._peak = SILENCE
        self._due = 0.0  # when the next heartbeat is
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)  # a full network queue costs a message, never time
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

    def send(self, event: ChordEvent) -> None:
        """Send one message now."""
        self._silent = False  # until it is sent, whatever interrupts
        self._time = event.time
        self._send(encode(event))
        self._silent = event.symbol.root < 0

    def status(self, status: Status) -> None:
        """Send the heartbeat when it is time."""
        self._time = status.time
        self._peak = max(self._peak, status.peak)
        now = time.monotonic()
        if now >= self._due:
            late = now - self._due > HEARTBEAT_SECONDS  # the first, or the machine has slept
            self._due = (now if late else self._due) + HEARTBEAT_SECONDS
            self._send(encode_state(status, self._peak))
            self._peak = SILENCE

    def release(self) -> None:
        """Say N, so that no chord stays on show."""
        if not self._silent:
            self.send(ChordEvent(self._time, self._time, NO_CHORD, 1.0))

    def close(self) -> None:
        self.open = False
        self._socket.close()

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, self._address)
        except ConnectionError:  # the last datagram found nobody listening
            return
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._report(f"messages to {self.name} are being lost: {error.strerror or error}")
            return
        if self._failing:
            self._failing = False
            self._report(f"messages to {self.name} go out again")
