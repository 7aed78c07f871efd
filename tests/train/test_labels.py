from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest

from rtchord.chords import NO_BASS, NO_CHORD, Chord, N, X, class_index
from rtchord.errors import UserError
from train.labels import Segment, at_times, parse, read_lab

C_MAJ = parse("C:maj")


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("C", "C:maj"),
        ("Gb:7", "F#:7"),
        ("C:9", "C:7"),
        ("C:maj9", "C:maj7"),
        ("C:min11", "C:min7"),
        ("C:13", "C:7"),
        ("C:sus4(b7)", "C:sus4"),
        ("C:maj(9)", "C:maj"),
        ("C:min(7)", "C:minmaj7"),
        ("C:maj(6)", "C:maj6"),
        ("C:min7/b7", "C:min7/b7"),
        ("C:maj/3", "C:maj/3"),
        ("C/5", "C:maj/5"),
        ("A:hdim7/b5", "A:hdim7/b5"),
        ("C:maj/2", "C:maj/2"),
        ("B#:min", "C:min"),
        ("N", "N"),
        ("X", "X"),
    ],
)
def test_a_label_is_read_as_its_class_and_bass(label: str, meaning: str) -> None:
    assert parse(label).label == meaning


@pytest.mark.parametrize("label", ["C:5", "C:1", "C:maj(*3)", "C:(1,b2,b3)"])
def test_a_chord_outside_the_vocabulary_is_unknown(label: str) -> None:
    assert parse(label) == Chord(X, NO_BASS)


def test_no_chord_is_not_unknown() -> None:
    assert (parse("N"), parse("X")) == (Chord(N, NO_BASS), Chord(X, NO_BASS))


@pytest.mark.parametrize("label", ["H:maj", "C:major", "C:maj/", "", "c"])
def test_what_is_no_harte_label_is_refused(label: str) -> None:
    with pytest.raises(mir_eval.chord.InvalidChordException):
        parse(label)


def lab(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "song.lab"
    path.write_text(text)
    return path


def test_a_lab_file_is_read_as_segments(tmp_path: Path) -> None:
    path = lab(tmp_path, "0.0\t1.5\tN\n1.5 2.25 C:maj/3\n\n2.25  4  A:min7\n")
    assert read_lab(path) == [(0.0, 1.5, NO_CHORD), (1.5, 2.25, parse("C:maj/3")), (2.25, 4.0, parse("A:min7"))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1.0 2.0", "not `start end chord`"),
        ("1.0 two C:maj", "not `start end chord`"),
        ("1.0 2.0 H:maj", "not `start end chord`"),
        ("2.0 1.0 C:maj", "overlap or run backwards"),
        ("1.0 1.0 C:maj", "overlap or run backwards"),
        ("0.5 2.0 C:maj", "overlap or run backwards"),
        ("nan 2.0 C:maj", "overlap or run backwards"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"song\.lab, line 2: .*{reason}"):
        read_lab(lab(tmp_path, f"0.0 1.0 N\n{line}\n"))


def test_an_empty_lab_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"song\.lab holds no chords"):
        read_lab(lab(tmp_path, "\n"))


def test_a_lab_file_written_with_our_labels_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    ends = np.arange(1, 201) * 0.25
    segments: list[Segment] = [
        (end - 0.25, end, Chord(int(index), int(index) // 14 if rng.random() < 0.5 else int(rng.integers(12))))
        for end, index in zip(ends.tolist(), rng.integers(0, X, 200), strict=True)
    ]
    text = "".join(f"{start:.6f}\t{end:.6f}\t{chord.label}\n" for start, end, chord in segments)
    assert read_lab(lab(tmp_path, text)) == segments


def test_mir_eval_reads_the_same_lab_file_the_same_way(tmp_path: Path) -> None:
    path = lab(tmp_path, "0.0\t1.5\tN\n1.5\t4.0\tC:maj/3\n")
    intervals, labels = mir_eval.io.load_labeled_intervals(str(path))
    assert [(a, b, parse(label)) for (a, b), label in zip(intervals.tolist(), labels, strict=True)] == read_lab(path)


def test_at_times_takes_the_segment_that_has_begun() -> None:
    segments: list[Segment] = [(0.0, 1.0, NO_CHORD), (1.0, 2.0, C_MAJ), (2.0, 3.0, parse("D:min/b3"))]
    classes, basses = at_times(segments, np.array([0.0, 0.999, 1.0, 1.999, 2.0, 2.999]))
    assert classes.tolist() == [N, N, C_MAJ.index, C_MAJ.index, class_index(2, "min"), class_index(2, "min")]
    assert basses.tolist() == [NO_BASS, NO_BASS, 0, 0, 5, 5]


def test_at_times_gives_no_chord_outside_every_segment() -> None:
    segments: list[Segment] = [(1.0, 2.0, C_MAJ), (3.0, 4.0, C_MAJ)]
    classes, basses = at_times(segments, np.array([0.5, 2.5, 4.0, 99.0]))
    assert (classes.tolist(), basses.tolist()) == ([N] * 4, [NO_BASS] * 4)
