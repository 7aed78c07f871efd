"""Online accuracy and latency over a folder of audio and .lab files, through the live path.

Posteriors do not depend on the decoder. `hear` computes those of a recording once, `train.evaluate.decode` gives
the events that the live path gives with any decoder settings: exactly those of `Recognizer.push`, which a test says.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rtchord.audio.files import AudioFile
from rtchord.decoder import PRESETS, DecoderSettings
from rtchord.engine import Engine, load
from rtchord.recognizer import Recognizer, posteriors
from train.evaluate import Events, Float32, Heard, decode, read_reference, songs_in
from train.score import SongScore, intervals, latency_by_metric, per_quality, score_song, summarize

BLOCK = 1024  # frames a push; events do not depend on it


def spread(songs: Sequence[tuple[Path, Path]], count: int) -> list[tuple[Path, Path]]:
    """`count` of the songs, evenly over the folder; all where it has fewer."""
    return [songs[i * len(songs) // count] for i in range(count)] if count < len(songs) else list(songs)


def events_of(path: Path, engine: Engine | None, latency: str | DecoderSettings) -> Events:
    """(time s, label) of every event of a file, through `Recognizer.push`."""
    audio = AudioFile(path)
    recognizer = Recognizer(audio.rate, engine, latency)
    events = [event for block in audio.blocks(BLOCK) for event in recognizer.push(block.mean(axis=1, dtype=np.float32))]
    audio.close()
    return [(round(event.time, 6), event.chord) for event in events]


def hear(samples: Float32, rate: int, engine: Engine) -> Heard:
    """Posteriors of a whole recording, mono float32."""
    return Heard(*posteriors(samples, rate, engine))


def balanced(samples: Float32, rate: int, engine: Engine) -> Events:
    """Events of a whole recording with the balanced preset."""
    return decode(hear(samples, rate, engine), PRESETS["balanced"], hop=1 / engine.manifest.features.frame_rate)


def online(folder: Path, engine: Path | None, latency: str) -> dict[str, object]:
    """Scores of a folder with one preset."""
    scores: list[SongScore] = []
    pairs, loaded = songs_in(folder), load(engine)
    for audio, lab in tqdm(pairs, unit="song", desc=f"online {folder.name}", file=sys.stderr):
        scores.append(score_song(*read_reference(lab), events_of(audio, loaded, latency)))
    return {
        "set": folder.name,
        "songs": len(scores),
        "latency": latency,
        "scores": summarize(scores),
        "intervals": intervals(scores),
        "latency_by_metric": latency_by_metric(scores),
        "qualities": per_quality(scores),
        "confusion": np.sum([score.confusion for score in scores], axis=0).round(1).tolist(),
        "per_song": {
            audio.stem: {**{k: round(v, 4) for k, v in s.metrics.items()}, "duration": round(s.duration, 2)}
            for (audio, _), s in zip(pairs, scores, strict=True)
        },
    }
