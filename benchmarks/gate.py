"""What is struck and rings is music at any level down to the noise; what was there before anybody played is not.

Everything goes through the live path, made up from a seed and from General MIDI instruments (fluidsynth):

quiet starts   chords of four seconds, at every peak, after every silence: the share of the sounding time that shows N,
               from one second after the first attack on, since before that it is a matter of latency.
held chords    one chord, held for 20 s: events from its first name on, so that 2 are a name and its end.
idle noises    hum of 50 and 60 Hz whose harmonics fall slowly or fast, with weak or strong even ones; white and pink
               hiss; both together: the share of the time that shows a chord, and how many of them ever do.
with music     chords over hum and hiss that were there before: right chords while they sound, N before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pretty_midi
from numpy.typing import NDArray

from rtchord import engine as engines
from rtchord.events import ChordEvent
from rtchord.recognizer import Recognizer
from train.render import SOUNDFONTS, Piece, add, instrument, play

Float32 = NDArray[np.float32]

RATE, SECONDS = 48_000, 20
LEVELS = (-20.0, -30.0, -40.0, -50.0, -57.0, -65.0)  # dBFS, root mean square
IDLE = -50.0  # dBFS and below: the noise of an amplifier that nobody plays
HARMONICS = 40
# General MIDI programs, from 0
INSTRUMENTS = {
    "piano": 0, "electric piano": 4, "organ": 19, "nylon guitar": 24, "steel guitar": 25, "electric guitar": 27,
    "harp": 46, "strings": 48,
}  # fmt: skip
CHORDS = {"C": (48, 52, 55, 60, 64), "G": (43, 47, 50, 55, 59), "A": (45, 52, 57, 60, 64), "F": (41, 48, 53, 57, 60)}
CHORD_SECONDS = 4.0
PEAKS = (-6.0, -12.0, -18.0, -24.0, -30.0, -36.0, -42.0)  # dBFS
BEFORE = (0.0, 0.5, 3.0)  # s of silence before the first chord
HELD_PEAKS = (-6.0, -18.0, -30.0)
SOUNDING = -70.0  # dBFS, root mean square of 50 ms: below that a chord has died away
SETTLED = 1.0  # s after the first attack from which N is a fault
NOISY = ("50 Hz, slope 0.3, even 1.0", "60 Hz, slope 1.0, even 0.3", "white")
AROUND = 4.0  # s of noise alone before and after the music
MUSIC_PEAK = -12.0  # dBFS


def noises(seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Name -> (n,) noise of root mean square 1."""
    rng = np.random.default_rng(seed)
    t = np.arange(RATE * SECONDS) / RATE

    def hum(mains: float, slope: float, even: float) -> NDArray[np.float64]:
        found = np.zeros(t.size)
        for k in range(1, HARMONICS + 1):
            amplitude = k**-slope * (1 if k % 2 else even) * 10 ** (rng.normal(0, 4) / 20)
            found += amplitude * np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 2 * np.pi))
        return found

    white = rng.standard_normal(t.size)
    pink = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(t.size)) / np.sqrt(np.maximum(np.fft.rfftfreq(t.size, 1 / RATE), 20))
    )
    found = {
        f"{mains:.0f} Hz, slope {slope}, even {even}": hum(mains, slope, even)
        for mains in (50.0, 60.0)
        for slope in (0.3, 1.0)
        for even in (0.3, 1.0)
    } | {"white": white, "pink": pink}
    found = {name: sound / np.sqrt(np.mean(sound**2)) for name, sound in found.items()}
    both = found["50 Hz, slope 0.3, even 1.0"] + 0.5 * found["white"]
    return found | {"50 Hz and white": both / np.sqrt(np.mean(both**2))}


def played(program: int, chords: list[tuple[int, ...]], seconds: float) -> Float32:
    """Chords (MIDI notes) of `seconds` each, one after the other, and four more seconds; its peak is 1."""
    midi = pretty_midi.PrettyMIDI()
    track = instrument(midi, program)
    for number, notes in enumerate(chords):
        for note in notes:
            add(track, note, number * seconds, (number + 1) * seconds, 90)
    sound = play(Piece(midi, [], len(chords) * seconds + 4), np.random.default_rng(0), RATE, SOUNDFONTS[:1])
    return sound / np.abs(sound).max()


def at(sound: NDArray[Any], dbfs: float) -> Float32:
    return (sound * 10 ** (dbfs / 20)).astype(np.float32)


class Shown(NamedTuple):
    """What was on show, and from when to when, in s."""

    start: float
    end: float
    event: ChordEvent


def shown(recognizer: Recognizer, samples: Float32) -> list[Shown]:
    """All that was on show while `samples` sounded."""
    recognizer.reset()
    events = recognizer.push(samples)
    ends = [event.time for event in events[1:]] + [samples.size / RATE]
    return [Shown(event.time, end, event) for event, end in zip(events, ends, strict=True)]


