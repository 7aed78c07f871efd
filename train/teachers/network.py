"""Networks over our own transforms as teachers: published checkpoints of BTC and 2E1D, and students of ours.

How each of them hears a recording: `train.students.posteriors`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rtchord.cqt import DEFINITIONS, Features, FrameStream
from train.published import LAYOUTS, load_published
from train.students import AnyStudent, load_student, posteriors
from train.teachers.base import Float32, Posteriors


class NetworkTeacher:
    """A network and the transform it was trained on.

    Centred frames are those of the teacher's grid. A right-aligned frame stands for the moment at which it is known,
    and so do the posteriors of a student of such frames.
    """

    def __init__(self, name: str, network: AnyStudent, features: Features) -> None:
        self.name = name
        self.features = features
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device).eval()

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        hop = 1 / self.features.frame_rate
        stream = FrameStream(rate, self.features)
        late = 0 if self.features.alignment == "centred" else round(stream.time_of(0) / hop)
        frames = np.concatenate((stream.push(audio), stream.finish()))
        classes, bass = posteriors(self._network, torch.from_numpy(frames))
        return Posteriors(_delayed(classes, late), None if bass is None else _delayed(bass, late), hop)

    def embedding(self, audio: Float32, rate: int) -> Float32 | None:  # noqa: ARG002 (the protocol's)
        return None


def _delayed(rows: Float32, frames: int) -> Float32:
    """Rows on a grid that begins `frames` earlier; until then the first is what is known."""
    return np.concatenate((np.repeat(rows[:1], frames, axis=0), rows))


def published(layout: str, path: Path) -> NetworkTeacher:
    """A checkpoint of a layout (a key of LAYOUTS). UserError where it is none."""
    network, _ = load_published(path, layout)
    return NetworkTeacher(f"{layout}:{path}", network, DEFINITIONS[LAYOUTS[layout].definition])


def student(path: Path) -> NetworkTeacher:
    """A student of ours, of any kind. UserError where it is none."""
    network, features, _ = load_student(path)
    return NetworkTeacher(f"student:{path}", network, features)
