"""A test set that anyone can make anew without our data: every chord of the vocabulary on six groups of instruments.

Each group plays each of the 168 chords once, in four pieces of four tempi; so each chord sounds six times, twice of
them inverted where an inversion has a name of its own. The order and the lengths are taken from SHA-256, so that the
labels are the same everywhere and for ever (`LABELS`); the sound is as good as the same, as far as FluidSynth is.

What training heard is avoided: the soundfont is another (`FONT`), the voicings are played by other rules (chord shapes
of a guitar, two hands, drop-2, four parts), and changes lie on a beat. Chords begin exactly at their labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pretty_midi
from numpy.typing import NDArray

from benchmarks.testset import write
from rtchord.chords import N_QUALITIES, NO_CHORD, QUALITIES, Chord, X, pitch_classes, transpose
from rtchord.errors import UserError
from train.files import check_place
from train.labels import Segment, lab_lines
from train.render import Piece, add, instrument, play, soundfont

Float32 = NDArray[np.float32]
Rng = np.random.Generator
Notes = list[int]  # MIDI, lowest first

RATE = 44_100
FONT = Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3")
REMEDY = "apt-get install musescore-general-soundfont-small, or give --font"
TEMPI = (72, 96, 120, 152)  # beats a minute
BEATS = (2, 2, 4)  # of a chord
SILENCE = 1.0  # s before the first chord and after the last
PEAK = 0.7
LABELS = "f37835aafa1aeb41a06d2e337334ccaff00eadd723950628ae005ca210043f5a"

# --- which chords -----------------------------------------------------------------------------------------------------


def own_inversions(quality: int) -> list[int]:
    """Tones (semitones above the root) whose inversion has no other name: C:maj6/6 is A:min7, C:sus2/5 is G:sus4."""
    tones = QUALITIES[quality].tones
    names = {frozenset(q.tones) for q in QUALITIES}
    return [bass for bass in tones[1:] if frozenset((tone - bass) % 12 for tone in tones) not in names]


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("-".join(map(str, parts)).encode()).digest()


def chords_of(group: int, seed: int) -> list[Chord]:
    """The 168 chords in the order in which a group plays them; a third of those that can be are inverted."""
    found = []
    for index in sorted(range(X), key=lambda index: _digest(seed, group, index)):
        root, quality = divmod(index, N_QUALITIES)
        inversions = own_inversions(quality)
        inverted = (root + group) % 3 == 0 and inversions
        tone = inversions[(root // 3 + root + group // 3) % len(inversions)] if inverted else 0
        found.append(Chord(index, (root + tone) % 12))
    return found


# --- voicings: none of them is one of training's ----------------------------------------------------------------------

# Frets above the root's on the strings E A D G B e, as guitarists know them; None is not played.
# fmt: off
E_SHAPES: dict[str, tuple[int | None, ...]] = {  # root on the E string
    "maj":  (0, 2, 2, 1, 0, 0),    "min":  (0, 2, 2, 0, 0, 0),       "dim":     (0, 1, 2, 0, None, None),
    "aug":  (0, 3, 2, 1, 1, 0),    "min6": (0, 2, 2, 0, 2, 0),       "maj6":    (0, 2, 2, 1, 2, 0),
    "min7": (0, 2, 0, 0, 0, 0),    "7":    (0, 2, 0, 1, 0, 0),       "minmaj7": (0, 2, 1, 0, 0, 0),
    "maj7": (0, 2, 1, 1, 0, 0),    "hdim7": (0, 1, 0, 0, None, None), "dim7":   (0, 1, 2, 0, 2, 0),
    "sus2": (0, 2, 4, 4, 0, 0),    "sus4": (0, 2, 2, 2, 0, 0),
}
A_SHAPES: dict[str, tuple[int | None, ...]] = {  # root on the A string
    "maj":  (None, 0, 2, 2, 2, 0), "min":  (None, 0, 2, 2, 1, 0),    "dim":     (None, 0, 1, 2, 1, None),
    "aug":  (None, 0, 3, 2, 2, 1), "min6": (None, 0, 2, 2, 1, 2),    "maj6":    (None, 0, 2, 2, 2, 2),
    "min7": (None, 0, 2, 0, 1, 0), "7":    (None, 0, 2, 0, 2, 0),    "minmaj7": (None, 0, 2, 1, 1, 0),
    "maj7": (None, 0, 2, 1, 2, 0), "hdim7": (None, 0, 1, 0, 1, None), "dim7":   (None, 0, 1, 2, 1, 2),
    "sus2": (None, 0, 2, 2, 0, 0), "sus4": (None, 0, 2, 2, 3, 0),
}
# fmt: on
STRINGS = (40, 45, 50, 55, 59, 64)


def above(pitch_class: int, floor: int) -> int:
    """The lowest note of a pitch class from `floor` up."""
    return floor + (pitch_class - floor) % 12


def shape(_: Rng, chord: Chord) -> Notes:
    """A guitarist's barre or open chord, whichever lies lower; an inversion gets its bass below it."""
    on_e, on_a = (chord.root - 4) % 12, (chord.root - 9) % 12
    fret, frets = (on_e, E_SHAPES[chord.quality]) if on_e <= on_a else (on_a, A_SHAPES[chord.quality])
    notes = sorted({string + fret + f for string, f in zip(STRINGS, frets, strict=True) if f is not None})
    return notes if chord.bass == chord.root else [above(chord.bass, min(notes) - 12), *notes]


