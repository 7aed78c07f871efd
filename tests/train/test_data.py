"""Batches of stored tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, N, X, class_index
from rtchord.cqt import Features
from rtchord.errors import UserError
from train import data, store
from train.augment import Augmentation
from train.labels import parse

FEATURES = Features()
SILENCE = float(np.log(FEATURES.log_offset))


def write(folder: Path, **tracks: store.Track) -> None:
    with store.Writer(folder) as writer:
        for key, track in tracks.items():
            writer.write(key, {"live": track}, {})


def hard_track(frames: int, level: float, label: str) -> store.Track:
    """A track whose every frame has the same level and chord."""
    chord = parse(label)
    return {
        "features": np.full((frames, FEATURES.bins), level, np.float16),
        "class_index": np.full(frames, chord.index, np.int16),
        "bass_index": np.full(frames, chord.bass, np.int8),
    }


def soft_track() -> store.Track:
    rng = np.random.default_rng(12)
    return {
        "features": rng.standard_normal((60, FEATURES.bins)).astype(np.float16),
        "classes": rng.dirichlet(np.ones(N_CLASSES), 60).astype(np.float16),
        "bass": rng.dirichlet(np.ones(N_BASS), 60).astype(np.float16),
    }


def posteriors(label: str, frames: int) -> store.Track:
    """A teacher that is certain of one chord."""
    chord = parse(label)
    return {
        "classes": np.eye(N_CLASSES, dtype=np.float16)[[chord.index] * frames],
        "bass": np.eye(N_BASS, dtype=np.float16)[[chord.bass] * frames],
    }


@pytest.fixture
def tracks(tmp_path: Path) -> data.Tracks:
    write(tmp_path, a=hard_track(50, 0.0, "C:maj"), b=hard_track(200, 1.0, "A:min/b3"), c=hard_track(10, 2.0, "N"))
    return data.Tracks([tmp_path], "live", "true")


def test_a_batch_is_a_function_of_seed_and_step(tracks: data.Tracks) -> None:
    first, same, other = (tracks.batch(np.random.default_rng([0, step]), 4, 20) for step in (7, 7, 8))
    for name in ("frames", "classes", "bass", "known", "bass_known"):
        assert torch.equal(getattr(first, name), getattr(same, name))
    assert not torch.equal(first.frames, other.frames)


def test_another_rank_draws_other_crops(tracks: data.Tracks) -> None:
    alone, first, second = (tracks.batch(np.random.default_rng(seed), 4, 20) for seed in ([0, 7], [0, 7, 0], [0, 7, 1]))
    assert torch.equal(alone.frames, first.frames)
    assert not torch.equal(first.frames, second.frames)


def test_a_crop_lies_inside_one_track(tracks: data.Tracks) -> None:
    which, first = tracks.crops(np.random.default_rng(0), 300, 40)
    assert set(which) == {0, 1, 2}
    assert (first + 40 <= np.maximum(tracks.lengths[which], 40)).all()


def test_crops_begin_everywhere(tracks: data.Tracks) -> None:
    which, first = tracks.crops(np.random.default_rng(0), 3_000, 40)
    assert [set(first[which == track]) for track in range(3)] == [set(range(11)), set(range(161)), {0}]


def test_a_crop_is_what_lies_there(tmp_path: Path) -> None:
    track = hard_track(30, 0.0, "C:maj")
    track["features"][:, 0] = np.arange(30)
    write(tmp_path, a=track)
    batch = data.Tracks([tmp_path], "live", "true").at(np.array([0, 0]), np.array([3, 25]), 8)
    assert batch.frames[:, :, 0].tolist() == [[3, 4, 5, 6, 7, 8, 9, 10], [25, 26, 27, 28, 29, 29, 29, 29]]


def test_windows_lie_side_by_side(tracks: data.Tracks) -> None:
    which, first = tracks.windows(40)
    assert list(zip(which, first, strict=True)) == [(0, 0), (1, 0), (1, 40), (1, 80), (1, 120), (1, 160), (2, 0)]


def test_a_sample_is_spread_over_all_tracks(tracks: data.Tracks) -> None:
    levels, counts = tracks.sample(26)[:, 0].unique(return_counts=True)
    assert dict(zip(levels.tolist(), counts.tolist(), strict=True)) == {0.0: 5, 1.0: 20, 2.0: 1}


def test_processes_share_the_tracks_out(tmp_path: Path) -> None:
    write(tmp_path, **{name: hard_track(20, 0.0, "C:maj") for name in "abc"})
    shares = [[one.key for one in data.Tracks([tmp_path], "live", "true", (rank, 2)).opened] for rank in (0, 1)]
    assert shares == [["a", "c"], ["b"]]
    with pytest.raises(UserError, match="fewer tracks than there are processes"):
        data.Tracks([tmp_path], "live", "true", (3, 4))


def test_targets_of_a_batch_follow_the_shift_of_its_frames(tmp_path: Path) -> None:
    write(tmp_path, a=hard_track(50, SILENCE, "C:maj/3"))
    tracks = data.Tracks([tmp_path], "live", "true")
    batch = tracks.batch(np.random.default_rng(3), 200, 5)
    roots, basses = batch.classes.argmax(-1) // 14, batch.bass.argmax(-1)
    assert set(roots.flatten().tolist()) == set(range(12))
    assert ((roots + 4) % 12 == basses).all()
    assert (batch.classes.argmax(-1) % 14 == class_index(0, "maj")).all()


def test_unknown_chords_are_not_learnt_but_no_chord_is(tmp_path: Path) -> None:
    write(tmp_path / "x", a=hard_track(30, 0.0, "X"))
    assert not data.Tracks([tmp_path / "x"], "live", "true").batch(np.random.default_rng(0), 2, 10).known.any()
    write(tmp_path / "n", a=hard_track(30, 0.0, "N"))
    batch = data.Tracks([tmp_path / "n"], "live", "true").batch(np.random.default_rng(0), 2, 10)
    assert batch.known.all()
    assert (batch.classes.argmax(-1) == N).all()
    assert (batch.bass.argmax(-1) == NO_BASS).all()


def test_what_has_no_chord_keeps_its_pitch(tmp_path: Path) -> None:
    """One bin is loud: hum is learnt where the mains have it, a chord at every pitch."""
    for label, places in (("N", 1), ("C:maj", 12)):
        track = hard_track(30, SILENCE, label)
        track["features"][:, 70] = 3.0
        write(tmp_path / label[0], a=track)
        batch = data.Tracks([tmp_path / label[0]], "live", "true").batch(
            np.random.default_rng(0), 60, 5, augmentation=Augmentation(detune=0.0)
        )
        assert len(set(batch.frames.mean(1).argmax(-1).tolist())) == places, label


def test_frames_without_a_label_are_not_learnt(tmp_path: Path) -> None:
    track = {
        "features": np.zeros((30, FEATURES.bins), np.float16),
        "class_index": np.full(30, -1, np.int16),
        "bass_index": np.full(30, -1, np.int8),
    }
    write(tmp_path, a=track)
    batch = data.Tracks([tmp_path], "live", "true").batch(np.random.default_rng(0), 2, 10)
    assert not batch.known.any()
    assert not batch.bass_known.any()


def test_a_chord_whose_bass_is_not_known_is_learnt_without_it(tmp_path: Path) -> None:
    write(tmp_path, a={**hard_track(30, 0.0, "C:maj"), "bass_index": np.full(30, -1, np.int8)})
    batch = data.Tracks([tmp_path], "live", "true").batch(np.random.default_rng(0), 2, 10)
    assert batch.known.all()
    assert not batch.bass_known.any()


def test_pseudo_labels_stay_distributions(tmp_path: Path) -> None:
    write(tmp_path, a=soft_track())
    tracks = data.Tracks([tmp_path], "live", "soft")
    batch = tracks.batch(np.random.default_rng(0), 3, 20)
    assert tracks.soft
    assert batch.known.all()
    assert batch.classes.sum(-1).numpy() == pytest.approx(np.ones((3, 20)), abs=5e-3)
    assert batch.bass.sum(-1).numpy() == pytest.approx(np.ones((3, 20)), abs=5e-3)


def test_hard_pseudo_labels_are_the_likeliest_class(tmp_path: Path) -> None:
    write(tmp_path, a=soft_track())
    where = np.array([0]), np.array([7])
    soft, hard = (data.Tracks([tmp_path], "live", targets).at(*where, 20) for targets in ("soft", "hard"))
    assert torch.equal(hard.classes.argmax(-1), soft.classes.argmax(-1))
    assert torch.equal(hard.bass.argmax(-1), soft.bass.argmax(-1))
    assert hard.classes.sum() == hard.classes.amax(-1).sum() == 20


@pytest.mark.parametrize(("targets", "words"), [("true", "'a'.*no true labels"), ("soft", "'b'.*no pseudo-labels")])
def test_a_track_without_the_targets_is_named(tmp_path: Path, targets: data.Targets, words: str) -> None:
    write(tmp_path, a=soft_track(), b=hard_track(30, 0.0, "C:maj"))
    with pytest.raises(UserError, match=words):
        data.Tracks([tmp_path], "live", targets)


def test_qualities_are_counted(tracks: data.Tracks, tmp_path: Path) -> None:
    counts = tracks.quality_counts()
    maj, minor = class_index(0, "maj"), class_index(0, "min")
    assert {int(i): float(counts[i]) for i in counts.nonzero()} == {maj: 50.0, minor: 200.0, 15: 10.0}
    write(tmp_path / "soft", a=soft_track())
    soft = data.Tracks([tmp_path / "soft"], "live", "soft").quality_counts()
    assert float(soft.sum()) == pytest.approx(60, rel=1e-2)
    assert (soft > 0).all()


def test_every_class_has_a_quality_group() -> None:
    groups = data.quality_groups()
    assert groups[[0, 13, 14, 167, X, N]].tolist() == [0, 13, 0, 13, 14, 15]


# --- beside true labels -----------------------------------------------------------------------------------------------


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """One track with a teacher that hears another chord than its label says, and one without a teacher."""
    write(
        tmp_path / "taught",
        a={**hard_track(40, 0.0, "C:maj"), **posteriors("A:min7/b3", 40)},
        b=hard_track(40, 1.0, "C:maj"),
    )
    return tmp_path / "taught"


def test_a_teacher_moves_with_the_labels(taught: Path) -> None:
    tracks = data.Tracks([taught], "live", "true", teacher=True)
    batch = tracks.batch(np.random.default_rng(0), 200, 5)
    assert batch.teacher is not None
    assert batch.teacher_bass is not None
    has = batch.teacher.sum(-1) > 0
    roots = batch.classes.argmax(-1) // 14
    assert len(roots[has].unique()) == 12
    assert ((batch.teacher.argmax(-1) // 14)[has] == (roots[has] + 9) % 12).all()
    assert (batch.teacher_bass.argmax(-1)[has] == roots[has]).all()
    assert 0 < has.sum() < has.numel()
    assert not batch.teacher_bass[~has].any()


def test_a_teacher_comes_only_when_asked_for(taught: Path) -> None:
    assert data.Tracks([taught], "live", "true").batch(np.random.default_rng(0), 2, 5).teacher is None


def embedded(frames: int) -> store.Track:
    """The embedding's row i is (i, i): half seconds are counted."""
    pieces = int(np.ceil(frames / FEATURES.frame_rate / store.EMBEDDING_SECONDS))
    return {
        **hard_track(frames, 0.0, "C:maj"),
        "embedding": np.repeat(np.arange(pieces, dtype=np.float16)[:, None], 2, 1),
    }


