from __future__ import annotations

from pathlib import Path

import mir_eval
import numpy as np
import pytest

from rtchord.chords import NO_BASS, NO_CHORD, Chord, N, X, class_index
from rtchord.errors import UserError
from train.labels import Segment, at_times, parse, read_labels

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


def lab(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "song.lab"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(tmp_path: Path, content: str | bytes) -> tuple[list[tuple[float, float, str]], dict[str, int]]:
    """(start, end, label as mended) of each segment, and what was mended."""
    found = read_labels(lab(tmp_path, content))
    assert [chord for *_, chord in found.segments] == [parse(name) for name in found.names]
    return [(a, b, name) for (a, b, _), name in zip(found.segments, found.names, strict=True)], found.mended


def test_a_lab_file_is_read_as_segments(tmp_path: Path) -> None:
    found = read_labels(lab(tmp_path, "0.0\t1.5\tN\n1.5 2.25 C:maj/3\n\n2.25  4  A:min7\n"))
    assert found.segments == [(0.0, 1.5, NO_CHORD), (1.5, 2.25, parse("C:maj/3")), (2.25, 4.0, parse("A:min7"))]
    assert (found.names, found.mended, found.told) == (["N", "C:maj/3", "A:min7"], {}, "")


# --- what is mended ---------------------------------------------------------------------------------------------------

PLAIN = "0.0\t4.0\tN\n4.0\t9.0\tC:maj(9,11)/3\n"
READ = [(0.0, 4.0, "N"), (4.0, 9.0, "C:maj(9,11)/3")]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN, PLAIN.replace("\n", "\r\n"), PLAIN.replace("\n", "\r"), PLAIN.replace("\t", "  "), PLAIN + "\n \n\n",
        PLAIN.replace("\n", "\t\n"), PLAIN.replace("\t", "\u00a0"), PLAIN.replace("0.0", "-0.0"), PLAIN.rstrip(),
        "0.0 4.0005 N\n4.0 9.0 C:maj(9,11)/3\n", "0.0 3.9995 N\n4.0 9.0 C:maj(9,11)/3\n",
    ],
)  # fmt: skip
def test_white_space_line_ends_and_roundings_are_no_faults(tmp_path: Path, text: str) -> None:
    found, mended = rows(tmp_path, text)
    assert [(start, pytest.approx(end, abs=1e-3), name) for start, end, name in READ] == found
    assert mended == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_taken_off(tmp_path: Path, encoding: str) -> None:
    assert rows(tmp_path, PLAIN.encode(encoding)) == (READ, {"byte order mark": 1})


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-be"])
def test_a_mark_may_stand_with_its_high_byte_first(tmp_path: Path, encoding: str) -> None:
    assert rows(tmp_path, ("\ufeff" + PLAIN).encode(encoding)) == (READ, {"byte order mark": 1})


def test_a_comment_in_latin_1_costs_nothing(tmp_path: Path) -> None:
    found, mended = rows(tmp_path, f"# für Ärzte\n{PLAIN}# ende\n".encode("latin-1"))
    assert (found, mended) == (READ, {"text that is not UTF-8": 1, "comment": 2})


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\t", ","), PLAIN.replace("\t", "; "), PLAIN.replace("\t", " , "), PLAIN.replace("\n", ",\n"),
        '"0.0","4.0","N"\n"4.0","9.0","C:maj(9,11)/3"\n', '0.0;4.0;"N";\n4.0,9.0\t"C:maj(9,11)/3"\n',
    ],
)  # fmt: skip
def test_columns_may_stand_apart_as_in_a_spreadsheet(tmp_path: Path, text: str) -> None:
    assert rows(tmp_path, text) == (READ, {"row with commas, semicolons or quotes": 2})


@pytest.mark.parametrize("heading", ["start end chord", "Start_Time (s)\tEnd Time [sec]\tLabel", "onset,offset,value"])
def test_a_heading_is_left_out(tmp_path: Path, heading: str) -> None:
    assert rows(tmp_path, f"# of a song\n{heading}\n{PLAIN}") == (READ, {"heading": 1, "comment": 1})