def two_hands(rng: Rng, chord: Chord) -> Notes:
    """The bass in octaves or alone; in the right hand the chord in any inversion."""
    bass = above(chord.bass, 36)
    tones = list(pitch_classes(chord.index))
    turn = int(rng.integers(len(tones)))
    right = [above(tones[turn], 59)]
    for tone in tones[turn + 1 :] + tones[:turn]:
        right.append(above(tone, right[-1] + 1))
    return sorted({bass, *([bass + 12] if rng.random() < 0.5 else []), *right})


def drop2(rng: Rng, chord: Chord) -> Notes:
    """Four notes in close position, the second from above an octave lower; the bass under them."""
    tones = list(pitch_classes(chord.index))
    turn = int(rng.integers(len(tones)))
    close = [above(tones[turn], 60)]
    for tone in (tones[turn + 1 :] + tones[: turn + 1])[: 4 - 1]:
        close.append(above(tone, close[-1] + 1))
    close[-2] -= 12
    return sorted({above(chord.bass, 36), *close})


def four_parts(rng: Rng, chord: Chord) -> Notes:
    """Bass, tenor, alto and soprano, wide apart; a triad doubles its root."""
    others = [tone for tone in pitch_classes(chord.index) if tone != chord.bass]
    parts = [*others, chord.root][:3]
    order = rng.permutation(3)
    notes = [above(chord.bass, 36)]
    for i, floor in zip(order, (50, 58, 67), strict=True):
        notes.append(above(parts[int(i)], max(floor, notes[-1] + 1)))
    return notes


# --- how a chord is played: (beats from its onset, which notes, beats it sounds), cut off where the chord ends --------

Hit = tuple[float, slice, float]
ALL, UPPER = slice(None), slice(2, None)
PATTERNS: dict[str, Callable[[int], list[Hit]]] = {
    "held": lambda beats: [(0, ALL, beats)],
    "beats": lambda beats: [(k, ALL, 0.9) for k in range(beats)],
    "strum": lambda beats: [hit for k in range(beats) for hit in ((k, ALL, 0.5), (k + 0.5, UPPER, 0.5))],
    "push": lambda beats: [hit for k in range(0, beats, 2) for hit in ((k, ALL, 1.3), (k + 1.5, UPPER, 0.5))],
    "broken": lambda beats: [(k / 2, slice(k % 6, k % 6 + 1), beats) for k in range(2 * beats)],
}


@dataclass(frozen=True)
class Group:
    """Who plays: programs by turns of tempo, voicing, pattern of each tempo, s from first note to last of a strum."""

    name: str
    programs: tuple[int, ...]
    voicing: Callable[[Rng, Chord], Notes]
    patterns: tuple[str, str, str, str]
    strum: float = 0.0
    band: bool = False  # with bass, drums and a melody


GROUPS = (
    Group("piano", (0, 1, 4, 0), two_hands, ("held", "beats", "broken", "push"), 0.004),
    Group("guitar", (25, 24, 25, 24), shape, ("strum", "push", "strum", "held"), 0.025),
    Group("electric", (27, 26, 27, 29), shape, ("broken", "held", "push", "beats"), 0.012),
    Group("organ-pad", (16, 89, 19, 88), drop2, ("held", "held", "held", "held")),
    Group("strings-brass", (48, 61, 49, 61), four_parts, ("held", "beats", "held", "beats")),
    Group("band", (4, 27, 0, 25), drop2, ("push", "beats", "broken", "strum"), 0.01, band=True),
)
BASS, KICK, SNARE, HAT = 33, 36, 38, 42
LEADS = (73, 65, 71, 11)


def _play_chord(
    rng: Rng, group: Group, track: pretty_midi.Instrument, notes: Notes, pattern: str, span: tuple[float, float],
    beat: float,
) -> None:  # fmt: skip
    start, end = span
    for at, which, length in PATTERNS[pattern](round((end - start) / beat)):
        level = rng.uniform(78, 100)
        # A broken chord climbs through its notes and begins again.
        struck = [notes[which.start % len(notes)]] if pattern == "broken" else notes[which]
        if at % 1 == 0.5 and pattern == "strum":
            struck = struck[::-1]
        for i, pitch in enumerate(struck):
            onset = start + at * beat + group.strum * i / max(1, len(struck) - 1)
            add(track, pitch, onset, min(start + (at + length) * beat, end), level + rng.normal(0, 5))