def test_frames_belong_to_the_half_second_of_their_time(tmp_path: Path) -> None:
    write(tmp_path, a=embedded(300))
    tracks = data.Tracks([tmp_path], "live", "true", embedding=True)
    for first in (0, 21, 22, 100):
        batch = tracks.at(np.array([0]), np.array([first]), 100)
        assert batch.embedding is not None
        assert batch.piece is not None
        piece, rows = batch.piece[0].numpy(), batch.embedding[0, :, 0].numpy()
        assert set(range(len(rows))) <= set(piece)  # 2.3 s: four whole pieces
        assert len(rows) == 4
        times = (first + np.arange(100)) / FEATURES.frame_rate
        assert (rows[piece[piece >= 0]] == np.floor(times / 0.5)[piece >= 0]).all()


def test_after_the_end_the_last_half_second_goes_on(tmp_path: Path) -> None:
    write(tmp_path, a=embedded(30))
    batch = data.Tracks([tmp_path], "live", "true", embedding=True).at(np.array([0]), np.array([0]), 100)
    assert batch.embedding is not None
    assert batch.embedding[0, :, 0].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_a_track_without_an_embedding_has_no_pieces(tmp_path: Path) -> None:
    write(tmp_path, a=embedded(120), b=hard_track(120, 0.0, "C:maj"))
    batch = data.Tracks([tmp_path], "live", "true", embedding=True).at(np.array([0, 1]), np.array([0, 0]), 100)
    assert batch.piece is not None
    assert (batch.piece[0] >= 0).any()
    assert (batch.piece[1] == -1).all()


