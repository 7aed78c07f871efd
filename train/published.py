"""The bidirectional networks of the papers, in the layouts that their authors publish: BTC and 2E1D.

BTC: Park et al., ISMIR 2019. 2E1D: Nguyen et al., arXiv 2602.19778 (2026). Both map log constant-Q magnitudes
(batch, frames, 144) of librosa's transform at hop 2048 to logits of the 170 classes of `rtchord.chords`, and see the
whole of a window of 108 frames. Modules are named as their checkpoints name tensors, so that those load strictly; the
code is ours. They run what others trained, and are trained as students (`train.students`): `dropout`, 0 unless asked
for, stands where the authors have it.

Our own student, causal and streaming, is `train.model`.
"""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rtchord.chords import N_CLASSES
from rtchord.errors import UserError

WINDOW = 108  # frames of a window: 10 s
BINS = 144


class Published(nn.Module):
    """What both have in common: the checkpoint's normalisation, applied before the network, and its two halves.

    `width`: channels of what `encode` gives. A subclass sets `body`, normalised frames (batch, frames, 144) ->
    (batch, frames, width), and `head`, that -> logits of the classes.
    """

    mean: Tensor
    std: Tensor
    width: int

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        # The published layouts keep them beside the tensors, not among them.
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        self.register_buffer("std", torch.ones(()), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Log magnitudes (batch, frames, 144) float32 -> logits (batch, frames, 170), as precise as the weights."""
        return self.head(self.encode(frames))

    def encode(self, frames: Tensor) -> Tensor:
        """Log magnitudes (batch, frames, 144) -> what the head reads (batch, frames, width)."""
        return self.body(((frames - self.mean) / self.std).to(next(self.parameters()).dtype))

    def heads(self, encoded: Tensor) -> tuple[Tensor, None]:
        """(.., width) -> logits (.., 170); these layouts have no bass."""
        return self.head(encoded), None

    def logits(self, x: Tensor) -> Tensor:
        """Normalised frames (batch, frames, 144) -> logits (batch, frames, 170)."""
        return self.head(self.body(x))

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def head(self, encoded: Tensor) -> Tensor:
        raise NotImplementedError


def unused(module: nn.Module) -> nn.Module:
    """A module that the published layout holds but its network does not use: nothing trains it."""
    return module.requires_grad_(False)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, hidden: Tensor | None = None) -> Tensor:
    """Multi-head attention without its projections; all (batch, tokens, width). `hidden` (tokens, tokens) bool."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5)
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)


# 2E1D


def positions(x: Tensor) -> Tensor:
    """(tokens, width) for x (batch, tokens, width): sines in even columns, cosines in odd ones, each its own period."""
    tokens, width = x.shape[1:]
    column = torch.arange(width, device=x.device)
    angle = torch.arange(tokens, device=x.device)[:, None] / 10_000 ** (2 * column / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).to(x.dtype)


def alphas(count: int) -> nn.ParameterList:
    """Weights of residual branches, 0 at first (ReZero, Bachlechner et al. 2021)."""
    return nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(count))


