"""Symbolic music to labelled training tracks: arrange, play with fluidsynth, disturb (`train.effects`), write shards.

The sources:
* `pop`: POP909 songs (melody, bridge, piano) with their true chords, re-orchestrated and transposed;
* `billboard`, `sheets`: charts of real songs (`train.charts`), arranged for a band;
* `charts`: progressions of our own sampler, strummed or struck, over all qualities, roots and inversions;
* `rests`: what has no chord: noise of every colour and loudness, drums alone, talk.
Each track is a function of (key, seed): the same seed gives the same track.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pretty_midi
import soundfile

from rtchord.chords import NO_CHORD, QUALITIES, Chord, N, class_index, pitch_classes, transpose
from rtchord.cqt import STAGE
from rtchord.errors import UserError
from rtchord.outputs.text import replace_text
from train import store, strings
from train.audio import write
from train.charts import Chart, find, read_billboard, read_lead_sheets
from train.effects import EFFECTS, Effects, add_codec, add_noise, add_room, add_speech, draw_cents
from train.files import check_place
from train.fill import Made, fill
from train.label import Recipe, listeners, ordered, targets
from train.labels import Segment, lab_lines, read_labels

if TYPE_CHECKING:
    from train.teachers import Embedder, Teacher

Float32 = np.typing.NDArray[np.float32]

RATE = 22_050  # Hz; that of every feature definition
CHART_SECONDS = 150.0
SHEET_SECONDS = 70.0  # that a tune lasts on average (63 files)

SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    Path("/usr/share/sounds/sf3/FluidR3Mono_GM.sf3"),
    Path("/usr/share/sounds/sf2/sf_GMbank.sf2"),
)
# General MIDI programs, from 0
PIANOS = (0, 1, 2, 3, 4, 5, 6, 7, 11)
GUITARS = (24, 25, 26, 27, 27, 25, 24, 28, 29, 30)
PADS = (16, 17, 18, 19, 21, 48, 49, 50, 51, 52, 61, 80, 81, 88, 89, 90, 91)
LEADS = (0, 22, 24, 26, 40, 41, 52, 53, 54, 56, 57, 64, 65, 66, 68, 71, 73, 75, 80, 81, 85)
BASSES = (32, 33, 34, 35, 36, 37, 38, 39)
KITS = (0, 0, 0, 8, 16, 24, 25, 32, 40)  # programs of the drum channel
TOMS_AND_MORE = (41, 43, 45, 47, 48, 50, 49, 57, 39, 54, 56, 60, 61, 62, 63, 64, 69, 75, 76)  # keys of a drum kit
OPEN_STRINGS = (40, 45, 50, 55, 59, 64)  # standard guitar tuning, MIDI notes

# Shapes that most guitarists play: frets from the lowest string to the highest, x not struck, the root the lowest note.
# A barre moves each of them up the neck.
SHAPES = {
    "maj": ("022100", "x02220", "xx0232", "x32010", "320003"),
    "min": ("022000", "x02210", "xx0231"),
    "dim": ("x0121x", "xx0131"),
    "aug": ("032110", "x03221", "xx0332"),
    "min6": ("022020", "x02212", "xx0201"),
    "maj6": ("022120", "x02222", "xx0202"),
    "min7": ("020000", "x02010", "xx0211"),
    "minmaj7": ("021000", "x02110", "xx0221"),
    "maj7": ("021100", "x02120", "xx0222", "x32000", "320002"),
    "7": ("020100", "x02020", "xx0212", "320001", "x21202"),
    "dim7": ("x01212", "xx0101"),
    "hdim7": ("x0101x", "xx0111"),
    "sus2": ("x02200", "xx0230"),
    "sus4": ("022200", "x02230", "xx0233", "x33011"),
}
SHAPED, HIGHEST_BARRE = 0.6, 9  # share of the chords that are played so; fret
TONES = {frozenset(quality.tones) for quality in QUALITIES}
SUSTAIN = 64  # controller of the pedal
ONE_HAND = 0.2  # of the block voicings
CAPO, HIGHEST_CAPO = 0.4, 8  # share of the sampled charts that are moved up, by as many semitones at most
INVERTED = 0.2  # of the sampler's chords, where it is not even
EVEN_CHARTS = 0.5  # of the sampled charts
PLUCKED = 0.5  # of the charts for guitar
SLOWEST_STROKE, LONGEST_PART = 0.3, 0.4  # s over all strings of a guitar; part of what is left until the next stroke
# How often the other charts draw each quality: common chords often enough to be learnt as a performer plays them,
# rare ones far more often than in any corpus.
QUALITY_WEIGHTS = {
    "maj": 0.26, "min": 0.22, "7": 0.09, "min7": 0.08, "maj7": 0.07, "sus4": 0.05, "sus2": 0.05, "dim": 0.03,
    "aug": 0.025, "maj6": 0.03, "min6": 0.025, "hdim7": 0.025, "dim7": 0.02, "minmaj7": 0.02,
}  # fmt: skip


@dataclass
class Piece:
    """A piece ready to be played: notes and the chords that are true of them."""

    midi: pretty_midi.PrettyMIDI
    segments: list[Segment]
    duration: float  # s
    plucked: bool = False  # by our own strings, not a soundfont


def add(track: pretty_midi.Instrument, pitch: int, start: float, end: float, velocity: float) -> None:
    """Append a note; pitches and velocities are brought into MIDI's range."""
    if end > start:
        level = int(np.clip(velocity, 1, 127))
        track.notes.append(pretty_midi.Note(level, int(np.clip(pitch, 0, 127)), start, end))


