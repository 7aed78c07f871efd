from __future__ import annotations

import pytest

from rtchord.chords import N_BASS, NO_BASS, NO_CHORD, Chord, X, chord_with_bass, class_index, pitch_classes
from rtchord.events import ChordEvent
from rtchord.outputs import midi
from rtchord.outputs.midi import MidiOutput, change, release, velocity, voicing

C = chord_with_bass(class_index(0, "maj"), 0)
C_OVER_E = chord_with_bass(class_index(0, "maj"), 4)
A_MIN7 = chord_with_bass(class_index(9, "min7"), 9)
EVERY_CHORD = list(dict.fromkeys(chord_with_bass(index, bass) for index in range(X) for bass in range(N_BASS)))


def golden(messages: object) -> str:
    return " ".join(message.hex() for message in messages)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("chord", "notes"),
    [
        (C, (36, 48, 52, 55)),
        (C_OVER_E, (40, 48, 52, 55)),
        (A_MIN7, (45, 57, 60, 64, 67)),
        (chord_with_bass(class_index(11, "maj7"), 6), (42, 59, 63, 66, 70)),
        (Chord(class_index(7, "sus4"), NO_BASS), (43, 55, 60, 62)),
        (NO_CHORD, ()),
        (Chord(X, NO_BASS), ()),
    ],
)
def test_voicing(chord: Chord, notes: tuple[int, ...]) -> None:
    assert voicing(chord) == notes


def test_every_voicing_holds_the_bass_and_every_tone_in_close_root_position() -> None:
    for chord in EVERY_CHORD:
        bass, *tones = voicing(chord)
        assert 36 <= bass <= 47, chord
        assert bass % 12 == chord.bass, chord
        assert 48 <= tones[0] <= 59, chord
        assert max(tones) <= 71, chord
        assert tones == sorted(tones), chord
        assert tuple(tone % 12 for tone in tones) == pitch_classes(chord.index), chord
        assert len(tones) >= 3, chord


def test_no_two_chords_share_a_voicing() -> None:
    assert len({voicing(chord) for chord in EVERY_CHORD}) == len(EVERY_CHORD)


def test_first_chord_is_note_ons() -> None:
    assert golden(change((), voicing(C), 0, 100)) == "902464 903064 903464 903764"


def test_change_ends_the_old_chord_before_it_begins_the_new() -> None:
    messages = change(voicing(C), voicing(A_MIN7), 0, 127)
    assert golden(messages) == "802400 803000 803400 803700 902d7f 90397f 903c7f 90407f 90437f"


def test_no_chord_only_ends_notes() -> None:
    assert golden(change(voicing(C_OVER_E), voicing(NO_CHORD), 15, 90)) == "8f2800 8f3000 8f3400 8f3700"


def test_release_ends_each_note_then_says_all_notes_off() -> None:
    assert golden(release(voicing(C), 2)) == "822400 823000 823400 823700 b27b00"
    assert golden(release((), 9)) == "b97b00"


@pytest.mark.parametrize(
    ("confidence", "value"), [(0.0, 40), (1.0, 127), (0.5, 84), (-3.0, 40), (7.0, 127), (float("nan"), 40)]
)
def test_velocity(confidence: float, value: int) -> None:
    assert velocity(confidence) == value


class Port:
    """Stands where rtmidi's port stands; `fail_at` is the number of the message that goes wrong."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fail_at: int | None = None
        self.error: BaseException = OSError("cable")
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
    monkeypatch.setattr(midi, "_virtual_port", lambda _prefer: (made, "test"))
    return made


def event(chord: Chord, confidence: float = 1.0) -> ChordEvent:
    return ChordEvent(0.0, 0.0, chord, confidence)


def sounding(messages: list[bytes]) -> set[tuple[int, int]]:
    held: set[tuple[int, int]] = set()
    for status, note, _ in messages:
        if status & 0xF0 == 0x90:
            held.add((status & 15, note))
        elif status & 0xF0 == 0x80:
            held.discard((status & 15, note))
    return held


def test_output_holds_one_chord_at_a_time(port: Port) -> None:
    output = MidiOutput(channel=3)
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


@pytest.mark.parametrize("where", range(9))
def test_interrupted_anywhere_in_a_change_it_still_releases_every_note(port: Port, where: int) -> None:
    output = MidiOutput()
    output.send(event(C))
    port.fail_at, port.error = len(port.sent) + where, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        output.send(event(A_MIN7))
    output.close()
    assert sounding(port.sent) == set()


def test_a_failing_port_is_reported_once_and_does_not_raise(port: Port) -> None:
    said: list[str] = []
    output = MidiOutput(report=said.append)
    for _ in range(2):
        port.fail_at = len(port.sent)
        output.send(event(C))
    assert len(said) == 1
    assert "cable" in said[0]
