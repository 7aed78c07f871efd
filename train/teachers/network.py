"""Networks over our own transforms as teachers: published checkpoints of BTC and 2E1D, and students of ours.

Bidirectional ones see windows of 108 frames, as they were trained. Windows overlap by half, the last one ends with the
recording, and what several say of a frame is averaged; a recording that is shorter than a window is one of its own
length. A live student is causal and hears everything at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rtchord.cqt import DEFINITIONS, Features, FrameStream
from train.fit import load_student
from train.published import LAYOUTS, WINDOW, Published, load_published
from train.teachers.base import Float32, Posteriors

BATCH = 32  # windows at once


def window_starts(frames: int) -> list[int]:
    """First frames of the windows of a recording of `frames`."""
    last = max(0, frames - WINDOW)
    return [*range(0, last, WINDOW // 2), last]


def logits(network: nn.Module, frames: Tensor) -> tuple[Tensor, Tensor | None]:
    """frames (batch, time, bins) -> class logits (batch, time, 170), bass logits (batch, time, 13) or None."""
    found = network.heads(network.encode(frames)) if hasattr(network, "encode") else network(frames)
    return found if isinstance(found, tuple) else (found, None)


class NetworkTeacher:
    """A network and the transform it was trained on.

    Centred frames are those of the teacher's grid. A right-aligned frame stands for the moment at which it is known,
    and so do the posteriors of a student of such frames.
    """

    def __init__(self, name: str, network: nn.Module, features: Features) -> None:
        self.name = name
        self.features = features
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device).eval()

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        hop = 1 / self.features.frame_rate
        stream = FrameStream(rate, self.features)
        late = 0 if self.features.alignment == "centred" else round(stream.time_of(0) / hop)
        frames = np.concatenate((stream.push(audio), stream.finish()))
        classes, bass = self._answers(torch.from_numpy(frames))
        return Posteriors(_delayed(classes, late), None if bass is None else _delayed(bass, late), hop)

    def embedding(self, audio: Float32, rate: int) -> Float32 | None:  # noqa: ARG002 (the protocol's)
        return None

    @torch.no_grad()
    def _answers(self, frames: Tensor) -> tuple[Float32, Float32 | None]:
        """Posteriors of frames (n, bins)."""
        whole = not isinstance(self._network, Published)
        starts = [0] if whole else window_starts(len(frames))
        size = len(frames) if whole else min(WINDOW, len(frames))
        sums: list[Tensor] = []
        heard = torch.zeros(len(frames), 1, device=self._device)
        for first in range(0, len(starts), BATCH):
            batch = starts[first : first + BATCH]
            windows = torch.stack([frames[start : start + size] for start in batch]).to(self._device)
            found = [torch.softmax(part.float(), -1) for part in logits(self._network, windows) if part is not None]
            sums = sums or [part.new_zeros(len(frames), part.shape[-1]) for part in found]
            for number, start in enumerate(batch):
                heard[start : start + size] += 1
                for total, part in zip(sums, found, strict=True):
                    total[start : start + size] += part[number]
        classes, *bass = [(total / heard).cpu().numpy() for total in sums]
        return classes, bass[0] if bass else None


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