@pytest.mark.parametrize(
    ("label", "meant", "fault"),
    [
        ("B♭:min7/♭3", "Bb:min7/b3", "label with ♯ or ♭"),
        ("C♯", "C#", "label with ♯ or ♭"),
        ("bb:min", "Bb:min", "label in the wrong case"),
        ("c#:MAJ7/B7", "C#:maj7/b7", "label in the wrong case"),
        ("F:Sus4", "F:sus4", "label in the wrong case"),
        ("n", "N", "label in the wrong case"),
        ("x", "X", "label in the wrong case"),
    ],
)
def test_a_label_with_one_meaning_is_spelt_as_harte_does(tmp_path: Path, label: str, meant: str, fault: str) -> None:
    assert rows(tmp_path, f"0 1 {label}\n1 2 G\n") == ([(0.0, 1.0, meant), (1.0, 2.0, "G")], {fault: 1})


@pytest.mark.parametrize(
    ("text", "expected", "mended"),
    [
        ("0 4 C\n4 4 G\n4 9 A\n9 9 N", [(0, 4, "C"), (4, 9, "A")], {"row of no length": 2}),
        ("0 4 C\n0 4 C\n4 9 A", [(0, 4, "C"), (4, 9, "A")], {"row given twice": 1}),
        ("4 9 A\n0 4 C", [(0, 4, "C"), (4, 9, "A")], {"row out of order": 1}),
        ("0 4.1 C\n4 9 A", [(0, 4, "C"), (4, 9, "A")], {"overlap": 1}),
        ("0 4.002 C\n4 9 A", [(0, 4, "C"), (4, 9, "A")], {"overlap": 1}),
        ("0 3.9 C\n4 9 A", [(0, 4, "C"), (4, 9, "A")], {"gap": 1}),
        ("0 3.8 C\n4 9 A", [(0, 3.8, "C"), (4, 9, "A")], {}),
        ("-0.1 4 C\n4 9 A", [(0, 4, "C"), (4, 9, "A")], {"start before 0": 1}),
        ("-0.1 -0.05 N\n0 4 C", [(0, 4, "C")], {"start before 0": 1}),
    ],
)
def test_times_with_one_reading_are_mended(
    tmp_path: Path, text: str, expected: list[tuple[float, float, str]], mended: dict[str, int]
) -> None:
    assert rows(tmp_path, text) == (expected, mended)


def test_after_an_overlap_the_later_row_is_what_counts(tmp_path: Path) -> None:
    segments = read_labels(lab(tmp_path, "0 4.1 C\n4 9 A")).segments
    assert at_times(segments, np.array([3.99, 4.0, 4.05]))[0].tolist() == [C_MAJ.index, *[parse("A").index] * 2]


def test_what_was_mended_is_told_in_words(tmp_path: Path) -> None:
    found = read_labels(lab(tmp_path, "\ufeff0,4.1,N\n4,4,C\n4,9,C\n"))
    assert found.told == (
        "byte order mark (1), overlap (1), row of no length (1), row with commas, semicolons or quotes (3)"
    )


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1.0 2.0", "not `start end chord`"),
        ("1.0 C:maj", "not `start end chord`"),
        ("1.0 two C:maj", "not `start end chord`"),
        ("1.0 2.0 H:maj", "not `start end chord`"),
        ("1.0 2.0 c", "not `start end chord`"),
        ("1.0 2.0 c/3", "not `start end chord`"),
        ("1.0 2.0 Cm7", "not `start end chord`"),
        ("1.0 2.0 NC", "not `start end chord`"),
        ("1.0 2.0 C / G", "not `start end chord`"),
        ("1.0 2.0 C:maj 0.9", "not `start end chord`"),
        ("1.0,2.0,C:maj,0.9", "not `start end chord`"),
        ("1.0,,2.0,C:maj", "not `start end chord`"),
        ("1,0;2,0;C:maj", "not `start end chord`"),
        ("1,0 2,0 C:maj", "not `start end chord`"),
        ("start end chord", "not `start end chord`"),
        ("2.0 1.0 C:maj", "overlap or run backwards"),
        ("0.5 2.0 C:maj", "overlap or run backwards"),
        ("0.89 2.0 C:maj", "overlap or run backwards"),
        ("0.0 2.0 C:maj", "overlap or run backwards"),
        ("nan 2.0 C:maj", "overlap or run backwards"),
        ("1.0 inf C:maj", "overlap or run backwards"),
        ("-0.2 0.0 C:maj", "before the recording"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"song\.lab, line 2: .*{reason}"):
        read_labels(lab(tmp_path, f"0.0 1.0 N\n{line}\n"))


