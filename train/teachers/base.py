"""What teachers and embedders answer, and what all of them need."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from train.store import EMBEDDING_SECONDS

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Posteriors:
    """What a teacher hears, frame by frame; frame `i` is centred on i * hop s, rows sum to 1.

    `classes` (frames, 170) float32; `bass` (frames, 13) float32, None of a teacher whose vocabulary has no bass: then
    there is nothing to learn about it. `hop`: s.
    """

    classes: Float32
    bass: Float32 | None
    hop: float

    def at(self, times: Float64) -> Posteriors:
        """The nearest frame for each of `times` (n,), evenly spaced s from 0."""
        index = np.clip(np.rint(times / self.hop).astype(int), 0, len(self.classes) - 1)
        hop = float(times[1] - times[0]) if times.size > 1 else self.hop
        return Posteriors(self.classes[index], None if self.bass is None else self.bass[index], hop)


class Teacher(Protocol):
    """An offline model that hears the whole recording; `name` is the spec that makes it."""

    name: str

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        """Posteriors of mono float32 `audio` (samples,), not empty, at `rate` Hz."""

    def embedding(self, audio: Float32, rate: int) -> Float32 | None:
        """Its own representation (pieces, width), the mean over each EMBEDDING_SECONDS; None if it offers none."""


class Embedder(Protocol):
    """A frozen model whose representation of the sound, `width` numbers wide, a student may be drawn to."""

    name: str
    width: int

    def embed(self, audio: Float32, rate: int) -> Float32:
        """(pieces, width) float32 of mono float32 `audio` (samples,), not empty; the mean over each piece."""


def in_pieces(rows: Float32, times: Float64, seconds: float) -> Float32:
    """The mean over each EMBEDDING_SECONDS of `rows` (n, width) at ascending `times` (n,) s: (pieces, width).

    Piece p holds the rows from p to p + 1 times EMBEDDING_SECONDS, the last one also what follows; one without any
    takes the nearest. Pieces cover `seconds`.
    """
    pieces = max(1, int(np.ceil(round(seconds / EMBEDDING_SECONDS, 6))))
    edges = np.searchsorted(np.floor(times / EMBEDDING_SECONDS), np.arange(pieces + 1))
    edges[-1] = len(rows)
    found = np.empty((pieces, rows.shape[1]), np.float32)
    for piece, (first, last) in enumerate(pairwise(edges)):
        if last > first:
            found[piece] = rows[first:last].mean(axis=0)
        else:
            found[piece] = rows[np.abs(times - (piece + 0.5) * EMBEDDING_SECONDS).argmin()]
    return found
