"""Batches for training: random crops of stored tracks, moved in pitch and level, with noise mixed in.

Batch number `step` is a pure function of (seed, step, rank): a resumed run sees exactly what an unbroken one would.

Tracks stay on disk, mapped into memory; a batch copies the rows of its crops and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rtchord.chords import N_BASS, N_CLASSES, N_QUALITIES, N, X
from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train import store
from train.augment import SHIFTS, Augmentation, augmented, shift, transpose

EARLY_SECONDS = 0.3  # after a change: the frames that decide how late a student is

Targets = Literal["soft", "hard", "true"]


@dataclass(frozen=True)
class Batch:
    """`frames` (batch, time, bins) float32; `classes` (batch, time, 170) and `bass` (batch, time, 13) target
    distributions, float32; `known`, `bass_known` (batch, time) float32 weights, 0 where there is no target.

    Beside true labels, where asked for: `teacher`, `teacher_bass`, a teacher's posteriors in the same shapes, zeros
    where a track has none. `embedding` (batch, pieces, width) of an embedding teacher and `piece` (batch, time) int64,
    which of those a frame belongs to, -1 for none.
    """

    frames: Tensor
    classes: Tensor
    bass: Tensor
    known: Tensor
    bass_known: Tensor
    teacher: Tensor | None = None
    teacher_bass: Tensor | None = None
    embedding: Tensor | None = None
    piece: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        parts = ((field.name, getattr(self, field.name)) for field in fields(self))
        return Batch(**{name: None if part is None else part.to(device, non_blocking=True) for name, part in parts})


class Tracks:
    """All tracks of some folders in one feature definition, a key of DEFINITIONS.

    `targets`: "soft" is a teacher's posteriors, "hard" its most likely class, "true" the true labels. `share` (rank,
    world): every world-th track, from the rank-th on. `teacher`: true labels come with the teacher's posteriors, where
    a track has them. `embedding`: batches hold the embedding teacher's vectors, where a track has them. `delay`: frames
    by which true labels come late, so that a student may hear so much of a chord before it has to name it. UserError
    where a track lacks its targets, or no track is left.
    """

    def __init__(
        self, folders: list[Path], definition: str, targets: Targets, share: tuple[int, int] = (0, 1),
        teacher: bool = False, embedding: bool = False, delay: int = 0,
    ) -> None:  # fmt: skip
        self.delay = delay
        self.features = DEFINITIONS[definition]
        self.targets = targets
        self.opened = store.open_tracks(folders, definition, share)
        where = ", ".join(str(folder) for folder in folders)
        if not self.opened:
            raise UserError(f"{where!r} holds fewer tracks than there are processes ({share[1]}); start fewer")
        wanted, name = ("true labels", "class_index") if targets == "true" else ("pseudo-labels", "classes")
        without = next((one.key for one in self.opened if name not in one.track), None)
        if without is not None:
            raise UserError(
                f"track {without!r} of {where!r} has no {wanted}; keep such tracks in a folder of their own"
            )
        self.lengths = np.array([len(one.track["features"]) for one in self.opened])
        # What has no chord has no key: the hum of the mains is learnt where it is.
        self.pitched = np.array([self.soft or bool((one.track["class_index"] != N).any()) for one in self.opened])
        self.teacher = teacher and targets == "true"
        widths = (
            {one.track["embedding"].shape[1] for one in self.opened if "embedding" in one.track} if embedding else set()
        )
        if len(widths) > 1:
            raise UserError(f"{where!r} holds embeddings of {len(widths)} widths; make them all with one teacher")
        self.embedding_width = next(iter(widths), 0)

    @property
    def soft(self) -> bool:
        """Whether the targets are a teacher's."""
        return self.targets != "true"

    @property
    def hours(self) -> float:
        return float(self.lengths.sum()) / self.features.frame_rate / 3600

    def sample(self, count: int) -> Tensor:
        """About `count` frames (n, bins) float32, evenly spread over all tracks."""
        stride = max(1, int(self.lengths.sum()) // count)
        starts = np.cumsum(self.lengths) - self.lengths
        parts = [
            one.track["features"][-start % stride :: stride] for one, start in zip(self.opened, starts, strict=True)
        ]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))

    def quality_counts(self) -> Tensor:
        """Frames of each quality (16,) float64: the 14 of the vocabulary, X and N; soft targets count as shares."""
        counts = np.zeros(N_CLASSES)
        for one in self.opened:
            if self.targets == "soft":
                counts += one.track["classes"].sum(0, dtype=np.float64)
            else:
                index = one.track["classes"].argmax(1) if self.soft else one.track["class_index"]
                counts += np.bincount(index[index >= 0], minlength=N_CLASSES)
        return torch.zeros(N_QUALITIES + 2, dtype=torch.float64).index_add_(
            0, quality_groups(), torch.from_numpy(counts)
        )

    def crops(self, rng: np.random.Generator, batch: int, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tracks (batch,) and first frames (batch,) of crops; longer tracks are drawn more often."""
        return draw(self.lengths, rng, batch, frames)

    def windows(self, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tracks and first frames of crops that lie side by side over all tracks."""
        counts = np.maximum(1, self.lengths // frames)
        which = np.repeat(np.arange(len(counts)), counts)
        return which, frames * np.concatenate([np.arange(count) for count in counts])

    def batch(
        self, rng: np.random.Generator, size: int, frames: int, early: float = 1.0,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
    ) -> Batch:  # fmt: skip
        """`size` augmented crops of `frames` frames; true labels just after a change weigh `early` times as much."""
        which, first = self.crops(rng, size, frames)
        shifts = rng.integers(SHIFTS[0], SHIFTS[1] + 1, size) * self.pitched[which]
        plain = self.at(which, first, frames, early)
        moved = [
            shift(plain.frames[i], plain.classes[i], plain.bass[i], int(s), self.features) for i, s in enumerate(shifts)
        ]
        x, classes, bass = (torch.stack(parts) for parts in zip(*moved, strict=True))
        teacher, teacher_bass = plain.teacher, plain.teacher_bass
        if teacher is not None and teacher_bass is not None:
            pairs = [transpose(teacher[i], teacher_bass[i], int(s)) for i, s in enumerate(shifts)]
            teacher, teacher_bass = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        x = augmented(x, rng, augmentation, self.features, self.pitched[which])
        return Batch(
            x, classes, bass, plain.known, plain.bass_known, teacher, teacher_bass, plain.embedding, plain.piece
        )

    def at(self, which: NDArray[np.int64], first: NDArray[np.int64], frames: int, early: float = 1.0) -> Batch:
        """Crops as they are, of tracks `which` (batch,) from frames `first` (batch,) on.

        A track that ends before its crop does repeats its last frame.
        """
        positions = first[:, None] + np.arange(frames)
        rows = np.minimum(positions, self.lengths[which, None] - 1)

        def gather(name: str, width: int = 0, rows: NDArray[np.int64] = rows) -> Tensor:
            """Rows of a tensor of each crop's track; zeros (frames, width) for a track that lacks it."""
            found = (
                self.opened[track].track[name][own] if name in self.opened[track].track else np.zeros((frames, width))
                for track, own in zip(which, rows, strict=True)
            )
            return torch.from_numpy(np.stack([part.astype(np.float32) for part in found]))

        x = gather("features")
        if self.soft:
            classes, bass = gather("classes"), gather("bass")
            if self.targets == "hard":
                classes, bass = (functional.one_hot(y.argmax(-1), y.shape[-1]).float() for y in (classes, bass))
            known = bass_known = torch.ones(rows.shape)
        else:
            before = np.maximum(rows - self.delay, 0)
            hard, hard_bass = (gather(name, rows=before).long() for name in ("class_index", "bass_index"))
            # X is no chord of its own: the player's chord is unknown, so nothing is learnt from it.
            known = ((hard >= 0) & (hard != X)).float() * self._early(hard, early)
            bass_known = known * (hard_bass >= 0)
            classes = functional.one_hot(hard.clamp(min=0), N_CLASSES).float()
            bass = functional.one_hot(hard_bass.clamp(min=0), N_BASS).float()
        teacher = (gather("classes", N_CLASSES), gather("bass", N_BASS)) if self.teacher else (None, None)
        pieces = self._embedding(which, first, positions) if self.embedding_width else (None, None)
        return Batch(x, classes, bass, known, bass_known, *teacher, *pieces)

    def _embedding(
        self, which: NDArray[np.int64], first: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """The embedding teacher's vectors under each crop, and which of them each frame belongs to.

        As many pieces as fit into a crop; a crop's first piece may have begun before it.
        """

        def piece_of(frame: NDArray[np.int64]) -> NDArray[np.int64]:
            return (frame / self.features.frame_rate / store.EMBEDDING_SECONDS).astype(np.int64)

        count = max(1, int(piece_of(np.int64(positions.shape[1]))))
        vectors = np.zeros((len(which), count, self.embedding_width), np.float32)
        piece = piece_of(positions) - piece_of(first)[:, None]
        piece[piece >= count] = -1
        for i, (track, start) in enumerate(zip(which, piece_of(first), strict=True)):
            stored = self.opened[track].track.get("embedding")
            if stored is None:
                piece[i] = -1
            else:
                vectors[i] = stored[np.minimum(start + np.arange(count), len(stored) - 1)]
        return torch.from_numpy(vectors), torch.from_numpy(piece)

    def _early(self, hard: Tensor, weight: float) -> Tensor:
        """(batch, frames) of ones, and `weight` in the first EARLY_SECONDS after a change of class."""
        changed = functional.pad((hard[:, 1:] != hard[:, :-1]).float(), (1, 0))
        reach = max(1, round(EARLY_SECONDS * self.features.frame_rate))
        recent = functional.max_pool1d(functional.pad(changed, (reach - 1, 0))[:, None], reach, 1)[:, 0]
        return 1.0 + (weight - 1.0) * recent


def draw(
    lengths: NDArray[np.int64], rng: np.random.Generator, batch: int, frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pieces (batch,) and first frames (batch,) of crops of `frames`; the longer of `lengths` (pieces,) are drawn more
    often."""
    room = np.maximum(lengths - frames, 0)
    which = rng.choice(len(room), size=batch, p=(room + 1) / (room + 1).sum())
    return which, (rng.random(batch) * (room[which] + 1)).astype(np.int64)


def quality_groups() -> Tensor:
    """(170,) int64: 0..13, the quality of each class; 14 and 15 for X and N."""
    index = torch.arange(N_CLASSES)
    return torch.where(index < X, index % N_QUALITIES, index - X + N_QUALITIES)


def merge(first: Batch, second: Batch) -> Batch:
    """Two batches one after the other; what only one of them has is empty in the other's part."""

    def joined(name: str) -> Tensor | None:
        one, two = getattr(first, name), getattr(second, name)
        if one is None and two is None:
            return None
        empty = -1 if name == "piece" else 0
        one = two.new_full((len(first.frames), *two.shape[1:]), empty) if one is None else one
        two = one.new_full((len(second.frames), *one.shape[1:]), empty) if two is None else two
        return torch.cat((one, two))

    return Batch(**{field.name: joined(field.name) for field in fields(Batch)})