def instrument(midi: pretty_midi.PrettyMIDI, program: int, drum: bool = False) -> pretty_midi.Instrument:
    track = pretty_midi.Instrument(program=int(program), is_drum=drum)
    midi.instruments.append(track)
    return track


# --- voicings -------------------------------------------------------------------------------------------------------


def guitar_voicing(rng: np.random.Generator, chord: Chord) -> list[int]:
    """Notes of a playable-looking shape, lowest first: chord tones within four frets, the bass on the lowest string."""
    tones = set(pitch_classes(chord.index))
    for _ in range(20):
        position = int(rng.choice([0, 0, 0, 1, 2, 3, 4, 5, 7, 9]))
        lowest = int(rng.integers(0, 3))
        frets = [f for f in range(position, position + 5) if (OPEN_STRINGS[lowest] + f) % 12 == chord.bass]
        if not frets:
            continue
        notes = [OPEN_STRINGS[lowest] + frets[0]]
        for string in OPEN_STRINGS[lowest + 1 :]:
            candidates = [string + f for f in range(position, position + 5) if (string + f) % 12 in tones]
            if candidates:
                missing = [p for p in candidates if p % 12 not in {n % 12 for n in notes}]
                notes.append(int(rng.choice(missing or candidates)))
        if {n % 12 for n in notes} >= tones:
            return sorted(notes)
    return block_voicing(rng, chord)


def fretted(frets: str) -> list[int]:
    """Notes of one of SHAPES as it is written, lowest string first."""
    return [string + int(fret) for string, fret in zip(OPEN_STRINGS, frets, strict=True) if fret != "x"]


def shape(rng: np.random.Generator, chord: Chord) -> list[int]:
    """Notes of one of SHAPES, lowest first, the likelier the lower on the neck.

    Under an inversion the lowest note gives way to the bass, as in D:maj/3 (2x0232); where a tone would be missing or
    no string is left for the bass, a voicing of any kind.
    """
    found = []
    for frets in SHAPES[chord.quality]:
        unbarred = fretted(frets)
        barre = (chord.root - unbarred[0]) % 12
        notes = [note + barre for note in unbarred]
        if chord.bass != chord.root:
            highest = notes[1] - 1
            notes[0] = highest - (highest - chord.bass) % 12
        if (
            barre <= HIGHEST_BARRE
            and notes[0] >= OPEN_STRINGS[0]
            and {n % 12 for n in notes} >= set(pitch_classes(chord.index))
        ):
            found.append((1 / (1 + barre), notes))
    if not found:
        return guitar_voicing(rng, chord)
    weights = np.array([weight for weight, _ in found])
    return found[int(rng.choice(len(found), p=weights / weights.sum()))][1]


def fingered(rng: np.random.Generator, chord: Chord) -> list[int]:
    """Notes of a chord on a guitar, lowest first: a shape that most players know, or one of any kind."""
    return shape(rng, chord) if rng.random() < SHAPED else guitar_voicing(rng, chord)


