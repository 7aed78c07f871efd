"""Scores of a student or a teacher on folders of audio and .lab files, offline and, of streaming students, online.

Offline decoding, the same for every system, so that rows can be compared:

* The papers' networks read windows of `WINDOW` frames, each half over the one before; where windows overlap, their
  posteriors are averaged. Our own network, whose layers see no more than its context, and teachers read the whole
  recording.
* Posteriors are averaged over `SMOOTHING` s around each frame: the nine frames at hop 2048 of the papers (arXiv
  2602.19778), which at another hop are as many frames as cover the same time (37 at hop 512). Nine frames of a fourth
  of the length would smooth a fourth as much.
* The most likely class other than X; runs shorter than `SHORTEST` s are given, the shortest first, to that of their two
  neighbours whose class is the likelier one over them.
* A frame stands for half a hop around its moment: of centred features the centre, of right-aligned ones the newest
  sample. No delay is taken off.

No bass is named, so only scores that do not ask for it are given. Online scores are what `Recognizer` would show: the
gate and the decoder's `ONLINE` preset over the same posteriors, at the times at which each frame is known.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, NO_CHORD, Chord, N, X
from rtchord.cqt import Features
from rtchord.decoder import PRESETS, TUNED_HOP, Decoder, DecoderSettings
from rtchord.errors import UserError
from rtchord.gate import Gate
from rtchord.settings import GATE_DBFS
from train.audio import SUFFIXES, opened, read
from train.files import check_place, replaced
from train.label import frames_of
from train.labels import read_labels
from train.score import (
    CLASSES,
    HEADLINES,
    SEGMENTATION,
    SEVEN,
    SongScore,
    intervals,
    latency_by_metric,
    per_quality,
    score_song,
    summarize,
)

if TYPE_CHECKING:
    from train.teachers import Teacher

WINDOW = 108  # frames of a window of a bidirectional network (`train.students.posteriors`)
SMOOTHING = 9 * 2048 / 22_050  # s
SHORTEST = 0.5  # s
LABELS_OVER = 1.0  # s that labels may end after their recording without a word
ONLINE = "balanced"
DECODING = {"window": WINDOW, "step": WINDOW // 2, "smoothing_s": SMOOTHING, "shortest_s": SHORTEST, "online": ONLINE}

# What each way of decoding is judged by.
OFFLINE_SCORES = (*SEVEN, "mean7", "class_mean", "rare_mean", "acqa", *SEGMENTATION, "events_per_change")
TIMED_SCORES = ("changes", "hit", "lat_med", "lat_p90", "right", "late", "flicker", "wrong")
SCORES = {"offline": OFFLINE_SCORES, "online": (*OFFLINE_SCORES, *TIMED_SCORES)}

Float32 = NDArray[np.float32]
Floats = NDArray[np.float64]
Events = list[tuple[float, str]]  # (s, label)
Answers = dict[str, list[Events]]  # by way of decoding: the events of each song
Reference = tuple[Floats, list[str]]  # (segments, 2) s and raw labels


class Heard(NamedTuple):
    """What a system made of a recording: `classes` (frames, 170), `bass` (frames, 13), and each frame's s: the moment
    that it stands for; of a streaming system that at which it is known."""

    classes: Float32
    bass: Float32
    times: Floats


# --- recordings -------------------------------------------------------------------------------------------------------


def songs_in(folder: Path) -> list[tuple[Path, Path]]:
    """(audio, lab) pairs; a folder without any is an error."""
    pairs = (
        [(p, p.with_suffix(".lab")) for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES]
        if folder.is_dir()
        else []
    )
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise UserError(f"no audio files with a .lab beside them in {str(folder)!r}")
    return pairs


def read_reference(path: Path) -> Reference:
    """Intervals (segments, 2) in s and Harte labels of a .lab file (the labels are left to mir_eval).

    What had to be mended is told on stderr; UserError, with file and line, for what could not be.
    """
    found = read_labels(path)
    if found.mended:
        print(f"{path}: labels mended: {found.told}", file=sys.stderr)
    return np.array([(start, end) for start, end, _ in found.segments]), found.names


class Song:
    """A recording with its labels. What a transform makes of it is computed once, however many systems ask."""

    def __init__(self, audio: Path, lab: Path) -> None:
        self.name, self.audio, self.reference = audio.stem, audio, read_reference(lab)
        self._frames: dict[Features, tuple[Float32, Floats]] = {}

    def frames(self, features: Features) -> tuple[Float32, Floats]:
        """Frames (n, bins) and the s that each stands for (n,)."""
        if features not in self._frames:
            self._frames[features] = frames_of(*read(self.audio), features)
        return self._frames[features]


def songs_of(folder: Path) -> list[Song]:
    """The recordings of a folder; UserError where it has none, or labels that cannot be read.

    Labels that end well after their recording are of another one perhaps: that is told on stderr.
    """
    songs = [Song(audio, lab) for audio, lab in songs_in(folder)]
    for song in songs:
        with opened(song.audio) as recording:
            over = float(song.reference[0][-1, 1]) - recording.seconds
        if over > LABELS_OVER:
            print(f"{song.audio}: its labels end {over:.1f} s after it", file=sys.stderr)
    return songs


# --- systems ----------------------------------------------------------------------------------------------------------


class System(Protocol):
    """What can be evaluated. `features`: what a streaming system hears; None of one that hears the whole.

    `provenance`: how a student was trained, `sizes`: of its layers; None of what is no student.
    """

    name: str
    features: Features | None
    provenance: dict[str, object] | None
    sizes: dict[str, object] | None

    def hear(self, song: Song) -> Heard:
        """Posteriors of a recording."""


class StudentSystem:
    """A student by its file, of any kind."""

    def __init__(self, path: Path) -> None:
        from train.model import Student
        from train.students import config_of, load_student

        self._model, self._heard, self.provenance = load_student(path)
        self.sizes = config_of(self._model).model_dump()
        self.name = path.parent.name if path.stem == "student" else path.stem
        # The bidirectional twin of our own network sees frames to come; the papers' see a window.
        streams = isinstance(self._model, Student) and not self._model.config.future
        self.features = self._heard if streams else None

    def hear(self, song: Song) -> Heard:
        import torch

        from train.students import posteriors

        frames, times = song.frames(self._heard)
        classes, bass = posteriors(self._model, torch.from_numpy(frames))
        return Heard(classes, no_bass(len(classes)) if bass is None else bass, times)


class TeacherSystem:
    """A teacher (`train.teachers`): it hears the sound itself."""

    features = None
    provenance = None
    sizes = None

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.name = teacher.name

    def hear(self, song: Song) -> Heard:
        found = self._teacher.posteriors(*read(song.audio))
        bass = no_bass(len(found.classes)) if found.bass is None else found.bass
        return Heard(found.classes, bass, np.arange(len(found.classes)) * found.hop)


def system_of(spec: str) -> System:
    """The system that a SPEC names: a student's .safetensors file, or a teacher as `train.teachers.make` takes it."""
    from train.teachers import make, names_teacher

    if spec.endswith(".safetensors") and not names_teacher(spec):
        return StudentSystem(Path(spec))
    return TeacherSystem(make(spec))


