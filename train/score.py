"""Online scores: what a performer would have seen, when they would have seen it.

Conventions
-----------
* An event (time, label) means: from stream time `time` (s of audio consumed) the recognizer showed `label`, until the
  next event. Before the first event it showed N. There is no compensation for latency.
* Two labels are *the same* by a metric where mir_eval compares them as equal; N and X are only the same as themselves.
  By `quality` they are the same where the vocabulary of `rtchord.chords` has one class (root and quality) for both.

Scores
------
* The seven metrics are mir_eval's, duration-weighted over songs; `mean7` is their mean. Their `_inv` forms, which ask
  for the bass too, are given where a reference has inversions.
* `bass`, where a reference has inversions: the share of the time of inverted reference chords in which the chord shown
  has the right bass, whatever else it is; `inversion`: in which root and quality are right too.
* `class_mean`: for each quality of the vocabulary that the references contain, the share of its time that was named
  with the right root and quality, pooled over songs; then the mean over qualities. Rare ones count like common ones.
  `rare_mean` is the same over `RARE`, those outside mir_eval's sevenths vocabulary.
* `acqa`, the average chord quality accuracy (Cho 2014; Deng & Kwok 2016): as `class_mean`, with N as one more class.
* `overseg`, `underseg`, `seg` are mir_eval's: 1 less the directional Hamming distances between the segments, whatever
  their labels (how little is split too much, how little is run together), and the lesser of the two.
* `confusion`: s of each of `CLASSES` while each of them showed, whatever the roots; the last column: any other label.
* Latency of a reference change by a metric: from its onset to the first moment at which the same label shows; at the
  earliest 0. Changes to N, X or a chord outside the metric, to one shorter than `MIN_DURATION`, or between chords that
  are the same by the metric are not counted. A label that had gone before the onset does not count.
  `lat_med`, `lat_p90` (over changes hit) and `hit` (share of changes hit) are by maj/min.
* `events_per_change`: estimated segments over reference segments (changes + 1), duration-weighted.
* `right`, `late`, `flicker` and `wrong` share out the time of the references that are N or maj/min; they sum to 1.
  A moment is, by maj/min and by the first that applies:
    right    the reference shows;
    late     what already showed when the reference began still shows, and the right one comes before its end;
    flicker  a label shows that stays less than `FLICKER` in all;
    wrong    anything else.
  Neighbours that are the same by maj/min count as one, in the reference and in what shows.
* Intervals are 95 % percentile intervals of a bootstrap over songs (Efron 1979).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import mir_eval
import numpy as np
from numpy.typing import NDArray

from rtchord.chords import QUALITIES, N, X
from train.labels import parse

SEVEN = ("root", "thirds", "triads", "sevenths", "tetrads", "majmin", "mirex")
INVERTED = ("thirds_inv", "triads_inv", "sevenths_inv", "tetrads_inv", "majmin_inv")
SEGMENTATION = ("overseg", "underseg", "seg")
CLASSES = (*(quality.name for quality in QUALITIES), "N")
SILENCE = CLASSES.index("N")
RARE = tuple(name for name in CLASSES[:SILENCE] if name not in ("maj", "min", "maj7", "7", "min7"))
TIMED = ("root", "majmin", "triads", "sevenths", "tetrads", "quality")  # what latency is measured by
SHARES = ("right", "late", "flicker", "wrong")
HEADLINES = (
    "mean7", "majmin", "tetrads", "class_mean", "rare_mean", "acqa", "seg", "hit", "lat_med", "lat_p90",
    "events_per_change",
)  # fmt: skip
MIN_DURATION, FLICKER = 0.5, 0.25  # s
DRAWS = 1000  # of the bootstrap

Intervals = NDArray[np.float64]  # (segments, 2) s
Floats = NDArray[np.float64]
Scores = dict[str, float | None]


@dataclass(frozen=True)
class SongScore:
    """Scores of one song.

    `metrics`: the seven, their `_inv` forms and `SEGMENTATION`. `waits`: by each of `TIMED`, s of every counted change,
    nan = never; `changed_to`: index of the quality of each change in `waits["quality"]`. `duration`: s. `present`,
    `named`: s that each quality was there and was named right. `shares`: s of each of `SHARES`. `inverted`: s of
    inverted references, with the right bass, and with root and quality right too. `confusion`: (15, 16) s, see above.
    """

    metrics: dict[str, float]
    waits: dict[str, Floats]
    changed_to: NDArray[np.intp]
    events_per_change: float
    duration: float
    present: Floats
    named: Floats
    shares: Floats
    inverted: Floats
    confusion: Floats

    @property
    def mean7(self) -> float:
        return float(np.mean([self.metrics[name] for name in SEVEN]))


def shown(events: Sequence[tuple[float, str]], end: float) -> tuple[Intervals, list[str]]:
    """Events as labelled intervals from 0 to `end` (s); events with no duration vanish."""
    ordered = sorted(events, key=lambda event: event[0])
    if not ordered or ordered[0][0] > 0:
        ordered.insert(0, (0.0, "N"))
    times = [time for time, _ in ordered] + [max(end, ordered[-1][0] + 1e-3)]
    kept = [(a, b, label) for a, b, (_, label) in zip(times, times[1:], ordered, strict=False) if b > a]
    return np.array([(a, b) for a, b, _ in kept]), [label for _, _, label in kept]


@lru_cache(maxsize=1 << 18)
def same(metric: str, first: str, second: str) -> bool:
    """Whether two labels are the same by a metric of `TIMED`."""
    if {first, second} & {"N", "X"}:
        return first == second
    if metric == "quality":
        return parse(first).index == parse(second).index < X
    return bool(getattr(mir_eval.chord, metric)([first], [second])[0] == 1)


@lru_cache(maxsize=1 << 14)
def within(metric: str, label: str) -> bool:
    """Whether a reference label is a chord that the metric can judge."""
    return label not in ("N", "X") and same(metric, label, label)


def changes(ref: Intervals, ref_labels: list[str], metric: str) -> list[int]:
    """Reference segments that begin with a counted change."""
    return [
        i
        for i in range(1, len(ref_labels))
        if ref[i, 1] - ref[i, 0] >= MIN_DURATION
        and within(metric, ref_labels[i])
        and not same(metric, ref_labels[i], ref_labels[i - 1])
    ]


def latencies(
    ref: Intervals, ref_labels: list[str], est: Intervals, est_labels: list[str], metric: str = "majmin"
) -> Floats:
    """Latency in s of every counted reference change, nan where its chord never showed."""
    found = []
    for i in changes(ref, ref_labels, metric):
        start, end = ref[i]
        hit = np.nan
        # From the first segment that still shows after the onset.
        for k in range(int(np.searchsorted(est[:, 1], start, side="right")), len(est_labels)):
            if est[k, 0] >= end:
                break
            if same(metric, ref_labels[i], est_labels[k]):
                hit = max(0.0, float(est[k, 0] - start))
                break
        found.append(hit)
    return np.array(found)


def _merged(intervals: Intervals, labels: list[str]) -> tuple[Intervals, list[str]]:
    """Neighbours that are the same by maj/min as one."""
    kept: list[int] = []
    for i, label in enumerate(labels):
        if i and (label == labels[i - 1] or same("majmin", label, labels[i - 1])):
            continue
        kept.append(i)
    ends = [*(intervals[i - 1, 1] for i in kept[1:]), intervals[-1, 1]]
    return np.column_stack((intervals[kept, 0], ends)), [labels[i] for i in kept]


def _moments(ref: Intervals, est: Intervals) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """The stretches in which neither changes: s, reference segment, estimated segment; only where both are there."""
    edges = np.unique(np.concatenate((ref.ravel(), est.ravel())))
    middles = (edges[:-1] + edges[1:]) / 2
    r = np.searchsorted(ref[:, 0], middles, side="right") - 1
    e = np.searchsorted(est[:, 0], middles, side="right") - 1
    both = (r >= 0) & (middles < ref[r, 1]) & (e >= 0) & (middles < est[e, 1])
    return np.diff(edges)[both], r[both], e[both]


def shares(ref: Intervals, ref_labels: list[str], est: Intervals, est_labels: list[str]) -> Floats:
    """(4,) s of each of `SHARES`."""
    ref, ref_labels = _merged(ref, ref_labels)
    est, est_labels = _merged(est, est_labels)
    moments = list(zip(*_moments(ref, est), strict=True))
    right = [same("majmin", ref_labels[r], est_labels[e]) for _, r, e in moments]
    comes = {int(r) for (_, r, _), hit in zip(moments, right, strict=True) if hit}
    spent = np.zeros(len(SHARES))
    for (seconds, r, e), hit in zip(moments, right, strict=True):
        label, (start, end) = ref_labels[r], est[e]
        if label != "N" and not within("majmin", label):
            continue
        if hit:
            kind = "right"
        elif start < ref[r, 0] and int(r) in comes:
            kind = "late"
        else:
            kind = "flicker" if end - start < FLICKER else "wrong"
        spent[SHARES.index(kind)] += seconds
    return spent


def _by_class(
    ref: Intervals, ref_labels: list[str], est: Intervals, est_labels: list[str]
) -> tuple[Floats, Floats, Floats, Floats]:
    """`SongScore`'s s by class: `present`, `named`, `inverted`, `confusion`."""
    present, named, inverted = np.zeros(len(QUALITIES)), np.zeros(len(QUALITIES)), np.zeros(3)
    confusion = np.zeros((len(CLASSES), len(CLASSES) + 1))
    for seconds, r, e in zip(*_moments(ref, est), strict=True):
        truth, guess = parse(ref_labels[r]), parse(est_labels[e])
        if truth.index != X:
            confusion[_column(truth.index), _column(guess.index)] += seconds
        if truth.index >= X:
            continue
        quality = truth.index % len(QUALITIES)
        right, bass = guess.index == truth.index, guess.bass == truth.bass
        present[quality] += seconds
        named[quality] += seconds * right
        if truth.bass != truth.root:
            inverted += seconds * np.array([True, bass, bass and right])
    return present, named, inverted, confusion


