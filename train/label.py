"""Labelling: audio to training data, with a teacher's posteriors, a network's embedding and true labels as asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rtchord.chords import N_BASS
from rtchord.cqt import DEFINITIONS, STAGE, Features, FrameStream
from rtchord.errors import UserError
from train import store
from train.audio import opened, read, under
from train.files import check_place
from train.fill import Made, fill
from train.labels import Segment, at_times

if TYPE_CHECKING:
    from train.teachers import Embedder, Teacher

Float32 = NDArray[np.float32]

SHORTEST = 1.0  # s of a piece
LONGEST = 2.0  # h of a piece, unless asked otherwise: all of it is held in memory


class Recipe(BaseModel):
    """What the pieces of a folder are made with: names of feature definitions, specs of teacher and embedder, and
    whether their true labels are wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[str, ...] = Field((STAGE,), min_length=1)
    teacher: str | None = None
    embedding: str | None = None
    labels: bool = False


@dataclass(frozen=True)
class Job:
    """A recording to be labelled. `about` is what is known of it; `labels` reads its true chords, where it has
    any; `seconds` is how long it is, where that is known beforehand."""

    key: str
    audio: Path
    about: dict[str, Any] = field(default_factory=dict)
    labels: Callable[[], list[Segment]] | None = None
    seconds: float | None = None


# --- one recording ----------------------------------------------------------------------------------------------------


def frames_of(audio: Float32, rate: int, features: Features) -> tuple[Float32, NDArray[np.float64]]:
    """Frames (n, bins) of a whole recording (samples,), and the moments (n,) in s that they are labelled with.

    A right-aligned frame says what is heard by its end, so it is labelled with that moment; a centred one with its
    centre.
    """
    stream = FrameStream(rate, features)
    frames = stream.push(audio)
    if features.alignment == "right":
        return frames, np.array([stream.time_of(i) for i in range(len(frames))])
    frames = np.concatenate((frames, stream.finish()))
    return frames, np.arange(len(frames)) / features.frame_rate


def targets(
    audio: Float32, rate: int, definitions: Iterable[str], teacher: Teacher | None = None,
    embedder: Embedder | None = None, segments: list[Segment] | None = None,
) -> dict[str, store.Track]:  # fmt: skip
    """A recording, mono (samples,) float32 at `rate` Hz, in each of the feature definitions.

    Beside the features stands what is asked: a teacher's posteriors, an embedding, true chords. The teacher hears all
    of it, right-aligned features only the past.
    """
    posteriors = teacher.posteriors(audio, rate) if teacher else None
    embedding = embedder.embed(audio, rate) if embedder else None
    tracks = {}
    for name in definitions:
        frames, times = frames_of(audio, rate, DEFINITIONS[name])
        track: store.Track = {"features": frames}
        if posteriors is not None:
            heard = posteriors.at(times)
            track["classes"] = heard.classes
            # A teacher that says nothing of the bass says so with zeros: rows that are no distribution.
            track["bass"] = np.zeros((len(times), N_BASS)) if heard.bass is None else heard.bass
        if embedding is not None:
            track["embedding"] = embedding
        if segments is not None:
            track["class_index"], track["bass_index"] = at_times(segments, times)
        tracks[name] = {key: array.astype(store.DTYPES[key]) for key, array in track.items()}
    return tracks


def read_audio(path: Path, longest: float) -> tuple[Float32, int]:
    """A recording as (mono (samples,) float32, rate in Hz).

    UserError for one of more than `longest` hours (which is not decoded), one shorter than SHORTEST, and one that is no
    sound.
    """
    with opened(path) as recording:
        if recording.seconds > 3600 * longest:
            raise UserError(
                f"{str(path)!r} lasts {recording.seconds / 3600:.1f} h, more than {longest:g}; cut it, or raise "
                "--longest"
            )
    audio, rate = read(path)
    if audio.size < SHORTEST * rate:
        raise UserError(f"{str(path)!r} lasts {audio.size / rate:.2f} s, too short to have chords")
    if not np.isfinite(audio).all():
        raise UserError(f"{str(path)!r} holds samples that are no numbers; export it again")
    return audio, rate


