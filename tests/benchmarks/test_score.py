"""The scorer: hand-computed cases."""

import numpy as np
import pytest

from benchmarks.score import latencies, same_majmin, score_song, shown, summarize

REF = np.array([[0.0, 1.0], [1.0, 3.0], [3.0, 5.0]])
LABELS = ["N", "C:maj", "A:min"]


def test_events_hold_until_the_next() -> None:
    intervals, labels = shown([(1.0, "C:maj"), (3.0, "A:min")], 5.0)
    assert intervals.tolist() == [[0, 1], [1, 3], [3, 5]]
    assert labels == ["N", "C:maj", "A:min"]


def test_events_at_the_same_moment_leave_the_last() -> None:
    assert shown([(0.0, "N"), (1.0, "C:maj"), (1.0, "G:maj")], 2.0)[1] == ["N", "G:maj"]


def test_a_perfect_recognizer_scores_one_at_once() -> None:
    score = score_song(REF, LABELS, [(0.0, "N"), (1.0, "C:maj"), (3.0, "A:min")])
    assert all(value == pytest.approx(1) for value in score.metrics.values())
    assert score.latencies.tolist() == [0, 0]
    assert score.events_per_change == 1


def test_lateness_costs_time_and_is_measured() -> None:
    score = score_song(REF, LABELS, [(0.0, "N"), (1.3, "C:maj"), (3.3, "A:min")])
    assert score.metrics["majmin"] == pytest.approx(1 - 0.6 / 5)
    assert score.latencies == pytest.approx([0.3, 0.3])


def test_flicker_is_counted() -> None:
    events = [(0.0, "N"), (1.0, "C:maj"), (2.0, "G:maj"), (2.1, "C:maj"), (3.0, "A:min"), (4.0, "C:maj")]
    assert score_song(REF, LABELS, events).events_per_change == 2


def test_one_chord_for_ever_hits_nothing_but_itself() -> None:
    score = score_song(REF, LABELS, [(0.0, "C:maj")])
    assert score.latencies[0] == 0
    assert np.isnan(score.latencies[1])
    assert score.metrics["root"] == pytest.approx(2 / 5)


def test_a_label_that_passed_long_before_the_onset_is_no_hit() -> None:
    found = latencies(REF, LABELS, *shown([(0.0, "A:min"), (0.5, "C:maj")], 5.0))
    assert found[0] == 0
    assert np.isnan(found[1])


def test_changes_within_a_majmin_chord_are_not_counted() -> None:
    ref = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    assert latencies(ref, ["C:maj", "C:7", "C:sus4"], *shown([(0.0, "C:maj")], 3.0)).size == 0


def test_sevenths_count_as_their_triad_for_latency() -> None:
    assert same_majmin("C:maj", "C:7")
    assert not same_majmin("C:maj", "C:min")
    assert not same_majmin("N", "C:maj")


def test_the_class_mean_weighs_rare_qualities_like_common_ones() -> None:
    ref = np.array([[0.0, 9.0], [9.0, 10.0]])
    score = score_song(ref, ["C:maj", "C:dim7"], [(0.0, "C:maj")])
    assert summarize([score])["class_mean"] == pytest.approx(0.5)


def test_a_set_is_weighted_by_duration() -> None:
    right = score_song(np.array([[0.0, 3.0]]), ["C:maj"], [(0.0, "C:maj")])
    wrong = score_song(np.array([[0.0, 1.0]]), ["C:maj"], [(0.0, "D:maj")])
    assert summarize([right, wrong])["root"] == pytest.approx(0.75)