def no_bass(frames: int) -> Float32:
    """(frames, 13): certainly none."""
    return np.tile(np.eye(N_BASS, dtype=np.float32)[NO_BASS], (frames, 1))


# --- decoding ---------------------------------------------------------------------------------------------------------


def smoothed(classes: Float32, hop: float) -> Float32:
    """Posteriors (frames, 170), `hop` s apart, averaged over the odd number of frames nearest to `SMOOTHING`."""
    from scipy.ndimage import uniform_filter1d

    found: Float32 = uniform_filter1d(classes, 2 * round((SMOOTHING / hop - 1) / 2) + 1, axis=0, mode="nearest")
    return found


def runs(path: NDArray[np.intp], classes: Float32, shortest: float) -> list[tuple[int, int]]:
    """(first frame, class) of the runs of a path (frames,), where none but a lone one is below `shortest` frames."""
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    found = [(a, b, int(path[a])) for a, b in pairwise(edges)]
    while len(found) > 1:
        i = min(range(len(found)), key=lambda i: found[i][1] - found[i][0])
        first, end, _ = found[i]
        if end - first >= shortest:
            break
        mean = classes[first:end].mean(axis=0)
        taker = max((k for k in (i - 1, i + 1) if 0 <= k < len(found)), key=lambda k: mean[found[k][2]])
        index = found[taker][2]
        low, high = min(i, taker), max(i, taker)
        # Both neighbours may be of that class; then all three are one.
        while low > 0 and found[low - 1][2] == index:
            low -= 1
        while high < len(found) - 1 and found[high + 1][2] == index:
            high += 1
        found[low : high + 1] = [(found[low][0], found[high][1], index)]
    return [(first, index) for first, _, index in found]


