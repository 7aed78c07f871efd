"""Channels to the one signal that is recognised, measured on the way.

The signal is their mean, without channels that cancel a louder one: a balanced cable in a stereo input, or one side
wired the wrong way round, brings the same sound twice with opposite signs, of which nothing is left in the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf, isfinite, log10
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

CLIPPED = 0.9999  # of full scale; the largest 16-bit sample is 0.99997
WINDOW_SECONDS = 0.4  # of sound that are judged at a time, counted from the first sample on
CANCELLING = 0.25  # power that is left of two channels' sum, as a share of what unrelated channels would leave
UNRELATED = 0.5  # from here on two channels do not cancel; in between, what was found stands
CANCELLING_WINDOWS = 3  # in a row; so it takes 1.6 s at most. Wide stereo does so for moments, and in single notes
UNRELATED_WINDOWS = 5  # in a row
AUDIBLE = 10**-6.6  # mean square, -66 dBFS: below this a window of a channel says nothing


class Level(NamedTuple):
    """`rms` of the mixed signal and `peak` of its channels in dBFS (-inf for digital silence); samples `clipped`."""

    rms: float
    peak: float
    clipped: int


def _dbfs(amplitude: float) -> float:
    return 20 * log10(amplitude) if amplitude > 0 else -inf


class MonoMix:
    """The mean of chosen channels that do not cancel each other, and how loud they were.

    What comes out is the same for every way of cutting the stream.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        frames: int,
        rate: int = 48_000,
        report: Callable[[str], None] | None = None,
        numbers: tuple[int, ...] | None = None,
    ) -> None:
        """`channels`: indices from 0, at least one. `frames`: the longest block `mix` takes. `rate`: Hz.

        `report` is told when channels begin to cancel and when they cease to; `numbers`: what the channels are called
        there, by default 1 for index 0.
        """
        if not channels:
            raise ValueError("at least one channel is needed")
        self.frames = frames
        self._channels = channels
        self._heard = channels  # those that are in the mean
        self._scratch = np.zeros(frames, np.float32)
        self._squares, self._count, self._peak, self._clipped = 0.0, 0, 0.0, 0
        self._cancelling = _Cancelling(len(channels), rate) if len(channels) > 1 else None
        self._numbers = numbers or tuple(channel + 1 for channel in channels)
        self._report = report or (lambda _: None)

    def mix(self, block: Float32) -> Float32:
        """(n, channels) float32 -> (n,) float32, n <= `frames`; a view that the next call overwrites."""
        out = self._scratch[: len(block)]
        if not len(block):
            return out
        for channel in self._channels:
            self._measure(block[:, channel])
        if self._cancelling is None:
            self._mean(block, out)
        else:
            for start, stop, dropped in self._cancelling.cut(block, self._channels):
                self._mean(block[start:stop], out[start:stop])
                if dropped is not None:
                    self._hear_without(dropped)
        squares = float(np.dot(out, out))
        if isfinite(squares):
            self._squares += squares
            self._count += len(block)
        return out

    def _mean(self, block: Float32, out: Float32) -> None:
        first, *others = self._heard
        np.copyto(out, block[:, first])
        for channel in others:
            np.add(out, block[:, channel], out=out)
        if others:
            np.multiply(out, np.float32(1.0 / len(self._heard)), out=out)

    def _hear_without(self, dropped: tuple[bool, ...]) -> None:
        """From here on, without the channels that are marked; tells what changes."""
        heard = tuple(channel for channel, drop in zip(self._channels, dropped, strict=True) if not drop)
        if heard == self._heard:
            return
        self._heard = heard
        if any(dropped):
            left = ", ".join(str(number) for number, drop in zip(self._numbers, dropped, strict=True) if not drop)
            self._report(
                "channels cancel each other out: is a balanced cable in a stereo input, or one side wired the wrong "
                f"way round? Listening to channel{'s' * (len(heard) > 1)} {left} alone"
            )
        else:
            self._report("the channels no longer cancel each other out: listening to all of them")

    def take(self) -> Level:
        """The level since this was last asked. What is no number counts for nothing."""
        level = Level(_dbfs((self._squares / max(self._count, 1)) ** 0.5), _dbfs(self._peak), self._clipped)
        self._squares, self._count, self._peak, self._clipped = 0.0, 0, 0.0, 0
        return level

    def _measure(self, samples: Float32) -> None:
        peak = max(float(samples.max()), -float(samples.min()))
        if isfinite(peak) and peak > self._peak:
            self._peak = peak
        if peak >= CLIPPED:
            self._clipped += int(np.count_nonzero(np.abs(samples) >= CLIPPED))


class _Cancelling:
    """Finds channels that cancel a louder one, in windows that lie where they lie, however the stream is cut."""

    def __init__(self, channels: int, rate: int) -> None:
        self._window = np.zeros((channels, max(1, round(WINDOW_SECONDS * rate))), np.float32)
        self._filled = 0
        self._power = [0.0] * channels
        self._pairs = [(a, b) for a in range(channels) for b in range(a)]
        self._runs = dict.fromkeys(self._pairs, 0)  # windows in a row that spoke for a change of what is known
        self._known = dict.fromkeys(self._pairs, False)  # whether the two cancel
        self._dropped = (False,) * channels

    def cut(self, block: Float32, channels: tuple[int, ...]) -> Iterator[tuple[int, int, tuple[bool, ...] | None]]:
        """(start, stop, verdict) of the parts of a block (n, any channels), each in one window.

        The verdict, at the end of a window, says which channels are to be dropped from there on.
        """
        start, size = 0, self._window.shape[1]
        while start < len(block):
            stop = min(len(block), start + size - self._filled)
            for row, channel in zip(self._window, channels, strict=True):
                np.copyto(row[self._filled : self._filled + stop - start], block[start:stop, channel])
            self._filled += stop - start
            verdict = None
            if self._filled == size:
                self._filled = 0
                verdict = self._judge()
            yield start, stop, verdict
            start = stop

    def _judge(self) -> tuple[bool, ...]:
        rows, size = self._window, self._window.shape[1]
        power = self._power
        for channel, row in enumerate(rows):
            power[channel] = float(np.dot(row, row)) / size
        changed = False
        for pair in self._pairs:
            a, b = pair
            both = power[a] + power[b]
            if not (AUDIBLE <= power[a] < inf and AUDIBLE <= power[b] < inf):
                continue
            left = 1 + 2 * float(np.dot(rows[a], rows[b])) / size / both
            known = self._known[pair]
            self._runs[pair] = self._runs[pair] + 1 if (left > UNRELATED if known else left < CANCELLING) else 0
            if self._runs[pair] == (UNRELATED_WINDOWS if known else CANCELLING_WINDOWS):
                self._known[pair], self._runs[pair], changed = not known, 0, True
        if changed:
            self._dropped = self._quieter()
        return self._dropped

    def _quieter(self) -> tuple[bool, ...]:
        """Of each two that cancel the one with less power, the loudest channel first; the last of equals."""
        dropped: set[int] = set()
        for loud in sorted(range(len(self._power)), key=lambda channel: -self._power[channel]):
            if loud not in dropped:
                dropped |= {a + b - loud for a, b in self._pairs if self._known[a, b] and loud in (a, b)}
        return tuple(channel in dropped for channel in range(len(self._power)))