def made(job: Job, recipe: Recipe, teacher: Teacher | None, embedder: Embedder | None, longest: float) -> Made:
    """A recording's tracks and what is known of it."""
    audio, rate = read_audio(job.audio, longest)
    seconds = audio.size / rate
    segments = job.labels() if recipe.labels and job.labels else None
    about = {
        "source": str(job.audio),
        "seconds": round(seconds, 3),
        "teacher": recipe.teacher,
        "embedding": recipe.embedding,
        **job.about,
    }
    return Made(targets(audio, rate, recipe.features, teacher, embedder, segments), about)


# --- many recordings --------------------------------------------------------------------------------------------------


def in_folder(folder: Path) -> list[Job]:
    """Every audio file under a folder."""
    about = {"song": None, "artist": None, "split": "train", "labels": None}
    return [Job(store.key_of(path.relative_to(folder).as_posix()), path, about) for path in under(folder)]


def in_catalogue(path: Path, split: str, labelled: bool) -> list[Job]:
    """The recordings of one split of a catalogue, or those `labelled` of them."""
    from train import catalogue

    jobs = [
        Job(
            store.key_of(entry.key),
            entry.audio,
            entry.model_dump(mode="json", include={"song", "artist", "split", "labels"}),
            partial(catalogue.segments, entry) if entry.labels else None,
            entry.seconds,
        )
        for entry in catalogue.read(path)
        if entry.split == split and (entry.labels or not labelled)
    ]
    if not jobs:
        raise UserError(f"{str(path)!r} has no {'labelled ' * labelled}recordings of split {split!r}")
    return jobs


def ordered(jobs: list[Job], hours: float | None = None) -> list[Job]:
    """Jobs in a fixed shuffled order (a hash of the key), so that any first part is a fair sample.

    `hours` takes no more than about the first so many; a file that cannot be read counts nothing.
    """
    jobs = sorted(jobs, key=lambda job: hashlib.sha256(job.key.encode()).digest())
    if hours is None:
        return jobs
    taken, total = [], 0.0
    for job in jobs:
        if total >= 3600 * hours:
            break
        taken.append(job)
        total += _seconds(job)
    return taken


def _seconds(job: Job) -> float:
    """As the catalogue or the file's header states them."""
    if job.seconds is not None:
        return job.seconds
    try:
        with opened(job.audio) as recording:
            return recording.seconds
    except UserError:
        return 0.0


def label(
    jobs: list[Job], target: Path, recipe: Recipe, teacher: Teacher | None, embedder: Embedder | None,
    longest: float = LONGEST, retry: bool = False,
) -> None:  # fmt: skip
    """Write `jobs`, made by `recipe`, to shards in `target` (see `train.fill`). `teacher` and `embedder` are those that
    the recipe names. Pieces of more than `longest` hours are left out."""
    fill(target, jobs, lambda job: made(job, recipe, teacher, embedder, longest), recipe.model_dump(mode="json"), retry)


def _choose_gpu() -> None:
    """The processes that torchrun starts on a machine share its GPUs in turn."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def listeners(recipe: Recipe) -> tuple[Teacher | None, Embedder | None]:
    """The teacher and the embedder that a recipe names."""
    from train import teachers

    if recipe.teacher or recipe.embedding:
        _choose_gpu()
    return (
        teachers.make(recipe.teacher) if recipe.teacher else None,
        teachers.embedding(recipe.embedding) if recipe.embedding else None,
    )


def from_command_line(
    source: Path, target: Path, features: list[str], teacher: str | None, embedding: str | None, split: str,
    labelled: bool, hours: float | None, longest: float, retry: bool,
) -> None:  # fmt: skip
    """`python -m train label` and `prepare` (`labelled`)."""
    check_place(target, folder=True)
    recipe = Recipe(features=tuple(dict.fromkeys(features)), teacher=teacher, embedding=embedding, labels=labelled)
    if source.suffix == ".jsonl":
        jobs = in_catalogue(source, split, labelled)
    elif labelled:
        raise UserError(f"{str(source)!r} is no catalogue (.jsonl); make one with `python -m train catalogue`")
    else:
        jobs = in_folder(source)
    label(ordered(jobs, hours), target, recipe, *listeners(recipe), longest, retry)