def block_voicing(rng: np.random.Generator, chord: Chord) -> list[int]:
    """Bass below, the chord tones in close or open position above it; at times all in one hand."""
    if rng.random() < ONE_HAND:
        bass = 43 + (chord.bass - 43) % 12 + 12 * int(rng.integers(3))
        return sorted(bass + (pc - bass) % 12 for pc in {chord.bass, *pitch_classes(chord.index)})
    bass = 36 + (chord.bass - 36) % 12 + 12 * int(rng.random() < 0.4)
    low = max(int(rng.integers(52, 66)), bass + 1)
    upper = sorted(low + (pc - low) % 12 for pc in pitch_classes(chord.index))
    if rng.random() < 0.3:
        upper[int(rng.integers(len(upper)))] += 12
    doubled = [upper[0] + 12] if rng.random() < 0.3 else []
    return sorted({bass, *upper, *doubled})


class Hand(NamedTuple):
    """How evenly and how fast a player strikes a chord; `EVEN` is a careful one at a keyboard."""

    spread: float = 8.0  # standard deviation of the velocities
    missed: float = 0.0  # share of the notes missed, of those that sound in another octave as well
    brushed: float = 0.0  # share of the other open strings of a guitar that are touched
    stroke: float = 0.008  # s from the first note to the last, at most


EVEN = Hand()


def guitarist(rng: np.random.Generator, capo: int = 0) -> Hand:
    """A hand on strings: where one string hardly sounds, what is left of E:maj is close to E:min.

    So it is in the midst of a slow stroke: its last strings sound 0.2 s after the first, and until then it may be heard
    as a chord of its own.
    """
    brushed = rng.uniform(0, 0.3) if not capo and rng.random() < 0.3 else 0.0
    return Hand(rng.uniform(4, 28), rng.uniform(0, 0.3), brushed, SLOWEST_STROKE * rng.random() ** 1.5)


def play_chord(
    rng: np.random.Generator, track: pretty_midi.Instrument, notes: list[int], start: float, end: float,
    hand: Hand = EVEN,
) -> None:  # fmt: skip
    """One attack: notes one after the other, up or down, as fast and as even as the hand is."""
    strum = min(hand.stroke * rng.uniform(0.3, 1.0), LONGEST_PART * (end - start))
    level = rng.uniform(60, 118)
    played = list(notes)
    for pitch in notes[1:]:  # not the bass
        if sum((pitch - other) % 12 == 0 for other in played) > 1 and rng.random() < hand.missed:
            played.remove(pitch)
    strokes = [(pitch, level + rng.normal(0, hand.spread)) for pitch in played]
    strokes += [
        (pitch, level * rng.uniform(0.15, 0.5))
        for pitch in OPEN_STRINGS
        if hand.brushed and pitch not in notes and rng.random() < hand.brushed
    ]
    strokes.sort(reverse=rng.random() < 0.25)
    for i, (pitch, velocity) in enumerate(strokes):
        onset = start + strum * i / max(1, len(strokes) - 1)
        add(track, pitch, onset, max(end, onset + 0.05), velocity)


# --- drums and bass --------------------------------------------------------------------------------------------------


def add_drums(rng: np.random.Generator, midi: pretty_midi.PrettyMIDI, beats: np.ndarray) -> None:
    """Kick, snare and hat on a beat grid (s)."""
    track = instrument(midi, rng.choice(KITS), drum=True)
    level, hat = rng.uniform(50, 110), int(rng.choice([42, 46, 51]))
    fills = rng.choice([0.0, 0.05, 0.3])
    for i, (a, b) in enumerate(pairwise(beats)):
        if rng.random() < fills:
            for onset in np.linspace(a, b, int(rng.choice([2, 3, 4])), endpoint=False):
                add(track, int(rng.choice(TOMS_AND_MORE)), onset, onset + 0.2, level)
            continue
        add(track, 36 if i % 2 == 0 else int(rng.choice([38, 40])), a, a + 0.1, level)
        for k in range(2):
            add(track, hat, a + k * (b - a) / 2, a + k * (b - a) / 2 + 0.05, level * 0.7)
        if rng.random() < 0.1:
            add(track, 36, a + 0.75 * (b - a), b, level * 0.8)


