"""Chord vocabulary: 170 classes, bass, Harte labels, voicing.

Conventions
-----------
* Pitch classes count from C: C = 0, C# = 1, .., B = 11.
* Class ``i < 168``: root ``i // 14``, quality ``QUALITIES[i % 14]``; 168 = X (unknown), 169 = N (no chord).
  The order is that of the published BTC checkpoints.
* Bass ``b < 12`` is a pitch class; 12 = none.
* Labels follow Harte et al. (ISMIR 2005): ``A:min7``, ``C:maj/3``, ``N``. A bass is written only where it
  differs from the root.
* A spelling is the number of black keys that are written as sharps, in the order in which keys take them up: F#, C#,
  G#, D#, A#. 0 writes flats only, 5 sharps only.
* X says that the sound is outside the vocabulary, N that there is no chord. They are not the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Quality(NamedTuple):
    """One chord quality: Harte shorthand and its tones in semitones above the root."""

    name: str
    tones: tuple[int, ...]


# fmt: off
QUALITIES: tuple[Quality, ...] = (
    #        name       1  3  5  7
    Quality("min",     (0, 3, 7)),
    Quality("maj",     (0, 4, 7)),
    Quality("dim",     (0, 3, 6)),
    Quality("aug",     (0, 4, 8)),
    Quality("min6",    (0, 3, 7, 9)),
    Quality("maj6",    (0, 4, 7, 9)),
    Quality("min7",    (0, 3, 7, 10)),
    Quality("minmaj7", (0, 3, 7, 11)),
    Quality("maj7",    (0, 4, 7, 11)),
    Quality("7",       (0, 4, 7, 10)),
    Quality("dim7",    (0, 3, 6, 9)),
    Quality("hdim7",   (0, 3, 6, 10)),
    Quality("sus2",    (0, 2, 7)),
    Quality("sus4",    (0, 5, 7)),
)
SPELLINGS = (
    ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"),
    ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
    ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
    ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"),
)
#           0    1     2    3     4    5    6     7    8     9    10    11   semitones above the root
DEGREES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")
# fmt: on

N_QUALITIES = len(QUALITIES)
X = 12 * N_QUALITIES  # 168
N = X + 1  # 169
N_CLASSES = N + 1  # 170
NO_BASS = 12
FLATS, COMMON, SHARPS = 0, 1, 5  # spellings; COMMON are the names that are met most where no key is known
N_BASS = NO_BASS + 1  # 13
QUALITY_INDEX = {quality.name: index for index, quality in enumerate(QUALITIES)}


@dataclass(frozen=True, slots=True)
class Chord:
    """A class of the vocabulary together with its bass.

    `index` is 0..169; `bass` is a pitch class 0..11, or NO_BASS for X and N.
    """

    index: int
    bass: int

    @property
    def root(self) -> int:
        """Root pitch class, -1 for X and N."""
        return self.index // N_QUALITIES if self.index < X else -1

    @property
    def quality(self) -> str:
        """Harte shorthand of the quality; ``"X"`` or ``"N"`` where there is no root."""
        if self.index < X:
            return QUALITIES[self.index % N_QUALITIES].name
        return "X" if self.index == X else "N"

    @property
    def label(self) -> str:
        """Harte label in the common spelling."""
        return self.spelt(COMMON)

    def spelt(self, sharps: int) -> str:
        """Harte label; `sharps` is a spelling, 0..5."""
        if self.index >= X:
            return self.quality
        text = f"{SPELLINGS[sharps][self.root]}:{self.quality}"
        interval = (self.bass - self.root) % 12
        return text if self.bass == NO_BASS or interval == 0 else f"{text}/{DEGREES[interval]}"


NO_CHORD = Chord(N, NO_BASS)


def class_index(root: int, quality: str) -> int:
    """Class of a root pitch class and a quality name."""
    return root % 12 * N_QUALITIES + QUALITY_INDEX[quality]


def pitch_classes(index: int) -> tuple[int, ...]:
    """Pitch classes of a class, root first; empty for X and N."""
    if index >= X:
        return ()
    root, quality = divmod(index, N_QUALITIES)
    return tuple((root + tone) % 12 for tone in QUALITIES[quality].tones)


def chord_with_bass(index: int, bass: int) -> Chord:
    """Chord of a class and a heard bass; a bass that is not a chord tone counts as the root.

    Keeps a passing note in the bass line from being shown as an exotic slash chord.
    """
    if index >= X:
        return Chord(index, NO_BASS)
    return Chord(index, bass if bass in pitch_classes(index) else index // N_QUALITIES)


def transpose(index: int, semitones: int) -> int:
    """Class moved up by `semitones`; X and N stay."""
    return index if index >= X else (index + semitones * N_QUALITIES) % X


# What musicians write after the root. N is written as nothing.
# fmt: off
LEAD_SHEET = {
    "maj": "", "min": "m", "dim": "dim", "aug": "aug", "min6": "m6", "maj6": "6", "min7": "m7", "minmaj7": "m(maj7)",
    "maj7": "maj7", "7": "7", "dim7": "dim7", "hdim7": "m7b5", "sus2": "sus2", "sus4": "sus4",
}
# fmt: on
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def lead_sheet(chord: Chord, sharps: int = COMMON) -> str:
    """Name as on a lead sheet: ``Am7``, ``C/E``, ``F#m7b5``; empty for N and X. `sharps` is a spelling, 0..5."""
    if chord.root < 0:
        return ""
    root = SPELLINGS[sharps][chord.root]
    name = root + LEAD_SHEET[chord.quality]
    return name if chord.bass in (NO_BASS, chord.root) else f"{name}/{_bass_name(chord, root, sharps)}"


def _bass_name(chord: Chord, root: str, sharps: int) -> str:
    """The bass as a tone of the chord, so that A over its third is A/C# under any spelling.

    What would be a double accidental, or a white key with one, is written plainly.
    """
    plain = SPELLINGS[sharps][chord.bass]
    degree = DEGREES[(chord.bass - chord.root) % 12]
    letters = tuple(LETTERS)
    letter = letters[(letters.index(root[0]) + int(degree[-1]) - 1) % 7]
    names = {(LETTERS[letter] + shift) % 12: letter + sign for sign, shift in (("b", -1), ("#", 1))}
    return plain if len(plain) == 1 else names.get(chord.bass, plain)
