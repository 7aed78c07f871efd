"""Accuracy of the offline decode (`rtchord transcribe`) over a folder of audio and .lab files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.recognizer import posteriors, segment
from train.evaluate import read_reference, songs_in
from train.score import SEVEN, score_song, summarize

DELAYS = tuple(round(0.02 * i, 2) for i in range(9))  # s


def offline(folder: Path, engine: Path | None) -> dict[str, object]:
    """The seven metrics with the engine's own delay, and the mean of seven for other delays it could have had."""
    loaded = engines.load(engine)
    songs = []
    for audio, lab in tqdm(songs_in(folder), unit="song", desc=f"offline {folder.name}", file=sys.stderr):
        samples, rate = read_mono(audio)
        songs.append((posteriors(samples, rate, loaded), samples.size / rate, read_reference(lab)))

    def scores(delay: float) -> dict[str, float]:
        scored = []
        for heard, end, reference in songs:
            found = segment(*heard, end, delay, 1 / loaded.manifest.features.frame_rate)
            scored.append(score_song(*reference, [(start, chord.label) for start, _, chord in found]))
        summary = summarize(scored)
        return {name: summary[name] for name in (*SEVEN, "mean7", "class_mean", "events_per_change")}

    by_delay = {str(delay): scores(delay)["mean7"] for delay in DELAYS}
    return {
        "set": folder.name,
        "songs": len(songs),
        "delay": loaded.manifest.delay,
        "scores": scores(loaded.manifest.delay),
        "best_delay": DELAYS[int(np.argmax(list(by_delay.values())))],
        "mean7_by_delay": by_delay,
    }
