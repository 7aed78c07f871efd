"""Online scores: what a performer would have seen, when they would have seen it.

Conventions
-----------
* An event (time, label) means: from stream time `time` (s of audio consumed) the recognizer showed `label`, until the
  next event. Before the first event it showed N. There is no compensation for latency.
* The seven metrics are mir_eval's, duration-weighted over songs; `mean7` is their mean.
* `class_mean`: for each quality of the vocabulary that the references contain, the share of its time that was named
  with the right root and quality, pooled over songs; then the mean over qualities. Rare ones count like common ones.
* Latency of a reference change: from its onset to the first moment at which the right maj/min label shows; at the
  earliest 0. Changes to chords outside maj/min, shorter than `MIN_DURATION`, or between chords with the same maj/min
  label are not counted. A label that was already there more than `EARLY` before the onset, and went, does not count.
* `events_per_change`: estimated segments over reference segments (changes + 1), duration-weighted.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import mir_eval
import numpy as np
from numpy.typing import NDArray

from rtchord.chords import QUALITIES, X
from train.labels import parse

SEVEN = ("root", "thirds", "triads", "sevenths", "tetrads", "majmin", "mirex")
MIN_DURATION, EARLY = 0.5, 0.15  # s

Intervals = NDArray[np.float64]  # (segments, 2) s


@dataclass(frozen=True)
class SongScore:
    """Scores of one song: the seven metrics, latencies (s, nan = never), events per change, duration (s), and per
    quality the seconds it was there and the seconds it was named right."""

    metrics: dict[str, float]
    latencies: NDArray[np.float64]
    events_per_change: float
    duration: float
    present: NDArray[np.float64]
    right: NDArray[np.float64]


def shown(events: Sequence[tuple[float, str]], end: float) -> tuple[Intervals, list[str]]:
    """Events as labelled intervals from 0 to `end` (s); events with no duration vanish."""
    ordered = sorted(events, key=lambda event: event[0])
    if not ordered or ordered[0][0] > 0:
        ordered.insert(0, (0.0, "N"))
    times = [time for time, _ in ordered] + [max(end, ordered[-1][0] + 1e-3)]
    kept = [(a, b, label) for a, b, (_, label) in zip(times, times[1:], ordered, strict=False) if b > a]
    return np.array([(a, b) for a, b, _ in kept]), [label for _, _, label in kept]


def same_majmin(first: str, second: str) -> bool:
    """Whether two labels are one and the same maj/min chord (N and X only equal themselves)."""
    if {first, second} & {"N", "X"}:
        return first == second
    return bool(mir_eval.chord.majmin([first], [second])[0] == 1)


def latencies(ref: Intervals, ref_labels: list[str], est: Intervals, est_labels: list[str]) -> NDArray[np.float64]:
    """Latency in s of every counted reference change, nan where its chord never showed."""
    found = []
    for i in range(1, len(ref_labels)):
        start, end = ref[i]
        label = ref_labels[i]
        outside = label in ("N", "X") or mir_eval.chord.majmin([label], [label])[0] < 0
        if outside or end - start < MIN_DURATION or same_majmin(label, ref_labels[i - 1]):
            continue
        hit = np.nan
        for (a, b), guess in zip(est, est_labels, strict=True):
            if a < end and b > start - EARLY and b > start and same_majmin(label, guess):
                hit = max(0.0, a - start)
                break
        found.append(hit)
    return np.array(found)


def _by_quality(
    ref: Intervals, ref_labels: list[str], est: Intervals, est_labels: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds each quality was there and was named with the right root and quality."""
    present, right = np.zeros(len(QUALITIES)), np.zeros(len(QUALITIES))
    edges = np.unique(np.concatenate((ref.ravel(), est.ravel())))
    for a, b in itertools.pairwise(edges):
        middle = (a + b) / 2
        r = np.flatnonzero((ref[:, 0] <= middle) & (middle < ref[:, 1]))
        e = np.flatnonzero((est[:, 0] <= middle) & (middle < est[:, 1]))
        if not r.size:
            continue
        truth = parse(ref_labels[r[0]]).index
        if truth >= X:
            continue
        quality = truth % len(QUALITIES)
        present[quality] += b - a
        if e.size and parse(est_labels[e[0]]).index == truth:
            right[quality] += b - a
    return present, right


def score_song(ref: Intervals, ref_labels: list[str], events: Sequence[tuple[float, str]]) -> SongScore:
    """Scores of a song's events (time s, label) against its reference."""
    est, est_labels = shown(events, float(ref[-1, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval says so whenever it pads an interval
        metrics = mir_eval.chord.evaluate(ref, ref_labels, est, est_labels)
    changes = sum(a != b for a, b in itertools.pairwise(ref_labels))
    return SongScore(
        {name: float(metrics[name]) for name in SEVEN},
        latencies(ref, ref_labels, est, est_labels),
        len(est_labels) / (changes + 1),
        float(ref[-1, 1] - ref[0, 0]),
        *_by_quality(ref, ref_labels, est, est_labels),
    )


def summarize(songs: Sequence[SongScore]) -> dict[str, float]:
    """Scores of a set of songs."""
    weights = np.array([song.duration for song in songs])
    summary = {name: float(np.average([s.metrics[name] for s in songs], weights=weights)) for name in SEVEN}
    summary["mean7"] = float(np.mean([summary[name] for name in SEVEN]))
    present, right = sum(s.present for s in songs), sum(s.right for s in songs)
    there = present > 0
    summary["class_mean"] = float((right[there] / present[there]).mean()) if there.any() else float("nan")
    every = np.concatenate([song.latencies for song in songs])
    hit = every[~np.isnan(every)]
    summary |= {
        "changes": float(every.size),
        "hit": hit.size / max(1, every.size),
        "lat_med": float(np.median(hit)) if hit.size else float("nan"),
        "lat_p90": float(np.percentile(hit, 90)) if hit.size else float("nan"),
        "events_per_change": float(np.average([s.events_per_change for s in songs], weights=weights)),
    }
    return summary


def per_quality(songs: Sequence[SongScore]) -> dict[str, dict[str, float]]:
    """Seconds and share named right (root and quality) of each quality that is there."""
    present, right = sum(s.present for s in songs), sum(s.right for s in songs)
    return {
        quality.name: {"seconds": round(float(p), 2), "right": round(float(r / p), 4)}
        for quality, p, r in zip(QUALITIES, present, right, strict=True)
        if p > 0
    }
