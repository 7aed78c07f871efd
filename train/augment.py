"""Augmentation of log constant-Q crops: what a student must not mind. Pure functions of tensors and a generator.

Pitch moves along the constant-Q axis, by whole semitones (with the targets) or by cents (without them); level, tilt,
noise and the sound of other clips are applied to magnitudes. Where a frame has several sets of bins (`Features.sets`),
the same is done to each.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from rtchord.chords import N_QUALITIES, NO_BASS, X
from rtchord.cqt import Features

SHIFTS = (-5, 6)  # semitones, the range of the BTC and 2E1D papers
LEVEL, TILT = (-18, 12), (-3, 3)  # dB; dB per octave
EQUALISER, RESONANCES = (-6, 6), (-6, 6)  # dB at each octave; at each quarter of one, as the body of a guitar has them
NOISE, NOISE_TILT = (-75, -20), (-4, 2)  # dB; dB per octave
SNIPPETS, SNIPPET_SECONDS = (1, 2), (0.5, 1.0)  # of the mixture, as MERT's (Li et al., ICLR 2024)
MASK_SECONDS, MASK_OCTAVES = 0.5, 0.5  # the longest and the widest mask


class Augmentation(BaseModel):
    """What is done to a crop beside the pitch shift and the disturbance, which every crop gets. All off at first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detune: float = Field(0.0, ge=0, le=100, description="cents; each clip is moved by up to as much, up or down")
    time_masks: int = Field(0, ge=0, description="spans of up to 0.5 s that are blanked in each clip")
    frequency_masks: int = Field(0, ge=0, description="bands of up to half an octave that are blanked in each clip")
    mixture: float = Field(0.0, ge=0, le=1, description="probability that a clip gets snippets of other clips")


def magnitude(x: Tensor, features: Features) -> Tensor:
    """|C| of log features."""
    return (x.exp() - features.log_offset).clamp(min=0)


def apart(x: Tensor, features: Features) -> Tensor:
    """(.., bins) -> (.., sets, bins of a set), a view."""
    return x.unflatten(-1, (len(features.sets), -1))


def transpose(classes: Tensor, bass: Tensor, semitones: int) -> tuple[Tensor, Tensor]:
    """Distributions (frames, 170) and (frames, 13) moved by `semitones`; what has no root stays."""
    classes = torch.cat((classes[:, :X].roll(semitones * N_QUALITIES, 1), classes[:, X:]), 1)
    return classes, torch.cat((bass[:, :NO_BASS].roll(semitones, 1), bass[:, NO_BASS:]), 1)


def shift(x: Tensor, classes: Tensor, bass: Tensor, semitones: int, features: Features) -> tuple[Tensor, ...]:
    """One crop moved by `semitones` along the constant-Q axis; bins that come in from outside hold silence."""
    bins = semitones * features.bins_per_octave // 12
    moved = torch.full_like(x, float(np.log(features.log_offset)))
    into, out = apart(moved, features), apart(x, features)
    if bins >= 0:
        into[..., bins:] = out[..., : out.shape[-1] - bins]
    else:
        into[..., :bins] = out[..., -bins:]
    return moved, *transpose(classes, bass, semitones)


def detune(x: Tensor, cents: Tensor, features: Features) -> Tensor:
    """Clips (batch, frames, bins) moved up by `cents` (batch,), log magnitudes interpolated linearly between bins.

    Beyond the first and the last bin those repeat.
    """
    x = apart(x, features)
    bins = x.shape[-1]
    moved = cents[:, None] * (features.bins_per_octave / 1200)
    position = (torch.arange(bins) - moved).clamp(0, bins - 1)[:, None, None, :].expand(x.shape)
    below = position.floor().long()
    share = position - below
    return (x.gather(3, below) * (1 - share) + x.gather(3, (below + 1).clamp(max=bins - 1)) * share).flatten(2)