def decode_offline(heard: Heard) -> Events:
    """Events of a whole recording, as this module's beginning says."""
    if not len(heard.times):
        return [(0.0, NO_CHORD.label)]
    hop = float(np.median(np.diff(heard.times))) if len(heard.times) > 1 else SMOOTHING
    classes = smoothed(heard.classes, hop)
    classes[:, X] = -1.0
    found = runs(classes.argmax(axis=1), classes, SHORTEST / hop - 1e-6)
    starts = [0.0, *(round(max(0.0, float(heard.times[first]) - hop / 2), 6) for first, _ in found[1:])]
    return [(start, Chord(index, NO_BASS).label) for start, (_, index) in zip(starts, found, strict=True)]


def decode(heard: Heard, settings: DecoderSettings, hold: int = 0, hop: float = TUNED_HOP) -> Events:
    """(time s, label) of every event, as `Recognizer.push` gives them; `hold`: frames for which a chord is shown."""
    decoder, events = Decoder(settings, hold=hold, hop=hop), Events()
    for number, (classes, bass, known) in enumerate(zip(*heard, strict=True)):
        decision = decoder.push(number, classes, bass)
        if decision is not None:
            events.append((round(float(known), 6), decision.chord.label))
        elif not events:  # the stream begins with N, said once
            events.append((round(float(known), 6), NO_CHORD.label))
    return events


def decode_online(heard: Heard, frames: Float32, features: Features) -> Events:
    """Events as a live session with the `ONLINE` preset would show them; `frames` (n, bins) are what the gate hears."""
    gate = Gate(features, GATE_DBFS)
    silent = np.array([gate.silent(frame) for frame in frames], bool)[:, None]
    no_chord, no_bass = (np.eye(size, dtype=np.float32)[k] for size, k in ((N_CLASSES, N), (N_BASS, NO_BASS)))
    gated = Heard(np.where(silent, no_chord, heard.classes), np.where(silent, no_bass, heard.bass), heard.times)
    return decode(gated, PRESETS[ONLINE], hop=1 / features.frame_rate)


# --- scores -----------------------------------------------------------------------------------------------------------


def listen(system: System, songs: Sequence[Song]) -> Answers:
    """What a system names on every song, by each way of decoding that it has."""
    answers: Answers = {"offline": [], **({"online": []} if system.features else {})}
    for song in tqdm(songs, unit="song", desc=system.name, file=sys.stderr):
        heard = system.hear(song)
        answers["offline"].append(decode_offline(heard))
        if system.features:
            answers["online"].append(decode_online(heard, song.frames(system.features)[0], system.features))
    return answers


