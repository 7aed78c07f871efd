"""The live student: a causal two-encoder, one-decoder (2E1D) transformer over constant-Q frames.

* Frequency encoder: each frame is cut into tokens of half an octave (each sees a quarter octave more on both sides);
  self-attention over the tokens of that one frame.
* Temporal encoder: causal self-attention over the last `context` frames.
* Decoder: reads the sum of both; causal self-attention, then cross-attention to the temporal encoder's past.
* Heads: 170 chord classes and 13 basses (`rtchord.chords`).

Attention over time knows only relative age (a learnt bias per head and age), and its keys and values are cached: a
step computes one frame. Run over a whole sequence, the same weights give the same numbers (tests prove it).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from rtchord.chords import N_BASS, N_CLASSES


class ModelConfig(BaseModel):
    """Sizes of the student; travels in its checkpoint and in the engine's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: int = 144
    token_bins: int = Field(12, description="bins a token advances; bins must be a multiple")
    token_width: int = 32
    token_heads: int = 2
    frequency_layers: int = 2
    width: int = 160
    heads: int = 5
    context: int = Field(64, description="frames an attention layer sees, the newest included")
    temporal_layers: int = 3
    decoder_layers: int = 2
    dropout: float = 0.1


@dataclass
class Cache:
    """Keys and values of the frames before the next one; `age` 1 is the last row.

    `keys`, `values`: (layers, batch, heads, context - 1, width / heads), dtype of the weights; `filled`: (batch,)
    int64, how many of the rows hold real frames. A fresh cache is all zeros.
    """

    keys: Tensor
    values: Tensor
    filled: Tensor


class CausalAttention(nn.Module):
    """Multi-head attention over the last `context` frames, with a learnt bias per head and age."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.context = config.heads, config.context
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        # Starts as ALiBi (Press et al. 2022): nearer frames count more, by a different slope in each head.
        slopes = 2.0 ** -torch.arange(2, 2 + config.heads).float()
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(config.context).float() / 4)

    def split(self, x: Tensor) -> Tensor:
        """(batch, frames, width) -> (batch, heads, frames, width / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """All frames at once: x and source (batch, frames, width).

        Frames go in blocks of `context`: a query can only see its own block and the one before, which keeps the cost
        linear in the number of frames.
        """
        size, frames = self.context, x.shape[1]
        blocks = -(-frames // size)
        padding = (0, 0, 0, blocks * size - frames)
        keys, values = self.key_value(functional.pad(source, padding)).chunk(2, dim=-1)
        query = self.split(self.query(functional.pad(x, padding))).unflatten(2, (blocks, size))
        key, value = (self._with_previous(self.split(part).unflatten(2, (blocks, size))) for part in (keys, values))
        scores = query @ key.transpose(-1, -2) * (key.shape[-1] ** -0.5) + self._block_bias(blocks)
        y = (torch.softmax(scores, dim=-1) @ value).flatten(2, 3)[:, :, :frames]
        return self.out(y.transpose(1, 2).flatten(2))

    @staticmethod
    def _with_previous(blocks: Tensor) -> Tensor:
        """(batch, heads, blocks, size, d) -> (batch, heads, blocks, 2 size, d): each block after the one before it."""
        previous = functional.pad(blocks[:, :, :-1], (0, 0, 0, 0, 1, 0))
        return torch.cat((previous, blocks), dim=3)

    def _block_bias(self, blocks: int) -> Tensor:
        """(heads, blocks, size, 2 size): the bias of each age; -inf for the future, beyond the context, before 0."""
        size = self.context
        columns = torch.arange(2 * size, device=self.bias.device)
        age = columns[:size, None] + size - columns[None, :]
        hidden = (age < 0) | (age >= size)
        before_start = columns < size
        hidden = torch.stack([hidden | before_start] + [hidden] * (blocks - 1))
        bias = self.bias[:, age.clamp(0, size - 1)]
        return bias[:, None].masked_fill(hidden, float("-inf"))

    def step(self, x: Tensor, source: Tensor, keys: Tensor, values: Tensor, empty: Tensor) -> tuple[Tensor, ...]:
        """One frame: x and source (batch, 1, width); returns the output and the advanced keys and values.

        `empty` (batch, 1, 1, context) is -inf where a row of the cache holds no frame yet, else 0.
        """
        key, value = self.key_value(source).chunk(2, dim=-1)
        keys = torch.cat((keys, self.split(key)), dim=2)
        values = torch.cat((values, self.split(value)), dim=2)
        scores = self.split(self.query(x)) @ keys.transpose(-1, -2) * (keys.shape[-1] ** -0.5)
        weights = torch.softmax(scores + self.bias.flip(1)[:, None, :] + empty, dim=-1)
        return self.out((weights @ values).transpose(1, 2).flatten(2)), keys[:, :, 1:], values[:, :, 1:]


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))


