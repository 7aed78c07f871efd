from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from rtchord.chords import NO_CHORD, Chord, chord_with_bass, class_index
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.outputs import osc
from rtchord.outputs.osc import OscOutput, encode, encode_state
from rtchord.settings import Target, parse_target

STATUS = Status(2.5, -20.0, -6.0, 3, 7, 0.25, True, 0.01)
A_MIN7 = ChordEvent(1.5, 1.75, chord_with_bass(class_index(9, "min7"), 9), 0.5)


def test_datagram_is_byte_for_byte_osc() -> None:
    assert encode(A_MIN7) == (
        b"/rtchord/chord\0\0"
        b",isisfdd\0\0\0\0"
        b"\0\0\0\x09"
        b"min7\0\0\0\0"
        b"\0\0\0\x09"
        b"A:min7\0\0"
        b"\x3f\0\0\0"
        b"\x3f\xf8\0\0\0\0\0\0"
        b"\x3f\xfc\0\0\0\0\0\0"
    )


def arguments(event: ChordEvent) -> tuple[int, bytes, int, bytes]:
    """Root, quality, bass and label out of a datagram."""
    data = encode(event)[28:]
    (root,) = struct.unpack(">i", data[:4])
    quality = data[4:].split(b"\0", 1)[0]
    data = data[4 + len(quality) // 4 * 4 + 4 :]
    (bass,) = struct.unpack(">i", data[:4])
    return root, quality, bass, data[4:].split(b"\0", 1)[0]


@pytest.mark.parametrize(
    ("chord", "expected"),
    [
        (chord_with_bass(class_index(0, "maj"), 4), (0, b"maj", 4, b"C:maj/3")),
        (Chord(class_index(5, "sus2"), 12), (5, b"sus2", 5, b"F:sus2")),
        (NO_CHORD, (-1, b"N", -1, b"N")),
    ],
)
def test_arguments(chord: Chord, expected: tuple[int, bytes, int, bytes]) -> None:
    assert arguments(ChordEvent(0.0, 0.0, chord, 1.0)) == expected


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:57120", Target("127.0.0.1", 57120)),
        ("stage.local:1", Target("stage.local", 1)),
        ("[::1]:65535", Target("::1", 65535)),
    ],
)
def test_target(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["", "localhost", ":9000", "localhost:", "h:0", "h:65536", "h:x", "h:-1", "h:9e3", "::1:9000", "h:٩٠"]
)
def test_bad_target_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|between 1 and 65535"):
        parse_target(text)


def test_state_is_byte_for_byte_osc() -> None:
    assert encode_state(STATUS, -6.0) == (
        b"/rtchord/state\0\0,ffifid\0\xc1\xa0\0\0\xc0\xc0\0\0\0\0\0\x07\x3e\x80\0\0\0\0\0\x01\x40\x04\0\0\0\0\0\0"
    )


def test_digital_silence_is_a_number_that_every_receiver_knows() -> None:
    silent = replace(STATUS, level=float("-inf"), peak=float("-inf"), connected=False)
    assert struct.unpack(">ffifi", encode_state(silent, silent.peak)[24:44]) == (-120.0, -120.0, 7, 0.25, 0)


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(5)
        yield made


def heard(receiver: socket.socket) -> list[bytes]:
    """What has come so far; on the loopback device that is everything."""
    receiver.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(receiver.recv(2000))
    return found


