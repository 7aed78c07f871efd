"""The residual vector quantiser: what its codes mean, how its entries learn, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train.__main__ import main
from train.frames import Frames
from train.rvq import (
    CROP,
    SPLIT,
    Codebook,
    Quantiser,
    RVQConfig,
    kmeans,
    load_quantiser,
    make_codebooks,
    save_quantiser,
    train_quantiser,
)
from train.store import Writer

BINS = DEFINITIONS["live"].bins
CONFIG = RVQConfig(codebooks=3, entries=16, steps=60, batch=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames that are one of 8 loud patterns, plus one of 8 softer ones, plus a little noise."""
    rng = np.random.default_rng(0)
    loud, soft = 3 * rng.standard_normal((8, BINS)), rng.standard_normal((8, BINS))
    with Writer(tmp_path / "music") as writer:
        for piece in range(3):
            first, second = rng.integers(0, 8, (2, 600))
            features = loud[first] + soft[second] + 0.1 * rng.standard_normal((600, BINS)) - 3
            writer.write(f"piece{piece}", {"live": {"features": features.astype(np.float16)}}, {})
    return tmp_path / "music"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def quantiser(codebooks: int = 3, entries: int = 5) -> Quantiser:
    scales = 0.5 ** torch.arange(codebooks)
    return Quantiser(drawn(codebooks, entries, BINS) * scales[:, None, None], torch.tensor(-2.0), torch.tensor(1.5))


def test_every_codebook_leaves_less_of_the_frames(folder: Path) -> None:
    frames = Frames([folder], "live")
    found = train_quantiser(frames, CONFIG)
    left = found.unexplained(frames.crops(np.random.default_rng(9), 20, 30))
    assert 1 > left[0] > left[1] > left[2]
    assert left[2] < 0.05


def test_codes_are_the_nearest_entries_one_codebook_after_the_other() -> None:
    found, frames = quantiser(), drawn(4, 6, BINS, seed=1)
    codes = found.codes(frames)
    assert codes.shape == (4, 6, 3)
    for clip, time in ((0, 0), (3, 5)):
        left = (frames[clip, time] + 2) / 1.5
        for book, code in zip(found.codebooks, codes[clip, time], strict=True):
            assert int(code) == int((book - left).norm(dim=1).argmin())
            left = left - book[code]


def test_decoding_adds_up_entries() -> None:
    found, codes = quantiser(), torch.tensor([[4, 0, 2]])
    expected = (found.codebooks[0, 4] + found.codebooks[1, 0] + found.codebooks[2, 2]) * 1.5 - 2
    assert torch.allclose(found.decode(codes)[0], expected)
    assert torch.allclose(found.decode(codes[:, :1])[0], found.codebooks[0, 4] * 1.5 - 2)


def test_in_many_dimensions_nearly_all_entries_come_to_be_used(tmp_path: Path) -> None:
    with Writer(tmp_path / "music") as writer:
        features = np.random.default_rng(0).standard_normal((4_000, BINS))
        writer.write("noise", {"live": {"features": features}}, {})
    frames = Frames([tmp_path / "music"], "live")
    found = train_quantiser(frames, RVQConfig(codebooks=2, entries=32, steps=100, batch=16, decay=0.9))
    codes = found.codes(frames.crops(np.random.default_rng(9), 60, CROP))
    assert all(len(codes[..., book].unique()) >= 31 for book in range(2))


def test_kmeans_finds_separate_clusters() -> None:
    centres = 20 * drawn(4, 10)
    x = centres.repeat(50, 1) + 0.1 * drawn(200, 10, seed=1)
    starts = [kmeans(x, 4, np.random.default_rng(seed)) for seed in range(10)]
    best = min(torch.cdist(centres, found).min(1).values.max() for found in starts)
    assert best < 0.1


