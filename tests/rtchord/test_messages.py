"""Every MIDI encoder against bytes written by hand or by a manufacturer."""

from __future__ import annotations

from collections import Counter

import pytest

from rtchord.chords import (
    COMMON,
    FLATS,
    N_BASS,
    NO_BASS,
    NO_CHORD,
    QUALITIES,
    SHARPS,
    Chord,
    X,
    chord_with_bass,
    class_index,
    pitch_classes,
)
from rtchord.outputs.messages import (
    VOICINGS,
    change,
    helicon,
    panic,
    release,
    velocity,
    voicing,
    yamaha_chord,
    yamaha_control,
)


def chord(root: int, quality: str, bass: int = NO_BASS) -> Chord:
    return chord_with_bass(class_index(root, quality), root if bass == NO_BASS else bass)


C = chord(0, "maj")
C_OVER_E = chord(0, "maj", 4)
A_MIN7 = chord(9, "min7")
UNKNOWN = Chord(X, NO_BASS)
EVERY_CHORD = list(dict.fromkeys(chord_with_bass(index, bass) for index in range(X) for bass in range(N_BASS)))


def golden(messages: object) -> str:
    return " ".join(message.hex() for message in messages)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("symbol", "notes"),
    [
        (C, (36, 48, 52, 55)),
        (C_OVER_E, (40, 48, 52, 55)),
        (A_MIN7, (45, 57, 60, 64, 67)),
        (chord(11, "maj7", 6), (42, 59, 63, 66, 70)),
        (Chord(class_index(7, "sus4"), NO_BASS), (43, 55, 60, 62)),
        (NO_CHORD, ()),
        (UNKNOWN, ()),
    ],
)
def test_full_voicing(symbol: Chord, notes: tuple[int, ...]) -> None:
    assert voicing(symbol) == notes


@pytest.mark.parametrize(
    ("kind", "quality", "notes"),
    [
        ("bass+triad", "maj7", (40, 48, 52, 55)),
        ("triad", "maj7", (48, 52, 55)),
        ("root", "maj7", (48,)),
        ("triad", "min", (48, 51, 55)),
        ("triad", "dim7", (48, 51, 54)),
        ("triad", "hdim7", (48, 51, 54)),
        ("triad", "aug", (48, 52, 56)),
        ("triad", "sus2", (48, 50, 55)),
        ("triad", "sus4", (48, 53, 55)),
        ("triad", "min6", (48, 51, 55)),
    ],
)
def test_smaller_voicings(kind: str, quality: str, notes: tuple[int, ...]) -> None:
    assert voicing(chord(0, quality, 4), kind) == notes


def test_every_full_voicing_holds_the_bass_and_every_tone_in_close_root_position() -> None:
    for symbol in EVERY_CHORD:
        bass, *tones = voicing(symbol)
        assert 36 <= bass <= 47, symbol
        assert bass % 12 == symbol.bass, symbol
        assert 48 <= tones[0] <= 59, symbol
        assert max(tones) <= 71, symbol
        assert tones == sorted(tones), symbol
        assert tuple(tone % 12 for tone in tones) == pitch_classes(symbol.index), symbol


@pytest.mark.parametrize("kind", VOICINGS)
def test_no_voicing_has_a_note_twice_or_lacks_the_third(kind: str) -> None:
    for symbol in EVERY_CHORD:
        notes = voicing(symbol, kind)
        assert len(set(notes)) == len(notes) <= {"full": 5, "bass+triad": 4, "triad": 3, "root": 1}[kind]
        third = pitch_classes(symbol.index)[1]
        assert kind == "root" or third in {note % 12 for note in notes}


@pytest.mark.parametrize("kind", VOICINGS)
@pytest.mark.parametrize("octave", range(8))
def test_every_octave_that_can_be_set_stays_within_midi(kind: str, octave: int) -> None:
    for symbol in EVERY_CHORD:
        assert all(0 <= note <= 127 for note in voicing(symbol, kind, octave))
        moved = [note + 12 * (octave - 3) for note in voicing(symbol, kind)]
        assert list(voicing(symbol, kind, octave)) == moved


def test_no_two_chords_share_a_full_voicing() -> None:
    assert len({voicing(symbol) for symbol in EVERY_CHORD}) == len(EVERY_CHORD)


def test_first_chord_is_note_ons() -> None:
    assert golden(change((), voicing(C), 0, 100)) == "902464 903064 903464 903764"


def test_change_ends_the_old_chord_before_it_begins_the_new() -> None:
    messages = change(voicing(C), voicing(A_MIN7), 0, 127)
    assert golden(messages) == "802400 803000 803400 803700 902d7f 90397f 903c7f 90407f 90437f"


def test_a_note_that_both_chords_have_is_struck_again() -> None:
    assert golden(change((48, 52, 55), (48, 53, 57), 0, 64)) == "803000 803400 803700 903040 903540 903940"


def test_tie_leaves_common_notes_alone() -> None:
    assert golden(change((48, 52, 55), (48, 53, 57), 2, 64, tie=True)) == "823400 823700 923540 923940"


@pytest.mark.parametrize("tie", [False, True])
def test_the_same_notes_are_not_struck_again(tie: bool) -> None:
    """C and C7 as triads: what changed cannot be heard."""
    assert golden(change((48, 52, 55), (48, 52, 55), 0, 64, tie)) == ""


def test_a_tied_session_leaves_sounding_exactly_the_last_chord() -> None:
    held: Counter[int] = Counter()
    before: tuple[int, ...] = ()
    for symbol in [*EVERY_CHORD, NO_CHORD, C]:
        for status, note, _ in change(before, voicing(symbol), 0, 64, tie=True):
            held[note] += 1 if status == 0x90 else -1
            assert held[note] in (0, 1), "struck twice, or ended without having begun"
        before = voicing(symbol)
    assert {note for note, count in held.items() if count} == set(voicing(C))


