"""The MIDI port: it holds the present chord, is released, watched and made again. The messages are in `messages`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rtchord.chords import NO_CHORD
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs.messages import Message, change, helicon, panic, release, velocity, voicing, yamaha_control
from rtchord.outputs.worker import Port
from rtchord.settings import MidiSettings

CLIENT, PORT = "rtchord", "chords"
CREDENTIALS = struct.Struct("3i")  # process, user and group at the other end of a local socket
DRAIN_SECONDS = 0.05  # JACK and CoreMIDI send in a later cycle; a port closed at once takes the last note-offs with it
LOOK_SECONDS = 0.25  # between looks whether a receiver is there; one takes 0.03 ms
REVIVE_SECONDS = (1.0, 2.0, 4.0, 8.0)  # between attempts to make a port anew; the last is repeated
BYTE_SECONDS = 10 / 31_250  # of a 5-pin cable

NO_SYSTEM = "there is no MIDI system here (neither ALSA's sequencer nor a JACK server runs)"
# In order of preference: the rtmidi constant, how people call it, whether it can make a port of its own.
APIS = (
    ("API_LINUX_ALSA", "ALSA", True),
    ("API_UNIX_JACK", "JACK", True),
    ("API_MACOSX_CORE", "CoreMIDI", True),
    ("API_WINDOWS_MM", "Windows MIDI", False),
)


class NoMidiError(UserError):
    """No MIDI port can be made on this machine."""


class MidiOutput(Port[ChordEvent]):
    """A MIDI port that holds the present chord.

    `prefer`: an API of APIS to be tried first. `report` is told sentences: that sending fails, that a receiver has
    gone, that it is back. NoMidiError where no port can be made, UserError where `settings.port` names none or several.

    A receiver that `settings.port` names is watched from `status`; when it returns, it is given the present chord.
    After a server's death only a new port helps: `status` makes it, when messages fail or `renew` says so.
    """

    every = False

    def __init__(
        self,
        settings: MidiSettings | None = None,
        prefer: str | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings or MidiSettings()
        self._channel = self._settings.channel - 1
        self._query = self._settings.port
        self._report = report
        self._sounding: tuple[int, ...] = ()  # every note that may be on, at any instant
        self._released = False
        self._event: ChordEvent | None = None  # as sent last
        self._failing = False
        self._there = True  # the receiver, as far as it is watched
        self._looked = 0.0
        self._attempt: int | None = None  # to make the port anew; None while it is there
        self._due = 0.0  # when that is made, on the clock of time.monotonic
        self._client: Any | None
        before = _peers()
        if self._query is None:
            self._api, self._client, self._receiver = _virtual_port(prefer)
        else:
            self._api, self._client, self._receiver = _existing_port(self._query, prefer)
        self._server = _Server(before)
        self.name = f"MIDI port {self._receiver!r} ({self._api})"

    def send(self, event: ChordEvent) -> None:
        """Change to the chord of `event`; N is silence."""
        how = self._settings
        old, new = self._sounding, voicing(event.symbol, how.voicing, how.octave)
        loudness = velocity(event.confidence) if how.velocity is None else how.velocity
        # Whatever interrupts the sending, a signal included, the notes to be released are known.
        self._sounding = tuple(dict.fromkeys(old + new))
        self._event, self._released = event, False
        if self._send(change(old, new, self._channel, loudness, how.tie)):
            self._sounding = new
        self._describe(event)

    def status(self, status: Status) -> None:  # noqa: ARG002
        """Look for the port and for the receiver, now and then."""
        now = time.monotonic()
        if self._attempt is None and not self.alive():
            self.renew()
        if self._attempt is not None:
            if now >= self._due:
                pause = REVIVE_SECONDS[min(self._attempt, len(REVIVE_SECONDS) - 1)]
                self._attempt, self._due = self._attempt + 1, now + pause
                if self.reopen():
                    self._attempt = None
        elif self._query is not None and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()

    def renew(self) -> None:
        """Make the port anew as soon as that is possible, unless it is known to be well: its server is watched."""
        if self._attempt is not None or not self._server.lives():
            self._attempt, self._due = 0, 0.0

    def _look(self) -> None:
        """Whether the receiver is there."""
        assert self._client is not None
        try:
            names = [str(name) for name in self._client.get_ports()]
        except Exception:  # the system is going down; `alive` tells when a message fails
            return
        if not self._there:
            self._connect(names)
        elif self._receiver not in names:
            self._there = False
            self._report(f"{self.name} has gone; it is used again when it is back")

    def release(self) -> None:
        """End every note; the port stays."""
        if self._released:
            return
        if self._event is not None:
            self._describe(ChordEvent(0.0, 0.0, NO_CHORD, 1.0))
        self._send(release(self._sounding, self._channel))
        self._sounding, self._event, self._released = (), None, True

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
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close_port()
                self._client.delete()
        self._server.close()

    def alive(self) -> bool:
        """Whether messages go out, as far as can be known."""
        if self._server.dead():
            self._lose("its server has died")
        return self._client is not None and not self._failing

    def reopen(self) -> bool:
        """Make the port anew, after a server's death; False where that is not yet possible.

        The present chord is struck again. A virtual port has to be connected again by whoever did so before. With the
        interpreter locked this takes about 30 ms, so it is not for every day.
        """
        _abandon(self._api, self._client)
        self._client = None
        self._server.close()
        before = _peers()
        for _, client in _clients(None, self._query is None, only=self._api):
            try:
                if self._query is None:
                    self._receiver = _make_port(self._api, client)
                    self.name = f"MIDI port {self._receiver!r} ({self._api})"
            except Exception:
                _forget([client])
                continue
            self._client, self._failing, self._server = client, False, _Server(before)
            self._there = self._query is None  # a receiver is looked for by the next `status`
            if self._there:
                self._report(f"{self.name} is back; what it was connected to has to be connected again")
                self._strike_again()
        return self._client is not None

    def _connect(self, names: Sequence[str]) -> None:
        """Connect to the receiver if it is among `names`, the ports there are."""
        assert self._client is not None
        matches = _matching(self._query or "", names)
        if len(matches) != 1:
            return
        try:
            self._client.close_port()  # that of before, which leads nowhere
            self._client.open_port(matches[0], PORT)
        except Exception:
            return
        self._there, self._receiver = True, names[matches[0]]
        self.name = f"MIDI port {self._receiver!r} ({self._api})"
        self._report(f"{self.name} is back")
        self._strike_again()

    def _strike_again(self) -> None:
        """Give the present chord to a receiver that knows nothing, or perhaps still holds notes."""
        event = self._event
        if event is not None and self._send(change(self._sounding, (), self._channel, 0)):
            self._sounding = ()
            self.send(event)

    def _describe(self, event: ChordEvent) -> None:
        """What is sent beside the notes."""
        if self._settings.yamaha:
            self._send([yamaha_control(event.symbol, event.sharps)])
        if self._settings.helicon:
            self._send(helicon(event.symbol, self._channel))

    def _send(self, messages: Iterable[Message]) -> bool:
        """Whether all went out."""
        if self._client is None:
            return False
        if self._server.dead():
            self._lose("its server has died")
            return False
        sent = True
        for message in messages:
            try:
                self._client.send_message(message)
            except Exception as error:  # a lost cable must not end the session
                sent = False
                self._lose(str(error))
        return sent

    def _lose(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            self._report(f"MIDI messages are being lost: {why}")


class _Server:
    """The process on which a client hangs, where there is one and it can be watched (JACK on Linux).

    python-rtmidi fills a queue for a JACK server that has died, and when that is full, after some 250 changes of chord,
    waits for ever with the interpreter locked: nothing may be sent to a dead one.
    """

    def __init__(self, before: set[int]) -> None:
        """`before`: what `_peers` were before the client was made."""
        self._died: int | None = None  # a descriptor that can be read when the process has ended
        for process in _peers() - before:
            with contextlib.suppress(OSError, AttributeError):
                self._died = os.pidfd_open(process)
            break

    def lives(self) -> bool:
        """Whether it is watched, and there."""
        return self._died is not None and not self.dead()

    def dead(self) -> bool:
        if self._died is None:
            return False
        poll = select.poll()
        poll.register(self._died, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self._died is not None:
            os.close(self._died)
            self._died = None


def _peers() -> set[int]:
    """The processes to which this one has local sockets; none where that cannot be seen (elsewhere than on Linux)."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    with socket.socket(fileno=os.dup(int(name))) as end:
                        if end.family == socket.AF_UNIX:
                            told = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
                            found.add(CREDENTIALS.unpack(told)[0])
    return found - {0, os.getpid()}


