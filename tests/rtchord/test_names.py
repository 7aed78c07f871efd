"""What is told of the recognizer's events, and how it is spelt."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import mir_eval
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtchord.chords import NO_BASS, NO_CHORD, QUALITIES, SPELLINGS, Chord, X, class_index, lead_sheet, pitch_classes
from rtchord.events import ChordEvent
from rtchord.names import REDUCTIONS, KeySense, Naming, moved, reduced, spelling_of
from rtchord.settings import NameSettings
from train.labels import parse

QUALITY_NAMES = [quality.name for quality in QUALITIES]
SYMBOLS = st.one_of(
    st.just(NO_CHORD), st.builds(Chord, st.integers(0, X - 1), st.one_of(st.integers(0, 11), st.just(NO_BASS)))
)


def events(*labels: str, seconds: float = 2.0) -> list[ChordEvent]:
    """One event a label, `seconds` apart."""
    return [ChordEvent(i * seconds, i * seconds + 0.1, parse(label), 0.9) for i, label in enumerate(labels)]


def told(labels: list[str], **settings: object) -> list[ChordEvent]:
    naming = Naming(NameSettings(**settings))  # type: ignore[arg-type]
    return [event for event in map(naming.push, events(*labels)) if event]


def chords(labels: list[str], **settings: object) -> list[str]:
    return [event.chord for event in told(labels, **settings)]


@pytest.mark.parametrize("quality", QUALITY_NAMES)
@pytest.mark.parametrize("vocabulary", REDUCTIONS)
def test_a_reduction_is_right_by_mir_evals_rules(vocabulary: str, quality: str) -> None:
    before = f"A:{quality}"
    after = reduced(parse(before), vocabulary, True).label
    compare = mir_eval.chord
    assert compare.thirds([before], [after]) == 1
    if vocabulary == "full":
        assert after == before
    elif vocabulary == "triads":
        assert compare.triads([before], [after]) == 1
    elif vocabulary == "majmin":
        assert after in ("A:maj", "A:min")
        assert compare.majmin([before], [after]) in (1, -1)  # -1: it has no equal there
    else:
        assert compare.sevenths([before], [after]) in (1, -1)
        assert (compare.tetrads([before], [after]) == 1) != (quality in ("maj6", "min6"))


def test_each_vocabulary_is_part_of_the_one_before() -> None:
    sets = [{table.get(name, name) for name in QUALITY_NAMES} for table in REDUCTIONS.values()]
    assert [len(names) for names in sets] == [14, 12, 6, 2]
    assert all(small < large for large, small in pairwise(sets))
    for names, table in zip(sets, REDUCTIONS.values(), strict=True):
        assert all(table.get(name, name) == name for name in names)  # reducing twice changes nothing


def test_what_the_vocabulary_cannot_tell_is_no_event() -> None:
    assert chords(["C:maj", "C:7", "C:sus4", "F:maj", "F:maj7", "N"], vocabulary="majmin") == ["C:maj", "F:maj", "N"]


def test_a_bass_that_the_reduced_chord_lacks_is_the_root() -> None:
    assert chords(["C:7/b7", "C:7/3"], vocabulary="triads") == ["C:maj", "C:maj/3"]


def test_without_inversions_a_bass_that_moves_is_no_event() -> None:
    assert chords(["C:maj", "C:maj/3", "A:min/5"], bass=False) == ["C:maj", "A:min"]


def test_transposing_moves_root_and_bass() -> None:
    (event,) = told(["C:maj/3"], transpose=-2)
    assert (event.symbol.root, event.symbol.bass) == (10, 2)
    assert told(["N"], transpose=3)[0].symbol == NO_CHORD


@pytest.mark.parametrize("semitones", [-4, -1, 1, 3, 6])
def test_what_is_transposed_is_spelt_in_the_key_that_sounds(semitones: int) -> None:
    labels = ["C:maj", "A:min", "F:maj", "D:min", "G:7", "E:min"] * 3
    sounding = [replace(event, symbol=moved(event.symbol, semitones)) for event in events(*labels)]
    naming = Naming(NameSettings())
    assert told(labels, transpose=semitones) == [event for event in map(naming.push, sounding) if event]


def test_a_capo_changes_the_name_that_is_shown_and_nothing_else() -> None:
    (event,) = told(["Bb:maj/3"], capo=3)
    assert (event.name, event.chord, event.symbol) == ("G/B", "Bb:maj/3", parse("Bb:maj/3"))
    (silence,) = told(["N"], capo=3)
    assert silence.name == ""


def test_times_and_confidence_stay() -> None:
    (event,) = told(["E:min7"], transpose=5, vocabulary="triads")
    assert (event.onset, event.time, event.confidence) == (0.0, 0.1, 0.9)


@pytest.mark.parametrize(
    ("progression", "names"),
    [
        ("F:maj G:min Bb:maj C:7", "F Gm Bb C7"),
        ("Bb:maj Eb:maj F:7 G:min", "Bb Eb F7 Gm"),
        ("E:maj C#:min A:maj B:7 G#:min", "E C#m A B7 G#m"),
        ("A:maj F#:min D:maj E:7 C#:min", "A F#m D E7 C#m"),
        ("C:min Ab:maj Eb:maj Bb:maj", "Cm Ab Eb Bb"),
        ("Db:maj Bb:min Gb:maj Ab:7", "Db Bbm Gb Ab7"),
        ("B:maj G#:min E:maj F#:maj D#:min", "B G#m E F# D#m"),
        ("C:maj Ab:maj F:min F#:hdim7 G:7", "C Ab Fm F#m7b5 G7"),  # borrowed: one flat, one sharp
        ("D:maj G:maj A:7 Bb:maj", "D G A7 Bb"),
        ("F#:maj A#:min D#:min B:maj", "F# A#m D#m B"),
    ],
)
def test_auto_follows_the_key(progression: str, names: str) -> None:
    """From the second time round, when the key has been heard."""
    labels = progression.split() * 3
    assert [event.name for event in told(labels, spelling="auto")][len(labels) // 3 :] == names.split() * 2


@pytest.mark.parametrize("key", range(-5, 7))
def test_a_key_spells_from_five_fifths_below_its_tonic_to_six_above(key: int) -> None:
    """Within what is written at all: black keys from Gb (-6) to A# (10) on the line of fifths, of which C is 0."""
    names = SPELLINGS[spelling_of(key)]
    for name in names:
        place = "FCGDAEB".index(name[0]) - 1 + 7 * (name[1:] == "#") - 7 * (name[1:] == "b")
        assert place * 7 % 12 == names.index(name)
        nearest = min(max(key, -1), 4)
        assert len(name) == 1 or nearest - 5 <= place <= nearest + 6


