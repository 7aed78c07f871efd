"""Published checkpoints as engines: the papers' networks over windows of ten seconds, recomputed at each hop.

A window holds 108 frames of the centred transform that the checkpoint was trained on; its last ones lack as much of
their future as those of a training window did. Of the network's answers, the one for the frame `lookahead` before the
last is read. The vocabulary has no bass: chords are shown in root position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.network import Network, over_windows, softmax
from rtchord.chords import N_BASS, NO_BASS
from rtchord.cqt import DEFINITIONS, Features
from rtchord.engine import Manifest, sha256
from rtchord.errors import UserError
from train.published import LAYOUTS, WINDOW, Published, load_published

# s from the centre of a frame to its answer. Measured with another bidirectional network (docs/engines.md): less costs
# accuracy, most of all just after a change; more gains little.
LOOKAHEAD = 0.28


class OneFrame(nn.Module):
    """Posteriors of the frame `lookahead` before the last of a window; the bass is always none."""

    none: Tensor

    def __init__(self, network: Published, lookahead: int) -> None:
        super().__init__()
        self.network, self.lookahead = network, lookahead
        self.register_buffer("none", torch.eye(N_BASS)[NO_BASS])

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(streams, frames, bins) -> (streams, 170), (streams, 13)"""
        classes = softmax(self.network(frames)[:, -1 - self.lookahead])
        return classes, self.none.repeat(classes.shape[0], 1)


def divided(seconds: float, features: Features, trained: int) -> tuple[int, int]:
    """A lookahead in s as (frames that the network looks ahead, samples of sound after the last frame's centre).

    The last frame waits for as many samples as in training (`trained`), or fewer if the lookahead is shorter than
    that; the rest is whole frames.
    """
    samples = round(seconds * features.sample_rate)
    future = min(trained, samples)
    frames = round((samples - future) / features.hop)
    if future < 1 or frames >= WINDOW:
        longest = (trained + (WINDOW - 1) * features.hop) / features.sample_rate
        raise UserError(f"a lookahead of {seconds} s cannot be had; use more than 0 and at most {longest:.1f} s")
    return frames, future


def window_network(
    network: Published, layout: str, lookahead: float = LOOKAHEAD, features: Features | None = None, **fields: Any
) -> Network:
    """A network of a published layout (a key of LAYOUTS), as what `engines.build` and `engines.export` take.

    `window_network(TwoEncoders(), "2e1d")` has random weights and costs what every checkpoint of that layout costs.
    `lookahead`: s from the centre of a frame to its answer. `features`: the transform, None for the layout's own.
    `fields`: of the manifest, such as its name.
    """
    trained_on = LAYOUTS[layout]
    features = features or DEFINITIONS[trained_on.definition]
    frames, future = divided(lookahead, features, trained_on.future)
    module = OneFrame(network, frames).eval()
    delay = (frames * features.hop + future + features.hop / 2) / features.sample_rate
    named: dict[str, Any] = {"name": layout, "provenance": {}} | fields
    draft = Manifest(
        backend="onnx", form="window", files={"none": "0" * 64}, features=features, window=WINDOW, lookahead=frames,
        future=future, delay=round(delay, 6), **named,
    )  # fmt: skip
    return Network(module, over_windows(module, WINDOW, features), draft)


def from_published(
    path: Path, layout: str | None = None, lookahead: float = LOOKAHEAD, name: str = "", transform: str | None = None
) -> Network:
    """A published checkpoint; `transform`: a key of DEFINITIONS. UserError where it is none, or cannot look so far."""
    return _from(path, layout, lookahead, DEFINITIONS[transform] if transform else None, name)


def from_published_as(manifest: Manifest, path: Path) -> Network:
    """A published checkpoint in the form in which `manifest` describes an engine of it, for whoever verifies that."""
    features = manifest.features
    seconds = (manifest.lookahead * features.hop + (manifest.future or 0)) / features.sample_rate
    return _from(path, None, seconds, features, manifest.name)


def _from(path: Path, layout: str | None, lookahead: float, features: Features | None, name: str) -> Network:
    network, layout = load_published(path, layout)
    provenance = {"layout": layout, "checkpoint": path.name, "mean": float(network.mean), "std": float(network.std)}
    return window_network(
        network, layout, lookahead, features, name=name or path.stem, source=sha256(path), provenance=provenance
    )
