"""The published layouts: our networks load them strictly and give the authors' numbers."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train.published import BTC, LAYOUTS, WINDOW, TwoEncoders, load_published

# Checkpoints of the published layouts with random weights, and what the authors' code answers; not in the repository.
FIXTURES = Path(os.environ.get("RTCHORD_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures"))
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="RTCHORD_FIXTURES names no folder with the published layouts"
)


def windows(count: int = 1) -> Tensor:
    return torch.randn(count, WINDOW, 144, generator=torch.Generator().manual_seed(1)) * 1.5 - 3.25


def spread(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights in every tensor, so that every path matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(layout: str) -> torch.nn.Module:
    return spread(LAYOUTS[layout].network())


@pytest.fixture(scope="module")
def tensors(network: torch.nn.Module) -> dict[str, Tensor]:
    return network.state_dict()


def saved(path: Path, **content: object) -> Path:
    torch.save(content, path)
    return path


# SHA-256 of the names and shapes of the authors' tensors, sorted: what makes their checkpoints load.
TENSORS = {
    "2e1d": "5f3e87f974aed43158cd357f05cc40b4de4f9a19ef76fb61f242d557817a3eaf",
    "btc": "c16e9dbd139e3e6fd961480c8d67d81a709af908a5569c7fb5f95882bbd98ebd",
}


def test_the_tensors_have_the_authors_names_and_shapes(layout: str, tensors: dict[str, Tensor]) -> None:
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TENSORS[layout]


@needs_fixtures
@torch.no_grad()
@pytest.mark.parametrize(("name", "stem"), [("2e1d", "2e1d"), ("btc", "btc_large_voca")])
def test_the_authors_numbers(name: str, stem: str) -> None:
    network, found = load_published(FIXTURES / f"{stem}_layout.pt")
    expected = np.load(FIXTURES / f"{stem}_io.npz")
    x = torch.from_numpy(expected["x"])
    assert found == name
    np.testing.assert_allclose(network.logits(x), expected["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(network(x * network.std + network.mean), expected["logits"], atol=1e-4, rtol=0)


@needs_fixtures
@torch.no_grad()
def test_the_parts_of_2e1d_give_the_authors_numbers() -> None:
    network, _ = load_published(FIXTURES / "2e1d_layout.pt")
    expected = np.load(FIXTURES / "2e1d_io.npz")
    x = torch.from_numpy(expected["x"])
    parts = network.transformer
    for part, answer in [("encoder_f", parts.encoder_f[0](x)), ("encoder_t", parts.encoder_t[0](x))]:
        np.testing.assert_allclose(answer, expected[part], atol=1e-4, rtol=0)
    np.testing.assert_allclose(parts(x), expected["features"], atol=1e-4, rtol=0)


def chirp(shape: tuple[int, ...], phase: float) -> Tensor:
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.37 * n**1.5 + phase).float().view(shape)


# Logits of frames 0, 50 and 107, classes 0, 100 and 169, of weights by formula: from when the tests with the authors'
# numbers passed.
BY_FORMULA: dict[str, list[list[float]]] = {
    "2e1d": [[3.55802, -0.60418, 2.55059], [3.61727, -1.22642, 1.94124], [3.31304, -0.99714, 3.21537]],
    "btc": [[1.04258, 1.39882, 0.49239], [1.33851, 0.78759, 1.50422], [0.57322, 0.89905, 1.74417]],
}


@torch.no_grad()
def test_weights_by_formula_give_the_numbers_they_gave(layout: str) -> None:
    """Stands in for the authors' numbers where those are not at hand."""
    network = LAYOUTS[layout].network()
    for i, parameter in enumerate(network.parameters()):
        one = parameter.ndim == 1 and bool((parameter == 1).all())  # the scale of a norm
        parameter.copy_(0.15 * chirp(tuple(parameter.shape), i) + (1.0 if one else 0.2 * (parameter.numel() == 1)))
    found = network.eval().logits(2 * chirp((1, WINDOW, 144), 0.5))[0][[0, 50, 107]][:, [0, 100, 169]]
    np.testing.assert_allclose(found, BY_FORMULA[layout], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("network", "tensors", "parameters"), [(TwoEncoders, 249, 3_031_249), (BTC, 221, 3_036_842)])
def test_sizes_are_the_published_ones(network: type, tensors: int, parameters: int) -> None:
    made = network()
    assert len(made.state_dict()) == tensors
    assert sum(p.numel() for p in made.parameters()) == parameters


