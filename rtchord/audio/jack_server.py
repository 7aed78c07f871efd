"""Audio from the clients of a JACK server, by JACK's own library.

PortAudio can reach them too, but takes their names for patterns: of `Mic (USB)` it finds no port, of `q?` it finds
everybody's. Where JACK's library or its Python binding is missing, PortAudio has to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rtchord.errors import UserError

NAME = "rtchord-input"  # of our client
PERIOD = 8192  # frames, the longest that JACK has
SERVER_GONE = "the JACK server does not answer"


class Clients(NamedTuple):
    """What can be listened to: name -> its ports, in JACK's order, those of the sound card first; `rate` in Hz."""

    ports: dict[str, list[str]]
    rate: int


def binding() -> Any:
    """The Python binding of JACK's library; None without either."""
    try:
        import jack

        return jack
    except (ImportError, OSError):
        return None


def _client(name: str) -> Any:
    """A client that is not yet active; None where no server can be reached. Starts none."""
    jack = binding()
    if jack is None:
        return None
    try:
        jack.set_error_function(lambda _: None)  # a missing server is no error here
        jack.set_info_function(lambda _: None)
        return jack.Client(name, no_start_server=True)
    except jack.JackError:
        return None


def clients() -> Clients | None:
    """Every client with audio outputs; None where no server can be asked."""
    client = _client("rtchord-look")
    if client is None:
        return None
    try:
        return Clients(_ports(client), int(client.samplerate))
    except Exception:  # it died meanwhile, or holds a name that is no text
        return None
    finally:
        with contextlib.suppress(Exception):
            client.close()


def _ports(client: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for only_cards in (True, False):
        for port in client.get_ports(is_audio=True, is_output=True, is_physical=only_cards):
            ports = found.setdefault(port.name.partition(":")[0], [])
            if not only_cards and port.name not in ports:
                ports.append(port.name)
    return found


class JackStream:
    """A running client of ours, connected to the chosen channels of another, that gives `write` every block."""

    def __init__(self, source: str, picked: tuple[int, ...], write: Callable[..., object]) -> None:
        """`source`: name of the client; `picked`: its channels from 0. UserError where that cannot be."""
        self._source, self._write = source, write
        self._columns = tuple(range(len(picked)))
        self._rows = np.zeros((len(picked), PERIOD), np.float32)
        self._late = False
        self.active = True
        self._client = client = _client(NAME)
        if client is None:
            raise UserError(f"cannot open audio input {source!r}: {SERVER_GONE}")
        try:
            self._ports = [client.inports.register(f"in_{channel + 1}") for channel in picked]
            client.set_process_callback(self._process)
            client.set_xrun_callback(self._overrun)
            client.set_shutdown_callback(self._gone)
            client.activate()
            theirs = _ports(client)[source]
            for channel, port in zip(picked, self._ports, strict=True):
                client.connect(theirs[channel], port)
        except Exception as error:  # JackError, or it left while we came
            with contextlib.suppress(Exception):
                client.close()
            why = "it has left" if isinstance(error, (KeyError, IndexError)) else str(error).rstrip(".")
            raise UserError(f"cannot open audio input {source!r}: {why}") from None

    def vanished(self) -> bool:
        """Whether the client that was listened to has left the server, which then goes on with zeros."""
        try:
            return self._source not in _ports(self._client)
        except Exception:  # the server died: `active` says so
            return False

    def close(self) -> None:
        self._client.close()

    def _process(self, frames: int) -> None:
        """In JACK's thread: copies, and waits for nobody."""
        late, self._late = self._late, False
        if frames > self._rows.shape[1]:  # another server than JACK's own may have longer ones
            self._rows = np.zeros((len(self._rows), frames), np.float32)
        for row, port in zip(self._rows, self._ports, strict=True):
            row[:frames] = port.get_array()
        self._write(self._rows[:, :frames].T, self._columns, late)

    def _overrun(self, _delay: float) -> None:
        self._late = True

    def _gone(self, *_: object) -> None:
        self.active = False
