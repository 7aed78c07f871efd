from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rtchord.errors import UserError
from train import fill, store

SETTINGS = {"features": ["live"], "teacher": None}


@dataclass(frozen=True)
class Job:
    key: str


class Maker:
    """Makes a piece of three frames of every job but those it is told to fail at; counts."""

    def __init__(self, fails: str = "") -> None:
        self.made: list[str] = []
        self._fails = fails

    def __call__(self, job: Job) -> fill.Made:
        self.made.append(job.key)
        if job.key in self._fails:
            raise UserError(f"cannot read {job.key!r}")
        return fill.Made({"live": {"features": np.zeros((3, 144))}}, {"seconds": 60.0})


def jobs(names: str) -> list[Job]:
    return [Job(name) for name in names]


def test_what_is_there_is_kept_and_the_rest_made(tmp_path: Path) -> None:
    fill.fill(tmp_path, jobs("ab"), Maker(), SETTINGS)
    again = Maker()
    fill.fill(tmp_path, jobs("abcd"), again, SETTINGS)
    assert again.made == ["c", "d"]
    assert [piece.key for piece in store.open_tracks([tmp_path], "live")] == list("abcd")


def test_a_piece_that_cannot_be_made_is_told_counted_and_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.fill(tmp_path, jobs("abc"), Maker("b"), SETTINGS)
    told = capsys.readouterr().err
    assert "skipped: cannot read 'b'\n" in told
    assert "2 of 3 pieces are in" in told
    assert "2 of them new (0.03 h); 1 skipped (skipped.jsonl says why" in told
    again = Maker()
    fill.fill(tmp_path, jobs("abc"), again, SETTINGS)
    assert again.made == []
    assert "2 of 3 pieces are in" in capsys.readouterr().err


def test_a_skipped_piece_is_tried_again_when_asked(tmp_path: Path) -> None:
    fill.fill(tmp_path, jobs("abc"), Maker("bc"), SETTINGS)
    again = Maker("c")
    fill.fill(tmp_path, jobs("abc"), again, SETTINGS, retry=True)
    assert again.made == ["b", "c"]
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line) == {"key": "c", "problem": "cannot read 'c'"}


def test_a_line_of_the_log_that_was_cut_is_no_trouble(tmp_path: Path) -> None:
    fill.fill(tmp_path, jobs("ab"), Maker("b"), SETTINGS)
    with (tmp_path / "skipped.jsonl").open("a") as log:
        log.write('{"key": "c", "pro')
    again = Maker()
    fill.fill(tmp_path, jobs("abc"), again, SETTINGS)
    assert again.made == ["c"]


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    second = Maker()

    def make(job: Job) -> fill.Made:
        with pytest.raises(UserError, match=r"another run is at work on .*; wait for it"):
            fill.fill(tmp_path, jobs("b"), second, SETTINGS)
        return Maker()(job)

    fill.fill(tmp_path, jobs("a"), make, SETTINGS)
    assert second.made == []
    fill.fill(tmp_path, jobs("ab"), second, SETTINGS)
    assert second.made == ["b"]


def test_a_folder_made_with_other_settings_is_refused(tmp_path: Path) -> None:
    fill.fill(tmp_path, jobs("a"), Maker(), SETTINGS)
    with pytest.raises(UserError, match="was begun with teacher None, not 'btc'; go on with the same"):
        fill.fill(tmp_path, jobs("b"), Maker(), {**SETTINGS, "teacher": "btc"})
    assert store.keys(tmp_path) == {"a"}


def test_a_target_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file.*: File exists; make room"):
        fill.fill(tmp_path / "file", jobs("a"), Maker(), SETTINGS)


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'b' is there 2 times"):
        fill.fill(tmp_path, jobs("abcb"), Maker(), SETTINGS)


def test_an_interrupted_run_leaves_whole_shards(tmp_path: Path) -> None:
    def make(job: Job) -> fill.Made:
        if job.key == "c":
            raise KeyboardInterrupt
        return Maker()(job)

    with pytest.raises(KeyboardInterrupt):
        fill.fill(tmp_path, jobs("abc"), make, SETTINGS)
    assert [path.name for path in tmp_path.glob("*.tar*")] == ["00000-000000.tar"]
    assert store.keys(tmp_path) == {"a", "b"}