class FrequencyEncoder(nn.Module):
    """(batch, frames, bins) -> (batch, frames, width); frames do not see each other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hop, self.margin = config.token_bins, config.token_bins // 2
        self.heads = config.token_heads
        tokens, width = config.bins // config.token_bins, config.token_width
        self.embed = nn.Linear(self.hop + 2 * self.margin, width)
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.1)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "feed": feed_forward(width),
                }
            )
            for _ in range(config.frequency_layers)
        )
        self.project = nn.Linear(tokens * width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, _ = x.shape
        padded = functional.pad(x.flatten(0, 1), (self.margin, self.margin))
        y = self.embed(padded.unfold(1, self.hop + 2 * self.margin, self.hop)) + self.position
        for layer in self.layers:
            qkv = layer["qkv"](layer["norm"](y)).unflatten(-1, (3, self.heads, -1))
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            weights = torch.softmax(query @ key.transpose(-1, -2) * (key.shape[-1] ** -0.5), dim=-1)
            y = y + layer["out"]((weights @ value).transpose(1, 2).flatten(2))
            y = y + layer["feed"](y)
        return self.project(y.flatten(1)).unflatten(0, (batch, frames))


class Student(nn.Module):
    """Log constant-Q frames to logits of classes and basses. `mean`, `std` normalise the input."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.frequency = FrequencyEncoder(config)
        self.embed = nn.Linear(config.bins, config.width)

        def attention() -> nn.ModuleDict:
            return nn.ModuleDict({"norm": nn.LayerNorm(config.width), "attention": CausalAttention(config)})

        self.temporal = nn.ModuleList(
            nn.ModuleDict({"self": attention(), "feed": feed_forward(config.width)})
            for _ in range(config.temporal_layers)
        )
        self.memory_norm = nn.LayerNorm(config.width)
        self.decoder = nn.ModuleList(
            nn.ModuleDict({"self": attention(), "cross": attention(), "feed": feed_forward(config.width)})
            for _ in range(config.decoder_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.classes = nn.Linear(config.width, N_CLASSES)
        self.bass = nn.Linear(config.width, N_BASS)

    @property
    def cached_layers(self) -> int:
        return self.config.temporal_layers + 2 * self.config.decoder_layers

    def empty_cache(self, batch: int = 1) -> Cache:
        """Cache of a stream that has heard nothing."""
        c = self.config
        shape = (self.cached_layers, batch, c.heads, c.context - 1, c.width // c.heads)
        like = self.classes.weight
        return Cache(like.new_zeros(shape), like.new_zeros(shape), like.new_zeros(batch, dtype=torch.int64))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (batch, time, bins) -> logits (batch, time, 170), (batch, time, 13)."""

        def attend(block: nn.ModuleDict, y: Tensor, source: Tensor | None) -> Tensor:
            x = block["norm"](y)
            return y + self.dropout(block["attention"](x, x if source is None else source))

        return self._run(frames, attend)

    def step(self, frame: Tensor, cache: Cache) -> tuple[Tensor, Tensor, Cache]:
        """frame (batch, bins) -> logits (batch, 170), (batch, 13) and the advanced cache."""
        rows = torch.arange(self.config.context, device=cache.filled.device)
        missing = rows < self.config.context - 1 - cache.filled[:, None]
        empty = torch.where(missing, float("-inf"), 0.0).to(cache.keys.dtype)[:, None, None, :]
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attend(block: nn.ModuleDict, y: Tensor, source: Tensor | None) -> Tensor:
            x, layer = block["norm"](y), len(keys)
            out, key, value = block["attention"].step(
                x, x if source is None else source, cache.keys[layer], cache.values[layer], empty
            )
            keys.append(key)
            values.append(value)
            return y + out

        classes, bass = self._run(frame[:, None, :], attend)
        filled = torch.clamp(cache.filled + 1, max=self.config.context - 1)
        return classes[:, 0], bass[:, 0], Cache(torch.stack(keys), torch.stack(values), filled)

    def _run(self, frames: Tensor, attend) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        """The network; `attend(block, y, source)` is the only thing that differs between sequence and step."""
        x = ((frames - self.mean) / self.std).to(self.embed.weight.dtype)
        memory = self.embed(x)
        for layer in self.temporal:
            memory = attend(layer["self"], memory, None)
            memory = memory + self.dropout(layer["feed"](memory))
        source = self.memory_norm(memory)
        y = self.frequency(x) + memory
        for layer in self.decoder:
            y = attend(layer["self"], y, None)
            y = attend(layer["cross"], y, source)
            y = y + self.dropout(layer["feed"](y))
        y = self.norm(y)
        return self.classes(y), self.bass(y)
