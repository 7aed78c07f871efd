"""Chord charts of real songs: McGill Billboard transcriptions and lead sheets (MusicXML, ABC).

A chart says which chord is written over which beat, and the melody where it is written down. It is not music yet:
`train.render` arranges it for a band.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from mir_eval.chord import InvalidChordException
from numpy.typing import NDArray

from rtchord.chords import NO_BASS, NO_CHORD, Chord, X, class_index
from rtchord.errors import UserError
from train.labels import Segment, parse

UNKNOWN = Chord(X, NO_BASS)
LONGEST_GAP = 20.0  # s that a line of a transcription may last before it is no music any more
USUAL_TEMPO = (60.0, 180.0)  # beats a minute, for sheets without one

# music21's names of chords -> qualities. Ninths and above count as their sevenths, as everywhere.
KINDS = {
    "major": "maj", "minor": "min", "augmented": "aug", "diminished": "dim",
    "major-sixth": "maj6", "minor-sixth": "min6",
    "dominant-seventh": "7", "major-seventh": "maj7", "minor-seventh": "min7", "minor-major-seventh": "minmaj7",
    "diminished-seventh": "dim7", "half-diminished-seventh": "hdim7", "half-diminished": "hdim7",
    "augmented-seventh": "aug", "augmented-major-seventh": "aug",
    "dominant-ninth": "7", "major-ninth": "maj7", "minor-ninth": "min7", "minor-major-ninth": "minmaj7",
    "dominant-11th": "7", "major-11th": "maj7", "minor-11th": "min7",
    "dominant-13th": "7", "major-13th": "maj7", "minor-13th": "min7",
    "suspended-second": "sus2", "suspended-fourth": "sus4", "suspended-fourth-seventh": "sus4",
}  # fmt: skip


@dataclass
class Chart:
    """`segments`: chords in s, without gaps. `beats`: s of every beat. `melody`: (pitch, start s, end s)."""

    segments: list[Segment]
    beats: NDArray[np.float64]
    melody: list[tuple[int, float, float]] = field(default_factory=list)


def find(folder: Path | None, *patterns: str) -> list[Path]:
    """Files under `folder` that match, sorted."""
    if folder is None:
        return []
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    if not found:
        raise UserError(f"there are no charts ({', '.join(patterns)}) under {str(folder)!r}")
    return found


# --- McGill Billboard -------------------------------------------------------------------------------------------------


def read_billboard(path: Path) -> Chart:
    """A transcription in the SALAMI format: each line has its time and bars between bars ``|``.

    The beats of a line share its time evenly. UserError where nothing can be read.
    """
    metre = 4
    rows: list[tuple[float, list[tuple[int, list[str]]]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("# metre:"):
            metre = int(line.split(":")[1].split("/")[0])
        time, tab, text = line.partition("\t")
        if tab:
            rows.append((float(time), list(_bars(text, metre))))
    segments: list[Segment] = []
    beats: list[float] = []
    for (start, bars), (end, _) in pairwise(rows):
        total = sum(length for length, _ in bars)
        if not bars or end - start > LONGEST_GAP:
            _extend(segments, start, end, NO_CHORD if not bars else UNKNOWN)
            continue
        beat, now = (end - start) / total, start
        beats += [start + i * beat for i in range(total)]
        for length, labels in bars:
            for label in labels:
                share = length * beat / len(labels)
                chord = segments[-1][2] if label == "." and segments else _chord(label)
                _extend(segments, now, now + share, chord)
                now += share
    if not beats:
        raise UserError(f"{str(path)!r} is no transcription with bars")
    return Chart(segments, np.array(beats))


def _bars(text: str, metre: int) -> Iterator[tuple[int, list[str]]]:
    """(beats, labels) of each bar of a line; ``x3`` behind the last bar repeats the line."""
    *bars, tail = text.split("|")
    times = re.match(r"\s*x(\d+)", tail)
    found = []
    for bar in bars[1:]:
        own = re.match(r"\s*\((\d+)/\d+\)", bar)
        labels = (bar[own.end() :] if own else bar).split()
        if labels:
            found.append((int(own[1]) if own else metre, labels))
    for _ in range(int(times[1]) if times else 1):
        yield from found


def _chord(label: str) -> Chord:
    """A label, unknown where it is none (``*``, ``&pause``)."""
    try:
        return parse(label)
    except (InvalidChordException, UserError):
        return UNKNOWN


def _extend(segments: list[Segment], start: float, end: float, chord: Chord) -> None:
    """Append a segment, or lengthen the last where the chord goes on."""
    if segments and segments[-1][2] == chord:
        segments[-1] = (segments[-1][0], end, chord)
    elif end > start:
        segments.append((segments[-1][1] if segments else 0.0, end, chord))


# --- lead sheets --------------------------------------------------------------------------------------------------


def read_lead_sheets(path: Path, rng: np.random.Generator) -> list[Chart]:
    """The tunes of a MusicXML (.mxl, .musicxml) or ABC file, each at a tempo of its own; none without chords."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import music21

        try:
            parsed = music21.converter.parse(path)
        except Exception as error:  # music21 raises many types
            raise UserError(f"{str(path)!r} cannot be read as a lead sheet ({type(error).__name__}: {error})") from None
        scores = parsed.scores if isinstance(parsed, music21.stream.Opus) else [parsed]
        charts = [_sheet(score.parts[0].flatten(), rng) for score in scores if score.parts]
    return [chart for chart in charts if chart is not None]


def _sheet(part, rng: np.random.Generator) -> Chart | None:  # type: ignore[no-untyped-def]
    import music21

    beat = 60.0 / rng.uniform(*USUAL_TEMPO)
    end = float(part.highestTime)
    symbols = [(float(s.offset), _symbol(s)) for s in part.getElementsByClass(music21.harmony.ChordSymbol)]
    if not symbols or end <= symbols[0][0]:
        return None
    segments: list[Segment] = []
    # What sounds before the first symbol is not written down.
    for (start, chord), (stop, _) in zip([(0.0, UNKNOWN), *symbols], [*symbols, (end, UNKNOWN)], strict=True):
        if stop > start:
            _extend(segments, start * beat, stop * beat, chord)
    notes = [note for note in part.notes if isinstance(note, music21.note.Note)]
    melody = [
        (int(n.pitch.midi), float(n.offset) * beat, float(n.offset + n.quarterLength) * beat)
        for n in notes
        if n.quarterLength > 0
    ]
    return Chart(segments, np.arange(0.0, end + 1) * beat, melody)


def _symbol(symbol) -> Chord:  # type: ignore[no-untyped-def]
    quality = KINDS.get(symbol.chordKind)
    if symbol.chordKind == "none":
        return NO_CHORD
    if quality is None or symbol.root() is None:
        return UNKNOWN
    bass = symbol.bass() or symbol.root()
    return Chord(class_index(symbol.root().pitchClass, quality), int(bass.pitchClass))