def silence(query: str) -> str:
    """Send `panic` to the one MIDI port that `query` names, at the speed of a 5-pin cable; returns its name."""
    api, client, receiver = _existing_port(query, None)
    for message in panic():
        client.send_message(message)
        time.sleep(BYTE_SECONDS * len(message))
    time.sleep(DRAIN_SECONDS)
    _forget([client])
    return f"MIDI port {receiver!r} ({api})"


def list_ports() -> list[tuple[str, str]]:
    """(API, port name) of every MIDI port that can be sent to. NoMidiError where there is no MIDI system."""
    clients = _clients(None, virtual=False)
    if not clients:
        raise NoMidiError(NO_SYSTEM)
    ports = [(api, str(name)) for api, client in clients for name in client.get_ports()]
    _forget(client for _, client in clients)
    return ports


def _virtual_port(prefer: str | None) -> tuple[str, Any, str]:
    """(API, client with a port of its own, name of that port)."""
    reason = NO_SYSTEM
    if sys.platform == "win32":
        reason = "Windows cannot make a MIDI port: install loopMIDI, then say --midi-port loopMIDI"
    clients = _clients(prefer, virtual=True)
    for index, (api, client) in enumerate(clients):
        try:
            name = _make_port(api, client)
        except Exception as error:
            reason = str(error).strip().rstrip(".")
            _forget([client])
            continue
        _forget(other for _, other in clients[index + 1 :])
        return api, client, name
    raise NoMidiError(f"no MIDI is sent, because {reason}")


