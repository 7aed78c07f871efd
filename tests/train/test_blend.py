"""Blends of two students' weights."""

from pathlib import Path

import pytest
import torch

from rtchord.cqt import Features
from rtchord.errors import UserError
from train.blend import blend
from train.model import ModelConfig, Student
from train.published import BTC
from train.students import load_student, save_student, tensors_of

SMALL = {
    "channels": 4, "registers": 3, "width": 4, "feed": 6, "heads": 2, "context": 8, "temporal_layers": 1,
    "decoder_layers": 1,
}  # fmt: skip


def student(path: Path, seed: int, **changes: int) -> Path:
    torch.manual_seed(seed)
    save_student(path, Student(ModelConfig(**{**SMALL, **changes})), Features(), {"seed": seed})
    return path


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_weight_lies_between_the_two(tmp_path: Path, share: float) -> None:
    first, second = student(tmp_path / "first", 1), student(tmp_path / "second", 2)
    blend(first, second, share, tmp_path / "out" / "blend")
    one, two, mixed = (load_student(p)[0].state_dict() for p in (first, second, tmp_path / "out" / "blend"))
    for name, weight in mixed.items():
        assert torch.allclose(weight, (1 - share) * one[name] + share * two[name])


def test_the_blend_remembers_both(tmp_path: Path) -> None:
    blend(student(tmp_path / "a", 1), student(tmp_path / "b", 2), 0.5, tmp_path / "c")
    assert load_student(tmp_path / "c")[2] == {"blend": 0.5, "first": {"seed": 1}, "second": {"seed": 2}}


def test_a_student_blends_with_its_child_that_hears_a_second_set_of_bins(tmp_path: Path) -> None:
    features = Features.accompanied(longest_ms=168.0)
    torch.manual_seed(2)
    save_student(tmp_path / "b", Student(ModelConfig(**SMALL, sets=2)), features, {})
    blend(student(tmp_path / "a", 1), tmp_path / "b", 0.75, tmp_path / "c")
    one, two, mixed = (load_student(tmp_path / name)[0].harmonic.kernel for name in "abc")
    assert load_student(tmp_path / "c")[1] == features
    assert torch.allclose(mixed[: len(one)], 0.25 * one + 0.75 * two[: len(one)])
    assert torch.allclose(mixed[len(one) :], 0.75 * two[len(one) :])


def test_students_of_two_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="differ in kind, size"):
        blend(student(tmp_path / "a", 1), student(tmp_path / "b", 2, width=6), 0.5, tmp_path / "c")


def test_a_share_above_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1\.5"):
        blend(student(tmp_path / "a", 1), student(tmp_path / "b", 2), 1.5, tmp_path / "c")


def test_the_papers_networks_blend_with_their_normalisation(tmp_path: Path) -> None:
    for name, mean in (("a", 1.0), ("b", 3.0)):
        network = BTC(layers=8)
        network.mean.fill_(mean)
        save_student(tmp_path / name, network, Features(), {})
    blend(tmp_path / "a", tmp_path / "b", 0.25, tmp_path / "c")
    one, two, mixed = (tensors_of(load_student(tmp_path / name)[0]) for name in "abc")
    assert float(mixed["mean"]) == 1.5
    name = "output_layer.output_projection.weight"
    assert torch.allclose(mixed[name], 0.75 * one[name] + 0.25 * two[name])


def test_students_of_two_kinds_are_refused(tmp_path: Path) -> None:
    save_student(tmp_path / "b", BTC(), Features(), {})
    with pytest.raises(UserError, match="differ in kind"):
        blend(student(tmp_path / "a", 1), tmp_path / "b", 0.5, tmp_path / "c")
