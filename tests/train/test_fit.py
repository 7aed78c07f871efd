"""The training loop: it learns, it resumes exactly, its weights carry what is needed to use them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rtchord.chords import N_BASS, N_CLASSES, class_index
from rtchord.cqt import Features
from rtchord.errors import UserError
from train import store
from train.fit import FitConfig, Run, fit, load_student
from train.model import ModelConfig

FEATURES = Features()
SMALL = ModelConfig(
    token_width=8, frequency_layers=1, width=24, heads=2, context=8, temporal_layers=1, decoder_layers=1
)


def config(steps: int, **changes: object) -> FitConfig:
    return FitConfig(steps=steps, batch=4, frames=16, warm_up=2, save_every=5, ema=0.9, **changes)


@pytest.fixture
def hard(tmp_path: Path) -> Path:
    """Two tracks with true labels: a C major triad and an A minor triad, as bare peaks."""
    for name, root, quality, peaks in (("c", 0, "maj", (72, 80, 86)), ("a", 9, "min", (66, 72, 80))):
        features = np.full((200, FEATURES.bins), -6.0, np.float16)
        features[:, list(peaks)] = 2.0
        track = {
            "features": features,
            "class_index": np.full(200, class_index(root, quality), np.int16),
            "bass_index": np.full(200, root, np.int8),
        }
        store.save(tmp_path / "hard" / f"{name}.safetensors", track, FEATURES)
    return tmp_path / "hard"


@pytest.fixture
def soft(tmp_path: Path) -> Path:
    """One track with soft targets."""
    rng = np.random.default_rng(0)
    track = {
        "features": rng.normal(-2, 2, (100, FEATURES.bins)).astype(np.float16),
        "classes": rng.dirichlet(np.ones(N_CLASSES), 100).astype(np.float16),
        "bass": rng.dirichlet(np.ones(N_BASS), 100).astype(np.float16),
    }
    store.save(tmp_path / "soft" / "one.safetensors", track, FEATURES)
    return tmp_path / "soft"


def logged(run: Run) -> list[dict]:
    import json

    return [json.loads(line) for line in run.log.read_text().splitlines()]


def test_the_loss_falls(tmp_path: Path, hard: Path) -> None:
    run = Run(tmp_path / "run")
    fit(run, config(60, learning_rate=3e-3), FEATURES, [hard], [], None, SMALL, resume=False)
    lines = logged(run)
    assert lines[-1]["step"] == 60
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, hard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    fit(whole, config(10), FEATURES, [hard], [], None, SMALL, resume=False)

    class StopError(Exception):
        pass

    import train.fit

    calls = []
    original = train.fit.loss_of

    def interrupted(*args: object) -> object:
        calls.append(1)
        if len(calls) == 8:  # after the checkpoint of step 5
            raise StopError
        return original(*args)

    monkeypatch.setattr(train.fit, "loss_of", interrupted)
    with pytest.raises(StopError):
        fit(broken, config(10), FEATURES, [hard], [], None, SMALL, resume=False)
    monkeypatch.setattr(train.fit, "loss_of", original)
    fit(broken, config(10), FEATURES, [hard], [], None, SMALL, resume=True)
    for a, b in zip(
        load_student(whole.weights)[0].parameters(), load_student(broken.weights)[0].parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_stage_2_starts_from_stage_1_and_remembers_it(tmp_path: Path, hard: Path, soft: Path) -> None:
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    fit(first, config(3), FEATURES, [soft], [], None, SMALL, resume=False)
    fit(second, config(3, learning_rate=1e-9), FEATURES, [hard], [soft], first.weights, SMALL, resume=False)
    before, after = load_student(first.weights), load_student(second.weights)
    assert after[2]["before"]["soft"] is True
    for a, b in zip(before[0].parameters(), after[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path, hard: Path) -> None:
    run = Run(tmp_path / "run")
    fit(run, config(2), FEATURES, [hard], [], None, SMALL, resume=False)
    with pytest.raises(UserError, match="--resume"):
        fit(run, config(2), FEATURES, [hard], [], None, SMALL, resume=False)


def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path, hard: Path) -> None:
    run = Run(tmp_path / "run")
    fit(run, config(2), FEATURES, [hard], [], None, SMALL, resume=False)
    with pytest.raises(UserError, match="other settings"):
        fit(run, config(4), FEATURES, [hard], [], None, SMALL, resume=True)


def test_weights_without_metadata_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "student.safetensors")
    with pytest.raises(UserError, match="not a student"):
        load_student(tmp_path / "student.safetensors")