class Attention(nn.Module):
    """Multi-head attention with its projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        # As torch's MultiheadAttention, which the authors use, begins.
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """To `source`, or to x itself; both (batch, tokens, width)."""
        width, weight, bias = x.shape[-1], self.in_proj_weight, self.in_proj_bias
        if source is None:
            query, key, value = linear(x, weight, bias).chunk(3, dim=-1)
        else:
            query = linear(x, weight[:width], bias[:width])
            key, value = linear(source, weight[width:], bias[width:]).chunk(2, dim=-1)
        return self.out_proj(attend(query, key, value, self.heads))


class FeedForward(nn.Module):
    """y = norm_layer(x + alpha * linear2(relu(norm(linear1(x))))), with dropout after each of the two steps."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))
        self.linear1 = nn.Linear(width, 4 * width)
        self.norm = nn.LayerNorm(4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm_layer = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.drop(torch.relu(self.norm(self.linear1(x))))
        return self.norm_layer(x + self.alpha * self.drop(self.linear2(inner)))


class Encoder(nn.Module):
    """Self-attention over the `tokens` of a batch, `width` wide; then `fc` over `groups` of them side by side."""

    def __init__(
        self, width: int, heads: int, groups: int, position_weight: float, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.width, self.groups, self.position_weight = width, groups, position_weight
        self.attn_layer = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.ff_layer = nn.ModuleList(FeedForward(width, dropout) for _ in range(layers))
        self.attn_alphas = alphas(layers)
        self.fc = nn.Linear(width * groups, width * groups)
        self.norm_layer = nn.LayerNorm(width * groups)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width * groups) -> the same; with groups, frames do not see each other."""
        y = x.reshape(-1, self.groups, self.width) if self.groups > 1 else x
        y = y + self.position_weight * positions(y)
        for attention, alpha, feed in zip(self.attn_layer, self.attn_alphas, self.ff_layer, strict=True):
            y = feed(y + alpha * attention(y))
        return self.norm_layer(self.fc(self.drop(y.reshape(x.shape))))


class Decoder(nn.Module):
    """Reads the sum of both encoders; attends to itself and to the temporal encoder."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.attn_layer1 = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.attn_layer2 = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.ff_layer = nn.ModuleList(FeedForward(width, dropout) for _ in range(layers))
        self.attn1_alphas, self.attn2_alphas = alphas(layers), alphas(layers)
        self.fc = unused(nn.Linear(width, width))
        self.norm_layer = nn.LayerNorm(width)  # one for all layers
        self.drop = nn.Dropout(dropout)

    def forward(self, frequency: Tensor, temporal: Tensor) -> Tensor:
        y = frequency + temporal
        y = y + 0.01 * positions(y)
        parts = (self.attn_layer1, self.attn1_alphas, self.attn_layer2, self.attn2_alphas, self.ff_layer)
        for own, own_alpha, cross, cross_alpha, feed in zip(*parts, strict=True):
            y = self.norm_layer(y + own_alpha * self.drop(own(y)))
            y = self.norm_layer(y + cross_alpha * self.drop(cross(y, temporal)))
            y = feed(y)
        return y


class Transformer(nn.Module):
    """Two encoders, one decoder."""

    def __init__(self, layers: int, dropout: float) -> None:
        super().__init__()
        both = {"layers": layers, "dropout": dropout}
        self.encoder_f = nn.ModuleList([Encoder(12, heads=6, groups=12, position_weight=0.01, **both)])
        self.encoder_t = nn.ModuleList([Encoder(BINS, heads=8, groups=1, position_weight=0.02, **both)])
        self.decoder = Decoder(BINS, heads=8, **both)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder_f[0](x), self.encoder_t[0](x))