def test_auto_starts_with_the_common_names() -> None:
    alone = [told([label], spelling="auto")[0].name for label in ("Db:maj", "Eb:maj", "F#:min", "Ab:maj", "Bb:maj")]
    assert alone == ["Db", "Eb", "F#m", "Ab", "Bb"]


def test_a_borrowed_chord_does_not_flip_the_names() -> None:
    labels = ["E:maj", "A:maj", "B:maj", "E:maj"] * 4 + ["C:maj", "D:maj", "G#:min", "C#:min"]
    assert [event.name for event in told(labels, spelling="auto")][-2:] == ["G#m", "C#m"]


def test_another_key_takes_over_when_it_lasts() -> None:
    labels = ["E:maj", "A:maj", "B:maj"] * 4 + ["Ab:maj", "Db:maj", "Eb:maj"] * 12
    assert [event.name for event in told(labels, spelling="auto")][-3:] == ["Ab", "Db", "Eb"]


def test_another_key_takes_over_within_a_minute_however_long_the_first_one_was() -> None:
    labels = ["E:maj", "A:maj", "B:maj"] * 40 + ["Ab:maj", "Db:maj", "Eb:maj"] * 10
    assert [event.name for event in told(labels, spelling="auto")][-3:] == ["Ab", "Db", "Eb"]


def test_a_chord_counts_for_the_key_when_it_begins() -> None:
    assert KeySense().push(0.0, pitch_classes(class_index(4, "maj"))) == 3, "A: the nearest of those with E, G# and B"


def test_the_shape_is_spelt_in_its_own_key() -> None:
    """Eb, Ab, Bb with a capo at 1 are D, G, A, with F#m and not Gbm between them."""
    shown = told(["Eb:maj", "Ab:maj", "Bb:maj", "G:min"] * 3, capo=1)
    assert [event.name for event in shown][-4:] == ["D", "G", "A", "F#m"]
    assert [event.chord for event in shown][-4:] == ["Eb:maj", "Ab:maj", "Bb:maj", "G:min"]


