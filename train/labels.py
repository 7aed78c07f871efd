"""Harte labels and .lab files, by mir_eval's grammar, onto the vocabulary of `rtchord.chords`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import mir_eval
import numpy as np
from numpy.typing import NDArray

from rtchord.chords import NO_BASS, QUALITIES, QUALITY_INDEX, Chord, N, X, class_index
from rtchord.errors import UserError

Segment = tuple[float, float, Chord]  # start s, end s, chord

_BY_TONES = {frozenset(quality.tones): quality.name for quality in QUALITIES}


@lru_cache(maxsize=4096)
def parse(label: str) -> Chord:
    """Chord of a Harte label; what the vocabulary has no class for is X.

    Upper extensions are dropped (``C:9`` -> ``C:7``, ``C:sus4(b7)`` -> ``C:sus4``); sixths and sevenths written as
    added degrees are kept (``C:min(7)`` -> ``C:minmaj7``). Raises `mir_eval.chord.InvalidChordException`.
    """
    root_name, quality, degrees, _ = mir_eval.chord.split(label, reduce_extended_chords=True)
    if root_name in ("N", "X"):
        return Chord(N if root_name == "N" else X, NO_BASS)
    root, bitmap, bass = mir_eval.chord.encode(label.split("/")[0], reduce_extended_chords=True)
    name = _BY_TONES.get(frozenset(np.flatnonzero(bitmap).tolist()))
    if name is None and quality in QUALITY_INDEX and not any(degree.startswith("*") for degree in degrees):
        name = quality
    if name is None:
        return Chord(X, NO_BASS)
    _, _, bass = mir_eval.chord.encode(label, reduce_extended_chords=True)
    return Chord(class_index(int(root), name), (int(root) + int(bass)) % 12)


def read_lab(path: Path, latest: float = math.inf) -> list[Segment]:
    """Segments of a .lab file (start, end, label; white space between); errors name file and line.

    A segment that ends after `latest` s is an error.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r} as labels ({error})") from None
    lines = ((f"line {number}", line) for number, line in enumerate(text.splitlines(), 1) if line.split())
    return _segments(path, lines, latest)


def read_jams(path: Path, latest: float = math.inf) -> list[Segment]:
    """Segments of a JAMS file's first chord annotation (`chord` or `chord_harte`); errors name file and observation.

    GuitarSet has two: the first is the lead sheet, the second what was inferred from the notes.
    """
    import jams

    try:
        annotations = jams.load(str(path), validate=False).search(namespace="^chord(_harte)?$")
        observations = annotations[0].data if annotations else []
        lines = [
            (f"observation {n}", f"{o.time} {o.time + o.duration} {o.value}") for n, o in enumerate(observations, 1)
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, jams.JamsError) as error:
        raise UserError(f"cannot read {str(path)!r} as JAMS ({type(error).__name__}: {error})") from None
    return _segments(path, lines, latest)


def read_labels(path: Path, latest: float = math.inf) -> list[Segment]:
    """Segments of a JAMS file by its name (.jams), else of a .lab file."""
    return (read_jams if path.suffix.lower() == ".jams" else read_lab)(path, latest)


def _segments(path: Path, lines: Iterable[tuple[str, str]], latest: float) -> list[Segment]:
    """Checked segments of (place in the file, ``start end label``)."""
    segments: list[Segment] = []
    for place, line in lines:
        fields = line.split()
        try:
            start, end, label = float(fields[0]), float(fields[1]), fields[2]
            chord = parse(label)
        except (ValueError, IndexError, mir_eval.chord.InvalidChordException) as error:
            raise UserError(f"{path}, {place}: {line!r} is not `start end chord` ({error})") from None
        if not start < end or (segments and start < segments[-1][1] - 1e-3):
            raise UserError(f"{path}, {place}: times {start} .. {end} overlap or run backwards")
        if end > latest:
            raise UserError(f"{path}, {place}: the chord ends at {end:.2f} s, after the recording")
        segments.append((start, end, chord))
    if not segments:
        raise UserError(f"{path} holds no chords")
    return segments


def at_times(segments: list[Segment], times: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Class (frames,) int16 and bass (frames,) int8 at each of `times` in s; N outside every segment."""
    starts = np.array([s for s, _, _ in segments])
    ends = np.array([e for _, e, _ in segments])
    classes = np.array([c.index for _, _, c in segments], np.int16)
    basses = np.array([c.bass for _, _, c in segments], np.int8)
    index = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    outside = (times < starts[0]) | (times >= ends[index])
    return (
        np.where(outside, N, classes[index]).astype(np.int16),
        np.where(outside, NO_BASS, basses[index]).astype(np.int8),
    )
