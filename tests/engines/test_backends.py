"""Engines of optional packages: those that are built on any machine, and those that say why they are not."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines.build import build
from engines.network import from_student
from engines.verify import verified
from rtchord.engine import load
from rtchord.errors import UserError

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("form", ["step", "window"])
def test_tensorrt_rtx_builds_without_a_gpu(weights: Path, form: str, precision: str) -> None:
    network = from_student(weights, form, precision=precision)
    folder, manifest, why = build(network, "tensorrt-rtx", seconds=2.0)
    assert (folder / "model.engine").stat().st_size > 100_000
    assert list(manifest.files) == ["model.engine"]
    if manifest.check is None:
        assert why.startswith("TensorRT-RTX engine: ")
        with pytest.raises(UserError, match="was never verified"):
            load(folder)
        with pytest.raises(UserError, match=r"^TensorRT-RTX engine: .*use --engine onnx"):
            verified(folder, network, 2.0)


@needs_openvino
@pytest.mark.parametrize(("form", "streams"), [("step", 1), ("step", 3), ("window", 1)])
def test_openvino_gives_the_same_numbers(weights: Path, form: str, streams: int) -> None:
    folder, manifest, why = build(from_student(weights, form, streams), "openvino", seconds=4.0)
    assert why == ""
    assert manifest.check is not None
    assert manifest.check.max_error < 1e-4
    assert load(folder).manifest.backend == "openvino"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engines", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_cuda_engine_is_built_anywhere_and_verified_where_it_runs(weights: Path, own: Path) -> None:
    done = run("build", weights, "--backend", "cuda", "--seconds", "2")
    assert done.returncode == 0
    folder = own / "student-cuda-fp32"
    assert (folder / "model.pt2").is_file()
    if "not verified" in done.stdout:
        again = run("verify", folder, "--checkpoint", weights)
        assert again.returncode == 2
        assert again.stderr.startswith("engines: CUDA engine: ")
        assert len(again.stderr.splitlines()) == 1


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="torch-tensorrt is installed")
def test_tensorrt_is_refused_in_one_sentence_and_leaves_nothing(weights: Path, own: Path) -> None:
    done = run("build", weights, "--backend", "tensorrt")
    assert done.returncode == 2
    assert done.stderr.startswith("engines: TensorRT engine: ")
    assert len(done.stderr.splitlines()) == 1
    assert [path for path in own.iterdir() if path.name != ".timings"] == []