def add_bass(
    rng: np.random.Generator, midi: pretty_midi.PrettyMIDI, segments: list[Segment], beats: np.ndarray
) -> None:
    """The chord's bass on its onset and on some of the beats under it, at times its fifth."""
    track = instrument(midi, rng.choice(BASSES))
    level, busy = rng.uniform(60, 115), rng.random()
    for start, end, chord in segments:
        if chord.index >= N - 1:
            continue
        inside = beats[(beats > start + 0.1) & (beats < end - 0.1)]
        onsets = [start, *inside[rng.random(inside.size) < busy], end]
        pitch = 28 + (chord.bass - 28) % 12
        for i, (a, b) in enumerate(pairwise(onsets)):
            fifth = i > 0 and rng.random() < 0.15
            add(track, pitch + 7 * fifth, a, a + (b - a) * rng.uniform(0.6, 1.0), level + rng.normal(0, 6))


# --- the sources ------------------------------------------------------------------------------------------------------


def pop_piece(song: Path, rng: np.random.Generator) -> Piece:
    """A POP909 song (`ID.mid` with `ID.lab` and `ID.beats` beside it), re-orchestrated, moved by -5..+6 semitones."""
    source = pretty_midi.PrettyMIDI(str(song))
    shift = int(rng.integers(-5, 7))
    segments = [(a, b, moved(chord, shift)) for a, b, chord in read_labels(song.with_suffix(".lab")).segments]
    beats = np.loadtxt(song.with_suffix(".beats"), usecols=0, ndmin=1)
    midi = pretty_midi.PrettyMIDI()
    programs = {"MELODY": LEADS, "BRIDGE": PIANOS + GUITARS + PADS, "PIANO": PIANOS + GUITARS + PADS}
    quiet = {"MELODY": rng.random() < 0.2, "BRIDGE": rng.random() < 0.3, "PIANO": False}
    for part in source.instruments:
        if quiet.get(part.name, False):
            continue
        # Half of the accompaniments keep the piano they were written for.
        pool = PIANOS if part.name != "MELODY" and rng.random() < 0.5 else programs.get(part.name, PIANOS)
        track = instrument(midi, rng.choice(pool))
        scale = rng.uniform(0.6, 1.1)
        for note in part.notes:
            add(track, note.pitch + shift, note.start, note.end, note.velocity * scale)
        # The pedal as it was played: most of these songs hold chords by it, and some never let it go.
        track.control_changes = [change for change in part.control_changes if change.number == SUSTAIN]
    if rng.random() < 0.5:
        add_bass(rng, midi, segments, beats)
    if rng.random() < 0.5:
        add_drums(rng, midi, beats)
    if rng.random() < 0.35:
        add_comping(rng, midi, segments, beats)
    return Piece(midi, segments, max(source.get_end_time(), segments[-1][1]) + 1.0)


def add_comping(
    rng: np.random.Generator, midi: pretty_midi.PrettyMIDI, segments: list[Segment], beats: np.ndarray
) -> None:
    """A second accompaniment from the chord symbols: strummed guitar or held pad."""
    guitar = rng.random() < 0.6
    track = instrument(midi, rng.choice(GUITARS if guitar else PADS))
    busy = rng.random() * guitar
    hand = guitarist(rng) if guitar else EVEN
    for start, end, chord in segments:
        if chord.index >= N - 1:
            continue
        notes = fingered(rng, chord) if guitar else block_voicing(rng, chord)
        inside = beats[(beats > start + 0.1) & (beats < end - 0.1)]
        onsets = [start, *inside[rng.random(inside.size) < busy], end]
        for a, b in pairwise(onsets):
            play_chord(rng, track, notes, a, b, hand)


def inversions(index: int) -> list[int]:
    """Basses of a class, root first, without those that make the root position of another class of it.

    C:maj6/6 is A:min7, C:aug/3 is E:aug: there is nothing to hear by which they could be told apart.
    """
    tones = pitch_classes(index)
    return [tones[0], *(bass for bass in tones[1:] if frozenset((t - bass) % 12 for t in tones) not in TONES)]


def random_chord(rng: np.random.Generator, even: bool = False) -> Chord:
    """A chord, even over roots; if `even` also over qualities and inversions, else by QUALITY_WEIGHTS and INVERTED."""
    names = list(QUALITY_WEIGHTS)
    weights = np.ones(len(names)) if even else np.array(list(QUALITY_WEIGHTS.values()))
    index = class_index(int(rng.integers(12)), str(rng.choice(names, p=weights / weights.sum())))
    basses = inversions(index)
    if even:
        return Chord(index, int(rng.choice(basses)))
    return Chord(index, int(rng.choice(basses[1:])) if len(basses) > 1 and rng.random() < INVERTED else basses[0])