def test_of_two_rows_with_one_start_neither_is_preferred(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"song\.lab, line 2: .*overlap or run backwards"):
        read_labels(lab(tmp_path, "0.0 0.05 N\n0.0 2.0 C\n"))


@pytest.mark.parametrize(
    "heading", ["start duration chord", "chord start end", "start (ms) end (ms) chord", "start end", "Queen"]
)
def test_a_heading_that_does_not_say_what_is_read_is_refused(tmp_path: Path, heading: str) -> None:
    with pytest.raises(UserError, match=r"song\.lab, line 1: .*not `start end chord`"):
        read_labels(lab(tmp_path, f"{heading}\n{PLAIN}"))


def test_a_row_that_is_not_ascii_is_refused_in_latin_1_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"song\.lab, line 1: .*not `start end chord`"):
        read_labels(lab(tmp_path, "0 1 C°\n".encode("latin-1")))


def test_text_that_breaks_off_within_a_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*song\.lab' as labels"):
        read_labels(lab(tmp_path, PLAIN.encode("utf-16")[:-1]))


def test_a_chord_after_the_recording_is_refused(tmp_path: Path) -> None:
    path = lab(tmp_path, PLAIN)
    assert read_labels(path, latest=9.0).segments[-1][1] == 9.0
    with pytest.raises(UserError, match=r"song\.lab, line 2: the chord ends at 9\.00 s, after the recording"):
        read_labels(path, latest=8.9)


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", "# nothing\n", "1 1 C\n"])
def test_a_lab_file_without_chords_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"song\.lab holds no chords"):
        read_labels(lab(tmp_path, text))


def test_a_lab_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*song\.lab' as labels"):
        read_labels(tmp_path / "song.lab")


# --- whole files ------------------------------------------------------------------------------------------------------


def test_a_lab_file_written_with_our_labels_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    ends = np.arange(1, 201) * 0.25
    segments: list[Segment] = [
        (end - 0.25, end, Chord(int(index), int(index) // 14 if rng.random() < 0.5 else int(rng.integers(12))))
        for end, index in zip(ends.tolist(), rng.integers(0, X, 200), strict=True)
    ]
    text = "".join(f"{start:.6f}\t{end:.6f}\t{chord.label}\n" for start, end, chord in segments)
    found = read_labels(lab(tmp_path, text))
    assert (found.segments, found.mended) == (segments, {})


def test_mir_eval_reads_the_same_lab_file_the_same_way(tmp_path: Path) -> None:
    path = lab(tmp_path, "0.0\t1.5\tN\n1.5\t4.0\tC:maj/3\n")
    intervals, labels = mir_eval.io.load_labeled_intervals(str(path))
    expected = [(a, b, parse(label)) for (a, b), label in zip(intervals.tolist(), labels, strict=True)]
    assert expected == read_labels(path).segments


def test_at_times_takes_the_segment_that_has_begun() -> None:
    segments: list[Segment] = [(0.0, 1.0, NO_CHORD), (1.0, 2.0, C_MAJ), (2.0, 3.0, parse("D:min/b3"))]
    classes, basses = at_times(segments, np.array([0.0, 0.999, 1.0, 1.999, 2.0, 2.999]))
    assert classes.tolist() == [N, N, C_MAJ.index, C_MAJ.index, class_index(2, "min"), class_index(2, "min")]
    assert basses.tolist() == [NO_BASS, NO_BASS, 0, 0, 5, 5]


def test_at_times_gives_no_chord_outside_every_segment() -> None:
    segments: list[Segment] = [(1.0, 2.0, C_MAJ), (3.0, 4.0, C_MAJ)]
    classes, basses = at_times(segments, np.array([0.5, 2.5, 4.0, 99.0]))
    assert (classes.tolist(), basses.tolist()) == ([N] * 4, [NO_BASS] * 4)
