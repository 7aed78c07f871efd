"""Loading and choosing engines: what is accepted, what is refused and how."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rtchord import engine
from rtchord.engine import manifest as manifests
from rtchord.errors import UserError


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own engines; empty."""
    folder = tmp_path / "own"
    monkeypatch.setenv("RTCHORD_ENGINES", str(folder))
    return folder


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


def resealed(folder: Path, **changes: object) -> Path:
    """What whoever builds an engine may do: change fields and seal them."""
    edit(folder, **changes)
    seal(folder)
    return folder


def model_of(folder: Path) -> Path:
    return folder / next(iter(json.loads((folder / engine.MANIFEST).read_text())["files"]))


TARGET = {"gpu": "NVIDIA A", "capability": "8.6", "library": "TensorRT 10.1", "cuda": "13.0"}


def test_the_shipped_engine_is_found_and_loads() -> None:
    names = [name for name, _ in engine.installed_engines()]
    assert engine.load().manifest.name in names


def test_a_step_answers_posteriors() -> None:
    loaded = engine.load()
    classes, bass = loaded.stepper().step(np.zeros(loaded.manifest.features.bins, np.float32))
    assert classes.shape == (170,)
    assert bass.shape == (13,)
    assert classes.sum() == pytest.approx(1, abs=1e-4)
    assert bass.sum() == pytest.approx(1, abs=1e-4)


def test_reset_equals_new() -> None:
    loaded = engine.load()
    frames = np.random.default_rng(0).normal(-1, 2, (101, loaded.manifest.features.bins)).astype(np.float32)
    used, new = loaded.stepper(), loaded.stepper()
    first = [used.step(frame)[0].copy() for frame in frames]
    used.reset()
    second = [used.step(frame)[0].copy() for frame in frames]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, [new.step(frame)[0].copy() for frame in frames])
    assert not np.allclose(first[0], used.step(frames[0])[0], atol=1e-6), "without a reset the past matters"


def test_a_step_allocates_nothing() -> None:
    import tracemalloc

    loaded = engine.load()
    stepper, frame = loaded.stepper(), np.full(loaded.manifest.features.bins, -1, np.float32)
    stepper.step(frame)
    tracemalloc.start()
    for _ in range(100):
        stepper.step(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < frame.nbytes


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no engine at .*nowhere"):
        engine.load(tmp_path / "nowhere")


def test_a_tampered_model_is_refused(copy: Path) -> None:
    model = model_of(copy)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(UserError, match="changed after it was built"):
        engine.load(copy)


def test_a_missing_model_is_refused(copy: Path) -> None:
    model_of(copy).unlink()
    with pytest.raises(UserError, match="lacks its file"):
        engine.load(copy)


def test_an_engine_that_was_never_verified_is_refused(copy: Path) -> None:
    resealed(copy, check=None)
    with pytest.raises(UserError, match="was never verified; run `python -m engines verify"):
        engine.load(copy)
    assert engine.load(copy, verified=False).manifest.check is None, "but whoever verifies it can run it"


def test_a_model_that_is_no_onnx_is_refused(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"not a model")
    resealed(copy, files={"model.onnx": engine.sha256(copy / "model.onnx")})
    with pytest.raises(UserError, match="cannot be run by ONNX Runtime"):
        engine.load(copy)


def test_a_folder_without_a_model_for_its_backend_is_refused(copy: Path) -> None:
    (copy / "model.onnx").rename(copy / "step.bin")
    resealed(copy, files={"step.bin": engine.sha256(copy / "step.bin")})
    with pytest.raises(UserError, match=r"has one \.onnx file, not 0"):
        engine.load(copy)


def test_a_wrong_cache_shape_is_refused(copy: Path) -> None:
    resealed(copy, cache=[1, 1, 1, 1, 1])
    with pytest.raises(UserError, match="does not fit its manifest"):
        engine.load(copy)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"vocabulary": "other"}, "vocabulary"),
        ({"surprise": 1}, "surprise"),
        ({"files": {"../../etc/passwd": "0" * 64}}, r"files\.\.\./\.\./etc/passwd"),
        ({"files": {}}, "files"),
        ({"check": {}}, "check"),
        ({"streams": 8}, "cache="),
        ({"form": "window"}, "a window form has a window and no cache"),
        ({"window": 64}, "a step has a cache and no window"),
    ],
)
def test_an_invalid_manifest_names_the_field(copy: Path, changes: dict, where: str) -> None:
    edit(copy, **changes)
    with pytest.raises(UserError, match=f"invalid manifest.json \\({where}"):
        engine.load(copy)


@pytest.mark.parametrize("version", [1, 3, "x"])
def test_a_manifest_of_another_version_says_which(copy: Path, version: object) -> None:
    edit(copy, format=version)
    with pytest.raises(UserError, match=f"manifest version {version}, this rtchord reads version 2; build it again"):
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