def test_embeddings_of_two_widths_are_refused(tmp_path: Path) -> None:
    write(tmp_path, a=embedded(60), b={**embedded(60), "embedding": np.zeros((3, 5), np.float16)})
    with pytest.raises(UserError, match="2 widths"):
        data.Tracks([tmp_path], "live", "true", embedding=True)


def test_hours_count_frames_of_every_track(tracks: data.Tracks) -> None:
    assert tracks.hours == pytest.approx(260 * 512 / 22_050 / 3_600)


def test_merged_batches_follow_one_another(tracks: data.Tracks) -> None:
    first, second = (tracks.batch(np.random.default_rng(seed), 2, 10) for seed in (0, 1))
    merged = data.merge(first, second)
    for name in ("frames", "classes", "bass", "known", "bass_known"):
        assert torch.equal(getattr(merged, name), torch.cat((getattr(first, name), getattr(second, name))))
    assert merged.teacher is merged.embedding is merged.piece is None


def test_what_one_batch_lacks_is_empty_in_the_merged_one(tmp_path: Path) -> None:
    write(tmp_path, a={**embedded(60), **posteriors("C:maj", 60)})
    rich = data.Tracks([tmp_path], "live", "true", teacher=True, embedding=True).batch(np.random.default_rng(0), 2, 30)
    poor = data.Tracks([tmp_path], "live", "soft").batch(np.random.default_rng(0), 3, 30)
    for merged, empty in ((data.merge(rich, poor), slice(2, 5)), (data.merge(poor, rich), slice(0, 3))):
        assert merged.teacher is not None
        assert merged.piece is not None
        assert len(merged.teacher) == len(merged.piece) == 5
        assert not merged.teacher[empty].any()
        assert (merged.piece[empty] == -1).all()


