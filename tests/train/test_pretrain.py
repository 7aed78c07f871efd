"""Masked pre-training: what is hidden, what is scored, and the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import train.pretrain
from rtchord.chords import N_BASS, N_CLASSES
from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train.__main__ import main
from train.augment import mix
from train.fit import Run
from train.model import ModelConfig
from train.pretrain import PretrainConfig, Pretraining, pretrain, spans
from train.rvq import Quantiser, RVQConfig, save_quantiser
from train.store import Writer
from train.students import KINDS, load_student

FEATURES = DEFINITIONS["live"]
BINS = FEATURES.bins
SILENCE = float(np.log(FEATURES.log_offset))
SMALL = ModelConfig(
    channels=4, registers=3, width=8, feed=16, heads=2, context=8, temporal_layers=1, decoder_layers=1, dropout=0.0
)
PATTERNS = 6


def config(steps: int, **changes: object) -> PretrainConfig:
    settings = {"student": "live", "batch": 4, "frames": 32, "warm_up": 2, "save_every": 5, "learning_rate": 3e-3}
    return PretrainConfig(steps=steps, **(settings | changes))


def patterns(bins: int = BINS) -> np.ndarray:
    """(patterns, bins) log magnitudes"""
    return np.random.default_rng(1).normal(-2, 2, (PATTERNS, bins)).clip(SILENCE)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Pieces of patterns that sound 8 frames each, one after the other in a fixed order; with soft targets."""
    order = np.repeat(np.arange(200) % PATTERNS, 8)
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "music") as writer:
        for piece in range(3):
            track = {
                "features": patterns()[np.roll(order, 5 * piece)],
                "classes": rng.dirichlet(np.ones(N_CLASSES), len(order)),
                "bass": rng.dirichlet(np.ones(N_BASS), len(order)),
            }
            writer.write(f"piece{piece}", {"live": track}, {})
    return tmp_path / "music"


def quantiser(definition: str = "live") -> Quantiser:
    """One codebook that knows the patterns, and one of what rounding leaves."""
    bins, rng = DEFINITIONS[definition].bins, np.random.default_rng(2)
    entries = np.stack([patterns(bins), 0.01 * rng.standard_normal((PATTERNS, bins))]).astype(np.float32)
    return Quantiser(torch.from_numpy(entries), torch.tensor(0.0), torch.tensor(1.0))


@pytest.fixture
def codebooks(tmp_path: Path) -> Path:
    path = tmp_path / "codebooks.safetensors"
    save_quantiser(path, quantiser(), "live", RVQConfig(codebooks=2, entries=PATTERNS), {})
    return path


def logged(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.log.read_text().splitlines()]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(-2, 2, shape).astype(np.float32))


# Spans


def test_the_papers_share_hides_more_than_half_of_the_frames() -> None:
    hidden = spans(np.random.default_rng(0), 200, 256, 0.8, 5)
    assert hidden.shape == (200, 256)
    assert hidden.mean() == pytest.approx(0.57, abs=0.02)


def test_frames_are_hidden_span_by_span() -> None:
    hidden = spans(np.random.default_rng(0), 50, 100, 0.3, 7)
    edges = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)
    lengths = np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]
    assert lengths.min() == 7
    assert np.unique(edges.clip(0).sum(1)).max() <= 5  # 0.3 * 100 / 7, rounded up


def test_clips_are_hidden_differently_but_a_generator_always_alike() -> None:
    first, same, other = (spans(np.random.default_rng(seed), 2, 64, 0.5, 5) for seed in (0, 0, 1))
    assert (first == same).all()
    assert (first != other).any()
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize(("frames", "share", "span"), [(3, 0.8, 5), (1, 0.1, 1), (40, 1.0, 1), (40, 0.01, 3)])
def test_something_is_hidden_in_every_clip(frames: int, share: float, span: int) -> None:
    hidden = spans(np.random.default_rng(0), 10, frames, share, span)
    assert hidden.any(1).all()
    if share == 1:
        assert hidden.all()


# Loss


