from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from rtchord.cqt import Features
from rtchord.errors import UserError
from train import store

FEATURES = Features()


def track() -> store.Track:
    rng = np.random.default_rng(9)
    return {
        "features": rng.standard_normal((7, FEATURES.bins)).astype(np.float16),
        "class_index": rng.integers(-1, 170, 7).astype(np.int16),
        "bass_index": rng.integers(-1, 13, 7).astype(np.int8),
    }


def test_a_track_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.safetensors"
    store.save(path, track(), FEATURES)
    loaded = store.load(path, FEATURES)
    assert loaded.keys() == track().keys()
    for name, array in track().items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)


def test_a_view_with_strides_is_read_back_as_it_looks(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    store.save(path, {"features": track()["features"][::2, ::-1]}, FEATURES)
    assert np.array_equal(store.load(path, FEATURES)["features"], track()["features"][::2, ::-1])


def test_a_track_of_another_feature_definition_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    store.save(path, track(), Features(hop=256))
    with pytest.raises(UserError, match=r"b\.safetensors.*another feature definition"):
        store.load(path, FEATURES)


def test_nothing_but_the_track_is_left_behind(tmp_path: Path) -> None:
    store.save(tmp_path / "b.safetensors", track(), FEATURES)
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]


def test_a_write_that_fails_leaves_the_old_track(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    store.save(path, track(), FEATURES)
    before = path.read_bytes()
    with pytest.raises(SafetensorError):
        store.save(path, {"features": np.array(["no", "numbers"], dtype=object)}, FEATURES)
    assert path.read_bytes() == before


def test_tracks_are_found_in_every_folder_in_order(tmp_path: Path) -> None:
    names = ["a/2.safetensors", "a/1.safetensors", "3.safetensors"]
    for name in names:
        store.save(tmp_path / name, track(), FEATURES)
    (tmp_path / "notes.txt").touch()
    assert [str(path.relative_to(tmp_path)) for path in store.tracks(tmp_path)] == sorted(names)


def test_a_folder_without_tracks_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="python -m train"):
        store.tracks(tmp_path / "nowhere")


def test_a_file_that_is_no_track_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"junk\.safetensors.*is no training track"):
        store.load(tmp_path / "junk.safetensors", Features())