def band_piece(chart: Chart, rng: np.random.Generator) -> Piece:
    """A chart arranged for a band, moved by -5..+6 semitones: comping, most often bass and drums, a melody."""
    shift = int(rng.integers(-5, 7))
    segments = [(a, b, moved(chord, shift)) for a, b, chord in chart.segments]
    midi = pretty_midi.PrettyMIDI()
    for _ in range(1 if rng.random() < 0.6 else 2):
        add_comping(rng, midi, segments, chart.beats)
    if rng.random() < 0.7:
        add_bass(rng, midi, segments, chart.beats)
    if rng.random() < 0.6:
        add_drums(rng, midi, chart.beats)
    if rng.random() < 0.7:
        track = instrument(midi, rng.choice(LEADS))
        level = rng.uniform(60, 110)
        for pitch, start, end in chart.melody or improvised(rng, chart.segments, chart.beats):
            add(track, pitch + shift, start, end, level + rng.normal(0, 8))
    return Piece(midi, segments, segments[-1][1] + 1.0)


def improvised(rng: np.random.Generator, segments: list[Segment], beats: np.ndarray) -> list[tuple[int, float, float]]:
    """A melody over chords: mostly their own tones, else a step beside the last note, with rests."""
    notes: list[tuple[int, float, float]] = []
    pitch, rest, busy = int(rng.integers(60, 80)), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.8)
    starts = np.array([start for start, _, _ in segments])
    for a, b in pairwise(beats):
        for onset, end in ((a, (a + b) / 2), ((a + b) / 2, b)) if rng.random() < busy else ((a, b),):
            tones = pitch_classes(segments[max(0, int(np.searchsorted(starts, onset + 1e-6)) - 1)][2].index)
            if not tones or rng.random() < rest:
                continue
            near = [p for p in range(pitch - 7, pitch + 8) if p % 12 in tones and 55 <= p <= 86]
            pitch = int(rng.choice(near)) if near and rng.random() < 0.75 else pitch + int(rng.choice([-2, -1, 1, 2]))
            notes.append((pitch, onset, end))
    return notes


def moved(chord: Chord, semitones: int) -> Chord:
    """A chord and its bass moved; N and X stay."""
    if chord.index >= N - 1:
        return chord
    return Chord(transpose(chord.index, semitones), (chord.bass + semitones) % 12)


def rest_piece(rng: np.random.Generator, duration: float = CHART_SECONDS) -> Piece:
    """Nothing that has a chord: noise alone, or drums alone."""
    midi = pretty_midi.PrettyMIDI()
    if rng.random() < 0.4:
        add_drums(rng, midi, np.arange(0.0, duration, rng.uniform(0.3, 0.8)))
    return Piece(midi, [(0.0, duration, NO_CHORD)], duration)


def progression(rng: np.random.Generator, duration: float, even: bool) -> list[Segment]:
    """Sampled chords one after the other, with short pauses here and there, for at least `duration` s."""
    shortest, longest = sorted(rng.uniform(0.4, 3.0, 2))
    small = rng.random() < 0.4  # a song's handful of chords, or anything
    pool = [random_chord(rng, even) for _ in range(int(rng.integers(3, 7)))] if small else []
    segments: list[Segment] = [(0.0, float(rng.uniform(0.2, 1.5)), NO_CHORD)]
    while segments[-1][1] < duration:
        _, start, previous = segments[-1]
        if previous != NO_CHORD and rng.random() < 0.03:
            chord = NO_CHORD
        else:
            chord = pool[int(rng.integers(len(pool)))] if small else random_chord(rng, even)
            if chord == previous:
                continue
        segments.append((start, start + float(rng.uniform(shortest, longest)), chord))
    return segments