def _column(index: int) -> int:
    """Row and column of a class in a confusion."""
    return {N: SILENCE, X: len(CLASSES)}.get(index, index % len(QUALITIES))


def score_song(ref: Intervals, ref_labels: list[str], events: Sequence[tuple[float, str]]) -> SongScore:
    """Scores of a song's events (time s, label) against its reference."""
    est, est_labels = shown(events, float(ref[-1, 1]))
    both = (ref, ref_labels, est, est_labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval says so whenever it pads an interval
        metrics = mir_eval.chord.evaluate(*both)
        waits = {metric: latencies(*both, metric) for metric in TIMED}
        changed_to = [parse(ref_labels[i]).index % len(QUALITIES) for i in changes(ref, ref_labels, "quality")]
        spent = shares(*both)
    differing = sum(a != b for a, b in itertools.pairwise(ref_labels))
    present, named, inverted, confusion = _by_class(*both)
    return SongScore(
        {name: float(metrics[name]) for name in (*SEVEN, *INVERTED, *SEGMENTATION)},
        waits,
        np.array(changed_to, np.intp),
        len(est_labels) / (differing + 1),
        float(ref[-1, 1] - ref[0, 0]),
        present, named, spent, inverted, confusion,
    )  # fmt: skip


def _spread(waits: Floats) -> tuple[float | None, float | None]:
    """Median and p90 of the changes that were hit."""
    hit = waits[~np.isnan(waits)]
    return (float(np.median(hit)), float(np.percentile(hit, 90))) if hit.size else (None, None)


def summarize(songs: Sequence[SongScore]) -> Scores:
    """Scores of a set of songs; None where there is nothing to measure."""
    weights = np.array([song.duration for song in songs])

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=weights))

    inverted = np.sum([s.inverted for s in songs], axis=0)
    names = (*SEVEN, *SEGMENTATION, *(INVERTED if inverted[0] else ()))
    summary: Scores = {name: mean([s.metrics[name] for s in songs]) for name in names}
    summary["mean7"] = mean([s.mean7 for s in songs])
    present, named = (np.sum([getattr(s, key) for s in songs], axis=0) for key in ("present", "named"))
    silence = np.sum([s.confusion[SILENCE] for s in songs], axis=0)  # as what it was named
    with np.errstate(invalid="ignore"):  # nan: was not there
        right = np.append(named, silence[SILENCE]) / np.append(present, silence.sum())
    waits = np.concatenate([song.waits["majmin"] for song in songs])
    median, p90 = _spread(waits)
    spent = np.sum([s.shares for s in songs], axis=0)
    summary |= {
        "class_mean": _mean_there(right[:SILENCE]),
        "rare_mean": _mean_there(right[[CLASSES.index(name) for name in RARE]]),
        "acqa": _mean_there(right),
        "changes": waits.size,
        "hit": float(np.mean(~np.isnan(waits))) if waits.size else 0.0,
        "lat_med": median,
        "lat_p90": p90,
        "events_per_change": mean([s.events_per_change for s in songs]),
        **{name: float(s / spent.sum()) if spent.any() else None for name, s in zip(SHARES, spent, strict=True)},
    }
    if inverted[0]:
        summary |= {"bass": float(inverted[1] / inverted[0]), "inversion": float(inverted[2] / inverted[0])}
    return summary