def test_the_heart_beats_once_a_second(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(osc.time, "monotonic", lambda: now)
    output = OscOutput(Target("127.0.0.1", receiver.getsockname()[1]))
    for _ in range(80):
        output.status(STATUS)
        now += 0.125
    assert len(heard(receiver)) == 10
    now += 3600.0  # the machine slept: no beats are made up for
    for _ in range(8):
        output.status(STATUS)
        now += 0.125
    assert len(heard(receiver)) == 1
    output.close()


def test_the_peak_is_that_of_the_whole_second(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(osc.time, "monotonic", lambda: now)
    output = OscOutput(Target("127.0.0.1", receiver.getsockname()[1]))
    for eighth in range(17):
        output.status(replace(STATUS, peak=-1.0 if eighth == 5 else -30.0))
        now += 0.125
    assert [struct.unpack(">f", message[28:32])[0] for message in heard(receiver)] == [-30.0, -1.0, -30.0]
    output.close()


def test_the_last_word_is_no_chord(receiver: socket.socket) -> None:
    output = OscOutput(Target("127.0.0.1", receiver.getsockname()[1]))
    output.release()  # nothing was said, so there is nothing to take back
    output.send(A_MIN7)
    output.release()
    output.release()
    output.close()
    messages = heard(receiver)
    assert messages == [encode(A_MIN7), encode(ChordEvent(1.75, 1.75, NO_CHORD, 1.0))]


def test_several_targets_hear_the_same(receiver: socket.socket) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            pytest.skip("needs IPv6")
        outputs = [
            OscOutput(Target("127.0.0.1", receiver.getsockname()[1])),
            OscOutput(Target("::1", other.getsockname()[1])),
        ]
        for output in outputs:
            output.send(A_MIN7)
            output.close()
        assert heard(receiver) == heard(other) == [encode(A_MIN7)]


def test_a_name_with_both_kinds_of_address_is_that_of_ipv4(
    receiver: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As localhost is on many systems, with ::1 first."""
    port = receiver.getsockname()[1]
    both = [
        (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(osc.socket, "getaddrinfo", lambda *_, **__: both)
    output = OscOutput(Target("localhost", port))
    output.send(A_MIN7)
    output.close()
    assert heard(receiver) == [encode(A_MIN7)]


class Network:
    """Stands where a socket stands; sends to nobody and remembers to whom."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.asked.append(name)

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((data, address))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(osc.socket, "socket", lambda *_: made)
    return made


def test_it_sends_only_where_told_and_listens_nowhere(network: Network) -> None:
    output = OscOutput(Target("127.0.0.1", 9123))
    output.send(A_MIN7)
    output.status(STATUS)
    output.release()
    output.close()
    assert [address for _, address in network.sent] == [("127.0.0.1", 9123)] * 3
    assert set(network.asked) <= {"setblocking", "setsockopt", "close"}


def test_a_network_that_returns_is_told_too(network: Network) -> None:
    said: list[str] = []
    output = OscOutput(Target("127.0.0.1", 9), said.append)
    for error in (None, OSError(101, "Network is unreachable"), OSError(101, "Network is unreachable"), None, None):
        network.error = error
        output.send(A_MIN7)
    assert said == [
        "messages to OSC at 127.0.0.1:9 are being lost: Network is unreachable",
        "messages to OSC at 127.0.0.1:9 go out again",
    ]


def test_unknown_host_is_named() -> None:
    with pytest.raises(UserError, match=r"'no\.such\.host\.invalid'"):
        OscOutput(Target("no.such.host.invalid", 9000))


def test_message_arrives(receiver: socket.socket) -> None:
    output = OscOutput(Target("127.0.0.1", receiver.getsockname()[1]))
    output.send(A_MIN7)
    assert receiver.recv(1000) == encode(A_MIN7)
    output.close()


def test_nobody_listening_is_no_failure() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said: list[str] = []
    output = OscOutput(Target("127.0.0.1", port), said.append)
    for _ in range(3):
        output.send(A_MIN7)
    output.close()
    assert said == []


def test_a_dead_network_is_reported_once() -> None:
    said: list[str] = []
    output = OscOutput(Target("127.0.0.1", 9), said.append)
    output._socket.close()  # every later sendto fails with an OSError
    for _ in range(3):
        output.send(A_MIN7)
    assert len(said) == 1
    assert "127.0.0.1:9" in said[0]
