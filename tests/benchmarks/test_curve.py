"""The curve: decoded from posteriors computed once, as the live path would have."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.curve import (
    COUNTS,
    FACTORS,
    HOLDS,
    LIVE,
    LOOKAHEADS,
    OFFLINE,
    ahead,
    counted,
    curve,
    picture,
    scaled,
    source,
)
from benchmarks.online import events_of, hear
from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, N, X, class_index
from rtchord.decoder import PRESETS
from train.evaluate import Heard, decode

DATA = Path(__file__).parents[1] / "data"
C, G = class_index(0, "maj"), class_index(7, "maj")


@pytest.fixture(scope="module")
def demo() -> Heard:
    return hear(*read_mono(DATA / "demo.ogg"), engines.load())


@pytest.mark.parametrize("settings", [PRESETS["balanced"], scaled(0.25)], ids=["balanced", "quarter"])
def test_decoding_what_was_heard_is_the_live_path(demo: Heard, settings) -> None:
    live = events_of(DATA / "demo.ogg", None, settings)
    assert len(live) > 5
    assert decode(demo, settings) == live


def test_a_hold_shows_every_chord_for_so_long(demo: Heard) -> None:
    events = decode(demo, PRESETS["fast"], hold=100)
    gaps = np.diff([time for time, _ in events])[1:]  # the N before the first chord is held by nothing
    assert 1 < len(events) < len(decode(demo, PRESETS["fast"]))
    assert gaps.min() >= 100 * 512 / 22_050 - 1e-6


def test_a_factor_of_one_is_the_balanced_preset() -> None:
    assert scaled(1.0) == PRESETS["balanced"]
    assert scaled(2.0).change == 2 * PRESETS["balanced"].change
    assert scaled(2.0).lead == PRESETS["balanced"].lead


def heard(*classes: int, basses: dict[int, int] | None = None) -> Heard:
    """Frames 0.1 s apart that are sure of these classes, and of a bass where one is given."""
    bass = np.eye(N_BASS, dtype=np.float32)[[(basses or {}).get(i, NO_BASS) for i in range(len(classes))]]
    return Heard(np.eye(N_CLASSES, dtype=np.float32)[list(classes)], bass, 0.1 * np.arange(1, len(classes) + 1))


def test_a_count_shows_what_was_likely_for_so_many_frames() -> None:
    flicker = heard(N, C, C, G, C, C, C)
    assert counted(flicker, 1) == [(0.1, "N"), (0.2, "C:maj"), (0.4, "G:maj"), (0.5, "C:maj")]
    assert counted(flicker, 2) == [(0.1, "N"), (0.3, "C:maj")]
    assert counted(flicker, 3) == [(0.1, "N"), (0.7, "C:maj")]


def test_a_count_ignores_x_and_names_the_bass() -> None:
    assert counted(heard(N, X, X, C, C, basses={4: 4}), 2) == [(0.1, "N"), (0.5, "C:maj/3")]


def test_lookahead_is_the_mean_of_as_many_frames_before_and_after() -> None:
    rng = np.random.default_rng(0)
    classes = rng.dirichlet(np.ones(N_CLASSES), 20).astype(np.float32)
    bass = rng.dirichlet(np.ones(N_BASS), 20).astype(np.float32)
    given = Heard(classes, bass, np.arange(20.0))
    later = ahead(given, 2)
    # Known at frame 10: what frame 8 is, from frames 6..10.
    np.testing.assert_allclose(later.classes[10], classes[6:11].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(later.bass[1], bass[:2].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(ahead(given, 0).classes, classes, rtol=1e-5)
    assert (later.times == given.times).all()


def test_the_curve_of_the_demo_and_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: Heard) -> None:
    monkeypatch.setattr("benchmarks.curve.hear", lambda *_: demo)
    result = curve([DATA], None)
    points = result["sets"]["data"]
    assert len(points) == len(PRESETS) + len(FACTORS) + len(HOLDS) + len(COUNTS) + len(LOOKAHEADS)
    by = {(point["sweep"], point["at"]): point for point in points}
    assert by["threshold", 1.0]["mean7"] == by["preset", "balanced"]["mean7"]
    assert by["lookahead", 16]["lat_med"] > by["preset", "balanced"]["lat_med"]
    assert by["count", 12]["lat_med"] > by["count", 1]["lat_med"]
    assert by["threshold", 8.0]["events_per_change"] <= by["threshold", 0.125]["events_per_change"]
    systems = {name: {"scores": {"mean7": 0.5, "lat_med": 0.4, "events_per_change": 2.0}} for name in (OFFLINE, *LIVE)}
    beside = {"data": {"songs": 1, "systems": systems}}
    picture(result, beside, tmp_path / "curve.png")
    drawn = (tmp_path / "curve.png").read_bytes()
    assert source(result, beside).encode() in drawn
    assert len(drawn) < 200_000
