"""The vocabulary against mir_eval's reading of Harte labels."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest

from rtchord import chords
from rtchord.chords import NO_BASS, NO_CHORD, Chord, N, X, chord_with_bass, class_index, pitch_classes, transpose
from train.labels import parse

CLASSES = range(X)


def test_every_class_with_every_bass_is_read_back_from_its_label() -> None:
    symbols = [Chord(index, bass) for index in CLASSES for bass in range(12)]
    assert [parse(symbol.label) for symbol in symbols] == symbols


@pytest.mark.parametrize("index", [X, N])
def test_rootless_classes_are_read_back_from_their_label(index: int) -> None:
    assert parse(Chord(index, NO_BASS).label) == Chord(index, NO_BASS)


def test_every_label_is_valid_for_mir_eval() -> None:
    for index in range(chords.N_CLASSES):
        for bass in range(chords.N_BASS):
            mir_eval.chord.validate_chord_label(Chord(index, bass).label)


def test_pitch_classes_equal_the_bitmaps_of_mir_eval() -> None:
    for index in CLASSES:
        root, bitmap, _ = mir_eval.chord.encode(Chord(index, NO_BASS).label)
        assert set(pitch_classes(index)) == {(root + tone) % 12 for tone in np.flatnonzero(bitmap)}


def test_a_rootless_class_has_no_pitch_classes() -> None:
    assert (pitch_classes(X), pitch_classes(N)) == ((), ())


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("C:min", 0),
        ("C:maj", 1),
        ("C:dim", 2),
        ("C:aug", 3),
        ("C:min6", 4),
        ("C:maj6", 5),
        ("C:min7", 6),
        ("C:minmaj7", 7),
        ("C:maj7", 8),
        ("C:7", 9),
        ("C:dim7", 10),
        ("C:hdim7", 11),
        ("C:sus2", 12),
        ("C:sus4", 13),
        ("Db:min", 14),
        ("B:sus4", 167),
        ("X", 168),
        ("N", 169),
    ],
)
def test_classes_stand_in_the_published_order(label: str, index: int) -> None:
    assert Chord(index, NO_BASS).label == label


def test_class_index_undoes_root_and_quality() -> None:
    symbols = [Chord(index, NO_BASS) for index in CLASSES]
    assert [class_index(symbol.root, symbol.quality) for symbol in symbols] == list(CLASSES)


def test_a_bass_on_the_root_is_not_written() -> None:
    assert Chord(class_index(0, "maj"), 0).label == "C:maj"


def test_an_inversion_is_written_as_a_degree() -> None:
    assert Chord(class_index(9, "min7"), 7).label == "A:min7/b7"


@pytest.mark.parametrize("bass", [0, 4, 7, 11])
def test_a_chord_tone_is_kept_as_bass(bass: int) -> None:
    assert chord_with_bass(class_index(0, "maj7"), bass).bass == bass


@pytest.mark.parametrize("bass", [1, 2, 9, NO_BASS])
def test_a_bass_outside_the_chord_counts_as_the_root(bass: int) -> None:
    assert chord_with_bass(class_index(0, "maj7"), bass).bass == 0


def test_no_chord_has_no_bass() -> None:
    assert chord_with_bass(N, 4) == NO_CHORD


def test_transposition_moves_root_and_keeps_quality() -> None:
    for index in CLASSES:
        for semitones in (-13, -1, 0, 5, 12):
            moved = Chord(transpose(index, semitones), NO_BASS)
            here = Chord(index, NO_BASS)
            assert (moved.root, moved.quality) == ((here.root + semitones) % 12, here.quality)


def test_transposition_leaves_rootless_classes_alone() -> None:
    assert (transpose(X, 5), transpose(N, -5)) == (X, N)
