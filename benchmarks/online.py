"""Online accuracy and latency over a folder of audio and .lab files, through the live path."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.score import SongScore, per_quality, score_song, summarize
from rtchord.audio.files import AudioFile
from rtchord.errors import UserError
from rtchord.recognizer import Recognizer
from train.label import AUDIO
from train.labels import read_lab

BLOCK = 1024  # frames a push; events do not depend on it


def songs_in(folder: Path) -> list[tuple[Path, Path]]:
    """(audio, lab) pairs; a folder without any is an error."""
    pairs = (
        [(p, p.with_suffix(".lab")) for p in sorted(folder.iterdir()) if p.suffix.lower() in AUDIO]
        if (folder.is_dir())
        else []
    )
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise UserError(f"no audio files with a .lab beside them in {str(folder)!r}")
    return pairs


def read_reference(path: Path) -> tuple[np.ndarray, list[str]]:
    """Intervals (segments, 2) and raw labels of a .lab file (the labels are left to mir_eval)."""
    read_lab(path)  # says what is wrong, with file and line
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return np.array([[float(row[0]), float(row[1])] for row in rows]), [row[2] for row in rows]


def events_of(path: Path, engine: Path | None, latency: str) -> list[tuple[float, str]]:
    """(time s, label) of every event of a file, through `Recognizer.push`."""
    audio = AudioFile(path)
    recognizer = Recognizer(audio.rate, engine, latency)
    events = [event for block in audio.blocks(BLOCK) for event in recognizer.push(block.mean(axis=1, dtype=np.float32))]
    audio.close()
    return [(round(event.time, 6), event.chord) for event in events]


def online(folder: Path, engine: Path | None, latency: str) -> dict[str, object]:
    """Scores of a folder with one preset."""
    scores: list[SongScore] = []
    pairs = songs_in(folder)
    for audio, lab in tqdm(pairs, unit="song", desc=f"online {folder.name}", file=sys.stderr):
        scores.append(score_song(*read_reference(lab), events_of(audio, engine, latency)))
    return {
        "set": folder.name,
        "songs": len(scores),
        "latency": latency,
        "scores": summarize(scores),
        "qualities": per_quality(scores),
        "per_song": {
            audio.stem: {**{k: round(v, 4) for k, v in s.metrics.items()}, "duration": round(s.duration, 2)}
            for (audio, _), s in zip(pairs, scores, strict=True)
        },
    }