def chart_piece(rng: np.random.Generator, duration: float = CHART_SECONDS) -> Piece:
    """A progression of sampled chords, played in one style: struck once, strummed in rhythm, or arpeggiated."""
    midi = pretty_midi.PrettyMIDI()
    guitar = rng.random() < 0.65
    track = instrument(midi, rng.choice(GUITARS if guitar else PIANOS + PADS))
    style = rng.choice(["once", "once", "rhythm", "rhythm", "arpeggio"])
    ringing = rng.choice([0.0, 0.25, 1.5], p=[0.65, 0.25, 0.1])  # s at most that the old chord sounds into the new one
    capo = int(rng.integers(1, HIGHEST_CAPO + 1)) if rng.random() < CAPO else 0
    hand = guitarist(rng, capo) if guitar else EVEN
    shapes = progression(rng, duration, even=rng.random() < EVEN_CHARTS)
    for (start, end, chord), (_, latest, follows) in pairwise([*shapes, (0.0, 0.0, NO_CHORD)]):
        if chord != NO_CHORD:
            voicing = fingered(rng, chord) if guitar else block_voicing(rng, chord)
            off = end if follows == NO_CHORD else min(end + rng.uniform(0.0, ringing), latest)
            play_segment(rng, track, [note + capo for note in voicing], start, end, off, str(style), hand)
    end_where_struck_again(track)
    segments = [(start, end, moved(chord, capo)) for start, end, chord in shapes]
    beats = np.arange(0.0, duration, rng.uniform(0.35, 0.8))
    if rng.random() < 0.2:
        add_bass(rng, midi, segments, beats)
    if rng.random() < 0.2:
        add_drums(rng, midi, beats)
    return Piece(midi, segments, segments[-1][1] + 0.5, plucked=guitar and rng.random() < PLUCKED)


def end_where_struck_again(track: pretty_midi.Instrument) -> None:
    """End each note at the latest where its key is struck again: its end would silence the new one as well."""
    last: dict[int, pretty_midi.Note] = {}
    for note in sorted(track.notes, key=lambda note: note.start):
        before = last.get(note.pitch)
        if before is not None and before.start < note.start < before.end:
            before.end = note.start
        last[note.pitch] = note


def play_segment(
    rng: np.random.Generator, track: pretty_midi.Instrument, notes: list[int], start: float, end: float, off: float,
    style: str, hand: Hand,
) -> None:  # fmt: skip
    """One chord of a chart in its style: attacks before `end`, what sounds then held until `off`."""
    if style == "once":
        play_chord(rng, track, notes, start, off, hand)
    elif style == "rhythm":
        step, now = rng.uniform(0.2, 0.6), start
        while now < end - 0.08:
            last = now + step >= end - 0.08
            play_chord(rng, track, notes, now, off if last else now + step, hand)
            now += step
    else:
        step, now, i = rng.uniform(0.08, 0.25), start, 0
        while now < end - 0.05:
            add(track, notes[i % len(notes)], now, off, rng.uniform(60, 110))
            now, i = now + step, i + 1


# --- sound ----------------------------------------------------------------------------------------------------------


def installed(soundfonts: Sequence[Path]) -> list[Path]:
    """Those of `soundfonts` that are there; UserError where there is none, or no fluidsynth."""
    fonts = [font for font in soundfonts if font.exists()]
    if not shutil.which("fluidsynth") or not fonts:
        raise UserError(
            "rendering needs fluidsynth and a General MIDI soundfont: "
            "apt-get install fluidsynth fluid-soundfont-gm timgm6mb-soundfont fluidr3mono-gm-soundfont csound-soundfont"
        )
    return fonts


def soundfont(path: Path, remedy: str) -> Path:
    """`path`, where a soundfont lies; UserError, with the `remedy`, elsewhere. fluidsynth would render silence."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise UserError(f"no soundfont {str(path)!r} ({error.strerror}): {remedy}") from None
    if (head[:4], head[8:]) != (b"RIFF", b"sfbk"):
        raise UserError(f"{str(path)!r} is no soundfont: {remedy}")
    return path


def play(piece: Piece, rng: np.random.Generator, rate: int, soundfonts: Sequence[Path] = SOUNDFONTS) -> Float32:
    """Mono float32 audio of a piece: fluidsynth with one of `soundfonts`, room and level at random."""
    fonts = installed(soundfonts)
    font = fonts[int(rng.integers(len(fonts)))]
    reverb = rng.random() < 0.7
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "piece.mid"), Path(folder, "piece.wav")
        piece.midi.write(str(midi))
        subprocess.run(
            [
                "fluidsynth", "-ni", "-q", "-r", str(rate), "-g", "0.4", "-R", str(int(reverb)), "-C", "0",
                "-o", f"synth.reverb.room-size={rng.uniform(0.1, 0.9):.2f}",
                "-o", f"synth.reverb.level={rng.uniform(0.1, 0.9):.2f}",
                "-O", "float", "-F", str(wav), str(font), str(midi),
            ],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stereo, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    audio = np.zeros(int(piece.duration * rate), np.float32)
    n = min(audio.size, len(stereo))
    audio[:n] = stereo[:n].mean(axis=1)
    return audio


def tune(piece: Piece, cents: float) -> None:
    """Tune a piece by +-200 cents: MIDI's pitch wheel, whose reach is two semitones either way; drums stay."""
    for track in piece.midi.instruments:
        if not track.is_drum:
            track.pitch_bends = [pretty_midi.PitchBend(round(cents / 200 * 8192), 0.0)]


