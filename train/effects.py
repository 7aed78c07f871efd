"""What lies between an instrument and a recognizer: tuning, talk, a room, noise, hum, fans, level, clipping, a codec.

`Effects` holds the share of tracks that get each effect and the ranges its strength is drawn from (evenly). Every
effect is a pure function of the audio and a numpy Generator. None of them moves an attack: the direct sound of a room
comes at once, and the delay of a codec is taken off, so labels stay true.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import oaconvolve

Float32 = NDArray[np.float32]
Span = tuple[float, float]

SOUND_SPEED = 343.0  # m/s
OCTAVES = 125.0 * 2.0 ** np.arange(7)  # Hz; bands of a room that have a decay of their own
WALL_DISTANCE = 0.5  # m that sources and listeners keep
CLIPPED_AT = 0.5  # of the peak
BLOCK = 1 << 16  # samples that a codec is given at a time


class Effects(BaseModel, frozen=True, extra="forbid"):
    """Shares of tracks (0..1) and ranges; within a range all values are equally likely."""

    # Tuning: most of the music is at 440 Hz or near it; the rest may lie anywhere between two keys.
    tuned_near: float = 0.3
    near_cents: Span = (-10, 10)
    tuned_far: float = 0.3
    far_cents: Span = (-50, 50)
    # Talk over music, and where nothing plays; dB below the music's peak.
    talk: float = 0.05
    talk_alone: float = 0.4
    talk_below: Span = (3, 15)
    # Room: s until the sound has fallen by 60 dB at 1 kHz and below; the same at 8 kHz, as a part of it; dB of the
    # direct sound above all that is reflected; m of length, width, height.
    room: float = 0.4
    room_decay: Span = (0.2, 1.2)
    room_treble: Span = (0.3, 0.9)
    room_direct: Span = (-3, 18)
    room_size: tuple[Span, Span, Span] = ((3, 12), (3, 9), (2.4, 4.5))
    # Noise on every track: dB below the music (power), or below full scale where there is none; the exponent with
    # which its amplitude falls with frequency (0 white, 0.5 pink, 1 brown).
    noise_below: Span = (15, 70)
    noise_slope: Span = (0, 1)
    # What an idle stage sounds like: hum of the mains or a fan, dB below the music.
    idle: float = 0.3
    idle_below: Span = (15, 60)
    fan: float = 0.25  # share of those that are a fan
    # Where there is no music: dB of all noise below full scale (power); shares of tracks that hold noise, and the idle
    # stage; dB of the noise below the latter where they hold both.
    alone_below: Span = (5, 70)
    noise_alone: float = 0.3
    idle_alone: float = 0.4
    hiss_below: Span = (-10, 40)
    # Share of those tracks that sound alike all the time; of a stretch of the others, the chance that it is silent.
    all_the_time: float = 0.4
    off: float = 0.2
    # dB below full scale; and clipping, at CLIPPED_AT of the peak.
    level_below: Span = (0, 26)
    clipping: float = 0.1
    # Lossy coding: one of CODECS, at one of its rates.
    codec: float = 0.3


EFFECTS = Effects()


class Codec(NamedTuple):
    """A lossy format of libsndfile: how it names it, the rate in Hz it is fed with, and its `compression_level`s."""

    form: str
    subtype: str
    rate: int
    levels: tuple[float, ...]


# What these levels make of a mono signal, in kbit/s, is in docs/training.md.
CODECS = (
    Codec("MP3", "MPEG_LAYER_III", 22_050, (0.4, 0.6, 0.75, 0.85, 0.9)),
    Codec("OGG", "OPUS", 24_000, (0.65, 0.8, 0.9, 0.95, 0.97)),
    Codec("OGG", "VORBIS", 22_050, (0.3, 0.5, 0.7, 0.9)),
)

# What is spoken where somebody talks: no language, so that no word is learnt.
SYLLABLES = ("ba", "ke", "lin", "mo", "ra", "su", "ti", "ven", "wo", "za", "ste", "gra", "pli", "nor", "chu", "fa")
VOICES = ("en", "de", "fr", "it", "es", "pl", "pt", "sv")


def draw_cents(rng: np.random.Generator, effects: Effects = EFFECTS) -> float:
    """Tuning of a track against A = 440 Hz, in cents."""
    chance = rng.random()
    if chance < effects.tuned_far:
        return float(rng.uniform(*effects.far_cents))
    return float(rng.uniform(*effects.near_cents)) if chance < effects.tuned_far + effects.tuned_near else 0.0


# --- talk -------------------------------------------------------------------------------------------------------------


def add_speech(audio: Float32, rng: np.random.Generator, rate: int, effects: Effects = EFFECTS) -> Float32:
    """Somebody talks over it, or where there is nothing else, one to three do. As it is without espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        return audio
    silent = not audio.any()
    talk = np.zeros_like(audio)
    for _ in range(int(rng.integers(1, 4)) if silent else 1):
        words = ["".join(rng.choice(list(SYLLABLES), int(rng.integers(1, 5)))) for _ in range(300)]
        voice = f"{rng.choice(VOICES)}+{rng.choice(['m1', 'm3', 'm7', 'f1', 'f2', 'f4'])}"
        command = [program, "--stdout", "-v", voice, "-s", str(int(rng.integers(110, 230)))]
        command += ["-p", str(int(rng.integers(10, 90))), " ".join(words)]
        spoken = subprocess.run(command, check=True, capture_output=True).stdout
        samples, own = soundfile.read(io.BytesIO(spoken), dtype="float32")
        part = soxr.resample(samples, own, rate)[: audio.size]
        first = int(rng.integers(0, max(1, audio.size - part.size)))
        talk[first : first + part.size] += part / np.abs(part).max()
    level = 1.0 if silent else 10 ** (-rng.uniform(*effects.talk_below) / 20) * np.abs(audio).max()
    return (audio + level * talk).astype(np.float32)


