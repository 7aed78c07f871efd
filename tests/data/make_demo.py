"""Makes `demo.ogg` and `demo.lab` beside this script: the recording that `make demo` recognises.

    python -m tests.data.make_demo

The progression is our own; steel guitar, bass and light piano are played by fluidsynth with FluidR3_GM.sf2 (Frank Wen,
MIT licence; package fluid-soundfont-gm of Debian). Samples are a function of SEED; only the serial number
that libsndfile writes into the Ogg pages differs from run to run.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pretty_midi
import soundfile

from rtchord.chords import NO_CHORD
from train.labels import Segment, parse
from train.render import Float32, add, block_voicing, guitar_voicing, instrument

HERE = Path(__file__).parent
SOUNDFONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
SEED = 7
RATE = 44_100
BEAT = 60 / 100  # s
BAR = 4 * BEAT
COUNT_IN = 1.2  # s of silence before the first bar
TAIL = 2.4  # s after the last
DAMPING = 0.2  # s in which the last chord is silenced by hand
STEEL_GUITAR, FINGER_BASS, PIANO = 25, 33, 0
NOISE_DB = -45.0  # below the music's rms
PEAK = 0.7

# fmt: off
BARS = (
    "C:maj", "C:maj/3", "F:maj7",  "D:min7",
    "G:sus4", "G:7",    "A:min",   "F:maj",
    "B:hdim7", "E:7",   "A:min",   "D:7",
    "F:maj", "F:min",   "C:maj/5", "G:7",
    "C:maj",
)
# One bar of strumming: position in beats, loudness, upwards?
STRUMS = (
    (0.0, 1.00, False), (1.0, 0.75, False), (1.5, 0.60, True),
    (2.5, 0.65, True),  (3.0, 0.85, False), (3.5, 0.60, True),
)
# fmt: on


def progression() -> list[Segment]:
    """Chords with their exact times, silence at both ends."""
    segments: list[Segment] = [(0.0, COUNT_IN, NO_CHORD)]
    for label in BARS:
        start = segments[-1][1]
        segments.append((start, start + BAR, parse(label)))
    start = segments[-1][1]
    return [*segments, (start, start + TAIL, NO_CHORD)]


def arrange(segments: list[Segment], rng: np.random.Generator) -> pretty_midi.PrettyMIDI:
    """Strummed guitar, bass on one and three, a held piano chord."""
    midi = pretty_midi.PrettyMIDI()
    guitar, bass, piano = (instrument(midi, program) for program in (STEEL_GUITAR, FINGER_BASS, PIANO))
    for start, end, chord in segments:
        if chord == NO_CHORD:
            continue
        shape = guitar_voicing(rng, chord)
        for beat, loudness, upwards in STRUMS:
            now = start + beat * BEAT
            following = [start + other * BEAT for other, _, _ in STRUMS if other > beat]
            off = following[0] if following else end
            notes = shape[:1:-1] if upwards else shape
            for i, pitch in enumerate(notes):
                add(guitar, pitch, now + 0.008 * i, off, 95 * loudness + rng.normal(0, 4))
        low = 28 + (chord.bass - 28) % 12
        add(bass, low, start, start + 1.9 * BEAT, 88)
        add(bass, low, start + 2 * BEAT, end - 0.05, 80)
        for pitch in block_voicing(rng, chord)[1:]:
            add(piano, pitch, start, end - 0.05, 48)
    return midi


def play(midi: pretty_midi.PrettyMIDI, duration: float) -> Float32:
    """(samples, 2) float32 of exactly `duration` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "demo.mid"), Path(folder, "demo.wav")
        midi.write(str(score))
        command = ["fluidsynth", "-ni", "-q", "-r", str(RATE), "-g", "0.4", "-R", "1", "-C", "0"]
        command += ["-o", "synth.reverb.room-size=0.2", "-o", "synth.reverb.level=0.3"]
        subprocess.run([*command, "-O", "float", "-F", str(sound), SOUNDFONT, str(score)], check=True)
        played, _ = soundfile.read(sound, dtype="float32")
    out = np.zeros((round(duration * RATE), 2), np.float32)
    length = min(len(out), len(played))
    out[:length] = played[:length]
    return out


def main() -> None:
    rng = np.random.default_rng(SEED)
    segments = progression()
    audio = play(arrange(segments, rng), segments[-1][1])
    after = np.arange(len(audio)) / RATE - segments[-1][0]
    audio *= np.clip(1 - after / DAMPING, 0, 1, dtype=np.float32)[:, None]
    noise = rng.standard_normal(audio.shape).astype(np.float32)
    audio += noise * np.sqrt(np.mean(audio**2)) * 10 ** (NOISE_DB / 20)
    audio *= PEAK / np.abs(audio).max()
    with soundfile.SoundFile(HERE / "demo.ogg", "w", RATE, 2, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(audio), RATE):  # libsndfile's Vorbis encoder overflows its stack on long blocks
            file.write(audio[start : start + RATE])
    lines = [f"{start:.3f}\t{end:.3f}\t{chord.label}\n" for start, end, chord in segments]
    (HERE / "demo.lab").write_text("".join(lines))


if __name__ == "__main__":
    main()