def _make_port(api: str, client: Any) -> str:
    """Give `client` a port of its own; returns the name under which others find it.

    A second program of our name has it changed by the system, which does not say so: hence the look from outside.
    """
    look = None
    with contextlib.suppress(Exception):
        look = _client(api, "MidiIn", f"{CLIENT}-look")
    before = Counter(_port_names(look))
    client.open_virtual_port(PORT)
    made = [name for name in Counter(_port_names(look)) - before if PORT in name]
    _forget([look])
    return made[0] if len(made) == 1 else f"{CLIENT}:{PORT}"


def _port_names(client: Any) -> list[str]:
    with contextlib.suppress(Exception):
        return [str(name) for name in client.get_ports()]
    return []


def _client(api: str, kind: str, name: str) -> Any:
    """A client of the MIDI system `api`; `kind`: ``MidiOut`` or ``MidiIn``."""
    import rtmidi

    from rtchord.audio.device import quiet_stderr

    (constant,) = (row[0] for row in APIS if row[1] == api)
    with quiet_stderr():
        return getattr(rtmidi, kind)(rtapi=getattr(rtmidi, constant), name=name)


def _matching(query: str, names: Sequence[str]) -> list[int]:
    """Which of `names` are meant: the one of that very name, or else all that contain it in any case."""
    text = query.casefold()
    exact = [index for index, name in enumerate(names) if name == query]
    return exact[:1] or [index for index, name in enumerate(names) if text and text in name.casefold()]


def _existing_port(query: str, prefer: str | None) -> tuple[str, Any, str]:
    """(API, client connected to the port that `query` names, name of that port)."""
    clients = _clients(prefer, virtual=False)
    ports = [(api, client, i, str(name)) for api, client in clients for i, name in enumerate(client.get_ports())]
    matches = [ports[index] for index in _matching(query, [port[3] for port in ports])]
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
    return api, client, name


def _clients(prefer: str | None, virtual: bool, only: str | None = None) -> list[tuple[str, Any]]:
    """(API, rtmidi client) of every MIDI system that answers, or of `only` one, the preferred one first.

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
        if (
            getattr(rtmidi, constant, None) not in compiled
            or (virtual and not can_make_ports)
            or only not in (None, api)
        ):
            continue
        with contextlib.suppress(Exception):
            clients.append((api, _client(api, "MidiOut", CLIENT)))
    return clients


def _forget(clients: Any) -> None:
    for client in clients:
        with contextlib.suppress(Exception):
            client.delete()


def _abandon(api: str, client: Any | None) -> None:
    """Let go of a client whose server may be dead.

    One of JACK is never freed: once a server has died, libjack crashes or hangs in it.
    """
    if api == "JACK" and client is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
    elif client is not None:
        _forget([client])