def mix(x: Tensor, rng: np.random.Generator, probability: float, features: Features) -> Tensor:
    """Snippets of other clips of the batch, added at random places: C' = sqrt(C^2 + D^2), as of unrelated phases."""
    batch, frames, _ = x.shape
    if batch < 2:
        return x
    mixed = x.clone()
    for i in np.flatnonzero(rng.random(batch) < probability):
        for _ in range(rng.integers(SNIPPETS[0], SNIPPETS[1] + 1)):
            other = (i + rng.integers(1, batch)) % batch
            length = min(frames, max(1, round(rng.uniform(*SNIPPET_SECONDS) * features.frame_rate)))
            source, target = rng.integers(0, frames - length + 1, 2)
            place = mixed[i, target : target + length]
            added = magnitude(x[other, source : source + length], features)
            mixed[i, target : target + length] = torch.log(
                torch.hypot(magnitude(place, features), added) + features.log_offset
            )
    return mixed


def mask(x: Tensor, rng: np.random.Generator, times: int, bands: int, features: Features) -> Tensor:
    """Spans of time and bands of bins that hold the clip's mean (SpecAugment, Park et al., Interspeech 2019)."""
    batch, frames, _ = x.shape
    masked = x.clone()
    clips = apart(masked, features)
    bins = clips.shape[-1]
    longest = {
        0: min(frames, round(MASK_SECONDS * features.frame_rate)),
        2: round(MASK_OCTAVES * bins / features.octaves),
    }
    for i in range(batch):
        mean = x[i].mean()
        for axis, size in [(0, frames)] * times + [(2, bins)] * bands:  # of (frames, sets, bins)
            width = int(rng.integers(0, longest[axis] + 1))
            start = int(rng.integers(0, size - width + 1))
            clips[i].narrow(axis, start, width).fill_(mean)
    return masked


def disturb(x: Tensor, rng: np.random.Generator, features: Features) -> Tensor:
    """Level, spectral tilt, an equaliser with wide and narrow bands, and noise, applied to magnitudes:
    C' = sqrt((g C)^2 + n^2), n Rayleigh-distributed."""
    batch, sets = len(x), len(features.sets)
    bins = x.shape[-1] // sets
    octave = torch.linspace(0, features.octaves, bins).repeat(sets)
    draw = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def uniform(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, 1, 1)).astype(np.float32))

    def bands(low: float, high: float, of_octave: int) -> Tensor:
        drawn = rng.uniform(low, high, (batch, 1, of_octave * features.octaves + 1)).astype(np.float32)
        curve = functional.interpolate(torch.from_numpy(drawn), bins, mode="linear", align_corners=True)
        return curve.repeat(1, 1, sets)

    equaliser = bands(*EQUALISER, 1) + bands(*RESONANCES, 4)
    gain = uniform(*LEVEL) + uniform(*TILT) * (octave - features.octaves / 2) + equaliser  # dB
    noise = uniform(*NOISE) + uniform(*NOISE_TILT) * octave  # dB
    noise_level = 10 ** (noise / 20) * torch.sqrt(-torch.log(torch.rand(x.shape, generator=draw) + 1e-9))
    return torch.log(torch.hypot(magnitude(x, features) * 10 ** (gain / 20), noise_level) + features.log_offset)


def augmented(
    x: Tensor, rng: np.random.Generator, settings: Augmentation, features: Features,
    pitched: NDArray[np.bool_] | None = None,
) -> Tensor:  # fmt: skip
    """Clips (batch, frames, bins) with everything that leaves their targets as they are; a function of `rng`.

    `pitched` (batch,): which of them are music, that may be out of tune; all of them where it is not said.
    """
    if settings.detune:
        cents = rng.uniform(-settings.detune, settings.detune, len(x)).astype(np.float32)
        if pitched is not None:
            cents *= pitched
        x = detune(x, torch.from_numpy(cents), features)
    if settings.mixture:
        x = mix(x, rng, settings.mixture, features)
    x = disturb(x, rng, features)
    if settings.time_masks or settings.frequency_masks:
        x = mask(x, rng, settings.time_masks, settings.frequency_masks, features)
    return x
