"""Several teachers as one: the mean of their posteriors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.teachers.base import Float32, Posteriors, Teacher


class Average:
    """The mean of what several teachers say, on the first one's frame grid; its embedding is the first that there is.

    Others give their nearest frame. The bass is the mean of those that have one.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.teachers = tuple(teachers)
        self.name = "+".join(teacher.name for teacher in self.teachers)

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        found = [teacher.posteriors(audio, rate) for teacher in self.teachers]
        times = np.arange(len(found[0].classes)) * found[0].hop
        aligned = [found[0], *(other.at(times) for other in found[1:])]
        basses = [part.bass for part in aligned if part.bass is not None]
        classes = np.mean([part.classes for part in aligned], axis=0, dtype=np.float32)
        return Posteriors(classes, np.mean(basses, axis=0, dtype=np.float32) if basses else None, found[0].hop)

    def embedding(self, audio: Float32, rate: int) -> Float32 | None:
        embeddings = (teacher.embedding(audio, rate) for teacher in self.teachers)
        return next((found for found in embeddings if found is not None), None)
