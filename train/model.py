"""The live student: a causal two-encoder, one-decoder (2E1D) transformer over constant-Q frames that keys cannot fool.

Each frame becomes 12 pitch classes of `width` channels, and from there on every layer does to each pitch class what it
does to the others: music moved by a semitone moves through the network as a rotation, and its chord comes out moved. So
what is learnt in one key is learnt in all twelve (Cohen & Welling, ICML 2016: group equivariance, here of the circle of
12). Only the first layer knows absolute pitch: its registers tell low notes from high ones, which a bass needs.

* Frequency encoder: a harmonic layer looks at each semitone with the same weights over the bins around it, partials
  above included; octaves are folded into pitch classes, by register; layers that mix the pitch classes of that frame.
* Temporal encoder: causal self-attention over the last `context` frames.
* Decoder: reads the sum of both; causal self-attention, then cross-attention to the temporal encoder's past.
* Heads: 170 chord classes and 13 basses (`rtchord.chords`), a root's 14 qualities read where its pitch class is.

Attention over time compares all twelve pitch classes of two frames at once and knows only relative age (a learnt bias
per head and age); its keys and values are cached: a step computes one frame. Run over a whole sequence, the same
weights give the same numbers (tests prove it).

With `future` > 0 every attention over time also sees that many frames ahead: the same layout made bidirectional, a
student for whole recordings. The mask, the biases of the ages to come and the lack of a cache are the only difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from rtchord.chords import N_QUALITIES
from rtchord.errors import UserError

PITCHES = 12  # pitch classes, C first; channels of a pitch class lie side by side: (.., 12 x width)
PARTIALS = (1, 2, 3, 4, 5, 6, 8)  # where the harmonic layer listens before it has learnt anything


class ModelConfig(BaseModel):
    """Sizes of the student; travels in its checkpoint and in the engine's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: int = Field(144, gt=0, description="of each set in a frame, the lowest a C; a multiple of an octave's")
    sets: int = Field(1, gt=0, description="of bins, side by side in a frame")
    bins_per_semitone: int = Field(2, gt=0)
    channels: int = Field(16, gt=0, description="of the harmonic layer, at each semitone")
    registers: int = Field(8, gt=1, description="overlapping parts of the range into which octaves are folded")
    frequency_layers: int = Field(1, ge=0)
    width: int = Field(40, gt=0, description="channels of each pitch class; a multiple of heads")
    feed: int = Field(80, gt=0, description="channels of each pitch class inside a feed-forward layer")
    heads: int = Field(4, gt=0)
    context: int = Field(64, gt=0, description="frames an attention layer sees, the newest included")
    future: int = Field(0, ge=0, description="frames after the present one that it sees as well; 0 is causal")
    temporal_layers: int = 3
    decoder_layers: int = 2
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.bins % (PITCHES * self.bins_per_semitone):
            raise ValueError(f"bins={self.bins} are no whole octaves of {PITCHES * self.bins_per_semitone}")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is no multiple of heads={self.heads}")
        return self


@dataclass
class Cache:
    """Keys and values of the frames before the next one; `age` 1 is the last row.

    `keys`, `values`: (layers, batch, heads, context - 1, 12 x width / heads), dtype of the weights; `filled`: (batch,)
    int64, how many of the rows hold real frames. A fresh cache is all zeros.
    """

    keys: Tensor
    values: Tensor
    filled: Tensor


class Assembled(nn.Module):
    """A layer whose matrix is put together from fewer weights. `fix` keeps the matrix, of a student that has learnt."""

    fixed: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fixed", None, persistent=False)

    def assemble(self) -> Tensor:
        raise NotImplementedError

    def matrix(self) -> Tensor:
        return self.assemble() if self.fixed is None else self.fixed

    @torch.no_grad()
    def fix(self) -> None:
        self.fixed = self.assemble().clone(memory_format=torch.contiguous_format)  # no view: its dtype may change


