"""Test sets of audio and .lab files that nothing was trained or tuned on, made anew from a seed.

* `songs`: POP909 songs that come after those trained on (`--skip`), played with a soundfont of one's choice;
* `strums`: real recordings of single chords, one after the other, each attack exactly on its boundary.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile

from rtchord.audio.files import read_mono
from rtchord.errors import UserError
from train.files import check_place
from train.labels import Segment, lab_lines, parse
from train.render import add_noise, held_out, play, pop_piece, song_order, soundfont

SONG_RATE = 44_100
SHORTEST, LONGEST = 0.8, 2.0  # s that a clip sounds before the next damps it
DAMPING = 0.015  # s
LEAD_IN = 0.5  # s of silence


def write(target: Path, name: str, audio: np.ndarray, rate: int, segments: list[Segment]) -> None:
    """`name`.flac and `name`.lab in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    soundfile.write(target / f"{name}.flac", np.clip(audio, -1, 1), rate)
    (target / f"{name}.lab").write_text(lab_lines(segments))


def songs(pop909: Path, target: Path, font: Path, count: int, skip: int, exclude: Path | None, seed: int) -> None:
    """`count` songs after the first `skip` of the order in which training renders them."""
    check_place(target, folder=True)
    soundfont(font, "install one, or name another")
    chosen = song_order(pop909, held_out(exclude))[skip : skip + count]
    if len(chosen) < count:
        raise UserError(f"only {len(chosen)} songs are left after --skip {skip}")
    for song in chosen:
        rng = np.random.default_rng([seed, int(song.stem)])
        piece = pop_piece(song, rng)
        audio = add_noise(play(piece, rng, SONG_RATE, [font]), rng, SONG_RATE)
        write(target, song.stem, audio, SONG_RATE, piece.segments)


def strums(clips: Path, target: Path, variants: list[str], count: int, chords: int, seed: int) -> None:
    """`count` pieces of `chords` chords from each of `variants`; `labels.csv` lists file, chord, seconds, variant."""
    check_place(target, folder=True)
    try:
        rows = list(csv.DictReader((clips / "labels.csv").read_text().splitlines()))
    except OSError:
        raise UserError(f"no labels.csv in {str(clips)!r}") from None
    if rows and not {"file", "chord", "seconds", "variant"} <= rows[0].keys():
        raise UserError(f"labels.csv in {str(clips)!r} lacks one of the columns file, chord, seconds, variant")
    for variant in variants:
        pool = [row for row in rows if row["variant"] == variant and float(row["seconds"]) >= SHORTEST]
        if not pool:
            raise UserError(f"no clips of {variant!r} in {str(clips)!r}")
        for number in range(count):
            rng = np.random.default_rng([seed, number, *variant.encode()])
            write(target, f"{variant}-{number}", *_splice(clips, pool, chords, rng))


def _splice(
    clips: Path, pool: list[dict[str, str]], chords: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, list[Segment]]:
    parts: list[np.ndarray] = []
    segments: list[Segment] = [(0.0, LEAD_IN, parse("N"))]
    previous, now, rate = "", 0, 0
    while len(segments) <= chords:
        row = pool[int(rng.integers(len(pool)))]
        if row["chord"] == previous:
            continue
        previous = row["chord"]
        audio, rate = read_mono(clips / row["file"])
        if not parts:
            now = round(LEAD_IN * rate)
            parts.append(np.zeros(now, np.float32))
        # The attack: where the clip first reaches a tenth of its peak.
        audio = audio[int(np.argmax(np.abs(audio) > 0.1 * np.abs(audio).max())) :]
        length = min(audio.size, round(rng.uniform(SHORTEST, LONGEST) * rate))
        clip, damped = audio[:length].copy(), round(DAMPING * rate)
        clip[-damped:] *= np.linspace(1, 0, damped, dtype=np.float32)
        parts.append(clip)
        segments.append((now / rate, (now + length) / rate, parse(row["chord"])))
        now += length
    return np.concatenate(parts), rate, segments
