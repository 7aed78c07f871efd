"""The test set that needs no data: even, exact, the same everywhere."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.charts import (
    FONT,
    GROUPS,
    LABELS,
    Group,
    chords_of,
    digest,
    drop2,
    four_parts,
    moved,
    own_inversions,
    pieces,
    shape,
    sound,
    two_hands,
)
from rtchord.chords import NO_CHORD, QUALITIES, QUALITY_INDEX, X, pitch_classes
from rtchord.errors import UserError
from train.labels import at_times
from train.render import SOUNDFONTS, Piece

PIECES = pieces(0)
CHORDS = [chord for group in range(len(GROUPS)) for chord in chords_of(group, 0)]


def test_the_labels_are_those_that_are_pinned() -> None:
    assert digest(PIECES) == LABELS


def test_every_chord_sounds_six_times() -> None:
    assert Counter(chord.index for chord in CHORDS) == dict.fromkeys(range(X), 6)
    played = [c for piece in PIECES.values() for _, _, c in piece.segments if c != NO_CHORD]
    assert Counter(played) == Counter(CHORDS)


def test_a_third_of_the_chords_that_can_be_are_inverted_and_no_inversion_has_another_name() -> None:
    for number, quality in enumerate(QUALITIES):
        basses = [(c.bass - c.root) % 12 for c in CHORDS if c.quality == quality.name]
        inverted = [bass for bass in basses if bass]
        assert len(inverted) == (len(basses) / 3 if own_inversions(number) else 0)
        assert set(inverted) == set(own_inversions(number))
    assert own_inversions(QUALITY_INDEX["maj6"]) == [4, 7]  # C:maj6/6 is A:min7
    assert own_inversions(QUALITY_INDEX["dim7"]) == []


def test_it_lasts_about_half_an_hour_in_24_pieces() -> None:
    assert len(PIECES) == 24
    assert 20 * 60 < sum(piece.duration for piece in PIECES.values()) < 30 * 60


@pytest.mark.parametrize("voicing", [shape, two_hands, drop2, four_parts])
def test_a_voicing_sounds_the_chord_and_nothing_else(voicing) -> None:
    rng = np.random.default_rng(0)
    for chord in dict.fromkeys(CHORDS):
        for _ in range(3):
            notes = voicing(rng, chord)
            assert {note % 12 for note in notes} == set(pitch_classes(chord.index)), chord.label
            assert min(notes) % 12 == chord.bass, chord.label
            assert notes == sorted(set(notes))
            assert notes[0] >= 28
            assert notes[-1] <= 96


def accompaniment(piece: Piece) -> list[tuple[float, float, int]]:
    return [(note.start, note.end, note.pitch) for note in piece.midi.instruments[0].notes]


@pytest.mark.parametrize("name", PIECES)
def test_chords_begin_exactly_at_their_labels_and_never_sound_under_another(name: str) -> None:
    piece = PIECES[name]
    notes = accompaniment(piece)
    for start, end, chord in piece.segments:
        inside = [(a, b, p) for a, b, p in notes if start - 1e-9 <= a < end - 1e-9]
        if chord == NO_CHORD:
            assert not inside
            continue
        assert min(a for a, _, _ in inside) == pytest.approx(start, abs=1e-9)
        assert max(b for _, b, _ in inside) <= end + 1e-9
        assert {p % 12 for _, _, p in inside} <= set(pitch_classes(chord.index))


def test_another_key_is_the_same_music() -> None:
    piece = PIECES["band-96"]
    other = moved(piece, 5)
    assert [(a, b, p + 5) for a, b, p in accompaniment(piece)] == accompaniment(other)
    drums = [[note.pitch for part in p.midi.instruments if part.is_drum for note in part.notes] for p in (piece, other)]
    assert drums[0] == drums[1]
    for (_, _, before), (_, _, after) in zip(piece.segments, other.segments, strict=True):
        assert {(tone + 5) % 12 for tone in pitch_classes(before.index)} == set(pitch_classes(after.index))
        assert (before == NO_CHORD) == (after == NO_CHORD)
        assert before == NO_CHORD or (before.bass + 5) % 12 == after.bass


def test_a_missing_soundfont_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.sf3.*apt-get"):
        sound(PIECES["piano-72"], "piano-72", 0, tmp_path / "nowhere.sf3")


def test_what_sounds_is_what_is_labelled() -> None:
    """The strongest tones of a held chord are its own, its attack lies on its label."""
    font = next((font for font in (SOUNDFONTS[1], *SOUNDFONTS, FONT) if font.exists()), None)  # the smallest
    if font is None or not shutil.which("fluidsynth"):
        pytest.skip("no fluidsynth with a soundfont")
    whole = PIECES["organ-pad-152"]
    end = whole.segments[4][1]
    piece = Piece(whole.midi, whole.segments[:4], end)
    audio = sound(piece, "organ-pad-152", 0, font)
    assert audio.size == int(end * 44_100)
    start = piece.segments[1][0]
    assert np.abs(audio[: round((start - 0.01) * 44_100)]).max() < 0.01
    assert np.abs(audio[round(start * 44_100) : round((start + 0.1) * 44_100)]).max() > 0.05
    assert at_times(piece.segments, np.array([start + 0.01]))[0][0] == piece.segments[1][2].index


def test_the_groups_differ() -> None:
    assert len({group.name for group in GROUPS}) == 6
    assert all(isinstance(group, Group) and len(group.patterns) == 4 for group in GROUPS)