class Shared(nn.Linear):
    """One linear layer for every pitch class: (.., 12 x in) -> (.., 12 x out)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(-1, (PITCHES, self.in_features))).flatten(-2)


class Circular(nn.Module):
    """(batch, frames, 12 x in) -> (batch, frames, 12 x out): from each pitch class to each, by their interval alone.

    `kernel` (12, in, out): from the pitch class so many semitones below.
    """

    below: Tensor

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(PITCHES, into, out) / math.sqrt(PITCHES * into))
        self.bias = nn.Parameter(torch.zeros(out))
        pitches = torch.arange(PITCHES)
        self.register_buffer("below", (pitches[:, None] - pitches) % PITCHES, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:  # of one frame, twelve turns are less to read than a matrix twelve times the weights
            turned = x.unflatten(-1, (PITCHES, -1))[:, :, self.below].flatten(3)  # (batch, 1, 12, 12 x in)
            return (turned @ self.kernel.flatten(0, 1) + self.bias).flatten(2)
        turns = torch.stack([self.kernel.roll(pitch, 0) for pitch in range(PITCHES)])  # (from, to, in, out)
        matrix = turns.permute(1, 3, 0, 2).flatten(2).flatten(0, 1)
        return functional.linear(x, matrix, self.bias.repeat(PITCHES))


class Norm(nn.Module):
    """Layer normalisation over all pitch classes of a frame, with the same scale and offset for each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.weight.repeat(PITCHES), self.bias.repeat(PITCHES))


class Harmonic(Assembled):
    """(batch, frames, sets x bins) -> (batch, frames, semitones x channels), not below 0: what sounds at each.

    `kernel` (sets x (2 x bins + 1), channels): of each set the weight of a bin by its distance from the semitone's own,
    from -bins on.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.semitones = config.bins // config.bins_per_semitone
        distance = torch.arange(config.bins) - config.bins_per_semitone * torch.arange(self.semitones)[:, None]
        rows = 2 * config.bins + 1
        kernel = 0.02 * torch.randn(config.sets, rows, config.channels) / math.sqrt(config.sets)
        for number, partial in enumerate(PARTIALS):
            above = round(PITCHES * config.bins_per_semitone * math.log2(partial))
            for beside, share in ((-1, 0.5), (0, 1.0), (1, 0.5)):
                if 0 <= config.bins + above + beside < rows:
                    drawn = torch.randn(config.sets, config.channels) * 0.25 * share / (1 + 0.3 * number)
                    kernel[:, config.bins + above + beside] += drawn / math.sqrt(config.sets)
        self.kernel = nn.Parameter(kernel.flatten(0, 1))
        of_set = rows * torch.arange(config.sets)[None, :, None] + config.bins + distance[:, None]
        self.register_buffer("row", of_set.flatten(1), persistent=False)  # (semitones, sets x bins)
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def assemble(self) -> Tensor:
        """(semitones x channels, sets x bins)"""
        return functional.embedding(self.row, self.kernel).transpose(1, 2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(functional.linear(x, self.matrix(), self.bias.repeat(self.semitones)))


class Fold(Assembled):
    """(batch, frames, semitones x channels) -> (batch, frames, 12 x out): octaves into pitch classes.

    `kernel` (registers, channels, out): registers are triangular windows, evenly spaced over the semitones, each half
    over the next, so that the weights of a note change smoothly with its height.
    """

    def __init__(self, config: ModelConfig, out: int) -> None:
        super().__init__()
        octaves = config.bins // config.bins_per_semitone // PITCHES
        height = torch.linspace(0, config.registers - 1, octaves * PITCHES)
        window = (1 - (height[:, None] - torch.arange(config.registers)).abs()).clamp(min=0)
        self.register_buffer("window", window.reshape(octaves, PITCHES, -1).clone(), persistent=False)
        scale = math.sqrt(config.channels * octaves)
        self.kernel = nn.Parameter(torch.randn(config.registers, config.channels, out) / scale)
        self.bias = nn.Parameter(torch.zeros(out))

    def assemble(self) -> Tensor:
        """(12, octaves x channels, out)"""
        return torch.einsum("opr,rcd->pocd", self.window, self.kernel).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        octaves = self.window.shape[0]
        notes = x.unflatten(-1, (octaves, PITCHES, -1)).permute(3, 0, 1, 2, 4)  # (12, batch, frames, octaves, channels)
        folded = notes.flatten(3).flatten(1, 2) @ self.matrix()
        return (folded.permute(1, 0, 2) + self.bias).flatten(1).unflatten(0, x.shape[:2])


class FeedForward(nn.Module):
    """(.., 12 x width) -> the same: mixes the pitch classes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = Norm(config.width)
        self.mix = Circular(config.width, config.feed)
        self.out = Shared(config.feed, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.mix(self.norm(x))))


