from __future__ import annotations

import pytest

from rtchord.chords import NO_CHORD, Chord, chord_with_bass, class_index
from rtchord.events import ChordEvent, Status
from rtchord.outputs import midi
from rtchord.outputs.messages import voicing
from rtchord.outputs.midi import MidiOutput
from rtchord.settings import MidiSettings

C = chord_with_bass(class_index(0, "maj"), 0)
C7 = chord_with_bass(class_index(0, "7"), 0)
A_MIN7 = chord_with_bass(class_index(9, "min7"), 9)
STATUS = Status(1.0, -20.0, -10.0, 0, 0, 0.0, True, 0.01)


def golden(messages: object) -> str:
    return " ".join(message.hex() for message in messages)  # type: ignore[attr-defined]


class Port:
    """Stands where rtmidi's port stands; `fail_at` is the number of the message that goes wrong."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fail_at: int | None = None
        self.error: BaseException = OSError("cable")
        self.closed = False
        self.names = ["synth:in"]
        self.connected: list[int] = []

    def get_ports(self) -> list[str]:
        return self.names

    def open_port(self, index: int, _name: str) -> None:
        self.connected.append(index)
        self.closed = False

    def send_message(self, message: bytes) -> None:
        if self.fail_at == len(self.sent):
            self.fail_at = None
            raise self.error
        self.sent.append(bytes(message))

    def close_port(self) -> None:
        self.closed = True

    def delete(self) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Port:
    made = Port()
    monkeypatch.setattr(midi, "_virtual_port", lambda _prefer: ("test", made, "rtchord:chords"))
    return made


def event(chord: Chord, confidence: float = 1.0) -> ChordEvent:
    return ChordEvent(0.0, 0.0, chord, confidence)


def sounding(messages: list[bytes]) -> set[tuple[int, int]]:
    held: set[tuple[int, int]] = set()
    for status, note, *_ in messages:
        if status & 0xF0 == 0x90:
            held.add((status & 15, note))
        elif status & 0xF0 == 0x80:
            held.discard((status & 15, note))
    return held


def test_output_holds_one_chord_at_a_time(port: Port) -> None:
    output = MidiOutput(MidiSettings(channel=3))
    output.send(event(C))
    output.send(event(A_MIN7))
    assert sounding(port.sent) == {(2, note) for note in voicing(A_MIN7)}


def test_closing_releases_the_chord_once_and_gives_the_port_back(port: Port) -> None:
    output = MidiOutput()
    output.send(event(C))
    output.close()
    output.close()
    assert golden(port.sent[4:]) == "802400 803000 803400 803700 b07b00"
    assert port.closed
    assert not output.open


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("where", range(12))
def test_interrupted_anywhere_in_a_change_it_still_releases_every_note(port: Port, where: int, tie: bool) -> None:
    output = MidiOutput(MidiSettings(tie=tie, yamaha=True, helicon=True))
    output.send(event(C))
    port.fail_at, port.error = len(port.sent) + where, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        output.send(event(A_MIN7))
    output.close()
    assert sounding(port.sent) == set()
    assert golden(port.sent[-1:]) == "b07b00"


def test_a_failing_port_is_reported_once_and_does_not_raise(port: Port) -> None:
    said: list[str] = []
    output = MidiOutput(report=said.append)
    for _ in range(2):
        port.fail_at = len(port.sent)
        output.send(event(C))
    assert len(said) == 1
    assert "cable" in said[0]


def test_a_note_whose_end_was_lost_is_ended_again(port: Port) -> None:
    output = MidiOutput()
    output.send(event(C))
    port.fail_at = len(port.sent)  # the first note-off
    output.send(event(A_MIN7))
    output.release()
    assert sounding(port.sent) == set()


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        (MidiSettings(voicing="root", octave=2, velocity=99, channel=16), "9f2463"),
        (MidiSettings(voicing="triad", velocity=1), "903001 903401 903701"),
        (MidiSettings(voicing="root", velocity=1, yamaha=True), "903001 f0437e0231137f7ff7"),
        (MidiSettings(voicing="root", velocity=1, helicon=True, channel=2), "913001 b17611 b17512"),
    ],
)
def test_settings_decide_what_is_sent(port: Port, settings: MidiSettings, sent: str) -> None:
    MidiOutput(settings).send(event(C7))
    assert golden(port.sent) == sent


def test_what_is_sent_beside_the_notes_tells_what_they_cannot(port: Port) -> None:
    output = MidiOutput(MidiSettings(voicing="triad", yamaha=True))
    output.send(event(C))
    before = len(port.sent)
    output.send(event(C7))
    assert golden(port.sent[before:]) == "f0437e0231137f7ff7"


def test_yamaha_roots_follow_the_spelling_of_the_event(port: Port) -> None:
    output = MidiOutput(MidiSettings(voicing="root", yamaha=True))
    for sharps in (0, 5):
        output.send(ChordEvent(0.0, 0.0, chord_with_bass(class_index(6, "maj"), 6), 1.0, sharps))
    assert [message[4] for message in port.sent if message[0] == 0xF0] == [0x25, 0x44]


def test_at_the_end_the_chord_is_taken_back_in_every_language(port: Port) -> None:
    output = MidiOutput(MidiSettings(voicing="root", velocity=1, yamaha=True, helicon=True))
    output.send(event(C))
    before = len(port.sent)
    output.release()
    output.release()
    assert golden(port.sent[before:]) == "f0437e0231227f7ff7 b07600 b07500 803000 b07b00"


def test_tie_holds_common_notes_through_a_change(port: Port) -> None:
    output = MidiOutput(MidiSettings(tie=True, velocity=1))
    output.send(event(C))
    before = len(port.sent)
    output.send(event(A_MIN7))
    assert golden(port.sent[before:]) == "802400 803000 803400 803700 902d01 903901 903c01 904001 904301"
    before = len(port.sent)
    output.send(event(chord_with_bass(class_index(9, "min"), 0)))  # Am/C shares A C E
    assert golden(port.sent[before:]) == "802d00 804300 902401"
    output.send(event(NO_CHORD))
    assert sounding(port.sent) == set()


@pytest.fixture
def watched(port: Port, monkeypatch: pytest.MonkeyPatch) -> tuple[MidiOutput, list[str]]:
    monkeypatch.setattr(midi, "_existing_port", lambda _query, _prefer: ("test", port, "synth:in"))
    monkeypatch.setattr(midi, "LOOK_SECONDS", 0.0)
    said: list[str] = []
    return MidiOutput(MidiSettings(port="SYNTH"), report=said.append), said


def test_a_receiver_that_goes_is_told_once(port: Port, watched: tuple[MidiOutput, list[str]]) -> None:
    output, said = watched
    output.status(STATUS)
    assert said == []
    port.names = ["other:in"]
    for _ in range(3):
        output.status(STATUS)
    assert said == ["MIDI port 'synth:in' (test) has gone; it is used again when it is back"]


def test_a_receiver_that_returns_is_given_the_present_chord(port: Port, watched: tuple[MidiOutput, list[str]]) -> None:
    output, said = watched
    output.send(event(C))
    port.names = []
    output.status(STATUS)
    output.send(event(A_MIN7))
    before = len(port.sent)
    port.names = ["other:in", "synth-01:in"]  # some systems number a port that returns
    output.status(STATUS)
    assert port.connected == [1]
    assert "is back" in said[-1]
    assert sounding(port.sent[before:]) == {(0, note) for note in voicing(A_MIN7)}


def test_two_that_could_be_meant_are_not_guessed_between(port: Port, watched: tuple[MidiOutput, list[str]]) -> None:
    output, _ = watched
    port.names = []
    output.status(STATUS)
    port.names = ["synth-01:in", "synth-02:in"]
    output.status(STATUS)
    assert port.connected == []


def test_a_port_is_made_again_after_its_server_died(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    output = MidiOutput(report=said.append)
    output.send(event(C))
    port.fail_at = len(port.sent)
    output.send(event(A_MIN7))
    assert not output.alive()
    monkeypatch.setattr(midi, "_clients", lambda *_, **__: [])
    output.status(STATUS)
    assert not output.alive()
    output.send(event(C7))  # the show goes on without
    fresh = Port()
    fresh.open_virtual_port = lambda _name: None  # type: ignore[attr-defined]
    monkeypatch.setattr(midi, "_clients", lambda *_, **__: [("test", fresh)])
    output.status(STATUS)
    assert not output.alive()  # after a pause
    output._due = 0.0
    output.status(STATUS)
    assert output.alive()
    assert sounding(fresh.sent) == {(0, note) for note in voicing(C7)}
    output.release()
    assert sounding(fresh.sent) == set()
    assert [("lost" in sentence, "is back" in sentence) for sentence in said] == [(True, False), (False, True)]


def test_a_port_that_seems_alive_is_made_again_once_when_its_server_is_said_to_have_died(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Port] = []

    def clients(*_: object, **__: object) -> list[tuple[str, Port]]:
        made.append(Port())
        made[-1].open_virtual_port = lambda _name: None  # type: ignore[attr-defined]
        return [("test", made[-1])]

    monkeypatch.setattr(midi, "_clients", clients)
    output = MidiOutput()
    output.status(STATUS)
    assert made == []
    output.renew()
    for _ in range(3):
        output.status(STATUS)
    output.send(event(C))
    assert len(made) == 1
    assert sounding(made[0].sent) == {(0, note) for note in voicing(C)}
    assert port.sent == []