def test_auto_takes_the_shipped_engine_where_no_other_is_built() -> None:
    chosen, why = engine.choose()
    assert chosen.manifest.backend == "onnx"
    assert why == "engine 2e1d-live-7, onnx fp32, as no other is built here"


class Fake:
    """A backend that is there; its answers do not matter."""

    SUFFIX = ".onnx"

    def __init__(self, _folder: Path, manifest: engine.Manifest) -> None:
        self.manifest = manifest

    @staticmethod
    def probe() -> manifests.Target:
        return manifests.Target(**TARGET)


@pytest.fixture
def gpu(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine for TensorRT in the user's folder, on a machine that has it."""
    real = engine.backend_class
    monkeypatch.setattr(engine, "backend_class", lambda name: Fake if name == "tensorrt" else real(name))
    own.mkdir()
    folder = Path(shutil.copytree(engine.shipped(), own / "mine"))
    return resealed(folder, backend="tensorrt", target=TARGET)


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_best_that_is_verified_here() -> None:
    chosen, why = engine.choose()
    assert isinstance(chosen, Fake)
    assert why == "engine 2e1d-live-7, tensorrt fp32 on NVIDIA A, the best that is verified on this machine"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"check": None}, "was never verified"),
        ({"target": {**TARGET, "gpu": "NVIDIA B"}}, "was verified on NVIDIA B"),
        ({"target": {**TARGET, "library": "TensorRT 10.0"}}, "was verified on NVIDIA A .* with TensorRT 10.0"),
        ({"target": None}, "was verified on another kind of machine"),
    ],
)
def test_auto_falls_back_in_one_line_and_an_explicit_request_does_not(gpu: Path, changes: dict, why: str) -> None:
    resealed(gpu, **changes)
    chosen, line = engine.choose("auto")
    assert chosen.manifest.backend == "onnx"
    assert "as the better one cannot be used" in line
    assert len(line.splitlines()) == 1
    for query in ("tensorrt", str(gpu), gpu):
        with pytest.raises(UserError, match=why):
            engine.choose(query)


def test_auto_falls_back_where_the_file_was_changed(gpu: Path) -> None:
    model_of(gpu).write_bytes(b"another")
    chosen, why = engine.choose()
    assert chosen.manifest.backend == "onnx"
    assert "has another hash" in why


@pytest.mark.parametrize("changes", [{"name": "another student"}, {"form": "window", "cache": None, "window": 64}])
def test_auto_never_changes_what_is_recognised(gpu: Path, changes: dict) -> None:
    resealed(gpu, **changes)
    assert engine.choose()[0].manifest.backend == "onnx"
    assert isinstance(engine.choose("tensorrt")[0], Fake), "who asks for it gets it"


def test_auto_passes_over_engines_for_many_streams(gpu: Path) -> None:
    _, heads, frames, width = engine.read_manifest(gpu).cache[1:]
    resealed(gpu, streams=8, cache=[7, 8, heads, frames, width])
    assert engine.choose()[1].endswith("as no other is built here")


def test_auto_takes_the_best_backend_and_a_backend_its_step_of_the_shipped_student(
    gpu: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "backend_class", lambda _name: Fake)
    for name, changes in (
        ("another", {"name": "another"}), ("cuda", {"backend": "cuda"}),
        ("window", {"form": "window", "cache": None, "window": 64}),
    ):  # fmt: skip
        resealed(Path(shutil.copytree(gpu, own / f"a {name}")), **changes)
    for query in ("auto", "tensorrt"):
        manifest = engine.choose(query)[0].manifest
        assert (manifest.backend, manifest.name, manifest.form) == ("tensorrt", "2e1d-live-7", "step")


def test_a_backend_by_name_is_the_shipped_engine_for_onnx() -> None:
    chosen, why = engine.choose("onnx")
    assert chosen.manifest.backend == "onnx"
    assert why.endswith("as asked")


def test_a_backend_without_an_engine_says_how_to_build_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "backend_class", lambda _name: Fake)
    with pytest.raises(UserError, match="no engine for cuda is built here; run `python -m engines build"):
        engine.choose("cuda")


def test_an_engine_for_many_streams_is_not_for_listening(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "backend_class", lambda _name: Fake)
    resealed(copy, streams=8, cache=[7, 8, 5, 63, 32], target=TARGET)
    with pytest.raises(UserError, match="is for 8 streams at once"):
        engine.choose(copy)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data"),
        ("linux", {}, "/home/me/.local/share"),
        ("darwin", {}, "/home/me/Library/Application Support"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
    ],
)
def test_engines_are_kept_where_the_platform_keeps_data(
    platform: str, variables: dict, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RTCHORD_ENGINES", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(engine.sys, "platform", platform)
    assert engine.own_folder() == Path(folder) / "rtchord" / "engines"