def _mean_there(values: Floats) -> float | None:
    """Mean of those that are not nan."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else None


def intervals(
    songs: Sequence[SongScore], draws: int = DRAWS, seed: int = 0, takes: int = 1
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of `HEADLINES`, from `draws` sets of as many songs, drawn with replacement.

    `takes`: how many scores of each song `songs` holds, side by side (of several networks); they are drawn together.
    """
    rng = np.random.default_rng(seed)
    groups = [songs[i : i + takes] for i in range(0, len(songs), takes)]
    picks = [rng.integers(len(groups), size=len(groups)) for _ in range(draws)]
    found = [summarize([song for i in row for song in groups[i]]) for row in picks]
    values = {name: [value for row in found if (value := row[name]) is not None] for name in HEADLINES}
    return {name: _middle(drawn) if drawn else None for name, drawn in values.items()}


def difference(
    before: Sequence[SongScore], after: Sequence[SongScore], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """`mean7` after less before over the same songs, paired, and its 95 % interval."""
    weights = np.array([song.duration for song in before])
    gained = np.array([b.mean7 - a.mean7 for a, b in zip(before, after, strict=True)])
    picks = np.random.default_rng(seed).integers(len(weights), size=(draws, len(weights)))
    drawn = (gained[picks] * weights[picks]).sum(axis=1) / weights[picks].sum(axis=1)
    return round(float(np.average(gained, weights=weights)), 4), *_middle(drawn)


def _middle(values: Sequence[float] | Floats) -> tuple[float, float]:
    """What the middle 95 % lie between."""
    low, high = np.percentile(values, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _latency_row(waits: Floats) -> dict[str, float | None]:
    median, p90 = _spread(waits)
    never = float(np.mean(np.isnan(waits))) if waits.size else None
    row: dict[str, float | None] = {"n": waits.size}
    values = {"median": median, "p90": p90, "never": never}
    return row | {name: None if value is None else round(value, 4) for name, value in values.items()}


def latency_by_metric(songs: Sequence[SongScore]) -> dict[str, dict[str, float | None]]:
    """Changes counted, median, p90 (s) and share never hit, by each of `TIMED`."""
    return {metric: _latency_row(np.concatenate([s.waits[metric] for s in songs])) for metric in TIMED}


def per_quality(songs: Sequence[SongScore]) -> dict[str, dict[str, float | None]]:
    """Of each quality that is there: seconds, share named right (root and quality), latency until that is shown."""
    present, named = (np.sum([getattr(s, key) for s in songs], axis=0) for key in ("present", "named"))
    waits = np.concatenate([s.waits["quality"] for s in songs])
    changed_to = np.concatenate([s.changed_to for s in songs])
    return {
        quality.name: {
            "seconds": round(float(present[i]), 2),
            "right": round(float(named[i] / present[i]), 4),
            **_latency_row(waits[changed_to == i]),
        }
        for i, quality in enumerate(QUALITIES)
        if present[i] > 0
    }
