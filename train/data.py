"""Batches for training: random crops of stored tracks, moved in pitch and level, with noise mixed in.

Batch number `step` is a pure function of (seed, step): a resumed run sees exactly what an unbroken one would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from rtchord.chords import N_CLASSES, N_QUALITIES, NO_BASS, X
from rtchord.cqt import Features
from rtchord.errors import UserError
from train import store

SHIFTS = (-5, 6)  # semitones, the range of the BTC and 2E1D papers
EARLY_SECONDS = 0.3  # after a change: the frames that decide how late a student is


@dataclass(frozen=True)
class Batch:
    """`frames` (batch, time, bins) float32; `classes` (batch, time, 170) and `bass` (batch, time, 13) target
    distributions, float32; `known`, `bass_known` (batch, time) float32 weights, 0 where there is no target."""

    frames: Tensor
    classes: Tensor
    bass: Tensor
    known: Tensor
    bass_known: Tensor


class Tracks:
    """All tracks of some folders in memory, as one long sequence of frames with their targets."""

    def __init__(self, folders: list[Path], features: Features) -> None:
        self.features = features
        paths = [path for folder in folders for path in store.tracks(folder)]
        loaded = [store.load(path, features) for path in tqdm(paths, unit="track", desc="load", leave=False)]
        self.lengths = np.array([len(track["features"]) for track in loaded])
        self.starts = np.concatenate(([0], np.cumsum(self.lengths)))
        self.frames = np.concatenate([track["features"] for track in loaded])
        soft = ["classes" in track for track in loaded]
        self.soft = all(soft)
        if any(soft) and not self.soft:
            raise UserError("one set of tracks holds either pseudo-labels or true labels, not both; give them apart")
        names = ("classes", "bass") if self.soft else ("class_index", "bass_index")
        self.classes, self.bass = (np.concatenate([track[name] for track in loaded]) for name in names)

    @property
    def hours(self) -> float:
        return len(self.frames) / self.features.frame_rate / 3600

    def crops(self, rng: np.random.Generator, batch: int, frames: int) -> NDArray[np.int64]:
        """(batch, frames) indices of crops, each inside one track; longer tracks are drawn more often."""
        room = np.maximum(self.lengths - frames, 0)
        which = rng.choice(len(room), size=batch, p=(room + 1) / (room + 1).sum())
        first = self.starts[which] + (rng.random(batch) * (room[which] + 1)).astype(np.int64)
        return np.minimum(first[:, None] + np.arange(frames), self.starts[which + 1][:, None] - 1)

    def batch(self, rng: np.random.Generator, size: int, frames: int, early: float = 1.0) -> Batch:
        """`size` augmented crops of `frames` frames; true labels just after a change weigh `early` times as much."""
        index = self.crops(rng, size, frames)
        shifts = rng.integers(SHIFTS[0], SHIFTS[1] + 1, size)
        x = torch.from_numpy(self.frames[index]).float()
        if self.soft:
            classes = torch.from_numpy(self.classes[index]).float()
            bass = torch.from_numpy(self.bass[index]).float()
            known = bass_known = torch.ones(index.shape)
        else:
            hard = torch.from_numpy(self.classes[index]).long()
            hard_bass = torch.from_numpy(self.bass[index]).long()
            # X is no chord of its own: the player's chord is unknown, so nothing is learnt from it.
            known = ((hard >= 0) & (hard != X)).float() * self._early(hard, early)
            bass_known = known * (hard_bass >= 0)
            classes = functional.one_hot(hard.clamp(min=0), N_CLASSES).float()
            bass = functional.one_hot(hard_bass.clamp(min=0), NO_BASS + 1).float()
        shifted = [shift(x[i], classes[i], bass[i], int(s), self.features) for i, s in enumerate(shifts)]
        x, classes, bass = (torch.stack(parts) for parts in zip(*shifted, strict=True))
        return Batch(disturb(x, rng, self.features), classes, bass, known, bass_known)

    def _early(self, hard: Tensor, weight: float) -> Tensor:
        """(batch, frames) of ones, and `weight` in the first EARLY_SECONDS after a change of class."""
        changed = functional.pad((hard[:, 1:] != hard[:, :-1]).float(), (1, 0))
        reach = round(EARLY_SECONDS * self.features.frame_rate)
        recent = functional.max_pool1d(functional.pad(changed, (reach - 1, 0))[:, None], reach, 1)[:, 0]
        return 1.0 + (weight - 1.0) * recent


def shift(x: Tensor, classes: Tensor, bass: Tensor, semitones: int, features: Features) -> tuple[Tensor, ...]:
    """One crop moved by `semitones` along the constant-Q axis; bins that come in from outside hold silence."""
    bins = semitones * features.bins_per_octave // 12
    silence = float(np.log(features.log_offset))
    moved = torch.full_like(x, silence)
    if bins >= 0:
        moved[:, bins:] = x[:, : x.shape[1] - bins]
    else:
        moved[:, :bins] = x[:, -bins:]
    classes = torch.cat((classes[:, :X].roll(semitones * N_QUALITIES, 1), classes[:, X:]), 1)
    return moved, classes, torch.cat((bass[:, :NO_BASS].roll(semitones, 1), bass[:, NO_BASS:]), 1)


def disturb(x: Tensor, rng: np.random.Generator, features: Features) -> Tensor:
    """Level, spectral tilt and noise, applied to magnitudes: C' = sqrt((g C)^2 + n^2), n Rayleigh-distributed."""
    batch, frames, bins = x.shape
    octave = torch.linspace(0, features.octaves, bins)
    draw = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def uniform(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, 1, 1)).astype(np.float32))

    magnitude = (x.exp() - features.log_offset).clamp(min=0)
    gain = uniform(-18, 12) + uniform(-3, 3) * (octave - features.octaves / 2)  # dB
    noise = uniform(-75, -20) + uniform(-4, 2) * octave  # dB
    noise_level = 10 ** (noise / 20) * torch.sqrt(-torch.log(torch.rand(batch, frames, bins, generator=draw) + 1e-9))
    return torch.log(torch.hypot(magnitude * 10 ** (gain / 20), noise_level) + features.log_offset)


def merge(first: Batch, second: Batch) -> Batch:
    """Two batches one after the other."""
    return Batch(*(torch.cat((getattr(first, name), getattr(second, name))) for name in Batch.__dataclass_fields__))
