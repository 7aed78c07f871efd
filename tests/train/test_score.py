"""The scorer: cases computed by hand, and recognizers that deserve what they get."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from train.score import (
    CLASSES,
    RARE,
    SHARES,
    difference,
    intervals,
    latencies,
    latency_by_metric,
    per_quality,
    same,
    score_song,
    shares,
    shown,
    summarize,
)

REF = np.array([[0.0, 1.0], [1.0, 3.0], [3.0, 5.0]])
LABELS = ["N", "C:maj", "A:min"]
TRUTH = [(0.0, "N"), (1.0, "C:maj"), (3.0, "A:min")]


def shared(events: list[tuple[float, str]], ref: np.ndarray = REF, labels: list[str] = LABELS) -> dict[str, float]:
    spent = shares(ref, labels, *shown(events, float(ref[-1, 1])))
    return {name: pytest.approx(value) for name, value in zip(SHARES, spent, strict=True)}


def test_events_hold_until_the_next() -> None:
    intervals, labels = shown([(1.0, "C:maj"), (3.0, "A:min")], 5.0)
    assert intervals.tolist() == [[0, 1], [1, 3], [3, 5]]
    assert labels == ["N", "C:maj", "A:min"]


def test_events_at_the_same_moment_leave_the_last() -> None:
    assert shown([(0.0, "N"), (1.0, "C:maj"), (1.0, "G:maj")], 2.0)[1] == ["N", "G:maj"]


def test_a_perfect_recognizer_scores_one_at_once() -> None:
    score = score_song(REF, LABELS, TRUTH)
    assert all(value == pytest.approx(1) for value in score.metrics.values())
    assert score.waits["majmin"].tolist() == [0, 0]
    assert score.events_per_change == 1
    assert shared(TRUTH) == {"right": 5, "late": 0, "flicker": 0, "wrong": 0}


def test_a_recognizer_that_is_right_but_300_ms_late() -> None:
    events = [(0.0, "N"), (1.3, "C:maj"), (3.3, "A:min")]
    score = score_song(REF, LABELS, events)
    assert all(value == pytest.approx(1 - 0.6 / 5) for value in score.metrics.values())
    assert score.waits["majmin"] == pytest.approx([0.3, 0.3])
    assert score.events_per_change == 1
    assert shared(events) == {"right": 4.4, "late": 0.6, "flicker": 0, "wrong": 0}


def test_a_recognizer_that_flickers() -> None:
    """Right at once, but every half second it shows G for 0.1 s: 8 s of chords hold 4 flickers and 4 comebacks each."""
    ref, labels = np.array([[0.0, 1.0], [1.0, 3.0], [3.0, 5.0]]), LABELS
    events = [(0.0, "N")]
    for start, label in ((1.0, "C:maj"), (3.0, "A:min")):
        for k in range(4):
            events += [(start + 0.5 * k, label), (start + 0.5 * k + 0.4, "G:maj")]
    score = score_song(ref, labels, events)
    # 2 chords of 2 s, each wrong for 4 * 0.1 s.
    assert score.metrics["majmin"] == pytest.approx(1 - 0.8 / 5)
    assert score.waits["majmin"] == pytest.approx([0, 0])
    assert score.events_per_change == pytest.approx((1 + 2 * 8) / 3)
    # The last G of each chord: of C's, the 0.1 s before A; then A shows. All are shorter than 0.25 s.
    assert shared(events) == {"right": 4.2, "late": 0, "flicker": 0.8, "wrong": 0}


def test_a_recognizer_that_repeats_the_last_chord_for_ever() -> None:
    """It gets the first chord and never another: A minor is wrong, not late, as it never comes."""
    events = [(0.0, "N"), (1.0, "C:maj")]
    score = score_song(REF, LABELS, events)
    assert score.waits["majmin"][0] == 0
    assert np.isnan(score.waits["majmin"][1])
    assert score.metrics["root"] == pytest.approx(3 / 5)
    assert score.events_per_change == pytest.approx(2 / 3)
    assert shared(events) == {"right": 3, "late": 0, "flicker": 0, "wrong": 2}
    summary = summarize([score])
    assert (summary["hit"], summary["lat_med"]) == (0.5, 0)


def test_a_passing_wrong_name_is_flicker_and_a_long_one_is_wrong() -> None:
    # C is left 0.1 s late for G, which stays 0.2 s in one case, 0.3 s in the other.
    assert shared([*TRUTH[:2], (3.1, "G:maj"), (3.3, "A:min")]) == {
        "right": 4.7,
        "late": 0.1,
        "flicker": 0.2,
        "wrong": 0,
    }
    assert shared([*TRUTH[:2], (3.1, "G:maj"), (3.4, "A:min")]) == {
        "right": 4.6,
        "late": 0.1,
        "flicker": 0,
        "wrong": 0.3,
    }


def test_a_chord_named_too_early_is_no_lateness() -> None:
    """It showed before the change, so it is wrong before it and right after it."""
    assert shared([*TRUTH[:2], (2.5, "A:min")]) == {"right": 4.5, "late": 0, "flicker": 0, "wrong": 0.5}


def test_only_what_maj_min_can_judge_is_shared_out() -> None:
    ref, labels = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]), ["C:7", "C:maj", "D:dim"]
    # C:7 and C are one; D:dim is outside.
    assert shared([(0.0, "C:maj"), (0.5, "C:7")], ref, labels) == {"right": 2, "late": 0, "flicker": 0, "wrong": 0}


def test_one_chord_for_ever_hits_nothing_but_itself() -> None:
    score = score_song(REF, LABELS, [(0.0, "C:maj")])
    assert score.waits["majmin"][0] == 0
    assert np.isnan(score.waits["majmin"][1])
    assert score.metrics["root"] == pytest.approx(2 / 5)


def test_a_label_that_passed_before_the_onset_is_no_hit() -> None:
    found = latencies(REF, LABELS, *shown([(0.0, "A:min"), (0.5, "C:maj")], 5.0))
    assert found[0] == 0
    assert np.isnan(found[1])


def test_changes_within_a_majmin_chord_are_not_counted() -> None:
    ref = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    assert latencies(ref, ["C:maj", "C:7", "C:sus4"], *shown([(0.0, "C:maj")], 3.0)).size == 0


def test_sevenths_count_as_their_triad_for_latency() -> None:
    assert same("majmin", "C:maj", "C:7")
    assert not same("majmin", "C:maj", "C:min")
    assert not same("majmin", "N", "C:maj")
    assert not same("quality", "C:maj", "C:7")
    assert same("quality", "C:maj/3", "C:maj")


def test_each_metric_waits_for_its_own_label() -> None:
    """C7 after A minor: the root comes after 0.1 s, the third after 0.2 s, the seventh after 0.4 s."""
    ref, labels = np.array([[0.0, 1.0], [1.0, 3.0]]), ["A:min", "C:7"]
    events = [(0.0, "A:min"), (1.1, "C:min"), (1.2, "C:maj"), (1.4, "C:7")]
    by_metric = latency_by_metric([score_song(ref, labels, events)])
    waits = {metric: row["median"] for metric, row in by_metric.items()}
    assert waits == {"root": 0.1, "majmin": 0.2, "triads": 0.2, "sevenths": 0.4, "tetrads": 0.4, "quality": 0.4}
    assert {row["n"] for row in by_metric.values()} == {1}


def test_latency_is_told_by_quality() -> None:
    """Two minors come after 0.1 and 0.3 s, a dim never does; the first chord follows nothing and is not counted."""
    ref = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    events = [(0.0, "C:maj"), (1.1, "A:min"), (2.3, "D:min")]
    rows = per_quality([score_song(ref, ["C:maj", "A:min", "D:min", "B:dim"], events)])
    assert rows["maj"] == {"seconds": 1, "right": 1, "n": 0, "median": None, "p90": None, "never": None}
    assert rows["min"] == {"seconds": 2, "right": 0.8, "n": 2, "median": 0.2, "p90": pytest.approx(0.28), "never": 0}
    assert rows["dim"] == {"seconds": 1, "right": 0, "n": 1, "median": None, "p90": None, "never": 1}


def test_inversions_are_scored_where_the_reference_has_them() -> None:
    ref, labels = np.array([[0.0, 4.0], [4.0, 8.0]]), ["C:maj/3", "G:maj"]
    # 1 s whole; 1 s of C in root position; 1 s of E minor, whose bass is right; 1 s with the wrong inversion.
    events = [(0.0, "C:maj/3"), (1.0, "C:maj"), (2.0, "E:min"), (3.0, "C:maj/5"), (4.0, "G:maj")]
    summary = summarize([score_song(ref, labels, events)])
    assert summary["majmin"] == pytest.approx(7 / 8)
    assert summary["majmin_inv"] == pytest.approx(5 / 8)
    assert summary["bass"] == pytest.approx(2 / 4)
    assert summary["inversion"] == pytest.approx(1 / 4)


def test_without_inversions_nothing_is_said_of_them() -> None:
    assert not {"majmin_inv", "bass"} & summarize([score_song(REF, LABELS, TRUTH)]).keys()


def test_the_class_mean_weighs_rare_qualities_like_common_ones() -> None:
    ref = np.array([[0.0, 9.0], [9.0, 10.0]])
    score = score_song(ref, ["C:maj", "C:dim7"], [(0.0, "C:maj")])
    assert summarize([score])["class_mean"] == pytest.approx(0.5)


def test_the_average_chord_quality_accuracy_counts_silence_as_one_more_class() -> None:
    """maj is all right, min not at all, N for three quarters: class means over two classes, ACQA over three."""
    ref = np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0]])
    summary = summarize([score_song(ref, ["C:maj", "A:min", "N"], [(0.0, "C:maj"), (4.5, "N")])])
    assert summary["class_mean"] == pytest.approx(1 / 2)
    assert summary["acqa"] == pytest.approx((1 + 0 + 3 / 4) / 3)


def test_rare_qualities_are_those_outside_the_sevenths_vocabulary() -> None:
    ref = np.array([[0.0, 8.0], [8.0, 9.0], [9.0, 10.0]])
    summary = summarize([score_song(ref, ["C:maj", "C:dim7", "C:sus4"], [(0.0, "C:maj"), (9.0, "C:sus4")])])
    assert summary["rare_mean"] == pytest.approx(1 / 2)
    assert not {"maj", "min", "7", "maj7", "min7", "N"} & set(RARE)
    assert summarize([RIGHT])["rare_mean"] is None


def test_a_confusion_shares_out_the_time_of_each_quality_whatever_the_root() -> None:
    ref = np.array([[0.0, 4.0], [4.0, 6.0], [6.0, 7.0]])
    events = [(0.0, "C:maj"), (1.0, "E:min"), (4.0, "N"), (5.0, "X"), (6.0, "C:maj")]
    confusion = score_song(ref, ["C:maj", "N", "X"], events).confusion
    maj, minor, silence = (CLASSES.index(name) for name in ("maj", "min", "N"))
    expected = np.zeros((15, 16))
    expected[maj, maj], expected[maj, minor], expected[silence, silence], expected[silence, -1] = 1, 3, 1, 1
    assert np.allclose(confusion, expected)  # what the reference does not know is in no row


def test_segmentation_tells_splitting_from_running_together() -> None:
    ref, labels = np.array([[0.0, 4.0], [4.0, 8.0]]), ["C:maj", "G:maj"]
    split = summarize([score_song(ref, labels, [(0.0, "C:maj"), (2.0, "D:maj"), (4.0, "G:maj")])])
    together = summarize([score_song(ref, labels, [(0.0, "C:maj")])])
    assert (split["overseg"], split["underseg"]) == (pytest.approx(0.75), pytest.approx(1))
    assert (together["overseg"], together["underseg"]) == (pytest.approx(1), pytest.approx(0.5))


RIGHT = score_song(np.array([[0.0, 3.0]]), ["C:maj"], [(0.0, "C:maj")])
WRONG = score_song(np.array([[0.0, 1.0]]), ["C:maj"], [(0.0, "D:maj")])
WRONG_AS_LONG = score_song(np.array([[0.0, 3.0]]), ["C:maj"], [(0.0, "D:maj")])


def test_a_set_is_weighted_by_duration() -> None:
    assert summarize([RIGHT, WRONG])["root"] == pytest.approx(0.75)


def test_intervals_span_what_draws_of_songs_give() -> None:
    assert intervals([RIGHT, RIGHT])["majmin"] == (1, 1)
    assert intervals([RIGHT, WRONG], draws=200)["majmin"] == (0, 1)
    assert intervals([RIGHT])["lat_med"] is None


def test_takes_of_a_song_are_drawn_together() -> None:
    """Two networks, one always right, one always wrong: whatever songs are drawn, half is right."""
    low, high = intervals([RIGHT, WRONG_AS_LONG] * 2, draws=100, takes=2)["majmin"] or (0, 1)
    assert (low, high) == (0.5, 0.5)


def test_a_difference_is_paired() -> None:
    """Each song loses 0.2 of its time, whatever it began with: no doubt is left about the loss."""
    ref = np.array([[0.0, 10.0]])
    before = [score_song(ref, ["C:maj"], [(0.0, "C:maj"), (right, "D:maj")]) for right in (5.0, 9.0)]
    after = [score_song(ref, ["C:maj"], [(0.0, "C:maj"), (right, "D:maj")]) for right in (3.0, 7.0)]
    assert difference(before, after) == pytest.approx((-0.2, -0.2, -0.2), abs=1e-4)


def songs_by_chance() -> list[tuple[np.ndarray, list[str], list[tuple[float, str]]]]:
    """Twelve songs (intervals, labels, events), recognised mostly right and a little late, at times early or wrong."""
    chance = random.Random(0)
    labels = [
        "N",
        "X",
        "C:maj",
        "C:7",
        "C:maj/3",
        "A:min",
        "A:min7",
        "F#:dim",
        "G:sus4",
        "Eb:maj6",
        "B:hdim7",
        "D:min/b3",
    ]
    songs = []
    for _ in range(12):
        edges = np.cumsum([0.0, *(chance.choice([0.3, 0.5, 1.1, 2.7]) for _ in range(15))])
        ref, ref_labels = np.column_stack((edges[:-1], edges[1:])), [chance.choice(labels) for _ in range(15)]
        events = [(max(0.0, a + chance.uniform(-0.2, 0.4)), lb) for a, lb in zip(edges, ref_labels, strict=False)]
        events += [(chance.uniform(0, edges[-1]), chance.choice(labels)) for _ in range(8)]
        songs.append((ref, ref_labels, events))
    return songs


GOLDEN = {
    "root": 0.6116034, "thirds": 0.6083227, "triads": 0.6083227, "sevenths": 0.6433828, "tetrads": 0.596982,
    "majmin": 0.6619683, "mirex": 0.6589062, "overseg": 0.7177838, "underseg": 0.8881617, "seg": 0.7177838,
    "thirds_inv": 0.6008951, "triads_inv": 0.6008951, "sevenths_inv": 0.6299229, "tetrads_inv": 0.5895564,
    "majmin_inv": 0.6492876, "mean7": 0.6270697, "class_mean": 0.6066382, "rare_mean": 0.5295581, "acqa": 0.5970459,
    "changes": 58, "hit": 0.9655172, "lat_med": 0.1069662, "lat_p90": 0.3386986, "events_per_change": 1.624158,
    "right": 0.6575345, "late": 0.0935812, "flicker": 0.0262136, "wrong": 0.2226707, "bass": 0.5106274,
    "inversion": 0.5106274,
}  # fmt: skip


def test_songs_by_chance_score_what_they_scored() -> None:
    """Numbers from when a scorer that somebody else wrote gave the same ones, where it has them."""
    summary = summarize([score_song(*song) for song in songs_by_chance()])
    assert summary == {name: pytest.approx(value, abs=1e-6) for name, value in GOLDEN.items()}


CROSS_CHECK = Path(__file__).parents[3] / "shared" / "tools" / "online_eval.py"


@pytest.mark.skipif(not CROSS_CHECK.is_file(), reason="the other scorer is not beside this checkout")
def test_the_cross_check_script_scores_any_events_the_same() -> None:
    spec = importlib.util.spec_from_file_location("online_eval", CROSS_CHECK)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    songs = songs_by_chance()
    theirs = [(*other.score(ref, labels, events=events), ref[-1, 1] - ref[0, 0]) for ref, labels, events in songs]
    summary, expected = summarize([score_song(*song) for song in songs]), other.summarize(theirs)
    assert len(summary.keys() & expected.keys()) >= 13
    for name in summary.keys() & expected.keys():
        assert summary[name] == pytest.approx(expected[name], abs=1e-9), name
