"""Export: the engine gives the student's numbers, or is not written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engines import export as module
from engines.export import check_frames, describe, difference, export
from rtchord.cqt import Features
from rtchord.engine import MANIFEST, OnnxEngine, load, read_manifest, sealed
from rtchord.errors import UserError
from train.fit import load_student, save_student
from train.model import ModelConfig, Student

SMALL = ModelConfig(
    token_width=8, frequency_layers=1, width=24, heads=2, context=8, temporal_layers=1, decoder_layers=1
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "student.safetensors"
    student = Student(SMALL)
    student.std.fill_(2.0)
    save_student(path, student, Features(), {"made": "for a test"})
    return path


@pytest.fixture(scope="module")
def engine(weights: Path) -> Path:
    target = weights.parent / "engine"
    export(weights, target, "test", delay=0.05, replace=False)
    return target


def test_onnx_equals_the_student_over_a_stream(weights: Path, engine: Path) -> None:
    loaded = load(engine)
    assert isinstance(loaded, OnnxEngine)
    result = difference(load_student(weights)[0], loaded, check_frames(Features(), 300))
    assert result["max_error"] < 1e-4
    assert result["agree"] == 1.0


def test_the_manifest_says_where_the_engine_comes_from(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert manifest.name == "test"
    assert manifest.delay == 0.05
    assert manifest.features == Features()
    assert manifest.provenance == {"made": "for a test"}
    assert manifest.check["max_error"] < 1e-4


def test_nothing_of_the_exporting_machine_is_in_the_model(engine: Path) -> None:
    assert str(Path(module.__file__).parents[1]).encode() not in (engine / "step.onnx").read_bytes()


def test_an_existing_engine_is_kept_unless_told(weights: Path, engine: Path) -> None:
    before = (engine / MANIFEST).read_bytes()
    with pytest.raises(UserError, match="--replace"):
        export(weights, engine, "other", delay=0.0, replace=False)
    assert (engine / MANIFEST).read_bytes() == before


def test_an_engine_that_differs_is_not_written(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.load_student

    def another(path: Path) -> tuple:
        student, *rest = original(path)
        # The graph is written from a student whose head is then moved: what the check exists for.
        monkeypatch.setattr(module, "difference", spoiled)
        return student, *rest

    def spoiled(student: Student, engine: OnnxEngine, frames: np.ndarray) -> dict:
        with torch.no_grad():
            student.classes.bias[0] += 1.0
        return difference(student, engine, frames)

    monkeypatch.setattr(module, "load_student", another)
    with pytest.raises(UserError, match="differs from its student"):
        export(weights, tmp_path / "engine", "test", delay=0.0, replace=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_and_a_missing_student_is_one_sentence(weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engines", "export"]
    done = subprocess.run([*command, weights, tmp_path / "e"], capture_output=True, text=True, check=True)
    assert "differs from its student by at most" in done.stdout
    assert json.loads((tmp_path / "e" / MANIFEST).read_text())["name"]
    failed = subprocess.run([*command, tmp_path / "no", tmp_path / "f"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("engines: no student at")
    assert len(failed.stderr.splitlines()) == 1


def test_describe_writes_delay_and_scores_and_leaves_the_model(engine: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"set": "songs", "latency": "fast", "scores": {"majmin": 0.5}}))
    before = read_manifest(engine)
    describe(engine, 0.1, [result])
    after = load(engine).manifest
    assert after.scores == {"songs, fast": {"majmin": 0.5}}
    assert after == sealed(before.model_copy(update={"delay": 0.1, "scores": after.scores}))


def test_describe_refuses_what_is_no_result(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(UserError, match=r"no\.json"):
        describe(engine, None, [tmp_path / "no.json"])


def test_the_shipped_engine_was_checked_and_says_what_it_is() -> None:
    manifest = load().manifest
    assert manifest.check["max_error"] < 1e-4
    assert {"first", "second"} <= manifest.provenance.keys(), "it is a blend of both stages"
    assert {"pop, balanced", "strum, balanced"} <= manifest.scores.keys()
    assert manifest.delay > 0