def network() -> Pretraining:
    torch.manual_seed(0)
    return Pretraining(KINDS["live"].build(SMALL), quantiser()).eval()


@pytest.fixture
def hidden() -> Tensor:
    return torch.from_numpy(spans(np.random.default_rng(0), 3, 24, 0.5, 4))


def test_hidden_frames_alone_are_scored(hidden: Tensor) -> None:
    clean, heard, other = (drawn(3, 24, BINS, seed=seed) for seed in range(3))
    model = network()
    loss = model(clean, heard, hidden)[0]
    assert torch.equal(loss, model(torch.where(hidden[..., None], clean, other), heard, hidden)[0])
    assert not torch.equal(loss, model(torch.where(hidden[..., None], other, clean), heard, hidden)[0])


def test_hidden_frames_are_not_heard(hidden: Tensor) -> None:
    clean, heard, other = (drawn(3, 24, BINS, seed=seed) for seed in range(3))
    model = network()
    loss = model(clean, heard, hidden)[0]
    assert torch.equal(loss, model(clean, torch.where(hidden[..., None], other, heard), hidden)[0])
    assert not torch.equal(loss, model(clean, torch.where(hidden[..., None], heard, other), hidden)[0])


def test_a_live_student_says_what_is_hidden_from_the_past_alone() -> None:
    heard, other = drawn(1, 24, BINS), drawn(1, 24, BINS, seed=1)
    hidden = torch.zeros(1, 24, dtype=torch.bool)
    hidden[0, 10] = True
    model = network()
    expected = model.answers(heard, hidden)
    after = model.answers(torch.cat((heard[:, :11], other[:, 11:]), 1), hidden)
    before = model.answers(torch.cat((other[:, :10], heard[:, 10:]), 1), hidden)
    assert all(torch.equal(a, b) for a, b in zip(expected, after, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(expected, before, strict=True))


def test_the_loss_is_the_sum_of_its_parts(hidden: Tensor) -> None:
    clean, heard = drawn(3, 24, BINS), drawn(3, 24, BINS, seed=1)
    model = network()
    model.student.mean.fill_(-2)
    model.student.std.fill_(2)
    with torch.no_grad():
        loss, (entropy, error, found) = model(clean, heard, hidden)
        logits, frame = model.answers(heard, hidden)
    rows = clean[hidden]
    codes = quantiser().codes(rows)
    chosen = torch.log_softmax(logits, -1).gather(2, codes[..., None])
    assert float(error) == pytest.approx(float((frame - (rows + 2) / 2).square().mean()), rel=1e-4)
    assert float(entropy) == pytest.approx(float(-chosen.mean()), rel=1e-4)
    assert float(loss) == pytest.approx(float(2 * entropy + error), rel=1e-4)
    assert float(found) == pytest.approx(float((logits.argmax(-1) == codes).float().mean()))


# The run


def test_the_loss_falls_and_the_codes_are_found(tmp_path: Path, music: Path, codebooks: Path) -> None:
    run = Run(tmp_path / "run")
    pretrain(run, config(80, batch=8, mask=0.4, save_every=4), [music], codebooks, SMALL)
    lines = logged(run)
    assert [line["step"] for line in lines] == list(range(4, 81, 4))
    loss, found = (np.array([line[name] for line in lines]) for name in ("loss", "found"))
    assert loss[-5:].mean() < 0.6 * loss[0]
    assert found[-5:].mean() > found[0] + 0.1


def test_a_resumed_run_equals_an_unbroken_one(
    tmp_path: Path, music: Path, codebooks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = SMALL.model_copy(update={"dropout": 0.1})
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    pretrain(whole, config(10), [music], codebooks, sizes)

    class StopError(Exception):
        pass

    calls = []

    def interrupted(*args: object) -> object:
        calls.append(1)
        if len(calls) == 8:  # after the checkpoint of step 5
            raise StopError
        return mix(*args)

    monkeypatch.setattr(train.pretrain, "mix", interrupted)
    with pytest.raises(StopError):
        pretrain(broken, config(10), [music], codebooks, sizes)
    monkeypatch.setattr(train.pretrain, "mix", mix)
    pretrain(broken, config(10), [music], codebooks, sizes, resume=True)
    states = [load_student(run.weights)[0].state_dict() for run in (whole, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert logged(whole)[-1]["loss"] == logged(broken)[-1]["loss"]


def test_two_processes_share_the_music(tmp_path: Path, music: Path, codebooks: Path) -> None:
    run = Run(tmp_path / "run")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "train", "pretrain"]
    options = ["--codebooks", codebooks, "--steps", "2", "--batch", "2", "--frames", "16", "--context", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(train.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *launch, run.folder, music, *options, "--device", "cpu"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line["step"] for line in logged(run)] == [2]
    _, _, provenance = load_student(run.weights)
    assert provenance["pretrain"]["processes"] == 2
    assert provenance["hours"] == pytest.approx(3 * 1600 / FEATURES.frame_rate / 3600, abs=0.006)  # all three pieces


def test_stage_1_starts_from_it(tmp_path: Path, music: Path, codebooks: Path) -> None:
    run, then = tmp_path / "run", tmp_path / "then"
    few = ["--steps", "1", "--batch", "2", "--frames", "16"]
    assert main(["pretrain", str(run), str(music), "--codebooks", str(codebooks), "--context", "8", *few]) == 0
    weights = run / "student.safetensors"
    assert main(["stage1", str(then), str(music), "--initial", str(weights), "--learning-rate", "1e-9", *few]) == 0
    (before, features, provenance), after = load_student(weights), load_student(then / "student.safetensors")
    assert features == FEATURES
    assert provenance["pretrain"]["student"] == "live"
    assert after[2]["before"]["pretrain"] == provenance["pretrain"]
    assert before.config.context == after[0].config.context == 8
    for a, b in zip(before.parameters(), after[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_student_can_be_pretrained(tmp_path: Path, kind: str) -> None:
    definition = KINDS[kind].definition
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "music") as writer:
        features = rng.normal(-3, 2, (120, DEFINITIONS[definition].bins))
        writer.write("piece", {definition: {"features": features}}, {})
    path, run = tmp_path / "codebooks.safetensors", Run(tmp_path / "run")
    save_quantiser(path, quantiser(definition), definition, RVQConfig(codebooks=2, entries=PATTERNS), {})
    sizes = SMALL if kind == "live" else None
    pretrain(run, config(2, student=kind, batch=2), [tmp_path / "music"], path, sizes)
    pretrained, features, provenance = load_student(run.weights)
    assert type(pretrained) is type(KINDS[kind].build(sizes))
    assert features == DEFINITIONS[definition]
    assert provenance["pretrain"]["student"] == kind
    assert float(pretrained.mean) == pytest.approx(-3, abs=0.1)
    assert float(pretrained.std) == pytest.approx(2, abs=0.1)


def test_sizes_of_the_papers_students_are_theirs(tmp_path: Path, music: Path, codebooks: Path) -> None:
    with pytest.raises(UserError, match="sizes of its paper"):
        pretrain(Run(tmp_path / "run"), config(1, student="btc"), [music], codebooks, SMALL)


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path, music: Path, codebooks: Path) -> None:
    run = Run(tmp_path / "run")
    pretrain(run, config(1), [music], codebooks, SMALL)
    with pytest.raises(UserError, match="--resume"):
        pretrain(run, config(1), [music], codebooks, SMALL)


def test_a_run_is_not_resumed_with_other_settings_or_codebooks(tmp_path: Path, music: Path, codebooks: Path) -> None:
    run = Run(tmp_path / "run")
    pretrain(run, config(1), [music], codebooks, SMALL)
    with pytest.raises(UserError, match="begun with steps 1, not 2"):
        pretrain(run, config(2), [music], codebooks, SMALL, resume=True)
    save_quantiser(codebooks, quantiser(), "live", RVQConfig(codebooks=2, entries=PATTERNS, seed=1), {})
    with pytest.raises(UserError, match="begun with codebooks"):
        pretrain(run, config(1), [music], codebooks, SMALL, resume=True)