def test_no_chord_only_ends_notes() -> None:
    assert golden(change(voicing(C_OVER_E), voicing(NO_CHORD), 15, 90)) == "8f2800 8f3000 8f3400 8f3700"


def test_release_ends_each_note_then_says_all_notes_off() -> None:
    assert golden(release(voicing(C), 2)) == "822400 823000 823400 823700 b27b00"
    assert golden(release((), 9)) == "b97b00"


def test_panic_ends_every_note_of_every_channel() -> None:
    messages = list(panic())
    assert len(messages) == 16 * (128 + 3)
    assert {tuple(message[:2]) for message in messages if message[0] < 0x90} == {
        (0x80 | channel, note) for channel in range(16) for note in range(128)
    }
    assert golden(messages[:2]) == "800000 800100"
    assert golden(messages[128:131]) == "b04000 b07b00 b07800"
    assert golden(messages[-3:]) == "bf4000 bf7b00 bf7800"


@pytest.mark.parametrize(
    ("confidence", "value"), [(0.0, 40), (1.0, 127), (0.5, 84), (-3.0, 40), (7.0, 127), (float("nan"), 40)]
)
def test_velocity(confidence: float, value: int) -> None:
    assert velocity(confidence) == value


def test_yamaha_chord_control_is_byte_for_byte_that_of_the_manual() -> None:
    assert yamaha_control(A_MIN7, COMMON).hex() == "f0437e02360a7f7ff7"  # PLG100-VH


@pytest.mark.parametrize(
    ("quality", "code"),
    [
        ("maj", 0x00), ("min", 0x08), ("dim", 0x11), ("aug", 0x07), ("min6", 0x09), ("maj6", 0x01), ("min7", 0x0A),
        ("minmaj7", 0x0F), ("maj7", 0x02), ("7", 0x13), ("dim7", 0x12), ("hdim7", 0x0B), ("sus2", 0x21),
        ("sus4", 0x20),
    ],
)  # fmt: skip
def test_yamaha_type_of_every_quality(quality: str, code: int) -> None:
    assert yamaha_chord(chord(0, quality), COMMON) == bytes((0x31, code, 0x7F, 0x7F))


def test_yamaha_roots_as_they_are_spelt() -> None:
    def roots(sharps: int) -> str:
        return bytes(yamaha_chord(chord(root, "maj"), sharps)[0] for root in range(12)).hex(" ")

    assert roots(SHARPS) == "31 41 32 42 33 34 44 35 45 36 46 37"
    assert roots(FLATS) == "31 22 32 23 33 34 25 35 26 36 27 37"
    assert roots(COMMON) == "31 22 32 23 33 34 44 35 26 36 27 37"


@pytest.mark.parametrize(
    ("symbol", "sharps", "code"),
    [
        (C_OVER_E, COMMON, "31 00 33 7f"),
        (chord(2, "7", 6), SHARPS, "32 13 44 7f"),  # D7/F#
        (chord(2, "7", 6), FLATS, "32 13 44 7f"),  # a third above D is an F#, however black keys are written
        (chord(8, "min", 11), FLATS, "26 08 37 7f"),
        (chord(10, "min7", 8), FLATS, "27 0a 26 7f"),  # Bbm7/Ab
        (NO_CHORD, COMMON, "31 22 7f 7f"),
        (UNKNOWN, COMMON, "31 22 7f 7f"),
    ],
)
def test_yamaha_bass_and_cancel(symbol: Chord, sharps: int, code: str) -> None:
    assert yamaha_chord(symbol, sharps).hex(" ") == code


def test_every_yamaha_chord_reads_back() -> None:
    """By the layout alone: 0fffnnnn, fff 3 natural, nnnn 1 for C."""

    def pitch(code: int) -> int:
        return ((0, 2, 4, 5, 7, 9, 11)[(code & 15) - 1] + (code >> 4) - 3) % 12

    for symbol in EVERY_CHORD:
        for sharps in range(6):
            root, _, bass, bass_type = yamaha_chord(symbol, sharps)
            assert pitch(root) == symbol.root
            assert (symbol.root if bass == 0x7F else pitch(bass)) == symbol.bass
            assert bass_type == 0x7F
            assert all(byte < 0x80 for byte in (root, bass))


def test_helicon_controllers_are_those_of_the_manual() -> None:
    assert golden(helicon(chord(0, "maj7"), 0)) == "b07611 b07511"  # C-E-G-B: 118:17, 117:17


@pytest.mark.parametrize(
    ("symbol", "channel", "messages"),
    [
        (C, 0, "b07611 b07510"),
        (C_OVER_E, 15, "bf7611 bf7510"),
        (chord(6, "maj"), 0, "b07608 b07522"),  # F# A# C#
        (chord(5, "dim7"), 0, "b07604 b07549"),  # F Ab B D
        (NO_CHORD, 0, "b07600 b07500"),
        (UNKNOWN, 0, "b07600 b07500"),
    ],
)
def test_helicon_masks(symbol: Chord, channel: int, messages: str) -> None:
    assert golden(helicon(symbol, channel)) == messages


def test_helicon_tells_every_quality_apart() -> None:
    """But those that have the same tones: maj6 and min7 a third lower, min6 and hdim7, the symmetrical ones."""
    masks = {(root, quality.name): golden(helicon(chord(root, quality.name), 0)) for root in range(12)
             for quality in QUALITIES}  # fmt: skip
    tones = {key: frozenset(pitch_classes(class_index(*key))) for key in masks}
    assert len(set(masks.values())) == len(set(tones.values()))
