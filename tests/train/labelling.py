"""A teacher, an embedder and recordings for tests, and a labelling run with them as a process of its own:

    python -m tests.train.labelling SOURCE TARGET SECONDS

Its teacher takes SECONDS to hear a piece, and says on stdout that it begins with one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtchord.chords import N_BASS, N_CLASSES
from rtchord.errors import told_in_a_sentence
from train import label
from train.teachers import Posteriors

RATE = 22_050
HOP = 0.1  # s
RECIPE = label.Recipe(features=("live", "librosa-0.11"), teacher="counts", embedding="ramp")


class Counts:
    """A teacher that hears class 0 in the first tenth of a second, class 1 in the next, and so on; basses as well."""

    name = "counts"

    def __init__(self, slowly: float = 0.0) -> None:
        self.heard: list[int] = []  # samples of each piece
        self._slowly = slowly

    def posteriors(self, audio: NDArray[np.float32], rate: int) -> Posteriors:
        self.heard.append(audio.size)
        if self._slowly:
            print("begins", flush=True)
            time.sleep(self._slowly)
        now = np.arange(round(audio.size / rate / HOP) + 1)
        return Posteriors(
            np.eye(N_CLASSES, dtype=np.float32)[now % N_CLASSES], np.eye(N_BASS, dtype=np.float32)[now % N_BASS], HOP
        )


class Ramp:
    """An embedder that counts half seconds."""

    name, width = "ramp", 4

    def embed(self, audio: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        return np.repeat(np.arange(-(-2 * audio.size // rate), dtype=np.float32)[:, None], 4, 1)


def recordings(folder: Path, count: int, seconds: float = 1.2) -> list[Path]:
    """`count` tones, each of its own pitch and a little longer than the last, in two folders."""
    paths = []
    for number in range(count):
        paths.append(folder / f"album {number % 2}" / f"{number:02d}. Étude.wav")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        time_s = np.arange(round((seconds + 0.05 * number) * RATE)) / RATE
        soundfile.write(paths[-1], 0.3 * np.sin(2 * np.pi * 110 * 2 ** (number / 12) * time_s), RATE)
    return paths


def run(source: Path, target: Path, teacher: Counts, **options: object) -> None:
    """Label a folder with the fakes above."""
    label.label(label.ordered(label.in_folder(source)), target, RECIPE, teacher, Ramp(), **options)


if __name__ == "__main__":
    with told_in_a_sentence("labelling"):
        run(Path(sys.argv[1]), Path(sys.argv[2]), Counts(slowly=float(sys.argv[3])))
