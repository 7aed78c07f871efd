from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, N, X, class_index
from rtchord.cqt import Features
from rtchord.errors import UserError
from train import data, store
from train.labels import parse

FEATURES = Features()
SILENCE = float(np.log(FEATURES.log_offset))
STEP = FEATURES.bins_per_octave // 12  # bins of a semitone


def hard_track(folder: Path, name: str, frames: int, level: float, label: str) -> None:
    """A track whose every frame has the same level and chord."""
    chord = parse(label)
    track = {
        "features": np.full((frames, FEATURES.bins), level, np.float16),
        "class_index": np.full(frames, chord.index, np.int16),
        "bass_index": np.full(frames, chord.bass, np.int8),
    }
    store.save(folder / f"{name}.safetensors", track, FEATURES)


def soft_track(folder: Path, name: str) -> None:
    rng = np.random.default_rng(12)
    track = {
        "features": rng.standard_normal((60, FEATURES.bins)).astype(np.float16),
        "classes": rng.dirichlet(np.ones(N_CLASSES), 60).astype(np.float16),
        "bass": rng.dirichlet(np.ones(N_BASS), 60).astype(np.float16),
    }
    store.save(folder / f"{name}.safetensors", track, FEATURES)


def crop(label: str) -> tuple[Tensor, Tensor, Tensor]:
    """Three frames with energy in the bins of the chord's tones of one octave, and its targets."""
    chord = parse(label)
    x = torch.full((3, FEATURES.bins), SILENCE)
    root = 3 * FEATURES.bins_per_octave + chord.root * STEP
    for tone in (0, 4, 7):
        x[:, root + tone * STEP] = 1.0
    classes = functional.one_hot(torch.full((3,), chord.index), N_CLASSES).float()
    bass = functional.one_hot(torch.full((3,), chord.bass), N_BASS).float()
    return x, classes, bass


@pytest.fixture
def tracks(tmp_path: Path) -> data.Tracks:
    for name, frames, level, label in (("a", 50, 0.0, "C:maj"), ("b", 200, 1.0, "A:min/b3"), ("c", 10, 2.0, "N")):
        hard_track(tmp_path, name, frames, level, label)
    return data.Tracks([tmp_path], FEATURES)


@pytest.mark.parametrize(("semitones", "label"), [(2, "D:maj"), (-1, "B:maj"), (0, "C:maj"), (6, "F#:maj")])
def test_a_shifted_crop_equals_the_crop_of_the_shifted_chord(semitones: int, label: str) -> None:
    moved = data.shift(*crop("C:maj"), semitones, FEATURES)
    x, classes, bass = crop(label)
    if label == "B:maj":  # down from C: an octave below the B above
        x = x.roll(-FEATURES.bins_per_octave, 1)
    assert all(torch.equal(a, b) for a, b in zip(moved, (x, classes, bass), strict=True))


def test_an_inversion_stays_one_when_shifted() -> None:
    _, classes, bass = data.shift(*crop("C:maj/3"), 5, FEATURES)
    assert int(classes[0].argmax()) == parse("F:maj/3").index
    assert int(bass[0].argmax()) == parse("F:maj/3").bass


def test_rootless_targets_do_not_shift() -> None:
    x, classes, bass = torch.zeros(1, FEATURES.bins), torch.zeros(1, N_CLASSES), torch.zeros(1, N_BASS)
    classes[0, N], classes[0, X], bass[0, NO_BASS] = 0.7, 0.3, 1.0
    _, moved, moved_bass = data.shift(x, classes, bass, -4, FEATURES)
    assert torch.equal(moved, classes)
    assert torch.equal(moved_bass, bass)


@pytest.mark.parametrize("semitones", [-5, -1, 1, 6])
def test_bins_from_outside_hold_silence(semitones: int) -> None:
    x = torch.ones(2, FEATURES.bins)
    moved, _, _ = data.shift(x, torch.zeros(2, N_CLASSES), torch.zeros(2, N_BASS), semitones, FEATURES)
    silent = (moved[0] == SILENCE).nonzero().flatten().tolist()
    bins = abs(semitones) * STEP
    assert silent == list(range(bins) if semitones > 0 else range(FEATURES.bins - bins, FEATURES.bins))


def test_a_disturbed_crop_keeps_its_shape_and_stays_finite() -> None:
    x = torch.cat((torch.full((2, 50, FEATURES.bins), SILENCE), torch.full((2, 50, FEATURES.bins), 3.0)), 1)
    for seed in range(20):
        disturbed = data.disturb(x, np.random.default_rng(seed), FEATURES)
        assert disturbed.shape == x.shape
        assert disturbed.isfinite().all()
        assert disturbed.min() >= SILENCE - 1e-4