def test_labels_come_late_by_the_delay(tmp_path: Path) -> None:
    labels = np.repeat([parse("C:maj").index, parse("A:min").index], 5).astype(np.int16)
    write(tmp_path, one={**hard_track(10, 0.0, "C:maj"), "class_index": labels})
    batch = data.Tracks([tmp_path], "live", "true", delay=2).at(np.array([0]), np.array([1]), 9, early=3.0)
    assert batch.classes[0].argmax(-1).tolist() == [parse("C:maj").index] * 6 + [parse("A:min").index] * 3
    assert batch.known[0].tolist() == [1.0] * 6 + [3.0] * 3


def test_labels_just_after_a_change_weigh_more(tmp_path: Path) -> None:
    labels = np.repeat([parse("C:maj").index, parse("A:min").index, X], 40).astype(np.int16)
    track = {
        "features": np.zeros((120, FEATURES.bins), np.float16),
        "class_index": labels,
        "bass_index": np.zeros(120, np.int8),
    }
    write(tmp_path, one=track)
    known = data.Tracks([tmp_path], "live", "true").batch(np.random.default_rng(0), 1, 120, early=3.0).known[0]
    reach = round(data.EARLY_SECONDS * FEATURES.frame_rate)
    expected = torch.ones(120)
    expected[40 : 40 + reach] = 3.0
    expected[80:] = 0.0
    assert torch.equal(known, expected)