# --- room -------------------------------------------------------------------------------------------------------------


def impulse_response(rng: np.random.Generator, rate: int, effects: Effects = EFFECTS) -> Float32:
    """Response of a random shoebox room, (samples,) float32; the direct sound is sample 0, with gain 1.

    Early: image sources of the first two orders (Allen & Berkley 1979), walls that reflect as Eyring's formula (1930)
    asks for the decay. Late: Gaussian noise whose octaves decay exponentially (Polack 1988), as strong as the diffuse
    field of that room. Both are scaled together to the ratio of direct to reflected energy that was drawn.
    """
    decay, treble = rng.uniform(*effects.room_decay), rng.uniform(*effects.room_treble)
    direct = rng.uniform(*effects.room_direct)
    size = np.array([rng.uniform(*span) for span in effects.room_size])
    source, listener = (rng.uniform(WALL_DISTANCE, size - WALL_DISTANCE) for _ in range(2))
    n = int(decay * rate)
    reflected = np.zeros(n)

    volume, surface = float(np.prod(size)), 2.0 * float(size @ np.roll(size, 1))
    wall = np.exp(-0.161 * volume / surface / decay / 2)  # amplitude that a wall reflects
    order = np.array([i for i in product(range(-2, 3), repeat=3) if 0 < np.abs(i).sum() <= 2])
    images = order * size + np.where(order % 2 == 0, source, size - source)
    distance = float(np.linalg.norm(source - listener))
    further = np.linalg.norm(images - listener, axis=1)
    arrival = np.rint((further - distance) / SOUND_SPEED * rate).astype(int)
    gain = wall ** np.abs(order).sum(axis=1) * distance / further
    heard = arrival < n
    np.add.at(reflected, arrival[heard], gain[heard])

    t = np.arange(n) / rate
    falling = decay * treble ** np.clip(np.log2(OCTAVES / 1000) / 3, 0, 1)  # s per octave
    length = next_fast_len(n, real=True)
    spectrum = rfft(rng.standard_normal(length))
    octave = np.log2(np.maximum(rfftfreq(length, 1 / rate), 1.0))
    shares = [np.interp(octave, np.log2(OCTAVES), row) for row in np.eye(OCTAVES.size)]  # sum to 1 at any frequency
    late = sum(irfft(spectrum * w, length)[:n] * 10 ** (-3 * t / s) for w, s in zip(shares, falling, strict=True))
    density = 4 * np.pi * SOUND_SPEED * distance**2 / volume / rate  # of reflected energy, against the direct sound's
    reflected += np.sqrt(density) * late * np.minimum(np.arange(n) / max(1, arrival.max()), 1.0)

    reflected *= np.sqrt(10 ** (-direct / 10) / np.sum(reflected**2))
    reflected[0] += 1.0
    return reflected.astype(np.float32)


