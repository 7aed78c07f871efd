"""Chords as Open Sound Control messages over UDP.

One message a change, with flat typed arguments, so that SuperCollider, Max or Pd can route it without parsing:

    /rtchord/chord ,isisfdd
        i root         pitch class, C = 0; -1 for N
        s quality      Harte shorthand: maj, min7, ..; N
        i bass         pitch class; -1 for N
        s label        Harte label: A:min7, C:maj/3, N
        f confidence   0..1
        d onset        s from the first sample, when the chord began
        d time         s from the first sample, when this was sent

It is a bare message, to be acted on at once: a bundle stamped with the onset would be scheduled in the past.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder

from rtchord.chords import NO_BASS
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.settings import Target

ADDRESS = "/rtchord/chord"


def encode(event: ChordEvent) -> bytes:
    """The datagram of an event."""
    chord = event.symbol
    bass = -1 if chord.root < 0 else chord.root if chord.bass == NO_BASS else chord.bass
    builder = OscMessageBuilder(ADDRESS)
    for value, kind in (
        (chord.root, OscMessageBuilder.ARG_TYPE_INT),
        (chord.quality, OscMessageBuilder.ARG_TYPE_STRING),
        (bass, OscMessageBuilder.ARG_TYPE_INT),
        (chord.label, OscMessageBuilder.ARG_TYPE_STRING),
        (event.confidence, OscMessageBuilder.ARG_TYPE_FLOAT),
        (event.onset, OscMessageBuilder.ARG_TYPE_DOUBLE),
        (event.time, OscMessageBuilder.ARG_TYPE_DOUBLE),
    ):
        builder.add_arg(value, kind)
    return builder.build().dgram


class OscOutput:
    """A UDP socket to one target. UserError where the host cannot be found.

    `report` is told once, in a sentence, if sending fails; nobody listening is no failure.
    """

    def __init__(self, target: Target, report: Callable[[str], None] = lambda _: None) -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            raise UserError(f"cannot send OSC to {target.host!r}: there is no such host") from None
        family, kind, protocol, _, address = found[0]
        self._address: tuple[Any, ...] = address
        self.open = True
        self.name = f"OSC at {target.host}:{target.port}"
        self._report = report
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)  # a full network queue costs a message, never time
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

    def send(self, event: ChordEvent) -> None:
        """Send one message now."""
        try:
            self._socket.sendto(encode(event), self._address)
        except ConnectionError:  # the last datagram found nobody listening
            pass
        except OSError as error:
            self._report(f"messages to {self.name} are being lost: {error.strerror or error}")
            self._report = lambda _: None

    def status(self, status: Status) -> None:
        """Nothing is told of it here."""

    def release(self) -> None:
        """A message has no end."""

    def close(self) -> None:
        self.open = False
        self._socket.close()