def test_a_disturbance_is_a_function_of_its_generator() -> None:
    x = torch.zeros(2, 5, FEATURES.bins)
    first, same, other = (data.disturb(x, np.random.default_rng(seed), FEATURES) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_disturbance_keeps_the_loudest_bin_of_a_clear_tone() -> None:
    x, _, _ = crop("C:maj")
    x[:, 3 * FEATURES.bins_per_octave] = 5.0
    for seed in range(20):
        disturbed = data.disturb(x[None], np.random.default_rng(seed), FEATURES)
        assert (disturbed.argmax(-1) == 3 * FEATURES.bins_per_octave).all()


def test_a_batch_is_a_function_of_seed_and_step(tracks: data.Tracks) -> None:
    first, same, other = (tracks.batch(np.random.default_rng([0, step]), 4, 20) for step in (7, 7, 8))
    for name in data.Batch.__dataclass_fields__:
        assert torch.equal(getattr(first, name), getattr(same, name))
    assert not torch.equal(first.frames, other.frames)


def test_a_crop_lies_inside_one_track(tracks: data.Tracks) -> None:
    index = tracks.crops(np.random.default_rng(0), 300, 40)
    track = np.searchsorted(tracks.starts, index, side="right") - 1
    assert index.shape == (300, 40)
    assert (track == track[:, :1]).all()
    assert set(track[:, 0]) == {0, 1, 2}


def test_crops_begin_everywhere(tracks: data.Tracks) -> None:
    first = tracks.crops(np.random.default_rng(0), 3_000, 40)[:, 0]
    assert set(first) == {*range(11), *range(50, 211), 250}


def test_a_short_track_repeats_its_last_frame(tracks: data.Tracks) -> None:
    index = tracks.crops(np.random.default_rng(0), 3_000, 40)
    short = index[index[:, 0] == 250][0]
    assert short.tolist() == [*range(250, 260), *[259] * 30]


def test_targets_of_a_batch_follow_the_shift_of_its_frames(tmp_path: Path) -> None:
    hard_track(tmp_path, "a", 50, SILENCE, "C:maj/3")
    tracks = data.Tracks([tmp_path], FEATURES)
    batch = tracks.batch(np.random.default_rng(3), 200, 5)
    roots, basses = batch.classes.argmax(-1) // 14, batch.bass.argmax(-1)
    assert set(roots.flatten().tolist()) == set(range(12))
    assert ((roots + 4) % 12 == basses).all()
    assert (batch.classes.argmax(-1) % 14 == class_index(0, "maj")).all()


def test_unknown_chords_are_not_learnt_but_no_chord_is(tmp_path: Path) -> None:
    hard_track(tmp_path, "a", 30, 0.0, "X")
    assert not data.Tracks([tmp_path], FEATURES).batch(np.random.default_rng(0), 2, 10).known.any()
    hard_track(tmp_path, "a", 30, 0.0, "N")
    batch = data.Tracks([tmp_path], FEATURES).batch(np.random.default_rng(0), 2, 10)
    assert batch.known.all()
    assert (batch.classes.argmax(-1) == N).all()
    assert (batch.bass.argmax(-1) == NO_BASS).all()


def test_frames_without_a_label_are_not_learnt(tmp_path: Path) -> None:
    track = {
        "features": np.zeros((30, FEATURES.bins), np.float16),
        "class_index": np.full(30, -1, np.int16),
        "bass_index": np.full(30, -1, np.int8),
    }
    store.save(tmp_path / "a.safetensors", track, FEATURES)
    batch = data.Tracks([tmp_path], FEATURES).batch(np.random.default_rng(0), 2, 10)
    assert not batch.known.any()
    assert not batch.bass_known.any()


def test_pseudo_labels_stay_distributions(tmp_path: Path) -> None:
    soft_track(tmp_path, "a")
    tracks = data.Tracks([tmp_path], FEATURES)
    batch = tracks.batch(np.random.default_rng(0), 3, 20)
    assert tracks.soft
    assert batch.known.all()
    assert batch.classes.sum(-1).numpy() == pytest.approx(np.ones((3, 20)), abs=5e-3)
    assert batch.bass.sum(-1).numpy() == pytest.approx(np.ones((3, 20)), abs=5e-3)


def test_true_and_pseudo_labels_do_not_mix_in_one_set(tmp_path: Path) -> None:
    soft_track(tmp_path, "a")
    hard_track(tmp_path, "b", 30, 0.0, "C:maj")
    with pytest.raises(UserError, match="not both"):
        data.Tracks([tmp_path], FEATURES)


def test_hours_count_frames_of_every_track(tracks: data.Tracks) -> None:
    assert tracks.hours == pytest.approx(260 * 512 / 22_050 / 3_600)


def test_merged_batches_follow_one_another(tracks: data.Tracks) -> None:
    first, second = (tracks.batch(np.random.default_rng(seed), 2, 10) for seed in (0, 1))
    merged = data.merge(first, second)
    for name in data.Batch.__dataclass_fields__:
        assert torch.equal(getattr(merged, name), torch.cat((getattr(first, name), getattr(second, name))))


def test_labels_just_after_a_change_weigh_more(tmp_path: Path) -> None:
    labels = np.repeat([parse("C:maj").index, parse("A:min").index, X], 40).astype(np.int16)
    track = {
        "features": np.zeros((120, FEATURES.bins), np.float16),
        "class_index": labels,
        "bass_index": np.zeros(120, np.int8),
    }
    store.save(tmp_path / "one.safetensors", track, FEATURES)
    known = data.Tracks([tmp_path], FEATURES).batch(np.random.default_rng(0), 1, 120, early=3.0).known[0]
    reach = round(data.EARLY_SECONDS * FEATURES.frame_rate)
    expected = torch.ones(120)
    expected[40 : 40 + reach] = 3.0
    expected[80:] = 0.0
    assert torch.equal(known, expected)
