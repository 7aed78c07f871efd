"""A student small enough to be exported in a test, and a place for engines of its own."""

from pathlib import Path

import pytest
import torch

from rtchord.cqt import DEFINITIONS, STAGE
from train.model import ModelConfig, Student
from train.students import save_student

FEATURES = DEFINITIONS[STAGE]
SMALL = ModelConfig(
    sets=len(FEATURES.sets), channels=4, registers=3, width=4, feed=6, heads=2, context=8, temporal_layers=1,
    decoder_layers=1,
)  # fmt: skip


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "student.safetensors"
    student = Student(SMALL)
    student.mean.fill_(-2.3)
    student.std.fill_(2.0)
    save_student(path, student, FEATURES, {"made": "for a test"})
    return path


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own engines; empty."""
    folder = tmp_path / "own"
    monkeypatch.setenv("RTCHORD_ENGINES", str(folder))
    return folder
