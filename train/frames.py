"""Frames of music without their labels: what codebooks and pre-training learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train.data import draw
from train.store import open_tracks


class Frames:
    """The frames of every piece of some folders in one feature definition, memory-mapped. Any tracks will do.

    `share` (rank, world): every world-th piece, from the rank-th on.
    """

    def __init__(self, folders: list[Path], definition: str, share: tuple[int, int] = (0, 1)) -> None:
        opened = open_tracks(folders, definition, share)
        self.features = DEFINITIONS[definition]
        self.pieces = [frames for one in opened if len(frames := one.track["features"])]
        if not self.pieces:
            where = ", ".join(map(str, folders))
            raise UserError(f"{where!r} holds no track that has frames for process {share[0] + 1} of {share[1]}")
        self.lengths = np.array([len(piece) for piece in self.pieces])

    @property
    def hours(self) -> float:
        return float(self.lengths.sum()) / self.features.frame_rate / 3600

    def crops(self, rng: np.random.Generator, batch: int, frames: int) -> Tensor:
        """(batch, frames, bins) float32 log magnitudes: crops, each inside one piece; longer pieces are drawn more
        often, shorter ones than `frames` repeat their last frame."""
        which, first = draw(self.lengths, rng, batch, frames)
        crops = [
            self.pieces[w][np.minimum(np.arange(f, f + frames), self.lengths[w] - 1)]
            for w, f in zip(which, first, strict=True)
        ]
        return torch.from_numpy(np.stack(crops)).float()

    def scale(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, scalars, of about 16 000 frames."""
        sample = self.crops(rng, 512, 32)
        mean, std = sample.mean(), sample.std()
        if not std > 0:
            raise UserError(f"all frames are the same ({float(mean):.2f} in every bin): nothing is learnt from silence")
        return mean, std