def pluck(
    piece: Piece, rng: np.random.Generator, rate: int, cents: float, guitars: Sequence[strings.Recorded] = ()
) -> Float32:
    """Mono float32 audio of a piece on strings of our own or one of `guitars`, without its drums."""
    parts = [track for track in piece.midi.instruments if not track.is_drum]
    notes = [(n.pitch, n.start, n.end, n.velocity / 127) for track in parts for n in track.notes]
    return strings.play(notes, piece.duration, rng, rate, cents, guitars)


def sound(
    piece: Piece, rng: np.random.Generator, effects: Effects = EFFECTS, rate: int = RATE,
    guitars: Sequence[strings.Recorded] = (),
) -> Float32:  # fmt: skip
    """Mono float32 audio of a piece as a recognizer may hear it: tuned, with talk, room, noise, level and codec."""
    cents = draw_cents(rng, effects)
    if piece.plucked:
        audio = pluck(piece, rng, rate, cents, guitars)
    else:
        tune(piece, cents)
        audio = play(piece, rng, rate)
    if rng.random() < (effects.talk if piece.midi.instruments else effects.talk_alone):
        audio = add_speech(audio, rng, rate, effects)
    if rng.random() < effects.room:
        audio = add_room(audio, rng, rate, effects)
    audio = add_noise(audio, rng, rate, effects)
    return add_codec(audio, rng, rate) if rng.random() < effects.codec else audio


def song_order(pop909: Path, exclude: set[str]) -> list[Path]:
    """Songs of a POP909 folder without those excluded, in the fixed shuffled order in which they are rendered."""
    found = [p for p in pop909.glob("*.mid") if p.stem not in exclude]
    if not found:
        raise UserError(f"no POP909 songs (*.mid) in {str(pop909)!r}")
    return sorted(found, key=lambda p: hashlib.sha256(p.stem.encode()).digest())


def held_out(folder: Path | None) -> set[str]:
    """Song ids that must not be trained on: the stems of a development set's .lab files."""
    if folder is None:
        return set()
    found = {path.stem for path in folder.rglob("*.lab")}
    if not found:
        raise UserError(f"no .lab under {str(folder)!r}; --exclude takes the folder of a development set")
    return found


def sheet_piece(source: Path, rng: np.random.Generator) -> Piece:
    """One of the tunes of a file of lead sheets."""
    sheets = read_lead_sheets(source, rng)
    if not sheets:
        raise UserError(f"{str(source)!r} has no chord symbols")
    return band_piece(sheets[int(rng.integers(len(sheets)))], rng)


class Source(NamedTuple):
    """How a kind of job becomes a piece, and about how many s that will last. Both take the job's file, if it has one.

    Only the second is asked for `--hours`, so it must be quick.
    """

    piece: Callable[[Any, np.random.Generator], Piece]
    seconds: Callable[[Any], float]


SOURCES = {
    "pop": Source(pop_piece, lambda song: read_labels(song.with_suffix(".lab")).segments[-1][1]),
    "billboard": Source(
        lambda path, rng: band_piece(read_billboard(path), rng), lambda path: read_billboard(path).segments[-1][1]
    ),
    "sheets": Source(sheet_piece, lambda _: SHEET_SECONDS),
    "charts": Source(lambda _, rng: chart_piece(rng), lambda _: CHART_SECONDS),
    "rests": Source(lambda _, rng: rest_piece(rng), lambda _: CHART_SECONDS),
}


@dataclass(frozen=True)
class Job:
    """A piece to be rendered; what becomes of it is a function of its key, which names the seed, and its file."""

    key: str
    kind: str
    source: Path | None = None

    @property
    def seconds(self) -> float:
        """About how long it will be; 0 where that cannot be read."""
        try:
            return SOURCES[self.kind].seconds(self.source)
        except UserError:
            return 0.0

    def play(self, guitars: Sequence[strings.Recorded] = ()) -> tuple[Float32, list[Segment]]:
        """Its audio at RATE, and its chords."""
        rng = np.random.default_rng([*hashlib.sha256(self.key.encode()).digest()])
        piece = SOURCES[self.kind].piece(self.source, rng)
        return sound(piece, rng, guitars=guitars), piece.segments


