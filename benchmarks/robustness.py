"""The online scores where the sound is not what it should be.

Every condition is applied to the same songs, so that what it costs is told song by song against the clean ones. Songs
in other keys are the charts that anyone can render (`benchmarks.charts`), played anew; a difference between keys is a
fault, as nothing else differs. Of what is no music the share of time is told in which N shows.

Nothing is downloaded: noise is drawn from a seed, rooms are decaying noise, talk is spoken by espeak-ng.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pretty_midi
import soundfile
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import charts
from benchmarks.online import balanced, spread
from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.engine import Engine
from rtchord.errors import UserError
from train.evaluate import Reference, read_reference, songs_in
from train.render import Piece, add_drums, play
from train.score import SongScore, difference, score_song, shown, summarize

Float32 = NDArray[np.float32]
Rng = np.random.Generator
Change = Callable[[Float32, int, Rng], Float32]  # samples, rate, source of chance

KEPT = ("mean7", "majmin", "tetrads", "hit", "lat_med", "lat_p90", "events_per_change", "wrong", "flicker")
TALK_S = 40.0  # s of talk that are spoken, then said again
KEYS = range(-5, 7)  # semitones
NO_MUSIC_S = 60.0


class SkippedError(Exception):
    """A condition that this machine cannot make; says why."""


# --- sounds -----------------------------------------------------------------------------------------------------------


def rms(samples: Float32) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def noise(size: int, slope: float, rng: Rng) -> Float32:
    """Noise of unit power whose amplitude falls with frequency to the power `slope`: 0 white, 0.5 pink."""
    n = 1 << max(size - 1, 1).bit_length()
    shape = np.maximum(np.arange(n // 2 + 1), 20 * n // 44_100 + 1).astype(np.float64) ** -slope
    sound = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * shape)[:size]
    return (sound / rms(sound)).astype(np.float32)


# Our own sentences, so that no text need be found.
SENTENCES = (
    "Could we take it once more from the second verse, please?", "I think the monitor on the left is too loud.",
    "Somebody has parked in front of the loading door again.", "Two more coffees, and one of them without milk.",
    "She said that the last train leaves a little after midnight.", "Hold on, my string broke, give me a minute.",
    "Is this seat taken, or are you waiting for someone?", "We never had so many people in here on a Tuesday.",
)  # fmt: skip
VOICES = ("en-gb+m1", "en-us+f1", "en-gb+m3", "en-us+f3", "en-gb+m5", "en-us+f4", "en-gb+m7", "en-us+f2")


@lru_cache(maxsize=32)
def speech(voice: str, rate: int) -> Float32:
    """TALK_S of talk of unit power in the voice of espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SkippedError("espeak-ng is not installed")
    first = VOICES.index(voice)
    text = " ".join(SENTENCES[first:] + SENTENCES[:first])
    done = subprocess.run([program, "-v", voice, "-s", str(150 + 7 * first), "--stdout", text], capture_output=True)
    if done.returncode:
        raise SkippedError(f"espeak-ng cannot speak as {voice}")
    sound, spoken_at = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    sound = soxr.resample(sound, spoken_at, rate)
    sound = np.tile(sound, int(TALK_S * rate / sound.size) + 1)[: int(TALK_S * rate)]
    return (sound / rms(sound)).astype(np.float32)


def babble(rate: int) -> Float32:
    """All voices at once, of unit power."""
    crowd = np.sum([np.roll(speech(voice, rate), i * rate) for i, voice in enumerate(VOICES)], axis=0)
    return (crowd / rms(crowd)).astype(np.float32)


def filled(sound: Float32, size: int) -> Float32:
    """A sound again and again until `size`."""
    return np.tile(sound, size // sound.size + 1)[:size]


def hum(size: int, rate: int) -> Float32:
    """Mains hum of unit power: 50 Hz and four harmonics."""
    t = np.arange(size) / rate
    sound = np.sum([np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 6)], axis=0)
    return (sound / rms(sound)).astype(np.float32)


# --- what is done to a song -------------------------------------------------------------------------------------------


def added(sound: Callable[[int, int, Rng], Float32], snr: float) -> Change:
    """Another sound on top, `snr` dB under the song's power."""
    return lambda samples, rate, rng: samples + sound(samples.size, rate, rng) * (rms(samples) * 10 ** (-snr / 20))


def room(decay: float, reverberant_db: float) -> Change:
    """The direct sound and a tail of noise that falls by 60 dB in `decay` s, with `reverberant_db` more power."""

    def change(samples: Float32, rate: int, rng: Rng) -> Float32:
        size = int(decay * rate)
        tail = rng.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
        tail *= 10 ** (reverberant_db / 20) / np.sqrt(np.sum(tail**2))
        tail[0] += 1
        n = 1 << (samples.size + size).bit_length()
        return np.fft.irfft(np.fft.rfft(samples, n) * np.fft.rfft(tail, n))[: samples.size].astype(np.float32)

    return change


