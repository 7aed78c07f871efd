"""Frames without labels: crops of memory-mapped pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train.frames import Frames
from train.store import Writer

BINS = DEFINITIONS["live"].bins


@pytest.fixture
def frames(tmp_path: Path) -> Frames:
    """Pieces whose frames count: 0-49, 100-299, 400-409."""
    with Writer(tmp_path) as writer:
        for key, first, last in (("a", 0, 50), ("b", 100, 300), ("c", 400, 410)):
            features = np.tile(np.arange(first, last, dtype=np.float16)[:, None], BINS)
            writer.write(key, {"live": {"features": features}}, {})
    return Frames([tmp_path], "live")


def test_a_crop_is_a_stretch_of_one_piece(frames: Frames) -> None:
    crops = frames.crops(np.random.default_rng(0), 500, 40)
    assert crops.shape == (500, 40, BINS)
    numbers = crops[:, :, 0]
    for first, last in numbers[:, [0, -1]].tolist():
        assert (first, last) == (400, 409) or last == first + 39
    assert {int(n) for n in numbers[:, 0]} <= {*range(11), *range(100, 261), 400}
    assert {int(n) for n in numbers[:, 0]} >= {0, 10, 400}


def test_longer_pieces_are_drawn_more_often(frames: Frames) -> None:
    first = frames.crops(np.random.default_rng(0), 2_000, 10)[:, 0, 0]
    share = float(((first >= 100) & (first < 300)).float().mean())
    assert share == pytest.approx(191 / (41 + 191 + 1), abs=0.04)


def test_a_short_piece_repeats_its_last_frame(frames: Frames) -> None:
    numbers = frames.crops(np.random.default_rng(0), 500, 15)[:, :, 3]
    short = numbers[numbers[:, 0] >= 400][0]
    assert short.tolist() == [*range(400, 410), *[409] * 5]


def test_crops_are_a_function_of_the_generator(frames: Frames) -> None:
    first, same, other = (frames.crops(np.random.default_rng(seed), 4, 10) for seed in (1, 1, 2))
    assert first.equal(same)
    assert not first.equal(other)


def test_hours_count_every_piece(frames: Frames) -> None:
    assert frames.hours == pytest.approx(260 * 512 / 22_050 / 3_600)


def test_silence_is_refused(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.write("a", {"live": {"features": np.full((50, BINS), -6.9, np.float16)}}, {})
    with pytest.raises(UserError, match="silence"):
        Frames([tmp_path], "live").scale(np.random.default_rng(0))


def test_pieces_without_frames_are_refused_if_there_are_no_others(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.write("a", {"live": {"features": np.zeros((0, BINS), np.float16)}}, {})
    with pytest.raises(UserError, match="no track that has frames"):
        Frames([tmp_path], "live")