def test_without_memory_entries_move_to_the_mean_of_what_chose_them() -> None:
    config = RVQConfig(codebooks=1, entries=4, batch=1, decay=0.0)
    x = drawn(CROP, 3)
    book = Codebook(x, config, np.random.default_rng(0))
    before, y = book.entries, drawn(CROP, 3, seed=1)
    index = torch.cdist(y, before).argmin(1)
    left = book.learn(y, np.random.default_rng(0))
    assert torch.allclose(left, y - before[index])
    for entry in index.unique():
        assert torch.allclose(book.entries[entry], y[index == entry].mean(0), atol=1e-5)


def test_a_dead_entry_starts_anew_beside_one_that_is_used() -> None:
    config = RVQConfig(codebooks=1, entries=4, batch=1, decay=0.5)
    x = drawn(CROP, 3)
    book = Codebook(x, config, np.random.default_rng(0))
    book.entries[2] = 1000.0
    book.counts[2], book.sums[2] = 1.0, torch.full((3,), 1000.0)
    book.learn(x, np.random.default_rng(0))
    assert book.entries[2].min() > 900  # its count is 0.5, above 0.05 * 32 / 4
    before = book.entries
    left = book.learn(x, np.random.default_rng(0))
    started = before[torch.cdist(x, before).argmin(1)] + SPLIT * left  # from every frame's entry towards the frame
    assert torch.cdist(book.entries[2:3], started).min() < 1e-4
    book.learn(x, np.random.default_rng(0))
    assert (torch.cdist(x, book.entries).argmin(1) == 2).any()


def test_entries_that_are_used_do_not_start_anew() -> None:
    x = drawn(CROP, 3)
    config = RVQConfig(codebooks=1, entries=2, batch=1)
    book = Codebook(x, config, np.random.default_rng(0))
    before = book.entries
    book.learn(x, np.random.default_rng(0))
    assert torch.allclose(book.entries, before, atol=0.1)


def test_a_quantiser_is_a_function_of_its_data_and_settings(folder: Path) -> None:
    frames, config = Frames([folder], "live"), RVQConfig(codebooks=2, entries=8, steps=5, batch=4)
    first, same = (train_quantiser(frames, config) for _ in range(2))
    other = train_quantiser(frames, config.model_copy(update={"seed": 1}))
    assert torch.equal(first.codebooks, same.codebooks)
    assert not torch.equal(first.codebooks, other.codebooks)


def test_a_saved_and_loaded_quantiser_gives_the_same_codes(tmp_path: Path) -> None:
    found, frames = quantiser(), drawn(40, BINS, seed=1)
    save_quantiser(tmp_path / "q.safetensors", found, "live", CONFIG, {})
    loaded, definition = load_quantiser(tmp_path / "q.safetensors")
    assert definition == "live"
    assert torch.equal(loaded.codes(frames), found.codes(frames))


def test_the_command_writes_settings_and_what_is_left(tmp_path: Path, folder: Path) -> None:
    target = tmp_path / "new" / "codebooks.safetensors"
    options = ["--features", "live", "--codebooks", "2", "--entries", "8", "--steps", "3", "--seed", "5"]
    assert main(["codebooks", str(target), str(folder), *options]) == 0
    with safe_open(target, framework="pt") as file:
        metadata = file.metadata()
    config = RVQConfig.model_validate_json(metadata["rvq"])
    assert (config.codebooks, config.entries, config.steps, config.seed) == (2, 8, 3, 5)
    assert len(json.loads(metadata["provenance"])["unexplained"]) == 2
    assert load_file(target)["codebooks"].shape == (2, 8, BINS)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_no_codebooks_without_music(tmp_path: Path) -> None:
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        make_codebooks(tmp_path / "q.safetensors", [tmp_path / "empty"], "live", CONFIG)


def test_a_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train codebooks"):
        load_quantiser(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no codebooks of this project"):
        load_quantiser(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="no codebooks of this project"):
        load_quantiser(tmp_path / "text.safetensors")


def test_codebooks_of_a_definition_that_has_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    save_quantiser(path, quantiser(), "live", CONFIG, {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"features": DEFINITIONS["live-vq"].model_dump_json()})
    with pytest.raises(UserError, match="another definition"):
        load_quantiser(path)
