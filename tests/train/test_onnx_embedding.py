"""Any ONNX model of sound as an embedding, with models made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rtchord.errors import UserError
from train.teachers import embedding

RATE = 8_000


def model(path: Path, samples: int | str = "samples", frames: int | None = None, rate: int | None = RATE) -> Path:
    """The mean (a number) of each run of `frames` samples and its double: (1, n, 2); of all of them without: (1, 2)."""
    nodes = []
    if frames:
        shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, -1, frames])
        nodes.append(helper.make_node("Reshape", ["sound", "shape"], ["cut"]))
        nodes.append(helper.make_node("ReduceMean", ["cut"], ["mean"], axes=[2], keepdims=1))
    else:
        shape = helper.make_tensor("shape", TensorProto.INT64, [1], [0])
        nodes.append(helper.make_node("ReduceMean", ["sound"], ["mean"], axes=[1], keepdims=1))
    nodes.append(helper.make_node("Add", ["mean", "mean"], ["double"]))
    nodes.append(helper.make_node("Concat", ["mean", "double"], ["out"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("sound", TensorProto.FLOAT, [1, samples])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, "n", 2] if frames else [1, 2])],
        initializer=[shape],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if rate:
        helper.set_model_props(made, {"sample_rate": str(rate)})
    onnx.save(made, path)
    return path


def stairs(seconds: float, rate: int = RATE) -> np.ndarray:
    """Each half second one more than the last, from 0."""
    return np.floor(np.arange(round(seconds * rate)) / (rate / 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [("samples", 400), ("samples", None), (4_000, None), (16_000, 400), (2_000, None)],
    ids=["frames", "piece", "fixed piece", "fixed frames", "half a piece"],
)
@pytest.mark.parametrize("seconds", [3.0, 13.2])
def test_each_piece_has_its_mean(samples: int | str, frames: int | None, seconds: float, tmp_path: Path) -> None:
    embedder = embedding(f"onnx:{model(tmp_path / 'm.onnx', samples, frames)}")
    found = embedder.embed(stairs(seconds), RATE)
    whole = int(2 * seconds)
    assert embedder.width == 2
    assert (found.shape, found.dtype) == ((int(np.ceil(2 * seconds)), 2), np.float32)
    assert found[:whole, 0] == pytest.approx(np.arange(whole))
    assert found[:, 1] == pytest.approx(2 * found[:, 0])


def test_sound_is_resampled_to_the_models_rate(tmp_path: Path) -> None:
    found = embedding(f"onnx:{model(tmp_path / 'm.onnx')}").embed(np.full(88_200, 0.5, np.float32), 44_100)
    assert found[:, 0] == pytest.approx(np.full(4, 0.5), abs=0.01)


def test_the_rate_may_be_given_and_must_be_known(tmp_path: Path) -> None:
    path = model(tmp_path / "m@1.onnx", rate=None)
    assert embedding(f"onnx:{path}@{RATE}").embed(stairs(1.0), RATE)[:, 0] == pytest.approx([0.0, 1.0])
    with pytest.raises(UserError, match=r"does not say its sample rate .*@16000"):
        embedding(f"onnx:{path}")


def test_a_sound_shorter_than_a_piece_is_one(tmp_path: Path) -> None:
    assert (
        embedding(f"onnx:{model(tmp_path / 'm.onnx', frames=400)}").embed(np.ones(100, np.float32), RATE).shape[0] == 1
    )


def test_what_is_no_model_of_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model at .*nowhere"):
        embedding(f"onnx:{tmp_path / 'nowhere'}")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="is no model that ONNX Runtime loads"):
        embedding(f"onnx:{tmp_path / 'broken.onnx'}")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "picture", info[:1], info[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "picture.onnx"
    )
    with pytest.raises(UserError, match=r"shape \(1, samples\)"):
        embedding(f"onnx:{tmp_path / 'picture.onnx'}@16000")