def _play_band(rng: Rng, midi: pretty_midi.PrettyMIDI, segments: list[Segment], lead: int, beat: float) -> None:
    """Bass on every second beat, a melody of chord tones with neighbours between them, drums on every beat."""
    bass, melody, drums = instrument(midi, BASS), instrument(midi, lead), instrument(midi, 0, drum=True)
    for start, end, chord in segments:
        if chord == NO_CHORD:
            continue
        for k in range(round((end - start) / beat)):
            now = start + k * beat
            if k % 2 == 0:
                add(bass, above(chord.bass, 28), now, now + 1.8 * beat, rng.uniform(85, 105))
            tone = above(int(rng.choice(pitch_classes(chord.index))), 72)
            add(melody, tone, now, now + 0.7 * beat, rng.uniform(70, 95))
            if rng.random() < 0.4:
                add(melody, tone + int(rng.choice([-2, -1, 1, 2])), now + 0.75 * beat, now + beat, rng.uniform(60, 80))
            add(drums, SNARE if k % 2 else KICK, now, now + 0.1, rng.uniform(80, 105))
            for half in (0.0, 0.5):
                add(drums, HAT, now + half * beat, now + half * beat + 0.05, rng.uniform(55, 75))


def _generator(name: str, seed: int) -> Rng:
    return np.random.default_rng([seed, *_digest(name)])


def pieces(seed: int) -> dict[str, Piece]:
    """The 24 pieces by name."""
    found = {}
    for number, group in enumerate(GROUPS):
        chords = chords_of(number, seed)
        for turn, tempo in enumerate(TEMPI):
            name, beat = f"{group.name}-{tempo}", 60 / tempo
            share = chords[turn * len(chords) // len(TEMPI) : (turn + 1) * len(chords) // len(TEMPI)]
            lengths = [BEATS[_digest(name, seed, i)[0] % len(BEATS)] for i in range(len(share))]
            # A rest of two beats in the middle.
            order = [*share[: len(share) // 2], NO_CHORD, *share[len(share) // 2 :]]
            lengths.insert(len(share) // 2, 2)
            edges = SILENCE + beat * np.cumsum([0, *lengths])
            segments = [(a, b, chord) for (a, b), chord in zip(pairwise(edges.tolist()), order, strict=True)]
            rng, midi = _generator(name, seed), pretty_midi.PrettyMIDI()
            track = instrument(midi, group.programs[turn])
            for start, end, chord in segments:
                if chord != NO_CHORD:
                    notes = group.voicing(rng, chord)
                    _play_chord(rng, group, track, notes, group.patterns[turn], (start, end), beat)
            if group.band:
                _play_band(rng, midi, segments, LEADS[turn], beat)
            end = segments[-1][1]
            whole = [(0.0, SILENCE, NO_CHORD), *segments, (end, end + SILENCE, NO_CHORD)]
            found[name] = Piece(midi, whole, end + SILENCE)
    return found


def moved(piece: Piece, semitones: int) -> Piece:
    """The same music in another key."""
    midi = pretty_midi.PrettyMIDI()
    for part in piece.midi.instruments:
        track = instrument(midi, part.program, part.is_drum)
        for note in part.notes:
            add(track, note.pitch + semitones * (not part.is_drum), note.start, note.end, note.velocity)
    segments = [
        (a, b, c if c == NO_CHORD else Chord(transpose(c.index, semitones), (c.bass + semitones) % 12))
        for a, b, c in piece.segments
    ]
    return Piece(midi, segments, piece.duration)


def digest(found: dict[str, Piece]) -> str:
    """SHA-256 of all labels."""
    text = "".join(f"{name}\n{lab_lines(piece.segments)}" for name, piece in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def sound(piece: Piece, name: str, seed: int, font: Path) -> Float32:
    """A piece at RATE."""
    audio = play(piece, _generator(name, seed), RATE, [soundfont(font, REMEDY)])
    return (PEAK * audio / (np.abs(audio).max() or 1.0)).astype(np.float32)


def charts(target: Path, font: Path | None, seed: int, semitones: int) -> str:
    """Write the set; a sentence on what was written. UserError where the labels are not those that are pinned."""
    check_place(target, folder=True)
    played_with = soundfont(font or FONT, REMEDY)
    found = pieces(seed)
    if seed == 0 and digest(found) != LABELS:
        raise UserError(f"the labels of seed 0 have the hash {digest(found)}, not {LABELS}")
    for name, piece in found.items():
        changed = moved(piece, semitones)
        write(target, name, sound(changed, name, seed, played_with), RATE, changed.segments)
    seconds = sum(piece.duration for piece in found.values())
    return f"{len(found)} pieces, {seconds / 60:.1f} minutes; SHA-256 of the labels {digest(found)}"
