"""A residual vector quantiser of log constant-Q frames: the discrete targets of masked pre-training.

Codebook 1 names the entry nearest to a frame, codebook 2 the entry nearest to what is left of it, and so on: N
codebooks of K entries say with N log2(K) bits what a frame is. Entries are moving averages of the frames that chose
them (van den Oord et al. 2017, appendix A) and begin at k-means centres. One that hardly any frame chooses starts anew
beside one that many choose, and takes over about half of those (Linde, Buzo & Gray 1980). At a frame itself, where
others start theirs anew, it would stay alone: in many dimensions a frame is nearer to the middle of all frames than to
another.

The file is safetensors: `codebooks` (N, K, bins) float32, `mean`, `std` () float32; its metadata holds settings, the
name of the feature definition and the definition, and the share of the variance that each codebook leaves.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from rtchord.cqt import DEFINITIONS, Features
from rtchord.errors import UserError
from train.files import check_place, replaced
from train.frames import Frames

CROP = 32  # frames that are read in one piece
KMEANS_FRAMES = 64  # for each entry
KMEANS_ITERATIONS = 10
SPLIT = 0.1  # of the way from an entry to a frame that chose it: there a dead entry starts anew


class RVQConfig(BaseModel):
    """Settings of a quantiser; kept in its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codebooks: int = Field(4, ge=1, le=64)
    entries: int = Field(256, ge=2, le=65_536, description="of a codebook")
    steps: int = Field(1000, gt=0)
    batch: int = Field(128, gt=0, description=f"crops of {CROP} frames in a step")
    decay: float = Field(0.99, ge=0, lt=1, description="of the moving averages")
    dead: float = Field(
        0.05, ge=0, lt=1, description="part of an even share of the frames under which an entry is dead"
    )
    seed: int = Field(0, ge=0)