@torch.no_grad()
@pytest.mark.parametrize("wrapping", ["new", "old", "parallel", "numpy scalars", "with an optimizer"])
def test_a_checkpoint_gives_the_same_answers_again(
    wrapping: str, layout: str, network: torch.nn.Module, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "published.pt"
    if wrapping == "new":
        saved(path, model_state_dict=tensors, normalization={"mean": -3.25, "std": 1.5})
    elif wrapping == "old":
        saved(path, model=tensors, mean=-3.25, std=1.5)
    elif wrapping == "parallel":
        saved(path, model=OrderedDict((f"module.{k}", v) for k, v in tensors.items()), mean=-3.25, std=1.5)
    elif wrapping == "numpy scalars":
        saved(path, model=tensors, mean=np.float32(-3.25), std=np.float64(1.5))
    else:
        state = torch.optim.Adam(network.parameters()).state_dict()
        saved(path, model=tensors, optimizer=state, mean=torch.tensor(-3.25), std=1.5, idx_to_chord={0: "C:min"})
    loaded, found = load_published(path)
    assert found == layout
    x = windows()
    assert torch.allclose(loaded(x), network.logits((x + 3.25) / 1.5), atol=1e-5)


@torch.no_grad()
def test_the_whole_window_is_seen(network: torch.nn.Module) -> None:
    x = windows()
    for disturbed, read in [(0, 60), (WINDOW - 1, 60)]:
        other = x.clone()
        other[:, disturbed] += 2.0
        assert (network(x)[:, read] - network(other)[:, read]).abs().max() > 1e-6


@torch.no_grad()
def test_one_half_of_btc_sees_the_past_and_one_the_future() -> None:
    pair = spread(BTC(layers=1)).self_attn_layers.self_attn_layers[0]
    x = chirp((1, 20, 128), 0.0)
    other = x.clone()
    other[:, 10] += chirp((128,), 1.0)  # a constant would vanish in the norms
    future = torch.ones(20, 20, dtype=torch.bool).triu(1)
    reach = 2  # of two convolutions, three frames wide
    seen = {}
    for half, name in enumerate(("past", "future")):
        pair.linear.weight.zero_()
        pair.linear.weight[:, 128 * half : 128 * (half + 1)] = torch.eye(128)
        changed = (pair(x, future) - pair(other, future)).abs().amax(dim=(0, 2)) > 1e-6
        seen[name] = changed.nonzero().flatten().tolist()
    assert seen == {"past": list(range(10 - reach, 20)), "future": list(range(10 + reach + 1))}


@torch.no_grad()
def test_windows_of_a_batch_do_not_hear_each_other(network: torch.nn.Module) -> None:
    x = windows(2)
    assert torch.allclose(network(x)[1:], network(x[1:]), atol=1e-5)


def test_a_layout_names_a_transform_of_its_hop() -> None:
    for layout in LAYOUTS.values():
        features = DEFINITIONS[layout.definition]
        assert (features.hop, features.bins, features.log_offset) == (2048, 144, 1e-6)
        # Windows of ten seconds, cut out before they were transformed, leave the last frame about this much.
        assert 0 < layout.future <= 2 * features.hop


def change(tensors: dict[str, Tensor], how: str) -> tuple[dict[str, Tensor], str]:
    """Another layout, and what must be said about it."""
    names = list(tensors)
    if how == "lacks one":
        return {k: v for k, v in tensors.items() if k != names[3]}, f"{names[3]!r} is missing"
    if how == "has another shape":
        return {**tensors, names[5]: torch.zeros(7)}, rf"{names[5]!r} has shape \(7,\), not"
    return {**tensors, "surprise": torch.zeros(1)}, "'surprise' does not belong to it"


@pytest.mark.parametrize("how", ["lacks one", "has another shape", "has one more"])
def test_another_layout_is_refused_by_its_first_different_tensor(
    how: str, layout: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    changed, words = change(tensors, how)
    path = saved(tmp_path / "other.pt", model=changed, mean=0.0, std=1.0)
    with pytest.raises(UserError, match=words) as told:
        load_published(path)
    assert repr(layout) in str(told.value)
    assert "\n" not in str(told.value)


def test_the_wrong_layout_asked_for_is_refused(layout: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    other = next(name for name in LAYOUTS if name != layout)
    path = saved(tmp_path / "published.pt", model=tensors, mean=0.0, std=1.0)
    with pytest.raises(UserError, match=f"does not have the layout '{other}'.* is missing"):
        load_published(path, other)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "sprung"),)

    saved(path := tmp_path / "trap.pt", model=Trap(), mean=0.0, std=1.0)
    (plain := tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": Trap()}, protocol=2))
    for trap in (path, plain):
        with pytest.raises(UserError, match="is not read"):
            load_published(trap)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weights": {}}, "no weights"),
        ({"model": {}, "mean": 0.0, "std": 1.0}, "no weights"),
        ({"model": {"a": 1}, "mean": 0.0, "std": 1.0}, "no weights"),
        ([torch.zeros(1)], "holds a list"),
    ],
)
def test_what_is_no_published_checkpoint_is_refused(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=words):
        load_published(tmp_path / "other.pt")


@pytest.mark.parametrize("written", [b"", b"no checkpoint", b"PK\x03\x04 broken"])
def test_files_that_torch_cannot_read_are_refused(written: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "broken.pt").write_bytes(written)
    with pytest.raises(UserError, match=r"broken\.pt"):
        load_published(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere"):
        load_published(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("kept", "words"),
    [({}, "lacks"), ({"mean": "loud", "std": 1.0}, "lacks"), ({"mean": 0.0, "std": 0.0}, "deviation 0"),
     ({"mean": float("nan"), "std": 1.0}, "mean is nan")],
)  # fmt: skip
def test_a_checkpoint_without_its_normalisation_is_refused(kept: dict, words: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "bare.pt", model=TwoEncoders().state_dict(), **kept)
    with pytest.raises(UserError, match=words):
        load_published(path)
