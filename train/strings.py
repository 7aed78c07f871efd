"""Plucked strings of our own, so that a student does not only know the guitars of a few soundfonts.

Each note is a Karplus-Strong string (Karplus & Strong 1983; tuning and pick position after Jaffe & Smith 1983): noise
goes round a delay line of one period with a low-pass and a loss in the loop. Strings share an instrument: pick
position, brightness, decay, a few body resonances, at times an overdriven amplifier. Where recordings of a guitar's
single notes are at hand, an instrument may be made of these, with other pick positions, bodies and decays.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pretty_midi
import soxr
from numba import njit
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

from rtchord.errors import UserError
from train.audio import read, under

Float32 = NDArray[np.float32]
Recorded = dict[int, Float32]  # MIDI pitch -> its sound from the attack on, peak 1

RECORDED = 0.6  # share of the instruments, where recorded notes are given
LENT = 4  # semitones at most that a recorded instrument's notes are taken from beside, so that it has another body
RINGS = 4.0  # a recorded note falls by itself: what is added takes so many times as long as a string of ours
OUT_OF_TUNE = 40.0  # cents; a recording further from its name is of another note
BODIES, BODY_SECONDS = 0.7, (0.004, 0.03)  # share of the instruments; s in which its noise falls by 8.7 dB
DAMPED_SECONDS = 0.04  # a string that is let go falls by 60 dB in this time


@njit(cache=True)
def _string(out: Float32, burst: Float32, period: float, loss: float, bright: float, held: int, damp: float) -> None:
    """Add a string to `out`: `burst` is its first period, `bright` 0.5 (dark) .. 1 the loop's low-pass."""
    # The low-pass h = [b, 1 - b] delays by 1 - b samples; the rest of the period is a whole delay and an interpolation.
    rest = period - (1.0 - bright)
    whole = int(rest)
    share = rest - whole
    line = np.zeros(whole + 3, np.float32)
    before = np.float32(0.0)
    for n in range(out.size):
        i, j = n % line.size, (n - whole) % line.size
        delayed = (1.0 - share) * line[j] + share * line[(j - 1) % line.size]
        loop = loss * (bright * delayed + (1.0 - bright) * before)
        before = delayed
        if n > held:
            loop *= damp
        line[i] = loop + (burst[n] if n < burst.size else 0.0)
        out[n] += line[i]


def cents_off(sound: Float32, pitch: int, rate: int) -> float:
    """Cents, within +-120, by which the first four partials of `sound` (n,) lie above those of MIDI `pitch`."""
    part = sound[: round(1.5 * rate)]
    spectrum = np.sqrt(np.abs(np.fft.rfft(part * np.hanning(part.size), 1 << 17)))
    bins = pretty_midi.note_number_to_hz(pitch) * (1 << 17) / rate
    candidates = np.arange(-120.0, 121.0, 4.0)
    partials = np.arange(1, 5)[:, None] * bins * 2 ** (candidates / 1200)
    return float(candidates[np.interp(partials, np.arange(spectrum.size), spectrum).sum(axis=0).argmax()])


