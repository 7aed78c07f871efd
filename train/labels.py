"""Harte labels and .lab files, by mir_eval's grammar, onto the vocabulary of `rtchord.chords`."""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import mir_eval
import numpy as np
from numpy.typing import NDArray

from rtchord.chords import NO_BASS, QUALITIES, QUALITY_INDEX, Chord, N, X, class_index
from rtchord.errors import UserError
from rtchord.outputs.text import lab_line

Segment = tuple[float, float, Chord]  # start s, end s, chord

INEXACT = 0.1  # s by which neighbouring rows may overlap or stand apart: people do not hear a change more exactly
ROUNDED = 1e-3  # s that is a rounding, and stays as it is

# Those of UTF-32 first: they begin as those of UTF-16 do.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
COLUMNS = (("start", "onset", "begin"), ("end", "offset", "stop"), ("chord", "label", "name", "value"))
# Columns stand apart by white space, or by one comma or semicolon; each may be quoted. A label may hold commas.
ROW = re.compile(
    r"""\s*"?(?P<start>[^\s,;"]+)"?(?:\s*[,;]\s*|\s+)"?(?P<end>[^\s,;"]+)"?(?:\s*[,;]\s*|\s+)"""
    r""""?(?P<name>[^\s;"]+?)"?\s*[,;]?\s*"""
)
SIGNS = str.maketrans({"♯": "#", "♭": "b"})

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


class Annotation(NamedTuple):
    """Chords of a file of labels. `names`: the Harte label of each segment, as it was written but for what was mended.
    `mended`: how often each kind of fault was there; empty where the file has none."""

    segments: list[Segment]
    names: list[str]
    mended: dict[str, int]

    @property
    def told(self) -> str:
        """What was mended, for people: ``heading (1), overlap (2)``."""
        return ", ".join(f"{kind} ({count})" for kind, count in sorted(self.mended.items()))


class _Row(NamedTuple):
    place: str  # in the file
    start: float
    end: float
    name: str


def read_labels(path: Path, latest: float = math.inf) -> Annotation:
    """Chords of a JAMS file by its name (.jams), else of a .lab file (a row each: start s, end s, Harte label).

    Faults with one reading are mended and counted; docs/data.md lists them. UserError, with file and place, for every
    other one, and for a segment that ends after `latest` s.
    """
    mended: Counter[str] = Counter()
    rows = (_jams_rows if path.suffix.lower() == ".jams" else _lab_rows)(path, mended)
    rows = _in_order(path, rows, mended)
    if not rows:
        raise UserError(f"{path} holds no chords")
    for row in rows:
        if row.end > latest:
            raise UserError(f"{path}, {row.place}: the chord ends at {row.end:.2f} s, after the recording")
    segments = [(row.start, row.end, parse(row.name)) for row in rows]
    return Annotation(segments, [row.name for row in rows], dict(mended))


def _lab_rows(path: Path, mended: Counter[str]) -> list[_Row]:
    rows: list[_Row] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", _text(path, mended)), 1):
        if not line.strip():
            continue
        if line.lstrip().startswith("#"):
            mended["comment"] += 1
        elif not rows and _heading(line):
            mended["heading"] += 1
        else:
            rows.append(_row(path, f"line {number}", line, mended))
    return rows


def _text(path: Path, mended: Counter[str]) -> str:
    """Text of a file: Unicode by its byte order mark, else UTF-8, else Latin-1 (which any bytes are; a row that is not
    ASCII will not be Harte, so only comments can be misread)."""
    try:
        data = path.read_bytes()
        for mark, encoding in MARKS:
            if data.startswith(mark):
                mended["byte order mark"] += 1
                return data[len(mark) :].decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r} as labels ({error})") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        mended["text that is not UTF-8"] += 1
        return data.decode("latin-1")


def _heading(line: str) -> bool:
    """Whether a line names the three columns, in this order. Times in another unit than s, or a duration, do not."""
    words = [word for word in re.findall("[a-z]+", line.lower()) if word not in ("time", "s", "sec", "seconds")]
    return len(words) == len(COLUMNS) and all(word in names for word, names in zip(words, COLUMNS, strict=True))