class TwoEncoders(Published):
    """2E1D: 3,031,249 parameters. A frequency encoder, a temporal encoder, a decoder; published ones have 5 layers."""

    width = BINS

    def __init__(self, layers: int = 5, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.transformer = Transformer(layers, dropout)
        self.fc = nn.Linear(BINS, N_CLASSES)
        self.drop = nn.Dropout(dropout)

    def body(self, x: Tensor) -> Tensor:
        return self.transformer(x)

    def head(self, encoded: Tensor) -> Tensor:
        return self.fc(self.drop(encoded))


# BTC


class Norm(nn.Module):
    """Layer norm with the unbiased standard deviation, and epsilon added to that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.beta


class BiasFreeAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("query", "key", "value", "output"):
            self.add_module(f"{name}_linear", nn.Linear(width, width, bias=False))

    def forward(self, x: Tensor, heads: int, hidden: Tensor) -> Tensor:
        found = attend(self.query_linear(x), self.key_linear(x), self.value_linear(x), heads, hidden)
        return self.output_linear(found)


class Convolution(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1)


class Convolutions(nn.Module):
    """Two convolutions over time, three frames wide; a ReLU and dropout after both."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Convolution(width) for _ in range(2))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        for layer in self.layers:
            y = self.drop(torch.relu(layer.conv(y)))
        return y.transpose(1, 2)


class Block(nn.Module):
    """Attention to one side, then convolutions; dropout after each sum with its input."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.multi_head_attention = BiasFreeAttention(width)
        self.positionwise_convolution = Convolutions(width, dropout)
        self.layer_norm_mha = Norm(width)
        self.layer_norm_ffn = Norm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        x = self.drop(x + self.multi_head_attention(self.layer_norm_mha(x), self.heads, hidden))
        return self.drop(x + self.positionwise_convolution(self.layer_norm_ffn(x)))


class TwoSides(nn.Module):
    """A block that sees the past and one that sees the future, side by side."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn_block = Block(width, heads, dropout)
        self.backward_attn_block = Block(width, heads, dropout)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        return self.linear(torch.cat((self.attn_block(x, future), self.backward_attn_block(x, future.T)), dim=-1))


def timing(x: Tensor) -> Tensor:
    """(frames, width) for x (batch, frames, width): sines, then cosines, of periods from 1 to 10 000 times 2 pi."""
    frames, half = x.shape[1], x.shape[2] // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=x.device))
    angle = torch.arange(frames, device=x.device)[:, None] * rates
    return torch.cat((angle.sin(), angle.cos()), dim=1).to(x.dtype)


class Layers(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding_proj = nn.Linear(BINS, width, bias=False)
        self.self_attn_layers = nn.ModuleList(TwoSides(width, heads, dropout) for _ in range(layers))
        self.layer_norm = Norm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embedding_proj(x)
        y = y + timing(y)
        future = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool, device=y.device).triu(1)
        for layer in self.self_attn_layers:
            y = layer(y, future)
        return self.layer_norm(y)


class OutputLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.output_projection = nn.Linear(width, N_CLASSES)
        self.lstm = unused(nn.LSTM(width, width // 2, batch_first=True, bidirectional=True))


class BTC(Published):
    """BTC (bi-directional transformer for chords), large vocabulary: 3,036,842 parameters, 8 layers."""

    width = 128

    def __init__(self, layers: int = 8, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.self_attn_layers = Layers(self.width, heads=4, layers=layers, dropout=dropout)
        self.output_layer = OutputLayer(self.width)

    def body(self, x: Tensor) -> Tensor:
        return self.self_attn_layers(x)

    def head(self, encoded: Tensor) -> Tensor:
        return self.output_layer.output_projection(encoded)


# Checkpoints


@dataclass(frozen=True)
class Layout:
    """A published layout: its network, and the transform its checkpoints were trained on.

    `definition`: a key of `rtchord.cqt.DEFINITIONS`. `future`: samples of sound after its centre that the last frame
    of a training window had: the windows were cut out of the sound before they were transformed.
    """

    network: type[Published]
    definition: str
    future: int


LAYOUTS = {
    "2e1d": Layout(TwoEncoders, "librosa-0.11", 2 * 2048),
    "btc": Layout(BTC, "librosa-0.6.3", 10 * 22_050 - (WINDOW - 1) * 2048),
}

# A standard deviation may have been pickled as NumPy's scalar; under NumPy 1 its rebuilder had another name.
_SCALARS: list[Any] = [
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def load_published(path: Path, layout: str | None = None) -> tuple[Published, str]:
    """The network of a published checkpoint, in evaluation mode, and the name of its layout.

    `layout`: a key of LAYOUTS; None takes the one whose tensor names the checkpoint has. Two wrappings are known:
    {"model_state_dict", "normalization": {"mean", "std"}} and {"model", "mean", "std"}; names may begin with
    "module.". Nothing but tensors, numbers and plain containers is unpickled. UserError where it is anything else.
    """
    checkpoint = _read(path)
    tensors = checkpoint.get("model_state_dict", checkpoint.get("model"))
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise UserError(f"{str(path)!r} holds no weights under 'model_state_dict' or 'model': no published checkpoint")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
    if layout is None:
        layout = max(LAYOUTS, key=lambda name: len(_names(name) & tensors.keys()))
    network = LAYOUTS[layout].network()
    difference = _first_difference(network.state_dict(), tensors)
    if difference:
        raise UserError(f"{str(path)!r} does not have the layout {layout!r}: {difference}")
    network.load_state_dict(tensors, strict=True)
    mean, std = _normalisation(checkpoint, path)
    network.mean.fill_(mean)
    network.std.fill_(std)
    return network.eval(), layout


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"no checkpoint at {str(path)!r}: give the path of a published one")
    try:
        with torch.serialization.safe_globals(_SCALARS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search("Unsupported (global|class)", str(error))
        reason = "it asks for code to be run" if code else "no file of torch.save"
        raise UserError(f"{str(path)!r} is not read: {reason}; save its tensors alone, and its mean and std") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{str(path)!r} is no checkpoint that torch can read ({reason})") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{str(path)!r} is no published checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _names(layout: str) -> set[str]:
    with torch.device("meta"):
        return set(LAYOUTS[layout].network().state_dict())


def _first_difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    """Where two sets of tensors first differ, in the order of the layout, as part of a sentence."""
    for name, tensor in expected.items():
        if name not in found:
            return f"tensor {name!r} is missing"
        if found[name].shape != tensor.shape:
            return f"tensor {name!r} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    extra = next((name for name in found if name not in expected), None)
    return None if extra is None else f"tensor {extra!r} does not belong to it"


def _normalisation(checkpoint: dict[str, Any], path: Path) -> tuple[float, float]:
    holder = checkpoint.get("normalization", checkpoint)
    try:
        mean, std = float(holder["mean"]), float(holder["std"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(f"{str(path)!r} lacks the 'mean' and 'std' that its features are normalised with") from None
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise UserError(f"{str(path)!r} cannot be used: its features' mean is {mean} and their deviation {std}")
    return mean, std
