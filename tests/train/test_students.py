"""Students of every kind: one interface, one file format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.bench import SHIPPED
from rtchord.chords import N_BASS, N_CLASSES
from rtchord.cqt import DEFINITIONS, Features
from rtchord.errors import UserError
from train.model import ModelConfig, Student
from train.students import (
    KINDS,
    config_of,
    fresh,
    kind_of,
    load_student,
    load_tensors,
    save_student,
    tensors_of,
    widened,
)

SMALL = ModelConfig(
    channels=4, registers=3, width=4, feed=6, heads=2, context=8, temporal_layers=1, decoder_layers=1, dropout=0.3
)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made = KINDS[kind].build(SMALL if kind == "live" else ModelConfig(dropout=0.3))
    made.mean.fill_(-3.25)
    made.std.fill_(1.5)
    return made.eval()


def frames(count: int = 12) -> Tensor:
    return torch.randn(2, count, 144, generator=torch.Generator().manual_seed(1)) * 1.5 - 3


@torch.no_grad()
def test_heads_read_what_encode_gives(model: torch.nn.Module) -> None:
    encoded = model.encode(frames())
    classes, bass = model.heads(encoded)
    whole = model(frames())
    assert encoded.shape == (2, 12, model.width)
    assert classes.shape == (2, 12, N_CLASSES)
    assert torch.equal(classes, whole[0] if isinstance(model, Student) else whole)
    assert bass is None or bass.shape == (2, 12, N_BASS)


def test_a_kind_names_a_definition_and_builds_its_network(kind: str) -> None:
    features = DEFINITIONS[KINDS[kind].definition]
    made = fresh(kind, None, features)
    assert kind_of(made) == kind
    assert made.encode(torch.zeros(1, 3, features.bins)).shape == (1, 3, made.width)
    assert config_of(made).dropout == (0.0 if kind == "live" else 0.2)  # as it is trained


@torch.no_grad()
def test_dropout_is_there_in_training_alone(model: torch.nn.Module) -> None:
    x = frames()
    assert torch.equal(model.encode(x), model.encode(x))
    if kind_of(model) == "2e1d":  # its residual branches are closed at first
        model.transformer.encoder_t[0].attn_alphas[0].fill_(1.0)
    model.train()
    assert not torch.equal(model.encode(x), model.encode(x))


def test_every_weight_but_the_unused_is_learnt(kind: str, model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():  # opens the residual branches of 2E1D
            parameter.add_(0.05 * torch.randn_like(parameter))
    classes, bass = model.heads(model.encode(frames()))
    (classes.square().mean() + (0 if bass is None else bass.square().mean())).backward()
    idle = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    frozen = {name.rpartition(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert idle == frozen == {"live": set(), "2e1d": {"transformer.decoder.fc"}, "btc": {"output_layer.lstm"}}[kind]


@torch.no_grad()
def test_a_student_comes_back_from_its_file(kind: str, model: torch.nn.Module, tmp_path: Path) -> None:
    features = DEFINITIONS["live" if kind == "live" else KINDS[kind].definition]  # of one set of bins, as SMALL
    save_student(tmp_path / "student.safetensors", model, features, {"made": "for a test"})
    loaded, found, provenance = load_student(tmp_path / "student.safetensors")
    assert (kind_of(loaded), config_of(loaded).dropout) == (kind, 0.3)
    assert (found, provenance) == (features, {"made": "for a test"})
    assert not loaded.training
    assert torch.equal(loaded.encode(frames()), model.encode(frames()))


def test_tensors_of_one_load_into_another(kind: str, model: torch.nn.Module) -> None:
    other = KINDS[kind].build(SMALL if kind == "live" else ModelConfig(dropout=0.3))
    load_tensors(other, tensors_of(model))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(model).values(), tensors_of(other).values(), strict=True))
    with pytest.raises(RuntimeError, match="surprise"):
        load_tensors(other, {**tensors_of(model), "surprise": torch.zeros(1)})


@torch.no_grad()
def test_a_widened_student_answers_as_before_and_may_learn_more() -> None:
    model = Student(SMALL).eval()
    features = Features.accompanied(longest_ms=168.0)
    wider, found = widened(model, Features(), features)
    assert found == features
    x = torch.randn(1, 20, SMALL.bins)
    for other in (torch.zeros_like(x), torch.randn_like(x)):
        for one, two in zip(model(x), wider(torch.cat((x, other), -1)), strict=True):
            assert torch.allclose(one, two, atol=1e-5)
    assert config_of(wider) == config_of(fresh("live", SMALL, features))


def test_a_file_whose_network_hears_other_bins_than_its_features_is_refused(tmp_path: Path) -> None:
    save_student(tmp_path / "student", Student(SMALL), DEFINITIONS["live-both"], {})
    with pytest.raises(UserError, match="hears other bins"):
        load_student(tmp_path / "student")


def test_a_student_of_other_bins_is_not_widened() -> None:
    model = Student(SMALL)
    for wanted in (Features(), Features.variable_q(longest_ms=168.0), Features.accompanied(longest_ms=168.0, hop=256)):
        assert widened(model, Features(), wanted) == (model, Features())


def test_the_file_of_a_live_student_is_what_it_was() -> None:
    with safe_open(SHIPPED, framework="pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert "kind" not in metadata
    assert names == set(load_student(SHIPPED)[0].state_dict())


def test_a_file_with_tensors_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_student(path, Student(SMALL), DEFINITIONS["live"], {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    wider = ModelConfig.model_validate({**json.loads(metadata["model"]), "width": 6})
    save_file(tensors, path, {**metadata, "model": wider.model_dump_json()})
    with pytest.raises(UserError, match="does not hold the tensors of its kind 'live'") as told:
        load_student(path)
    assert "\n" not in str(told.value)
    save_file(tensors, path, {**metadata, "kind": "crnn"})
    with pytest.raises(UserError, match="kind 'crnn', not one of"):
        load_student(path)
