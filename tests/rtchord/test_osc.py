from __future__ import annotations

import socket
import struct

import pytest

from rtchord.chords import NO_CHORD, Chord, chord_with_bass, class_index
from rtchord.errors import UserError
from rtchord.events import ChordEvent
from rtchord.outputs.osc import OscOutput, encode
from rtchord.settings import Target, parse_target

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
def test_bad_target_is_named(text: str) -> None:
    with pytest.raises(UserError, match="OSC") as caught:
        parse_target(text)
    assert repr(text) in str(caught.value)


def test_unknown_host_is_named() -> None:
    with pytest.raises(UserError, match=r"'no\.such\.host\.invalid'"):
        OscOutput(Target("no.such.host.invalid", 9000))


def test_message_arrives() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
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