def jobs_of(
    pop909: Path | None, songs: int, billboard: Path | None, sheets: Path | None, charts: int, rests: int,
    exclude: Path | None, seed: int,
) -> list[Job]:  # fmt: skip
    """`songs` POP909 songs, every transcription under `billboard`, a tune of every lead sheet under `sheets`, `charts`
    and `rests` of our own."""
    jobs, excluded = [], held_out(exclude)
    if songs:
        if pop909 is None:
            raise UserError("--songs needs --pop909 FOLDER (with ID.mid, ID.lab and ID.beats)")
        found = song_order(pop909, excluded)
        for i in range(songs):  # past the end of the collection, songs come again in another arrangement
            song, take = found[i % len(found)], i // len(found)
            jobs.append(Job(store.key_of(f"pop/{song.stem}-{seed}-{take}"), "pop", song))
    for kind, folder, patterns in (
        ("billboard", billboard, ["*.txt"]),
        ("sheets", sheets, ["*.mxl", "*.musicxml", "*.abc"]),
    ):
        for path in find(folder, *patterns):
            name = path.relative_to(folder or path).with_suffix("").as_posix()
            jobs.append(Job(store.key_of(f"{kind}/{name}-{seed}"), kind, path))
    for kind, count in (("charts", charts), ("rests", rests)):
        jobs += [Job(f"{kind}/{i:05d}-{seed}", kind) for i in range(count)]
    if not jobs:
        raise UserError("there is nothing to render; give --songs, --billboard, --sheets, --charts or --rests")
    return jobs


def keep(folder: Path, key: str, audio: Float32, segments: list[Segment]) -> None:
    """`key`.flac and `key`.lab in `folder`; the audio is made quieter where it passes full scale.

    OSError where the disk does not take it: that ends the run, where a UserError would be of this piece alone.
    """
    path = folder / f"{key}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path.with_suffix(".lab"), lab_lines(segments))
    write(path, audio / max(1.0, float(np.abs(audio).max())), RATE)


def made(
    job: Job, recipe: Recipe, teacher: Teacher | None, embedder: Embedder | None, audio_folder: Path | None,
    guitars: Sequence[strings.Recorded] = (),
) -> Made:  # fmt: skip
    """A job's tracks and what is known of it."""
    audio, segments = job.play(guitars)
    tracks = targets(audio, RATE, recipe.features, teacher, embedder, segments)
    if audio_folder is not None:
        keep(audio_folder, job.key, audio, segments)
    about = {
        "source": job.kind,
        "song": job.source.stem if job.source else None,
        "artist": None,
        "split": "train",
        "labels": "rendered",
        "seconds": round(audio.size / RATE, 3),
        "teacher": recipe.teacher,
        "embedding": recipe.embedding,
    }
    return Made(tracks, about)


def render_folder(
    target: Path, *, features: Sequence[str] = (STAGE,), pop909: Path | None = None, songs: int = 0,
    billboard: Path | None = None, sheets: Path | None = None, charts: int = 0, rests: int = 0,
    exclude: Path | None = None, seed: int = 0, hours: float | None = None, teacher: str | None = None,
    embedding: str | None = None, audio: Path | None = None, guitars: Sequence[Path] = (), retry: bool = False,
) -> None:  # fmt: skip
    """`python -m train render`: fill shards in `target` (see `train.fill`); pieces that are there are kept.

    The order of the pieces is shuffled but fixed: a run that is stopped early, or by `hours`, leaves a fair sample.
    `audio` is a folder for the sound of what is rendered now, `guitars` are folders of recorded notes.
    """
    for place in filter(None, (target, audio)):
        check_place(place, folder=True)
    recipe = Recipe(features=tuple(dict.fromkeys(features)), teacher=teacher, embedding=embedding, labels=True)
    jobs = ordered(jobs_of(pop909, songs, billboard, sheets, charts, rests, exclude, seed), hours)
    installed(SOUNDFONTS)  # said once, not of every piece
    recorded = [strings.recorded(folder, RATE) for folder in guitars]
    listening = listeners(recipe)
    fill(
        target, jobs, lambda job: made(job, recipe, *listening, audio, recorded), recipe.model_dump(mode="json"), retry
    )