def _row(path: Path, place: str, line: str, mended: Counter[str]) -> _Row:
    matched = ROW.fullmatch(line)
    try:
        if matched is None:
            raise ValueError("there are not three columns")
        start, end = float(matched["start"]), float(matched["end"])
        name = _harte(matched["name"], mended)
    except (ValueError, mir_eval.chord.InvalidChordException) as error:
        raise UserError(f"{path}, {place}: {line!r} is not `start end chord` ({error})") from None
    if re.search('[,;"]', line[: matched.start("name")] + line[matched.end("name") :]):
        mended["row with commas, semicolons or quotes"] += 1
    return _Row(place, start, end, name)


def _harte(label: str, mended: Counter[str]) -> str:
    """The label in Harte's spelling. Raises `mir_eval.chord.InvalidChordException`."""
    name = label.translate(SIGNS)
    if name != label:
        mended["label with ♯ or ♭"] += 1
    try:
        parse(name)
    except mir_eval.chord.InvalidChordException:
        # A root alone in lower case is C minor to some and C major to others.
        if ":" not in name and name not in ("n", "x"):
            raise
        name = name[0].upper() + name[1:].lower()
        parse(name)
        mended["label in the wrong case"] += 1
    return name


def _jams_rows(path: Path, mended: Counter[str]) -> list[_Row]:
    """Of the first chord annotation (`chord` or `chord_harte`).

    GuitarSet has two: the first is the lead sheet, the second what was inferred from the notes.
    """
    import jams

    try:
        annotations = jams.load(str(path), validate=False).search(namespace="^chord(_harte)?$")
        observations = annotations[0].data if annotations else []
        lines = [f"{o.time} {o.time + o.duration} {o.value}" for o in observations]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, jams.JamsError) as error:
        raise UserError(f"cannot read {str(path)!r} as JAMS ({type(error).__name__}: {error})") from None
    return [_row(path, f"observation {n}", line, mended) for n, line in enumerate(lines, 1)]


def _in_order(path: Path, rows: list[_Row], mended: Counter[str]) -> list[_Row]:
    """Rows by their time, none before 0 and none over another.

    Within `INEXACT` a row lasts until the next one starts, whether they overlap or stand apart. A longer gap stays.
    """
    lasting: list[_Row] = []
    for row in rows:
        if not 0 <= row.end - row.start < math.inf:  # which what is no number is not
            raise _out_of_order(path, row)
        if round(row.start, 3) < -INEXACT:
            raise UserError(f"{path}, {row.place}: the chord starts at {row.start:.2f} s, before the recording")
        if row.start < 0:
            mended["start before 0"] += 1
        if row.start == row.end:
            mended["row of no length"] += 1
        elif row.end > 0:
            lasting.append(row._replace(start=max(0.0, row.start)))
    if moved := sum(after.start < before.start for before, after in pairwise(lasting)):
        mended["row out of order"] += moved
    lasting.sort(key=lambda row: row.start)
    kept: list[_Row] = []
    for row in lasting:
        before = kept[-1] if kept else None
        if before and before[1:] == row[1:]:
            mended["row given twice"] += 1
            continue
        if before and before.end != row.start:
            apart = round(row.start - before.end, 3)
            if apart < -INEXACT or row.start <= before.start:
                raise _out_of_order(path, row)
            if ROUNDED < abs(apart) <= INEXACT:
                mended["overlap" if apart < 0 else "gap"] += 1
                kept[-1] = before._replace(end=row.start)
        kept.append(row)
    return kept


def _out_of_order(path: Path, row: _Row) -> UserError:
    return UserError(f"{path}, {row.place}: times {row.start} .. {row.end} overlap or run backwards")


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


def lab_lines(segments: Iterable[Segment]) -> str:
    """The text of a Harte .lab file."""
    return "".join(lab_line(start, end, chord.label) for start, end, chord in segments)
