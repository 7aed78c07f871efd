from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cqt import multiply_adds
from benchmarks.cqt_agreement import DEMO, data, differences, drift, magnitudes, read, reference, synthetic, tracks
from benchmarks.cqt_latency import onsets
from benchmarks.cqt_picture import picture
from benchmarks.report import RESULTS
from rtchord.cqt import DEFINITIONS, Features, FrameStream

MEAN, P99 = 0.001, 0.01  # of |difference of log magnitude|, where librosa gives more than 1e-4
CENTRED = ("librosa-0.11", "librosa-0.11-hop512", "librosa-0.6.3")
SYNTHETIC = synthetic()

every_centred = pytest.mark.parametrize("name", CENTRED)


def check(samples: np.ndarray, name: str) -> None:
    found = differences(samples, DEFINITIONS[name])
    assert found.size > 1000
    assert found.mean() <= MEAN
    assert np.percentile(found, 99) <= P99


@every_centred
@pytest.mark.parametrize("signal", sorted(set(SYNTHETIC) - {"silence"}))
def test_centred_frames_are_librosas_on_synthetic_signals(name: str, signal: str) -> None:
    check(SYNTHETIC[signal], name)


@every_centred
def test_centred_frames_are_librosas_on_the_demo(name: str) -> None:
    check(read(DEMO), name)


@every_centred
def test_silence_is_silence_in_both(name: str) -> None:
    features, samples = DEFINITIONS[name], SYNTHETIC["silence"]
    ours, theirs = FrameStream(features.sample_rate, features).push(samples), reference(samples, features)
    assert theirs.max() == 0.0
    assert magnitudes(ours, features).max() < 1e-9


@pytest.mark.parametrize("hop", [512, 2048])
def test_centred_frames_are_librosas_on_recordings(hop: int) -> None:
    folder = data()
    if folder is None:
        pytest.skip("no recordings: put them into ../shared/data/unlabelled or name their folder in RTCHORD_DATA")
    features = DEFINITIONS["librosa-0.11"].model_copy(update={"hop": hop})
    recordings = [read(path) for path in tracks(folder, 9)]
    assert len(recordings) >= 8
    found = [differences(samples, features) for samples in recordings]
    assert max(each.mean() for each in found) <= MEAN
    assert max(np.percentile(each, 99) for each in found) <= P99


def test_the_versions_of_librosa_differ_by_more_than_we_do() -> None:
    """The comparison can tell Q = 34.127 from 34.634, so it can fail."""
    samples = read(DEMO)
    old = DEFINITIONS["librosa-0.6.3"].model_copy(update={"hop": 512, "log_offset": 1e-6})
    new = DEFINITIONS["librosa-0.11-hop512"]
    stream = FrameStream(old.sample_rate, old)
    ours = magnitudes(np.concatenate((stream.push(samples), stream.finish())), old)
    theirs = reference(samples, new)
    audible = theirs > 1e-4
    assert np.abs(np.log(ours[audible] / theirs[audible])).mean() > 10 * MEAN


@pytest.mark.parametrize("size", [5_000, 66_150, 66_151, 100_001])
def test_a_recording_that_ends_anywhere_gives_librosas_last_frames(size: int) -> None:
    found = differences(SYNTHETIC["noise"][:size], DEFINITIONS["librosa-0.11-hop512"])
    assert found.mean() <= MEAN
    assert np.percentile(found, 99) <= P99


def test_multiply_adds_are_counted_from_the_kernels() -> None:
    # 365 rows of 48 columns for each of 6 octaves; 504 outputs of 23 taps.
    assert multiply_adds(Features()) == 6 * 365 * 48 + 504 * 23
    assert multiply_adds(DEFINITIONS["live-vq"]) < 0.6 * multiply_adds(Features())


def test_latency_is_measured_near_what_is_computed() -> None:
    rows = onsets({"live": DEFINITIONS["live"], "live-vq": DEFINITIONS["live-vq"]})
    assert len(rows) == 12
    for row in rows:
        half, most = row["measured_ms"]["newest"]  # type: ignore[index]
        assert half == pytest.approx(row["computed_ms"], abs=4.0)
        assert half < most < row["computed_ms"] + 0.5 * row["window_ms"]  # type: ignore[operator]


def test_a_long_stream_does_not_drift() -> None:
    for row in drift(hours=0.02).values():
        assert row["largest_difference"] == 0.0


def test_the_picture_is_drawn_around_the_first_chord_of_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    onset = picture(DEMO, tmp_path / "onset.png")
    assert onset == pytest.approx(1.2, abs=0.03)
    assert (tmp_path / "onset.png").stat().st_size > 10_000


def test_the_kept_result_meets_what_is_claimed() -> None:
    kept = json.loads((RESULTS / "cqt.json").read_text())
    assert kept["ratio"] == pytest.approx(kept["librosa_hop_us"] / kept["hop_us"], rel=0.01)
    assert kept["ratio"] >= 400
    assert kept["batch_ratio"] >= 5
    assert kept["limit_ratio"] <= 3
    assert kept["mean_abs_dlog"] <= MEAN
    assert kept["p99_abs_dlog"] <= P99
    assert all(row["largest_difference"] <= 1e-5 and row["hours"] >= 10 for row in kept["drift"].values())