def add_room(audio: Float32, rng: np.random.Generator, rate: int, effects: Effects = EFFECTS) -> Float32:
    """The audio in a random room; as long as before, attacks where they were."""
    return oaconvolve(audio, impulse_response(rng, rate, effects))[: audio.size].astype(np.float32)


# --- noise ------------------------------------------------------------------------------------------------------------


def unit(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sound with a power of 1."""
    return sound / np.sqrt(np.mean(sound**2))


def hiss(rng: np.random.Generator, size: int, effects: Effects = EFFECTS) -> NDArray[np.float64]:
    """Noise between white and brown, (size,), of unit power; it repeats after some seconds."""
    slope, n = rng.uniform(*effects.noise_slope), 1 << 17
    spectrum = np.fft.rfft(rng.standard_normal(n)) / np.maximum(np.arange(n // 2 + 1), 20) ** slope
    return np.resize(unit(np.fft.irfft(spectrum)), size)


def partials(
    rng: np.random.Generator, frequency: NDArray[np.float64], level: NDArray[np.float64], size: int, rate: int
) -> NDArray[np.float64]:
    """Steady sinusoids of `frequency` (n,) in Hz and `level` (n,) in dB, of unit power in all; what is too high for
    `rate` is left out."""
    heard = frequency < 0.45 * rate
    phase = rng.uniform(0, 2 * np.pi, frequency.size)
    t = np.arange(size) / rate
    sound = np.zeros(size)
    for f, db, start in zip(frequency[heard], level[heard], phase[heard], strict=True):
        sound += 10 ** (db / 20) * np.sin(2 * np.pi * f * t + start)
    return unit(sound)


def hum(rng: np.random.Generator, size: int, rate: int) -> NDArray[np.float64]:
    """Hum of the mains, (size,), of unit power, of any of the shapes that it has: a sine, the buzz of a rectifier at
    twice its frequency, the comb of a dimmer. Every harmonic has a level of its own."""
    mains = rng.choice([50.0, 60.0]) * rng.uniform(0.998, 1.002)
    k = np.arange(1, int(rng.integers(1, 41)) + 1)
    level = -20 * rng.uniform(0.0, 2.5) * np.log10(k) + rng.normal(0, rng.uniform(0, 8), k.size)
    level[k % 2 == 0] += rng.uniform(-30, 0) * rng.integers(0, 2)  # symmetrical waves have odd harmonics alone
    level[k % 2 == 1] += rng.uniform(-40, 0) * (rng.random() < 0.25)  # a rectifier makes even ones
    return partials(rng, mains * k, level, size, rate)


def fan(rng: np.random.Generator, size: int, rate: int, effects: Effects = EFFECTS) -> NDArray[np.float64]:
    """A fan, (size,), of unit power: the harmonics of its blades, other whistles of its own, and rushing air."""
    blades = rng.uniform(40, 400) * np.arange(1, int(rng.integers(2, 9)))
    whistles = rng.uniform(100, 3000, int(rng.integers(0, 4)))
    frequency = np.concatenate((blades, whistles))
    level = -rng.uniform(0, 25, frequency.size)
    tones = partials(rng, frequency, level, size, rate)
    return unit(tones * 10 ** (-rng.uniform(-10, 20) / 20) + hiss(rng, size, effects))


def idle(rng: np.random.Generator, size: int, rate: int, effects: Effects = EFFECTS) -> NDArray[np.float64]:
    """Hum or a fan, (size,), of unit power."""
    return fan(rng, size, rate, effects) if rng.random() < effects.fan else hum(rng, size, rate)


def noise_alone(rng: np.random.Generator, size: int, rate: int, effects: Effects = EFFECTS) -> NDArray[np.float64]:
    """What is heard of a stage on which nobody plays, (size,): noise, hum, a fan, or two of them, all the time or in
    stretches, as when somebody switches an amplifier on."""
    stretches = 1 if rng.random() < effects.all_the_time else int(rng.integers(2, 9))
    edges = [0, *np.sort(rng.integers(0, size, stretches - 1)), size]
    sound = np.zeros(size)
    for start, end in pairwise(edges):
        if end == start or (stretches > 1 and rng.random() < effects.off):
            continue
        chance = rng.random()
        if chance < effects.noise_alone:
            part = hiss(rng, end - start, effects)
        else:
            part = idle(rng, end - start, rate, effects)
            if chance >= effects.noise_alone + effects.idle_alone:
                part = unit(part + hiss(rng, end - start, effects) * 10 ** (-rng.uniform(*effects.hiss_below) / 20))
        sound[start:end] = part * 10 ** (-rng.uniform(*effects.alone_below) / 20)
    return sound


def add_noise(audio: Float32, rng: np.random.Generator, rate: int, effects: Effects = EFFECTS) -> Float32:
    """Noise (white to brown), hum or a fan, level and at times clipping. Silence becomes noise of any loudness."""
    peak = float(np.abs(audio).max())
    if peak == 0:
        return noise_alone(rng, audio.size, rate, effects).astype(np.float32)
    sound = audio.astype(np.float64) / peak
    rms = float(np.sqrt(np.mean(sound**2)))
    sound += hiss(rng, audio.size, effects) * (rms * 10 ** (-rng.uniform(*effects.noise_below) / 20))
    if rng.random() < effects.idle:
        sound += idle(rng, audio.size, rate, effects) * (rms * 10 ** (-rng.uniform(*effects.idle_below) / 20))
    sound *= 10 ** (-rng.uniform(*effects.level_below) / 20)
    if rng.random() < effects.clipping:
        most = CLIPPED_AT * np.abs(sound).max()
        sound = np.clip(sound, -most, most)
    return sound.astype(np.float32)


# --- codec ------------------------------------------------------------------------------------------------------------


def encoded(audio: Float32, codec: Codec, level: float) -> bytes:
    """A file of the codec; `audio` is at the codec's rate, `level` 0 (best) .. 1 (smallest)."""
    file = io.BytesIO()
    mode = "CONSTANT" if codec.form == "MP3" else None
    with soundfile.SoundFile(
        file, "w", codec.rate, 1, codec.subtype, format=codec.form, compression_level=level, bitrate_mode=mode
    ) as writer:
        for first in range(0, audio.size, BLOCK):  # minutes at once overflow the stack of libvorbis
            writer.write(audio[first : first + BLOCK])
    return file.getvalue()


def _there_and_back(audio: Float32, codec: Codec, level: float) -> Float32:
    decoded, _ = soundfile.read(io.BytesIO(encoded(audio, codec, level)), dtype="float32")
    return decoded


@lru_cache
def delay(codec: Codec, level: float) -> int:
    """Samples by which what was decoded follows what was encoded; measured once, with a burst of noise.

    It depends on the level: an MP3 says how late it is in a frame that is not written where it would be too small.
    """
    n = 1 << 16
    burst = np.zeros(n, np.float32)
    burst[n // 2 : n // 2 + n // 8] = 0.1 * np.random.default_rng(0).standard_normal(n // 8)
    back = _there_and_back(burst, codec, level)
    size = 1 << (n + back.size).bit_length()
    lags = irfft(np.conj(rfft(burst, size)) * rfft(back, size))
    lag = int(np.argmax(lags))
    return lag if lag < size // 2 else lag - size


def through(audio: Float32, rate: int, codec: Codec, level: float) -> Float32:
    """The audio after encoding and decoding; as long as before, attacks where they were."""
    peak = max(1.0, float(np.abs(audio).max()))  # what passes full scale would be clipped
    sent = soxr.resample(audio / peak, rate, codec.rate)
    back, late = _there_and_back(sent, codec, level), delay(codec, level)
    back = back[late:] if late >= 0 else np.pad(back, (-late, 0))
    back = soxr.resample(back, codec.rate, rate)[: audio.size]
    return (peak * np.pad(back, (0, audio.size - back.size))).astype(np.float32)


def add_codec(audio: Float32, rng: np.random.Generator, rate: int) -> Float32:
    """The audio through one of CODECS."""
    codec = CODECS[int(rng.integers(len(CODECS)))]
    return through(audio, rate, codec, float(rng.choice(codec.levels)))
