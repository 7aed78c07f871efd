"""The live student: a causal two-encoder, one-decoder (2E1D) transformer over constant-Q frames.

* Frequency encoder: each frame is cut into tokens of half an octave (each sees a quarter octave more on both sides);
  self-attention over the tokens of that one frame.
* Temporal encoder: causal self-attention over the last `context` frames.
* Decoder: reads the sum of both; causal self-attention, then cross-attention to the temporal encoder's past.
* Heads: 170 chord classes and 13 basses (`rtchord.chords`).

Attention over time knows only relative age (a learnt bias per head and age), and its keys and values are cached: a
step computes one frame. Run over a whole sequence, the same weights give the same numbers (tests prove it).

With `future` > 0 every attention over time also sees that many frames ahead: the same layout made bidirectional, a
student for whole recordings. The mask, the biases of the ages to come and the lack of a cache are the only difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from rtchord.chords import N_BASS, N_CLASSES
from rtchord.errors import UserError


class ModelConfig(BaseModel):
    """Sizes of the student; travels in its checkpoint and in the engine's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: int = 144
    token_bins: int = Field(12, gt=0, description="bins a token advances; bins must be a multiple")
    token_width: int = 32
    token_heads: int = 2
    frequency_layers: int = 2
    width: int = 160
    heads: int = 5
    context: int = Field(64, gt=0, description="frames an attention layer sees, the newest included")
    future: int = Field(0, ge=0, description="frames after the present one that it sees as well; 0 is causal")
    temporal_layers: int = 3
    decoder_layers: int = 2
    dropout: float = Field(0.1, ge=0, lt=1)


@dataclass
class Cache:
    """Keys and values of the frames before the next one; `age` 1 is the last row.

    `keys`, `values`: (layers, batch, heads, context - 1, width / heads), dtype of the weights; `filled`: (batch,)
    int64, how many of the rows hold real frames. A fresh cache is all zeros.
    """

    keys: Tensor
    values: Tensor
    filled: Tensor


class RelativeAttention(nn.Module):
    """Multi-head attention over the last `context` frames and the next `future` ones, with a learnt bias per age.

    `bias` (heads, future + context): column i is that of age i - future; a frame still to come has a negative age.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.context, self.future = config.heads, config.context, config.future
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        # Starts as ALiBi (Press et al. 2022): nearer frames count more, by a different slope in each head.
        slopes = 2.0 ** -torch.arange(2, 2 + config.heads).float()
        ages = torch.arange(-config.future, config.context)
        self.bias = nn.Parameter(-slopes[:, None] * ages.abs().float() / 4)

    def split(self, x: Tensor) -> Tensor:
        """(batch, frames, width) -> (batch, heads, frames, width / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """All frames at once: x and source (batch, frames, width).

        Frames go in blocks as long as the reach to one side: a query can only see its own block, the one before and,
        where there is a future, the one after, which keeps the cost linear in the number of frames.
        """
        size, frames = max(self.context, self.future), x.shape[1]
        blocks = -(-frames // size)
        padding = (0, 0, 0, blocks * size - frames)
        keys, values = self.key_value(functional.pad(source, padding)).chunk(2, dim=-1)
        query = self.split(self.query(functional.pad(x, padding))).unflatten(2, (blocks, size))
        key, value = (self._with_neighbours(self.split(part).unflatten(2, (blocks, size))) for part in (keys, values))
        scores = query @ key.transpose(-1, -2) * (key.shape[-1] ** -0.5) + self._block_bias(blocks, size, frames)
        y = (torch.softmax(scores, dim=-1) @ value).flatten(2, 3)[:, :, :frames]
        return self.out(y.transpose(1, 2).flatten(2))

    def _with_neighbours(self, blocks: Tensor) -> Tensor:
        """(batch, heads, blocks, size, d) -> (.., blocks, 2 or 3 size, d): each block after the one before it, and
        before the one after it where there is a future."""
        previous = functional.pad(blocks[:, :, :-1], (0, 0, 0, 0, 1, 0))
        if not self.future:
            return torch.cat((previous, blocks), dim=3)
        following = functional.pad(blocks[:, :, 1:], (0, 0, 0, 0, 0, 1))
        return torch.cat((previous, blocks, following), dim=3)

    def _block_bias(self, blocks: int, size: int, frames: int) -> Tensor:
        """(heads, blocks, size, 2 or 3 size): the bias of each age; -inf for what is out of reach, before the first
        frame or after the last."""
        columns = torch.arange((3 if self.future else 2) * size, device=self.bias.device)
        age = columns[:size, None] + size - columns[None, :]
        hidden = (age < -self.future) | (age >= self.context)
        before_start = columns < size
        hidden = torch.stack([hidden | before_start] + [hidden] * (blocks - 1))
        if self.future:
            starts = (torch.arange(blocks, device=columns.device) - 1) * size
            after_end = (starts[:, None] + columns >= frames)[:, None, :]
            hidden = hidden | (after_end & (age != 0))  # a row of padding sees itself: softmax of nothing is no number
        bias = self.bias[:, age.clamp(-self.future, self.context - 1) + self.future]
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
            return nn.ModuleDict({"norm": nn.LayerNorm(config.width), "attention": RelativeAttention(config)})

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
    def width(self) -> int:
        """Channels of what `encode` gives."""
        return self.config.width

    @property
    def cached_layers(self) -> int:
        return self.config.temporal_layers + 2 * self.config.decoder_layers

    def empty_cache(self, batch: int = 1) -> Cache:
        """Cache of a stream that has heard nothing."""
        self._causal_only()
        c = self.config
        shape = (self.cached_layers, batch, c.heads, c.context - 1, c.width // c.heads)
        like = self.classes.weight
        return Cache(like.new_zeros(shape), like.new_zeros(shape), like.new_zeros(batch, dtype=torch.int64))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (batch, time, bins) -> logits (batch, time, 170), (batch, time, 13)."""
        return self.heads(self.encode(frames))

    def encode(self, frames: Tensor) -> Tensor:
        """frames (batch, time, bins) -> what the heads read (batch, time, width)."""

        def attend(block: nn.ModuleDict, y: Tensor, source: Tensor | None) -> Tensor:
            x = block["norm"](y)
            return y + self.dropout(block["attention"](x, x if source is None else source))

        return self._run(frames, attend)

    def heads(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """(.., width) -> logits (.., 170), (.., 13)."""
        return self.classes(encoded), self.bass(encoded)

    def step(self, frame: Tensor, cache: Cache) -> tuple[Tensor, Tensor, Cache]:
        """frame (batch, bins) -> logits (batch, 170), (batch, 13) and the advanced cache; UserError with a future."""
        self._causal_only()
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

        classes, bass = self.heads(self._run(frame[:, None, :], attend))
        filled = torch.clamp(cache.filled + 1, max=self.config.context - 1)
        return classes[:, 0], bass[:, 0], Cache(torch.stack(keys), torch.stack(values), filled)

    def _causal_only(self) -> None:
        if self.config.future:
            raise UserError(
                f"this student sees {self.config.future} frames ahead, so it cannot go step by step; "
                "train one with `--future 0` for that"
            )

    def _run(self, frames: Tensor, attend) -> Tensor:  # type: ignore[no-untyped-def]
        """The network but for its heads; sequence and step differ in `attend(block, y, source)` alone."""
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
        return self.norm(y)