def level(peak_db: float) -> Change:
    """The peak brought to `peak_db`; what passes full scale is clipped."""
    return lambda samples, *_: np.clip(samples * (10 ** (peak_db / 20) / (np.abs(samples).max() or 1)), -1, 1)


def detuned(cents: float) -> Change:
    """Played faster or slower, so higher or lower."""
    return lambda samples, rate, _: soxr.resample(samples, rate * 2 ** (cents / 1200), rate)


def coded(form: str, subtype: str, rate_kbit: int, lowest: int, highest: int, rate: int) -> Change:
    """Through a codec and back; its own delay is taken off."""

    def change(samples: Float32, rate_in: int, _: Rng) -> Float32:
        file, sound = io.BytesIO(), np.clip(soxr.resample(samples, rate_in, rate), -1, 1)
        strength = min((highest - rate_kbit) / (highest - lowest), 0.999)  # libsndfile refuses 1
        try:
            soundfile.write(file, sound, rate, format=form, subtype=subtype, compression_level=strength,
                            **({"bitrate_mode": "CONSTANT"} if form == "MP3" else {}))  # fmt: skip
            file.seek(0)
            back, _ = soundfile.read(file, dtype="float32")
        except (soundfile.LibsndfileError, TypeError) as error:
            raise SkippedError(f"libsndfile cannot do {subtype}: {error}") from None
        back = back[lag(sound, back) :]
        back = np.pad(back, (0, max(0, sound.size - back.size)))[: sound.size]
        return np.asarray(soxr.resample(back, rate, rate_in), np.float32)

    return change


def lag(before: Float32, after: Float32, reach: int = 8192, size: int = 1 << 18) -> int:
    """Samples by which `after` follows `before`, at most `reach`, by cross-correlation of the first seconds."""
    a, b = np.fft.rfft(before[:size], 2 * size), np.fft.rfft(after[:size], 2 * size)
    return int(np.argmax(np.fft.irfft(np.conj(a) * b)[:reach]))


class Condition(NamedTuple):
    family: str
    name: str
    change: Change
    faster: float = 1.0  # the song's time runs by this


def one_voice(size: int, rate: int, _: Rng) -> Float32:
    return filled(speech(VOICES[0], rate), size)


SOUNDS: dict[str, Callable[[int, int, Rng], Float32]] = {
    "white": lambda size, _, rng: noise(size, 0.0, rng),
    "pink": lambda size, _, rng: noise(size, 0.5, rng),
    "babble": lambda size, rate, _: filled(babble(rate), size),
}
CONDITIONS: tuple[Condition, ...] = (
    *(Condition("noise", f"{n}, {snr} dB", added(make, snr)) for n, make in SOUNDS.items() for snr in (20, 10, 0)),
    *(Condition("speech", f"one voice, {snr} dB", added(one_voice, snr)) for snr in (20, 10, 0)),
    Condition("room", "0.4 s", room(0.4, 0.0)),
    Condition("room", "1.8 s", room(1.8, 3.0)),
    *(
        Condition("tuning", f"{cents:+d} cents", detuned(cents), 2 ** (cents / 1200))
        for cents in range(-50, 60, 10)
        if cents
    ),
    *(Condition("level", f"{db:+d} dB", level(db)) for db in (-40, -20, 0)),
    *(Condition("level", f"clipped by {db} dB", level(db)) for db in (12, 24)),
    *(Condition("codec", f"MP3, {k} kbit/s", coded("MP3", "MPEG_LAYER_III", k, 32, 320, 44_100)) for k in (64, 32)),
    *(Condition("codec", f"Opus, {k} kbit/s", coded("OGG", "OPUS", k, 6, 256, 48_000)) for k in (24, 12)),
)  # fmt: skip


# --- measuring --------------------------------------------------------------------------------------------------------


def _row(family: str, name: str, scores: list[SongScore], clean: list[SongScore]) -> dict[str, Any]:
    summary = summarize(scores)
    gained, low, high = difference(clean, scores)
    kept = {key: None if summary[key] is None else round(summary[key], 4) for key in KEPT}
    return {"family": family, "condition": name, "scores": kept, "gained": gained, "interval": (low, high)}


def cut(reference: Reference, seconds: float) -> Reference:
    """The first `seconds` of a reference."""
    times, labels = reference
    kept = [i for i, (start, _) in enumerate(times) if start < seconds]
    return np.minimum(times[kept], seconds), [labels[i] for i in kept]


