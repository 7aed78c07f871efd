"""Online accuracy and latency over a folder of audio and .lab files, through the live path.

Posteriors do not depend on the decoder. `hear` computes those of a recording once, `decode` gives the events that the
live path gives with any decoder settings: exactly those of `Recognizer.push`, which a test says.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rtchord.audio.files import AudioFile
from rtchord.chords import NO_CHORD
from rtchord.decoder import Decoder, DecoderSettings
from rtchord.engine import Engine
from rtchord.errors import UserError
from rtchord.recognizer import Recognizer, posteriors
from train.audio import SNDFILE
from train.labels import read_lab
from train.score import SongScore, intervals, latency_by_metric, per_quality, score_song, summarize

BLOCK = 1024  # frames a push; events do not depend on it

Float32 = NDArray[np.float32]
Events = list[tuple[float, str]]  # (s, label)
Reference = tuple[NDArray[np.float64], list[str]]  # (segments, 2) s and raw labels


class Heard(NamedTuple):
    """What an engine made of a recording: `classes` (frames, 170), `bass` (frames, 13), and the s at which each frame
    was known."""

    classes: Float32
    bass: Float32
    times: NDArray[np.float64]


def songs_in(folder: Path) -> list[tuple[Path, Path]]:
    """(audio, lab) pairs; a folder without any is an error."""
    pairs = (
        [(p, p.with_suffix(".lab")) for p in sorted(folder.iterdir()) if p.suffix.lower() in SNDFILE]
        if (folder.is_dir())
        else []
    )
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise UserError(f"no audio files with a .lab beside them in {str(folder)!r}")
    return pairs


def spread(songs: Sequence[tuple[Path, Path]], count: int) -> list[tuple[Path, Path]]:
    """`count` of the songs, evenly over the folder; all where it has fewer."""
    return [songs[i * len(songs) // count] for i in range(count)] if count < len(songs) else list(songs)


def read_reference(path: Path) -> Reference:
    """Intervals (segments, 2) and raw labels of a .lab file (the labels are left to mir_eval)."""
    read_lab(path)  # says what is wrong, with file and line
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return np.array([[float(row[0]), float(row[1])] for row in rows]), [row[2] for row in rows]


def events_of(path: Path, engine: Path | None, latency: str | DecoderSettings) -> Events:
    """(time s, label) of every event of a file, through `Recognizer.push`."""
    audio = AudioFile(path)
    recognizer = Recognizer(audio.rate, engine, latency)
    events = [event for block in audio.blocks(BLOCK) for event in recognizer.push(block.mean(axis=1, dtype=np.float32))]
    audio.close()
    return [(round(event.time, 6), event.chord) for event in events]


def hear(samples: Float32, rate: int, engine: Engine) -> Heard:
    """Posteriors of a whole recording, mono float32."""
    return Heard(*posteriors(samples, rate, engine))


def decode(heard: Heard, settings: DecoderSettings, hold: int = 0) -> Events:
    """(time s, label) of every event, as `Recognizer.push` gives them; `hold`: frames for which a chord is shown."""
    decoder, events = Decoder(settings, hold=hold), Events()
    for number, (classes, bass, time) in enumerate(zip(*heard, strict=True)):
        decision = decoder.push(number, classes, bass)
        if decision is not None:
            events.append((round(float(time), 6), decision.chord.label))
        elif not events:  # the stream begins with N, said once
            events.append((round(float(time), 6), NO_CHORD.label))
    return events


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
        "intervals": intervals(scores),
        "latency_by_metric": latency_by_metric(scores),
        "qualities": per_quality(scores),
        "per_song": {
            audio.stem: {**{k: round(v, 4) for k, v in s.metrics.items()}, "duration": round(s.duration, 2)}
            for (audio, _), s in zip(pairs, scores, strict=True)
        },
    }
