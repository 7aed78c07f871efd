"""Loading engines: what is accepted, what is refused and how."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rtchord import engine
from rtchord.errors import UserError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped engine that a test may damage."""
    return Path(shutil.copytree(engine.shipped(), tmp_path / "engine"))


def edit(folder: Path, **changes: object) -> None:
    """Change fields of a manifest, without sealing it again."""
    path = folder / engine.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def seal(folder: Path) -> None:
    path = folder / engine.MANIFEST
    path.write_text(engine.sealed(engine.Manifest.model_validate_json(path.read_text())).model_dump_json())


def test_the_shipped_engine_is_found_and_loads() -> None:
    names = [name for name, _ in engine.installed_engines()]
    assert engine.load().manifest.name in names


def test_a_step_answers_posteriors() -> None:
    classes, bass = engine.load().step(np.zeros(144, np.float32))
    assert classes.shape == (170,)
    assert bass.shape == (13,)
    assert classes.sum() == pytest.approx(1, abs=1e-4)
    assert bass.sum() == pytest.approx(1, abs=1e-4)


def test_reset_equals_new() -> None:
    frames = np.random.default_rng(0).normal(-1, 2, (100, 144)).astype(np.float32)
    loaded = engine.load()
    first = [loaded.step(frame)[0].copy() for frame in frames]
    loaded.reset()
    second = [loaded.step(frame)[0].copy() for frame in frames]
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first[0], loaded.step(frames[0])[0], atol=1e-6), "without a reset the past matters"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no engine at .*nowhere"):
        engine.load(tmp_path / "nowhere")


def test_a_tampered_model_is_refused(copy: Path) -> None:
    model = copy / json.loads((copy / engine.MANIFEST).read_text())["model"]
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(UserError, match="changed after it was built"):
        engine.load(copy)


def test_a_missing_model_is_refused(copy: Path) -> None:
    (copy / json.loads((copy / engine.MANIFEST).read_text())["model"]).unlink()
    with pytest.raises(UserError, match="lacks its model file"):
        engine.load(copy)


def test_a_model_that_is_no_onnx_is_refused(copy: Path) -> None:
    (copy / "step.onnx").write_bytes(b"not a model")
    edit(copy, model="step.onnx", sha256=engine.sha256(copy / "step.onnx"))
    seal(copy)
    with pytest.raises(UserError, match="cannot be run by ONNX Runtime"):
        engine.load(copy)


def test_a_wrong_cache_shape_is_refused(copy: Path) -> None:
    edit(copy, cache=[1, 1, 1, 1, 1])
    seal(copy)
    with pytest.raises(UserError, match="does not fit its manifest"):
        engine.load(copy)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"format": 2}, "format"),
        ({"vocabulary": "other"}, "vocabulary"),
        ({"surprise": 1}, "surprise"),
        ({"model": "../../etc/passwd"}, "model"),
    ],
)
def test_an_invalid_manifest_names_the_field(copy: Path, changes: dict, where: str) -> None:
    edit(copy, **changes)
    with pytest.raises(UserError, match=f"invalid manifest.json \\({where}"):
        engine.load(copy)


def test_a_manifest_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / engine.MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"invalid manifest\.json"):
        engine.load(copy)


def test_a_tampered_manifest_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / engine.MANIFEST).read_text())
    edit(copy, features={**manifest["features"], "fmin": 34.65})
    with pytest.raises(UserError, match=r"changed after it was built \(its manifest\.json\)"):
        engine.load(copy)


@pytest.mark.parametrize("cache", [[-1, 1, 5, 63, 32], [7, 1, 5, 10**10, 32]])
def test_absurd_sizes_are_refused_before_anything_is_allocated(copy: Path, cache: list[int]) -> None:
    edit(copy, cache=cache)
    with pytest.raises(UserError, match=r"invalid manifest\.json \(cache"):
        engine.load(copy)