def share(found: list[Shown], start: float, end: float, chord: str | None = None) -> float:
    """Part of the time from `start` to `end` s in which `chord` (root and quality), or any, is on show."""
    time = sum(
        max(0.0, min(one.end, end) - max(one.start, start))
        for one in found
        if one.event.chord != "N" and chord in (None, one.event.chord.split("/")[0])
    )
    return time / (end - start)


def sounding(samples: Float32) -> float:
    """s until the sound has died away."""
    size = RATE // 20
    blocks = samples[: samples.size // size * size].reshape(-1, size)
    loud = np.flatnonzero(np.sqrt((blocks**2).mean(1)) > 10 ** (SOUNDING / 20))
    return float((loud[-1] + 1) * size / RATE) if loud.size else 0.0


def quiet_starts(recognizer: Recognizer) -> Iterator[dict[str, Any]]:
    for name, program in INSTRUMENTS.items():
        sound = played(program, list(CHORDS.values()), CHORD_SECONDS)
        for peak, before in product(PEAKS, BEFORE):
            samples = np.concatenate((np.zeros(round(before * RATE), np.float32), at(sound, peak)))
            last = min(sounding(samples), before + len(CHORDS) * CHORD_SECONDS)
            silent = 1 - share(shown(recognizer, samples), before + SETTLED, last)
            yield {"instrument": name, "peak": peak, "before": before, "n": round(silent, 4)}


def held_chords(recognizer: Recognizer) -> Iterator[dict[str, Any]]:
    for name, program in INSTRUMENTS.items():
        sound = played(program, [CHORDS["C"]], SECONDS)
        for peak in HELD_PEAKS:
            samples = np.concatenate((np.zeros(RATE // 2, np.float32), at(sound, peak)))
            events = [one.event for one in shown(recognizer, samples)][1:]
            yield {"instrument": name, "peak": peak, "events": [f"{event.time:.2f} {event.chord}" for event in events]}


def idle_noises(recognizer: Recognizer, sounds: dict[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {
        name: [round(share(shown(recognizer, at(sound, level)), 0, SECONDS), 4) for level in LEVELS]
        for name, sound in sounds.items()
    }


def with_music(recognizer: Recognizer, sounds: dict[str, NDArray[np.float64]]) -> Iterator[dict[str, Any]]:
    gap = np.zeros(round(AROUND * RATE), np.float32)
    music = at(played(INSTRUMENTS["steel guitar"], list(CHORDS.values()), CHORD_SECONDS), MUSIC_PEAK)
    song = np.concatenate((gap, music, gap))
    end = AROUND + len(CHORDS) * CHORD_SECONDS
    labels = ("C:maj", "G:maj", "A:min", "F:maj")
    edges = AROUND + CHORD_SECONDS * np.arange(len(CHORDS) + 1)
    for name in NOISY:
        noise = np.resize(sounds[name], song.size)
        for level in LEVELS:
            found = shown(recognizer, song + at(noise, level))
            right = [share(found, a, b, chord) for (a, b), chord in zip(pairwise(edges), labels, strict=True)]
            yield {
                "noise": name,
                "level": level,
                "right": round(float(np.mean(right)), 3),
                "chord_before": round(share(found, 0, AROUND), 3),
                "chord_after": round(share(found, end + 2, song.size / RATE), 3),
            }


def gate(engine: Path | None) -> dict[str, Any]:
    """Everything; `summary` is what the documents show."""
    recognizer = Recognizer(RATE, engines.load(engine))
    quiet, held = list(quiet_starts(recognizer)), list(held_chords(recognizer))
    sounds = noises()
    noise, music = idle_noises(recognizer, sounds), list(with_music(recognizer, sounds))
    idle = [level for level in LEVELS if level <= IDLE]
    ever = [row[LEVELS.index(level)] > 0 for row in noise.values() for level in idle]
    hums = [name for name in noise if "Hz" in name]
    names = [len(row["events"]) for row in held]
    return {
        "quiet_starts": quiet,
        "held_chords": held,
        "idle_noises": {"levels": LEVELS, "chord": noise},
        "with_music": music,
        "summary": {
            "starts": len(quiet),
            "n_by_peak": {
                f"{peak:.0f}": {
                    "mean": round(float(np.mean([row["n"] for row in quiet if row["peak"] == peak])), 4),
                    "worst": max(row["n"] for row in quiet if row["peak"] == peak),
                }
                for peak in PEAKS
            },
            "held": len(held),
            "held_ended_early": sum(any(event.endswith(" N") for event in row["events"][:-1]) for row in held),
            "held_two_events": sum(count <= 2 for count in names),
            "held_events_mean": round(float(np.mean(names)), 2),
            "idle": len(ever),
            "idle_named": sum(ever),
            "n_of_hum": {
                f"{lv:.0f}": round(1 - float(np.mean([noise[h][i] for h in hums])), 4) for i, lv in enumerate(LEVELS)
            },
            "n_of_white": {f"{lv:.0f}": round(1 - noise["white"][i], 4) for i, lv in enumerate(LEVELS)},
        },
    }
