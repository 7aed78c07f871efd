"""Streaming sample-rate conversion with under a millisecond of delay.

Why not a library: the streaming mode of soxr hands its output over in blocks of its internal Fourier transform,
20-80 ms late at 44.1 and 48 kHz and over 110 ms at 8 kHz (measured, docs/architecture.md). The chord features end at
2.1 kHz, so aliases may fall anywhere above that; a short polyphase FIR then does the whole job.

Output sample `j` sits at input position ``j * M / L`` (L / M = output rate / input rate in lowest terms), so counters
are integers and never drift. It exists as soon as `half` more input samples do.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from rtchord.compiled import compiled

Float32 = NDArray[np.float32]

ATTENUATION_DB = 80.0  # stop band; well under the noise of any stage
MIN_RATE, MAX_RATE = 4_000, 384_000


@compiled(fastmath=True)
def _polyphase(
    buffer: Float32, first: int, end: int, out_index: int, up: int, down: int, bank: Float32, half: int, out: Float32
) -> int:
    """Write every output whose input is complete; `buffer[0]` is input sample `first`, `end` one past the last."""
    taps = bank.shape[1]
    n = 0
    while n < out.size:
        position = out_index * down
        centre = position // up
        if centre + half >= end:
            break
        row = bank[position % up]
        window = buffer[centre - half + 1 - first : centre - half + 1 - first + taps]
        total = np.float32(0.0)
        for k in range(taps):
            total += row[k] * window[k]
        out[n] = total
        n += 1
        out_index += 1
    return n


class Resampler:
    """Mono float32 stream from `rate_in` to `rate_out`, exact up to `passband` Hz (-80 dB aliases below it).

    The output is bit for bit the same for every way of cutting the input.
    """

    def __init__(self, rate_in: int, rate_out: int, passband: float) -> None:
        if not MIN_RATE <= rate_in <= MAX_RATE:
            raise ValueError(f"sample rate {rate_in} Hz is outside {MIN_RATE}..{MAX_RATE} Hz")
        divisor = gcd(rate_in, rate_out)
        self.rate_in, self.rate_out = rate_in, rate_out
        self._up, self._down = rate_out // divisor, rate_in // divisor
        self._identity = rate_in == rate_out
        low = min(rate_in, rate_out)
        # The wanted band ends at `passband` or short of the input's own Nyquist; images and aliases of it begin at
        # the mirror frequency.
        wanted = min(passband, 0.45 * rate_in)
        transition = low - 2 * wanted
        # Kaiser's formula for the length of a window design (Kaiser 1974).
        taps = (ATTENUATION_DB - 7.95) / (2.285 * 2 * np.pi * transition / rate_in)
        self._half = 1 if self._identity else ceil(taps / 2)
        self._bank = self._design(0.5 * low / rate_in)
        self.reset()

    def _design(self, cutoff: float) -> Float32:
        """Polyphase rows (up, 2 * half): a Kaiser-windowed sinc sampled at each fractional position."""
        half = self._half
        phase = np.arange(self._up)[:, None] / self._up
        offset = np.arange(-half + 1, half + 1)[None, :] - phase
        beta = 0.1102 * (ATTENUATION_DB - 8.7)
        window = np.i0(beta * np.sqrt(np.maximum(0.0, 1.0 - (offset / half) ** 2))) / np.i0(beta)
        rows = 2 * cutoff * np.sinc(2 * cutoff * offset) * window
        bank: Float32 = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
        return bank

    @property
    def delay(self) -> float:
        """Seconds of input after its own instant that an output sample waits for."""
        return 0.0 if self._identity else self._half / self.rate_in

    def consumed(self, outputs: int) -> int:
        """Input samples that must have been heard before `outputs` samples exist."""
        if outputs <= 0 or self._identity:
            return max(outputs, 0)
        return (outputs - 1) * self._down // self._up + self._half + 1

    def reset(self) -> None:
        """Forget the past; the next sample is the first of a new stream, preceded by silence."""
        self._out_index = 0
        self._end = 0  # input samples seen
        self._history = np.zeros(2 * self._half, np.float32)

    def push(self, samples: Float32) -> Float32:
        """Resampled samples that became complete; `samples` is (n,) float32, any n."""
        if self._identity:
            return samples
        buffer = np.concatenate((self._history, samples))
        first = self._end - self._history.size
        self._end += samples.size
        out = np.empty(samples.size * self._up // self._down + 2, np.float32)
        n = _polyphase(buffer, first, self._end, self._out_index, self._up, self._down, self._bank, self._half, out)
        self._out_index += n
        keep = max(self._end - (self._out_index * self._down // self._up - self._half + 1), 0)
        self._history = buffer[buffer.size - min(keep, buffer.size) :].copy()
        return out[:n]

    def finish(self) -> Float32:
        """The samples still owed at the end of the stream, as if silence followed; push no more before a reset."""
        owed = -(-self._end * self._up // self._down) - self._out_index
        return np.zeros(0, np.float32) if self._identity else self.push(np.zeros(self._half + 1, np.float32))[:owed]