class Quantiser(nn.Module):
    """Log magnitudes to codes and back; its buffers are what the file holds."""

    codebooks: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, codebooks: Tensor, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("codebooks", codebooks)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def codes(self, frames: Tensor) -> Tensor:
        """Log magnitudes (..., bins) -> (..., codebooks) int64."""
        residual = ((frames.float() - self.mean) / self.std).flatten(0, -2)
        codes = []
        for entries in self.codebooks:
            codes.append(nearest(residual, entries))
            residual = residual - entries[codes[-1]]
        return torch.stack(codes, -1).unflatten(0, frames.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """(..., n) int64 codes of the first n codebooks -> log magnitudes (..., bins)."""
        parts = [entries[codes[..., i]] for i, entries in enumerate(self.codebooks[: codes.shape[-1]])]
        return torch.stack(parts).sum(0) * self.std + self.mean

    def unexplained(self, frames: Tensor) -> list[float]:
        """Share of the variance of log magnitudes (..., bins) that is left after each codebook."""
        codes = self.codes(frames)
        variance = (frames - frames.flatten(0, -2).mean(0)).square().mean()
        errors = [(frames - self.decode(codes[..., : n + 1])).square().mean() for n in range(codes.shape[-1])]
        return [float(error / variance) for error in errors]


def nearest(x: Tensor, entries: Tensor) -> Tensor:
    """(n,) int64 index of the entry (k, width) nearest to each row of x (n, width); the first of equals."""
    return (entries.square().sum(1) - 2 * x @ entries.T).argmin(1)


def tally(x: Tensor, index: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """(entries,) how many rows of x (n, width) chose each entry, and (entries, width) their sum."""
    counts = torch.bincount(index, minlength=entries).to(x.dtype)
    return counts, x.new_zeros(entries, x.shape[1]).index_add_(0, index, x)


def kmeans(x: Tensor, entries: int, rng: np.random.Generator) -> Tensor:
    """(entries, width) centres of x (n, width) by Lloyd's iteration from rows of x; one that nobody chose stays."""
    centres = x[rng.choice(len(x), entries, replace=False)]
    for _ in range(KMEANS_ITERATIONS):
        counts, sums = tally(x, nearest(x, centres), entries)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


class Codebook:
    """One codebook while it learns: `entries` (k, width), and moving averages of the frames that chose them."""

    def __init__(self, x: Tensor, config: RVQConfig, rng: np.random.Generator) -> None:
        """Entries at the k-means centres of x (n, width)."""
        self.config = config
        self.entries = kmeans(x, config.entries, rng)
        self.share = config.batch * CROP / config.entries  # of the frames of a batch, if all entries had the same
        counts, _ = tally(x, nearest(x, self.entries), config.entries)
        self.counts = counts * (config.batch * CROP / len(x))
        self.sums = self.entries * self.counts[:, None]

    def learn(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Move the entries towards the rows of x (n, width) that choose them; returns what is left of x."""
        index = nearest(x, self.entries)
        left = x - self.entries[index]
        for average, new in zip((self.counts, self.sums), tally(x, index, len(self.entries)), strict=True):
            average.lerp_(new, 1 - self.config.decay)
        dead = self.counts < self.config.dead * self.share
        if count := int(dead.sum()):
            rows = rng.integers(len(x), size=count)  # most of them chose entries that are much used
            self.counts[dead] = self.share
            self.sums[dead] = self.share * (x[rows] - (1 - SPLIT) * left[rows])
        self.entries = self.sums / self.counts[:, None]
        return left


def train_quantiser(frames: Frames, config: RVQConfig) -> Quantiser:
    """A quantiser of `frames`; a function of both."""
    rng = np.random.default_rng(config.seed)
    mean, std = frames.scale(rng)

    def batch(crops: int) -> Tensor:
        return ((frames.crops(rng, crops, CROP) - mean) / std).flatten(0, 1)

    books: list[Codebook] = []
    left = batch(-(-KMEANS_FRAMES * config.entries // CROP))
    for _ in range(config.codebooks):
        books.append(Codebook(left, config, rng))
        left = left - books[-1].entries[nearest(left, books[-1].entries)]
    with tqdm(range(config.steps), unit="step", desc="codebooks") as bar:
        for step in bar:
            left = batch(config.batch)
            for book in books:
                left = book.learn(left, rng)
            if step % 20 == 0:
                bar.set_postfix(left=f"{float(left.square().mean()):.3f}")
    return Quantiser(torch.stack([book.entries for book in books]), mean, std)


def make_codebooks(target: Path, folders: list[Path], definition: str, config: RVQConfig) -> None:
    """Train a quantiser on the frames of `folders` and write it to `target`."""
    check_place(target)
    frames = Frames(folders, definition)
    quantiser = train_quantiser(frames, config)
    left = quantiser.unexplained(frames.crops(np.random.default_rng([config.seed, 1]), config.batch, CROP))
    print("variance left after each codebook: " + " ".join(f"{share:.3f}" for share in left), file=sys.stderr)
    provenance = {"hours": round(frames.hours, 2), "unexplained": [round(share, 4) for share in left]}
    save_quantiser(target, quantiser, definition, config, provenance)


def save_quantiser(
    path: Path, quantiser: Quantiser, definition: str, config: RVQConfig, provenance: dict[str, object]
) -> None:
    """The file that `load_quantiser` reads."""
    metadata = {
        "rvq": config.model_dump_json(),
        "definition": definition,
        "features": DEFINITIONS[definition].model_dump_json(),
        "provenance": json.dumps(provenance),
    }
    with replaced(path) as temporary:
        temporary.write_bytes(save(dict(quantiser.state_dict()), metadata))


def load_quantiser(path: Path) -> tuple[Quantiser, str]:
    """The quantiser of a file, and the name of its feature definition (a key of DEFINITIONS)."""
    remedy = "make one with `python -m train codebooks`"
    if not path.is_file():
        raise UserError(f"no codebooks at {str(path)!r}; {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        quantiser = Quantiser(**load_file(path))
        definition, features = metadata["definition"], Features.model_validate_json(metadata["features"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{str(path)!r} holds no codebooks of this project ({error}); {remedy}") from None
    if DEFINITIONS.get(definition) != features:
        raise UserError(f"{str(path)!r} was made with another definition of the features {definition!r}; {remedy}")
    return quantiser, definition