class RelativeAttention(nn.Module):
    """Multi-head attention over the last `context` frames and the next `future` ones, with a learnt bias per age.

    A head's query, key and value of a frame are some channels of all twelve pitch classes. `bias` (heads, future +
    context): column i is that of age i - future; a frame still to come has a negative age.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.context, self.future = config.heads, config.context, config.future
        self.query = Shared(config.width, config.width)
        self.key = Shared(config.width, config.width)
        self.value = Shared(config.width, config.width)
        self.out = Shared(config.width, config.width)
        # Starts as ALiBi (Press et al. 2022): nearer frames count more, by a different slope in each head.
        slopes = 2.0 ** -torch.arange(2, 2 + config.heads).float()
        ages = torch.arange(-config.future, config.context)
        self.bias = nn.Parameter(-slopes[:, None] * ages.abs().float() / 4)

    def split(self, x: Tensor) -> Tensor:
        """(batch, frames, 12 x width) -> (batch, heads, frames, 12 x width / heads)"""
        return x.unflatten(-1, (PITCHES, self.heads, -1)).permute(0, 3, 1, 2, 4).flatten(3)

    def join(self, x: Tensor) -> Tensor:
        """The reverse of `split`."""
        return x.unflatten(-1, (PITCHES, -1)).permute(0, 2, 3, 1, 4).flatten(2)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """All frames at once: x and source (batch, frames, 12 x width).

        Frames go in blocks as long as the reach to one side: a query can only see its own block, the one before and,
        where there is a future, the one after, which keeps the cost linear in the number of frames.
        """
        size, frames = max(self.context, self.future), x.shape[1]
        blocks = -(-frames // size)
        padding = (0, 0, 0, blocks * size - frames)
        x, source = functional.pad(x, padding), functional.pad(source, padding)
        query = self.split(self.query(x)).unflatten(2, (blocks, size))
        key, value = (
            self._with_neighbours(self.split(part(source)).unflatten(2, (blocks, size)))
            for part in (self.key, self.value)
        )
        bias = self._block_bias(blocks, size, frames).to(query.dtype)
        scores = query @ key.transpose(-1, -2) * (key.shape[-1] ** -0.5) + bias
        y = (torch.softmax(scores, dim=-1) @ value).flatten(2, 3)[:, :, :frames]
        return self.out(self.join(y))

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
        """One frame: x and source (batch, 1, 12 x width); returns the output and the advanced keys and values.

        `empty` (batch, 1, 1, context) is -inf where a row of the cache holds no frame yet, else 0.
        """
        keys = torch.cat((keys, self.split(self.key(source))), dim=2)
        values = torch.cat((values, self.split(self.value(source))), dim=2)
        scores = self.split(self.query(x)) @ keys.transpose(-1, -2) * (keys.shape[-1] ** -0.5)
        weights = torch.softmax(scores + self.bias.flip(1)[:, None, :] + empty, dim=-1)
        return self.out(self.join(weights @ values)), keys[:, :, 1:], values[:, :, 1:]


class Student(nn.Module):
    """Log constant-Q frames to logits of classes and basses. `mean`, `std` normalise the input."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.harmonic = Harmonic(config)
        self.fold = nn.ModuleDict({name: Fold(config, config.width) for name in ("frequency", "temporal")})
        self.frequency = nn.ModuleList(FeedForward(config) for _ in range(config.frequency_layers))

        def attention() -> nn.ModuleDict:
            return nn.ModuleDict({"norm": Norm(config.width), "attention": RelativeAttention(config)})

        self.temporal = nn.ModuleList(
            nn.ModuleDict({"self": attention(), "feed": FeedForward(config)}) for _ in range(config.temporal_layers)
        )
        self.memory_norm = Norm(config.width)
        self.decoder = nn.ModuleList(
            nn.ModuleDict({"self": attention(), "cross": attention(), "feed": FeedForward(config)})
            for _ in range(config.decoder_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.norm = Norm(config.width)
        self.classes = nn.Linear(config.width, N_QUALITIES)
        self.unpitched = nn.Linear(config.width, 2)  # X and N, of the mean over the pitch classes
        self.bass = nn.Linear(config.width, 1)
        self.no_bass = nn.Linear(config.width, 1)

    @property
    def width(self) -> int:
        """Channels of what `encode` gives."""
        return PITCHES * self.config.width

    @property
    def cached_layers(self) -> int:
        return self.config.temporal_layers + 2 * self.config.decoder_layers

    def empty_cache(self, batch: int = 1) -> Cache:
        """Cache of a stream that has heard nothing."""
        self._causal_only()
        c = self.config
        shape = (self.cached_layers, batch, c.heads, c.context - 1, self.width // c.heads)
        like = self.classes.weight
        return Cache(like.new_zeros(shape), like.new_zeros(shape), like.new_zeros(batch, dtype=torch.int64))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames (batch, time, sets x bins) -> logits (batch, time, 170), (batch, time, 13)."""
        return self.heads(self.encode(frames))

    def encode(self, frames: Tensor) -> Tensor:
        """frames (batch, time, sets x bins) -> what the heads read (batch, time, width)."""

        def attend(block: nn.ModuleDict, y: Tensor, source: Tensor | None) -> Tensor:
            x = block["norm"](y)
            return y + self.dropout(block["attention"](x, x if source is None else source))

        return self._run(frames, attend)

    def heads(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """(.., 12 x width) -> logits (.., 170), (.., 13)."""
        pitches = encoded.unflatten(-1, (PITCHES, -1))
        whole = pitches.mean(-2)
        classes = torch.cat((self.classes(pitches).flatten(-2), self.unpitched(whole)), -1)
        return classes, torch.cat((self.bass(pitches).flatten(-2), self.no_bass(whole)), -1)

    def fix(self) -> Student:
        """This student with every matrix put together once and for all: it learns no more, and runs the faster."""
        for module in self.modules():
            if isinstance(module, Assembled):
                module.fix()
        return self

    def step(self, frame: Tensor, cache: Cache) -> tuple[Tensor, Tensor, Cache]:
        """frame (batch, sets x bins) -> logits (batch, 170), (batch, 13), cache moved on; UserError with a future."""
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
        notes = self.harmonic(((frames - self.mean) / self.std).to(self.classes.weight.dtype))
        memory = self.fold["temporal"](notes)
        for layer in self.temporal:
            memory = attend(layer["self"], memory, None)
            memory = memory + self.dropout(layer["feed"](memory))
        source = self.memory_norm(memory)
        frame = self.fold["frequency"](notes)
        for layer in self.frequency:
            frame = frame + layer(frame)
        y = frame + memory
        for layer in self.decoder:
            y = attend(layer["self"], y, None)
            y = attend(layer["cross"], y, source)
            y = y + self.dropout(layer["feed"](y))
        return self.norm(y)