def degraded(
    folder: Path, engine: Engine, count: int, seconds: float, seed: int, conditions: tuple[Condition, ...] = CONDITIONS
) -> Iterator[dict[str, Any]]:
    """A row for the clean songs of a folder and one for each condition."""
    songs = []
    for audio, lab in spread(songs_in(folder), count):
        samples, rate = read_mono(audio)
        songs.append((samples[: round(seconds * rate)], rate, cut(read_reference(lab), seconds)))
    clean: list[SongScore] = []
    todo = (Condition("clean", "as it is", lambda samples, *_: samples), *conditions)
    for condition in tqdm(todo, unit="condition", desc=f"robustness {folder.name}", file=sys.stderr):
        scores = []
        try:
            for number, (samples, rate, (times, labels)) in enumerate(songs):
                changed = condition.change(samples, rate, np.random.default_rng([seed, number]))
                events = balanced(changed, rate, engine)
                scores.append(score_song(times / condition.faster, labels, events))
        except SkippedError as reason:
            yield {"family": condition.family, "condition": condition.name, "skipped": str(reason)}
            continue
        clean = clean or scores
        yield _row(condition.family, condition.name, scores, clean)


def transposed(
    engine: Engine, seed: int, keys: range = KEYS, count: int = len(charts.GROUPS)
) -> Iterator[dict[str, Any]]:
    """A row for each key of one chart of each group of instruments."""
    found = charts.pieces(seed)
    tempi = len(charts.TEMPI)
    names = [list(found)[group * tempi + group % tempi] for group in range(count)]
    played: dict[int, list[SongScore]] = {}
    try:
        for key in tqdm(sorted(keys, key=abs), unit="key", desc="other keys", file=sys.stderr):
            played[key] = []
            for name in names:
                piece = charts.moved(found[name], key)
                sound = charts.sound(piece, name, seed, charts.FONT)
                events = balanced(sound, charts.RATE, engine)
                times = np.array([(start, end) for start, end, _ in piece.segments])
                played[key].append(score_song(times, [chord.label for _, _, chord in piece.segments], events))
    except UserError as error:
        yield {"family": "key", "condition": "charts", "skipped": str(error)}
        return
    for key in keys:
        yield _row("key", f"{key:+d}", played[key], played[0])


def no_music(seconds: float = NO_MUSIC_S) -> dict[str, Callable[[int, Rng], Float32]]:
    """Sounds without a chord, at their loudness in dBFS."""
    size = lambda rate: int(seconds * rate)  # noqa: E731

    def drums(rate: int, rng: Rng) -> Float32:
        if not charts.FONT.is_file():
            raise SkippedError(f"{charts.FONT.name} is not installed")
        midi = pretty_midi.PrettyMIDI()
        add_drums(rng, midi, np.arange(0.0, seconds, 0.5))
        try:
            sound = play(Piece(midi, [], seconds), rng, rate, [charts.FONT])
        except UserError as error:
            raise SkippedError(str(error)) from None
        return sound / rms(sound)

    def at(db: float, sound: Callable[[int, Rng], Float32]) -> Callable[[int, Rng], Float32]:
        return lambda rate, rng: 10 ** (db / 20) * sound(rate, rng)

    return {
        "silence": lambda rate, _: np.zeros(size(rate), np.float32),
        "hum, -30 dB": at(-30, lambda rate, _: hum(size(rate), rate)),
        "white noise, -20 dB": at(-20, lambda rate, rng: noise(size(rate), 0.0, rng)),
        "white noise, -50 dB": at(-50, lambda rate, rng: noise(size(rate), 0.0, rng)),
        "pink noise, -20 dB": at(-20, lambda rate, rng: noise(size(rate), 0.5, rng)),
        "one voice, -20 dB": at(-20, lambda rate, _: filled(speech(VOICES[1], rate), size(rate))),
        "babble, -20 dB": at(-20, lambda rate, _: filled(babble(rate), size(rate))),
        "drums, -20 dB": at(-20, drums),
    }


def without_music(engine: Engine, seed: int, seconds: float = NO_MUSIC_S) -> Iterator[dict[str, Any]]:
    """Of each sound that has no chord: the share of time in which N shows, and changes a minute."""
    rate = 44_100
    for name, make in no_music(seconds).items():
        try:
            events = balanced(make(rate, np.random.default_rng(seed)), rate, engine)
        except SkippedError as reason:
            yield {"family": "no music", "condition": name, "skipped": str(reason)}
            continue
        times, labels = shown(events, seconds)
        changes = sum(a != b for a, b in pairwise(labels))
        silent = sum(end - start for (start, end), label in zip(times, labels, strict=True) if label == "N")
        yield {
            "family": "no music",
            "condition": name,
            "no_chord": round(float(silent) / seconds, 4),
            "changes_per_minute": round(60 * changes / seconds, 2),
        }


def robustness(
    folders: list[Path], engine: Path | None, count: int, seconds: float, groups: int, seed: int
) -> dict[str, Any]:
    """All conditions over each folder, then other keys, then what is no music."""
    loaded = engines.load(engine)
    return {
        "songs": count,
        "seconds": seconds,
        "charts": groups,
        "seed": seed,
        "sets": {folder.name: list(degraded(folder, loaded, count, seconds, seed)) for folder in folders},
        "keys": list(transposed(loaded, seed, count=groups)),
        "no_music": list(without_music(loaded, seed)),
    }
