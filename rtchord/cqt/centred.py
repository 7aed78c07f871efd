"""The centred transform as a stream: librosa's frames, final ones as soon as their future exists, provisional before.

Every rate has its own samples, known by absolute position: sample i of a level lies on sample 2i of the level above,
and is made once the filter's whole reach exists there. Level 0 is the stream; level l + 1 belongs to octave
l (0 = highest). Frame t of an octave reads `n_fft` samples around position ``t * hop / 2 ** (l + 1)``. Counters are
integers; nothing accumulates, so nothing drifts.

A provisional frame treats the stream as if it ended now: what librosa gives for the samples heard until now.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtchord.compiled import compiled
from rtchord.cqt.features import Features
from rtchord.cqt.kernels import SHARP_TAPS, Float32, centred_kernels, halving_banks, sharp
from rtchord.cqt.tile import COLUMNS, respond

Int64 = NDArray[np.int64]

REACH = SHARP_TAPS // 2  # samples of future that a decimated sample waits for
SLACK = 3 * COLUMNS  # room behind a level: its samples are made COLUMNS at a time, from twice as many
UNSETTLED = 2 * REACH + 4  # room for the samples of a level that are provisional, and for the zeros after them


@compiled()
def _position(index: int, end: int) -> int:
    """Position of sample `index` after reflection at 0 and at `end` - 1, both edges counted once."""
    if end == 1:
        return 0
    period = 2 * (end - 1)
    index %= period
    return index if index < end else period - index


@compiled()
def _gather(level: Float32, base: int, centre: int, reflect: bool, end: int, window: Float32) -> None:
    """Fill `window` with the samples around `centre`; `level[0]` is sample `base`, the stream ends before `end`."""
    start = centre - window.size // 2
    if not reflect or (start >= 0 and start + window.size <= end):
        window[:] = level[start - base : start - base + window.size]
        return
    for i in range(window.size):
        window[i] = level[_position(start + i, end) - base]


@compiled(fastmath=True)
def _write(found: Float32, bins: int, gains: Float32, first: int, offset: float, out: Float32) -> None:
    """Log magnitudes of one octave of one frame: `found` (real, then imaginary parts) into `out[first:]`."""
    for j in range(bins):
        magnitude = np.sqrt(found[j] * found[j] + found[bins + j] * found[bins + j])
        out[first + j] = np.log(gains[first + j] * magnitude + offset)


@compiled()
def _halve(
    level: Float32,
    start: int,
    outputs: int,
    reach: int,
    banks: tuple[Float32, Float32],
    second: Float32,
    starts: Int64,
    out: Float32,
) -> None:
    """Fill `out[:outputs]` (and up to SLACK beyond, with what means nothing) from `level[start:]` at half its rate."""
    columns = banks[0].shape[1]
    rows = (outputs + columns - 1) // columns
    for row in range(rows):
        starts[row] = start + 2 * columns * row
    respond(level, starts[:rows], 1, banks[0], 0, out[: rows * columns].reshape(rows, columns))
    for row in range(rows):
        starts[row] += 2 * reach + 2 * (columns - 1)
    respond(level, starts[:rows], -1, banks[1], 0, second[: rows * columns].reshape(rows, columns))
    for i in range(outputs):
        out[i] += second[i]


@compiled()
def _lines(size: int, rows: int, starts: Int64) -> None:
    """Where windows begin that lie one after another."""
    for row in range(rows):
        starts[row] = row * size


@compiled()
def _push(
    samples: Float32,
    chunk: int,
    hop: int,
    past: int,
    reflect: bool,
    reach: int,
    banks: tuple[Float32, Float32],
    second: Float32,
    matrix: Float32,
    gains: Float32,
    offset: float,
    levels: Float32,
    base: Int64,
    count: Int64,
    settled: Int64,
    table: Float32,
    windows: Float32,
    starts: Int64,
    response: Float32,
    places: Int64,
    out: Float32,
) -> int:
    """Advance by `samples`, any number; frames that became final go to `out`. Returns how many."""
    octaves = levels.shape[0] - 1
    n_fft = matrix.shape[0]
    bins = gains.size // octaves
    written = 0
    for first in range(0, samples.size, chunk):
        block = samples[first : first + chunk]
        for level in range(octaves + 1):
            row = levels[level]
            if count[level] - base[level] + chunk + SLACK > row.size:
                used = count[level] - base[level]
                for i in range(past):
                    row[i] = row[used - past + i]
                base[level] = count[level] - past
            if level == 0:
                start = count[0] - base[0]
                row[start : start + block.size] = block
                count[0] += block.size
                continue
            outputs = (count[level - 1] - reach + 1) // 2 - count[level]
            if outputs > 0:
                start = count[level] - base[level]
                above = 2 * count[level] - reach - base[level - 1]
                _halve(levels[level - 1], above, outputs, reach, banks, second, starts, row[start:])
                count[level] += outputs
        # Frames that are final now, of every octave; they meet the kernels together.
        rows = 0
        for octave in range(octaves):
            step = hop >> (octave + 1)
            while True:
                centre = settled[octave] * step
                need = centre + n_fft // 2
                if reflect:
                    need = max(need, n_fft // 2 + 1 - centre)
                if need > count[octave + 1]:
                    break
                _gather(levels[octave + 1], base[octave + 1], centre, reflect, count[octave + 1], windows[rows])
                places[rows, 0] = settled[octave] % table.shape[0]
                places[rows, 1] = (octaves - 1 - octave) * bins
                settled[octave] += 1
                rows += 1
        if rows:
            _lines(n_fft, rows, starts)
            respond(windows.reshape(-1), starts[:rows], 1, matrix, 0, response[:rows])
            for i in range(rows):
                _write(response[i], bins, gains, places[i, 1], offset, table[places[i, 0]])
            for i in range(rows):
                if places[i, 1] == 0:  # the lowest octave completes a frame
                    out[written] = table[places[i, 0]]
                    written += 1
    return written


@compiled()
def _provisional(
    newest: int,
    hop: int,
    past: int,
    reflect: bool,
    reach: int,
    banks: tuple[Float32, Float32],
    second: Float32,
    matrix: Float32,
    gains: Float32,
    offset: float,
    levels: Float32,
    base: Int64,
    count: Int64,
    settled: Int64,
    table: Float32,
    tail: Float32,
    windows: Float32,
    starts: Int64,
    response: Float32,
) -> None:
    """Write every frame up to `newest` that is not final into `table`, as if the stream ended here."""
    octaves = levels.shape[0] - 1
    bins = gains.size // octaves
    tail[:] = np.float32(0.0)
    end = count[0]
    first_above = 0
    for level in range(octaves + 1):
        row = tail[level]
        first = count[level] - past  # position of row[0]
        row[:past] = levels[level][first - base[level] : count[level] - base[level]]
        if level > 0:
            end = (end + 1) // 2
            if end > count[level]:
                _halve(
                    tail[level - 1],
                    2 * count[level] - reach - first_above,
                    end - count[level],
                    reach,
                    banks,
                    second,
                    starts,
                    row[past:],
                )
                row[end - first :] = np.float32(0.0)
            octave = level - 1
            step = hop >> level
            rows = 0
            frame = settled[octave]
            while frame <= newest:
                _gather(row, first, frame * step, reflect, end, windows[rows])
                rows += 1
                frame += 1
                if rows == windows.shape[0] or frame > newest:
                    _lines(windows.shape[1], rows, starts)
                    respond(windows.reshape(-1), starts[:rows], 1, matrix, 0, response[:rows])
                    for i in range(rows):
                        place = (frame - rows + i) % table.shape[0]
                        _write(response[i], bins, gains, (octaves - 1 - octave) * bins, offset, table[place])
                    rows = 0
        first_above = first


def above(samples: int, octave: int) -> int:
    """Samples of the stream that the first `samples` of an octave (0 = highest) need."""
    for _ in range(octave + 1):
        samples = 2 * (samples - 1) + REACH + 1
    return samples


class CentredCQT:
    """State of the centred transform over one stream; made once, pushed forward, reset by name.

    `keep`: the most frames that `window` can look back on.
    """

    def __init__(self, features: Features, keep: int = 108) -> None:
        if features.alignment != "centred":
            raise ValueError(f"CentredCQT computes centred features, not {features.alignment!r} ones")
        self.features = features
        self.keep = keep
        self._reflect = features.definition == "librosa-0.6.3"
        self._banks = halving_banks(sharp())
        self._chunk = max(features.hop, 4096)  # samples taken on at a time
        self._matrix, self._gains = centred_kernels(features)
        n_fft, columns = self._matrix.shape
        self._half = n_fft // 2
        frames = self._chunk // features.hop + 1  # that a chunk can make final in an octave
        levels, rows = features.octaves + 1, frames * features.octaves
        self._past = n_fft + 2 * REACH  # samples of each level that are never forgotten
        self._levels = np.zeros((levels, self._past + 2 * self._chunk + SLACK), np.float32)
        self._base, self._count = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
        self._settled = np.zeros(features.octaves, np.int64)
        lag = -(-self.needed(1) // features.hop)  # frames from the newest to the last final one, at most
        self._table = np.zeros((keep + lag + frames + 2, features.bins), np.float32)
        self._tail = np.zeros((levels, self._past + UNSETTLED + self._half), np.float32)
        self._windows = np.zeros((rows, n_fft), np.float32)
        self._second = np.zeros(self._chunk // 2 + SLACK, np.float32)  # scratch: the second half of filters' sums
        self._starts = np.zeros(max(rows, self._chunk // COLUMNS), np.int64)  # scratch: where windows begin
        self._response = np.zeros((rows, columns), np.float32)
        self._places = np.zeros((rows, 2), np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the stream begins again."""
        self._levels[:] = 0.0
        self._base[:] = -self._past  # zeros lie before the stream
        self._count[:] = 0
        self._settled[:] = 0

    @property
    def samples(self) -> int:
        """Samples heard so far."""
        return int(self._count[0])

    @property
    def frames(self) -> int:
        """Final frames so far."""
        return int(self._settled[-1])

    @property
    def newest(self) -> int:
        """Number of the newest frame (from 0) that the samples heard until now have in librosa; -1 before any."""
        return (self.samples + 1) // 2 // (self.features.hop // 2) if self.samples else -1

    def needed(self, frame: int) -> int:
        """Samples that must have been pushed before `frame` is final."""
        centre = frame * self.features.hop >> self.features.octaves
        samples = centre + self._half
        if self._reflect:
            samples = max(samples, self._half + 1 - centre)
        return above(samples, self.features.octaves - 1)

    def wait(self, octave: int) -> int:
        """Samples after its centre until a frame's octave (0 = highest) is final, in the midst of a stream."""
        return above(self._half, octave)

    def due(self, samples: int) -> int:
        """How many frames become final when `samples` more are pushed."""
        heard, frames = self.samples + samples, 0
        if heard >= self.needed(0):
            frames = max(1, (heard - self.needed(1)) // self.features.hop + 2)
        return frames - self.frames

    def push(self, samples: Float32, out: Float32) -> int:
        """Advance by any number of samples; returns how many frames became final.

        `samples`: (n,) float32, finite, at `features.sample_rate`.
        `out`: (at least `due(n)`, bins) float32, C-contiguous; filled with log magnitudes. Nothing is allocated.
        """
        if out.shape[0] < self.due(samples.size):
            raise ValueError(f"{samples.size} samples make {self.due(samples.size)} frames, not {out.shape[0]}")
        return int(
            _push(
                samples,
                self._chunk,
                self.features.hop,
                self._past,
                self._reflect,
                REACH,
                self._banks,
                self._second,
                self._matrix,
                self._gains,
                self.features.log_offset,
                self._levels,
                self._base,
                self._count,
                self._settled,
                self._table,
                self._windows,
                self._starts,
                self._response,
                self._places,
                out,
            )
        )

    def window(self, out: Float32, last: int | None = None) -> None:
        """Fill `out` (frames, bins), frames <= `keep`, with the frames up to number `last`, None for the newest.

        Frames that lack some of their future are those of a stream that ends now. Frames before the stream are silence.
        `last` may lie back as far as a frame that has just become final.
        """
        last = self.newest if last is None else last
        if len(out) > self.keep:
            raise ValueError(f"a window of {len(out)} frames is longer than keep={self.keep}")
        if not self.frames - 1 <= last <= self.newest:
            raise ValueError(f"a window ends between frame {self.frames - 1} and frame {self.newest}, not at {last}")
        self._provisional()
        numbers = np.arange(last + 1 - len(out), last + 1)
        np.take(self._table, numbers, axis=0, out=out, mode="wrap")
        out[numbers < 0] = np.log(np.float32(self.features.log_offset))

    def finish(self) -> Float32:
        """Frames (n, bins) still owed, if the stream ends here. Changes nothing; pushing may go on."""
        self._provisional()
        numbers = np.arange(self.frames, self.newest + 1)
        return np.take(self._table, numbers, axis=0, mode="wrap")

    def _provisional(self) -> None:
        _provisional(
            self.newest,
            self.features.hop,
            self._past,
            self._reflect,
            REACH,
            self._banks,
            self._second,
            self._matrix,
            self._gains,
            self.features.log_offset,
            self._levels,
            self._base,
            self._count,
            self._settled,
            self._table,
            self._tail,
            self._windows,
            self._starts,
            self._response,
        )