def recorded(folder: Path, rate: int) -> Recorded:
    """The notes of an instrument: files of `folder` named by their pitch (A2.wav, Cs3.mp3, F#4.flac), one note in each.

    A file that sounds another pitch is left out, and said so. UserError where no file is named so.
    """
    notes: Recorded = {}
    for path in under(folder):
        if not re.fullmatch("[A-G][s#b]?[0-8]", path.stem):
            continue
        pitch = pretty_midi.note_name_to_number(path.stem.replace("s", "#"))
        audio, source = read(path)
        audio = soxr.resample(audio, source, rate).astype(np.float32)
        peak = np.abs(audio).max()
        attack = int(np.argmax(np.abs(audio) > 0.05 * peak))
        if peak == 0 or abs(cents_off(audio[attack:], pitch, rate)) > OUT_OF_TUNE:
            print(f"{path.name!r} of {str(folder)!r} is left out: it does not sound {path.stem}", file=sys.stderr)
            continue
        notes[pitch] = audio[max(0, attack - rate // 500) :] / peak
    if not notes:
        raise UserError(f"no recorded notes in {str(folder)!r}; name the files by their pitch, such as A2.wav")
    return notes


def _recorded_note(sound: Float32, ratio: float, size: int) -> Float32:
    """The first `size` samples at most of `sound`, played `ratio` times as fast; linear interpolation."""
    places = np.arange(min(size, int((sound.size - 1) / ratio))) * ratio
    whole = places.astype(np.int64)
    share = (places - whole).astype(np.float32)
    return (1 - share) * sound[whole] + share * sound[whole + 1]


def play(
    notes: list[tuple[int, float, float, float]], duration: float, rng: np.random.Generator, rate: int,
    cents: float = 0.0, guitars: Sequence[Recorded] = (),
) -> Float32:  # fmt: skip
    """Mono float32 audio of `notes` (MIDI pitch, start s, end s, velocity 0..1) on one random instrument.

    `cents`: tuning of the whole instrument. `guitars`: recorded ones, of which RECORDED of the instruments are made.
    """
    guitar = guitars[int(rng.integers(len(guitars)))] if guitars and rng.random() < RECORDED else None
    lent, depth = (int(rng.integers(-LENT, LENT + 1)), rng.uniform(0.0, 0.9)) if guitar else (0, 1.0)
    audio = np.zeros(int((duration + 1.0) * rate), np.float32)
    pick, bright = rng.uniform(0.06, 0.45), rng.uniform(0.55, 0.97)
    ring, detune = rng.uniform(1.0, 8.0), rng.uniform(0.0, 6.0)  # s to fall by 60 dB at 110 Hz; cents of mistuning
    tuning = {pitch: cents + rng.normal(0, detune / 2) for pitch in range(128)}
    hardness = rng.uniform(0.15, 0.9)
    damp = 10 ** (-3 / rate / DAMPED_SECONDS)  # a sample
    for pitch, start, end, velocity in notes:
        period = rate / (440.0 * 2 ** ((pitch - 69 + tuning[pitch] / 100) / 12))
        first, held = round(start * rate), round((end - start) * rate)
        size = min(audio.size - first, held + round(2 * DAMPED_SECONDS * rate))
        if size <= 0 or period < 8:
            continue
        fall = ring * (110.0 * period / rate) ** 0.5
        if guitar is not None:
            source = min(guitar, key=lambda other: abs(other - pitch - lent))
            note = _recorded_note(guitar[source], 2 ** ((pitch + tuning[pitch] / 100 - source) / 12), size)
            note = lfilter([velocity], [1.0, (hardness - 1.0) * (1.0 - velocity)], note).astype(np.float32)
            late = max(1, round(pick * period))
            note[late:] -= depth * note[:-late]
            n = np.arange(note.size)
            note *= 10 ** (-3 * n / rate / (RINGS * fall)) * damp ** np.maximum(n - held, 0)
            audio[first : first + note.size] += note
            continue
        burst = rng.standard_normal(int(period) + 1).astype(np.float32)
        # A hard pick excites more high partials; a soft pluck is a smoother burst.
        burst = lfilter([1.0], [1.0, hardness - 1.0], burst).astype(np.float32)
        burst -= burst.mean()
        burst -= np.roll(burst, max(1, round(pick * period)))
        burst *= velocity / (np.abs(burst).max() + 1e-9)
        loss = 10 ** (-3 * period / rate / fall)
        _string(audio[first : first + size], burst, period, loss, bright, held, damp**period)
    for _ in range(int(rng.integers(1, 4))):  # the body
        centre, width = rng.uniform(80, 400), rng.uniform(0.97, 0.995)
        angle = 2 * np.pi * centre / rate
        gain = rng.uniform(0.5, 2.5) * 2 * (1 - width) * np.sin(angle)  # about that much at the centre
        audio += lfilter([gain], [1.0, -2 * width * np.cos(angle), width**2], audio).astype(np.float32)
    if rng.random() < BODIES:
        # Beside those few, many narrow ones: what a short decaying noise adds differs from partial to partial.
        n = np.arange(round(5 * BODY_SECONDS[1] * rate))
        body = rng.standard_normal(n.size) * np.exp(-n / rate / rng.uniform(*BODY_SECONDS))
        body *= rng.uniform(0.3, 1.2) / np.linalg.norm(body)
        audio += fftconvolve(audio, body)[: audio.size].astype(np.float32)
    if rng.random() < 0.25:  # an overdriven amplifier
        drive = rng.uniform(1.0, 6.0) / (np.abs(audio).max() + 1e-9)
        audio = np.tanh(drive * audio)
    return audio[: int(duration * rate)].astype(np.float32)