class Judged:
    """Scores of one way of decoding over a set; several `takes` (seeds) of each song lie side by side."""

    def __init__(self, way: str, songs: Sequence[Song], takes: Sequence[Sequence[Events]]) -> None:
        self.way, self.songs, self.takes = way, songs, len(takes)
        self.scores: list[SongScore] = [
            score_song(*song.reference, events[i]) for i, song in enumerate(songs) for events in takes
        ]

    @cached_property
    def summary(self) -> dict[str, float | None]:
        found = summarize(self.scores)
        return {name: found[name] for name in SCORES[self.way]}

    @property
    def confusion(self) -> Floats:
        """(15, 16) s, see `train.score`."""
        found: Floats = np.sum([score.confusion for score in self.scores], axis=0) / self.takes
        return found

    def result(self) -> dict[str, Any]:
        """Everything, to be written down."""
        spans = intervals(self.scores, takes=self.takes)
        by_song = [self.scores[i : i + self.takes] for i in range(0, len(self.scores), self.takes)]
        found: dict[str, Any] = {
            "scores": self.summary,
            "intervals": {name: spans[name] for name in HEADLINES if name in self.summary},
            "qualities": {name: row["right"] for name, row in per_quality(self.scores).items()},
            "per_song": {
                song.name: round(float(np.mean([score.mean7 for score in scores])), 4)
                for song, scores in zip(self.songs, by_song, strict=True)
            },
        }
        if self.way == "online":
            found["latency_by_metric"] = latency_by_metric(self.scores)
        return found


def hours(songs: Sequence[Song]) -> float:
    """Hours that the labels of a set cover."""
    return round(sum(float(song.reference[0][-1, 1] - song.reference[0][0, 0]) for song in songs) / 3600, 3)


def evaluate(spec: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Scores of the system that `spec` names on each folder, by the folder's name."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"two of the folders have one name ({', '.join(names)}); results are kept by name, rename one")
    sets = {name: songs_of(folder) for name, folder in zip(names, folders, strict=True)}
    system = system_of(spec)
    result: dict[str, Any] = {
        "system": system.name,
        "provenance": system.provenance,
        "sizes": system.sizes,
        "decoding": DECODING,
        "sets": {},
    }
    for name, songs in sets.items():
        judged = [Judged(way, songs, [events]) for way, events in listen(system, songs).items()]
        result["sets"][name] = {
            "songs": len(songs),
            "hours": hours(songs),
            **{each.way: each.result() for each in judged},
            "confusion": np.round(judged[0].confusion, 2).tolist(),
        }
    return result


def draw_confusion(confusion: Floats, title: str, png: Path) -> None:
    """Picture of a confusion (15, 16) in s: each row shares out the time of one reference quality, or of N."""
    from matplotlib.figure import Figure

    columns = (*CLASSES, "other") if confusion[:, -1].any() else CLASSES
    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, total, out=np.full_like(confusion, np.nan), where=total > 0)[:, : len(columns)]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(share >= 0.005):
        value = share[row, column]
        colour = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=60, fontsize=8)
    seconds = [f"{name} ({spent:.0f} s)" for name, spent in zip(CLASSES, total[:, 0], strict=True)]
    axes.set_yticks(range(len(CLASSES)), seconds, fontsize=8)
    axes.set_xlabel("named, whatever the root")
    axes.set_ylabel("reference")
    axes.set_title(f"{title}: % of each reference quality's time", fontsize=9)
    figure.colorbar(image, shrink=0.7)
    with replaced(png) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def from_command_line(
    spec: str, folders: Sequence[Path], output: Path | None, confusion: Path | None, as_json: bool
) -> None:
    """`python -m train evaluate`."""
    from train.results import write

    for place in filter(None, (output, confusion)):
        check_place(place)
    start = time.perf_counter()
    result = evaluate(spec, folders)
    took = time.perf_counter() - start
    print(json.dumps(result, indent=1) if as_json else table(result))  # first: the disk may be full
    if output:
        write(output, result, took)
    if confusion:
        total = np.sum([found["confusion"] for found in result["sets"].values()], axis=0)
        draw_confusion(total, f"{result['system']}, {', '.join(result['sets'])}", confusion)


def table(result: dict[str, Any]) -> str:
    """The scores of every set, to be read."""
    lines = []
    for name, found in result["sets"].items():
        for way in (way for way in SCORES if way in found):
            lines.append(f"{name}, {way}, {found['songs']} song{'s' if found['songs'] > 1 else ''}")
            for score, value in found[way]["scores"].items():
                span = found[way]["intervals"].get(score)
                shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else f"{value}"
                lines.append(f"  {score:17} {shown}" + (f"  ({span[0]:.4f} .. {span[1]:.4f})" if span else ""))
    return "\n".join(lines)