@pytest.mark.parametrize("capo", range(1, 12))
@pytest.mark.parametrize("key", range(12))
def test_shapes_are_spelt_as_they_would_be_if_they_sounded(key: int, capo: int) -> None:
    labels = ["C:maj", "A:min", "F:maj", "D:min7", "G:7", "E:min"] * 3 + ["Ab:maj", "F#:hdim7", "C:maj/3"]

    def heard(semitones: int) -> list[ChordEvent]:
        return [replace(event, symbol=moved(event.symbol, semitones)) for event in events(*labels)]

    capoed, plain = Naming(NameSettings(capo=capo)), Naming(NameSettings())
    shapes = [event.name for event in map(capoed.push, heard(key)) if event]
    sounding = [event.name for event in map(plain.push, heard(key - capo)) if event]
    assert shapes[6:] == sounding[6:]  # from the second time round, when the key has been heard


@pytest.mark.parametrize(("spelling", "sign"), [("sharps", "#"), ("flats", "b")])
def test_fixed_spellings_use_one_sign(spelling: str, sign: str) -> None:
    labels = ["Db:maj", "Eb:maj", "F#:maj", "Ab:maj", "Bb:maj"]
    assert all(event.chord[1] == sign == event.name[1] for event in told(labels, spelling=spelling))


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("C:maj", "C"), ("A:min", "Am"), ("B:dim", "Bdim"), ("C:aug", "Caug"), ("A:min6", "Am6"), ("C:maj6", "C6"),
        ("A:min7", "Am7"), ("A:minmaj7", "Am(maj7)"), ("C:maj7", "Cmaj7"), ("G:7", "G7"), ("B:dim7", "Bdim7"),
        ("B:hdim7", "Bm7b5"), ("D:sus2", "Dsus2"), ("D:sus4", "Dsus4"), ("C:maj/3", "C/E"), ("A:maj/3", "A/C#"),
        ("C:min/b3", "Cm/Eb"), ("F:min/b3", "Fm/Ab"), ("Ab:min/b3", "Abm/B"), ("N", ""), ("X", ""),
    ],
)  # fmt: skip
def test_lead_sheet_names(label: str, name: str) -> None:
    assert lead_sheet(parse(label)) == name


@given(SYMBOLS, st.integers(0, 5))
def test_a_lead_sheet_name_means_its_chord(symbol: Chord, sharps: int) -> None:
    """Read back: root and bass by mir_eval, plain ASCII, no empty name but N's."""
    name = lead_sheet(symbol, sharps)
    assert name.isascii()
    if symbol.root < 0:
        assert name == ""
        return
    head, _, bass = name.partition("/")
    root = head[:2] if head[1:2] in ("#", "b") else head[:1]
    pitch = mir_eval.chord.pitch_class_to_semitone
    assert pitch(root) == symbol.root
    assert pitch(bass or root) % 12 == (symbol.root if symbol.bass == NO_BASS else symbol.bass)
    assert parse(symbol.spelt(sharps)) == parse(symbol.label)


@given(st.lists(SYMBOLS), st.sampled_from(sorted(REDUCTIONS)), st.booleans(), st.integers(-11, 11), st.integers(0, 11))
def test_nothing_is_told_twice_and_every_name_is_a_label(
    symbols: list[Chord], vocabulary: str, bass: bool, transpose: int, capo: int
) -> None:
    settings = NameSettings(vocabulary=vocabulary, bass=bass, transpose=transpose, capo=capo)  # type: ignore[arg-type]
    naming = Naming(settings)
    heard = [ChordEvent(float(i), float(i), symbol, 0.5) for i, symbol in enumerate(symbols)]
    shown = [event for event in map(naming.push, heard) if event]
    assert all(a.symbol != b.symbol for a, b in pairwise(shown))
    for event in shown:
        mir_eval.chord.validate_chord_label(event.chord)
    assert bool(shown) == bool(symbols)


def test_equal_events_give_equal_names() -> None:
    labels = ["E:maj", "C#:min", "Ab:maj", "Db:min", "B:7"] * 5
    assert told(labels) == told(labels)


def test_moving_up_and_down_again_changes_nothing() -> None:
    symbol = Chord(class_index(3, "min7"), 10)
    assert moved(moved(symbol, 7), -7) == symbol
