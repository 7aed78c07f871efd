from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from rtchord.errors import UserError
from train import charts, render
from train.labels import Segment, parse

BILLBOARD = """# title: A Song
# metre: 4/4

0.0\tsilence
1.0\tA, intro, | C:maj | A:min G:7 |
5.0\t| F:maj . C:maj/3 . | * |, (guitar)
9.0\tB, | (3/4) D:min9 | &pause | x2
16.0\tend
"""
SHEET = """X:1
T:A Tune
M:4/4
L:1/4
K:C
"C"c d e f|"G7"g a b g|"Am"e4|]

X:2
T:Without chords
M:4/4
L:1/4
K:C
c d e f|]
"""


@pytest.fixture
def billboard(tmp_path: Path) -> charts.Chart:
    path = tmp_path / "song.txt"
    path.write_text(BILLBOARD)
    return charts.read_billboard(path)


def labels(segments: list[Segment]) -> list[tuple[float, str]]:
    return [(round(start, 3), chord.label) for start, _, chord in segments]


def test_bars_of_a_transcription_share_the_time_of_their_line(billboard: charts.Chart) -> None:
    assert labels(billboard.segments) == [
        (0.0, "N"), (1.0, "C:maj"), (3.0, "A:min"), (4.0, "G:7"), (5.0, "F:maj"), (6.0, "C:maj/3"), (7.0, "X"),
        (9.0, "D:min7"), (10.5, "X"), (12.5, "D:min7"), (14.0, "X"),
    ]  # fmt: skip


def test_segments_of_a_transcription_have_no_gaps(billboard: charts.Chart) -> None:
    assert all(a[1] == pytest.approx(b[0]) for a, b in itertools.pairwise(billboard.segments))


def test_beats_follow_the_metre(billboard: charts.Chart) -> None:
    assert np.diff(billboard.beats) == pytest.approx([0.5] * 22 + [0.5] * 7)


def test_a_text_without_bars_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing\n")
    with pytest.raises(UserError, match=r"notes\.txt"):
        charts.read_billboard(path)


def test_tunes_with_chord_symbols_are_read_and_others_left_out(tmp_path: Path) -> None:
    path = tmp_path / "tunes.abc"
    path.write_text(SHEET)
    (chart,) = charts.read_lead_sheets(path, np.random.default_rng(0))
    beat = chart.beats[1]
    assert [(round(a / beat), chord.label) for a, _, chord in chart.segments] == [
        (0, "C:maj"), (4, "G:7"), (8, "A:min"),
    ]  # fmt: skip
    assert [pitch for pitch, _, _ in chart.melody][:4] == [72, 74, 76, 77]


def test_a_broken_sheet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.mxl"
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"broken\.mxl"):
        charts.read_lead_sheets(path, np.random.default_rng(0))


def test_a_folder_without_charts_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no charts"):
        charts.find(tmp_path, "*.txt")


def test_an_arranged_chart_keeps_its_qualities_and_plays_its_tones(
    billboard: charts.Chart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "guitarist", lambda _: render.EVEN)  # who brushes no other string
    before = [chord.quality for _, _, chord in billboard.segments]
    for seed in range(8):
        piece = render.band_piece(billboard, np.random.default_rng(seed))
        assert [chord.quality for _, _, chord in piece.segments] == before
        comping = piece.midi.instruments[0].notes
        chord = piece.segments[1][2]
        first = {note.pitch % 12 for note in comping if 1.0 <= note.start < 2.9}
        assert first == set(render.pitch_classes(chord.index))


def test_an_improvised_melody_stays_near_the_chords() -> None:
    segments = [(0.0, 8.0, parse("C:maj")), (8.0, 16.0, parse("N"))]
    notes = render.improvised(np.random.default_rng(1), segments, np.arange(0.0, 17.0, 0.5))
    assert notes
    assert max(start for _, start, _ in notes) < 8.0, "nothing is played over N"
    assert np.mean([pitch % 12 in (0, 4, 7) for pitch, _, _ in notes]) > 0.6
