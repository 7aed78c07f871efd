"""The catalogue: which recordings there are, what is known of each, and which of them train.

A catalogue is a file of JSON lines, one `Entry` a recording. Nothing vanishes silently: what is left out stays in it
with the reason in `dropped`. Paths of what lies under the catalogue's folder are relative to it, so it can move.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from rtchord.errors import UserError, first_problem
from train.audio import SUFFIXES, opened, tags, under
from train.files import check_place, replaced, writing
from train.labels import Segment, read_labels
from train.measure import Measures, Meter, normalised

Split = Literal["train", "validation", "test"]
SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
STRICTEST: tuple[Split, ...] = ("test", "validation", "train")  # whoever is here first decides for the group

SHORTEST, LONGEST = 10.0, 1800.0  # s
MOST_SILENCE = 0.5  # of the time
MOST_CLIPPED = 0.001  # of the samples
SPEECH_MODULATION, SPEECH_TONALITY = 0.4, 0.35  # above and below: speech-like
SAME_MUSIC = 0.8  # correlation of two fingerprints, at least
SAME_LENGTH = 1.0  # s that near-duplicates may differ by, from their first sound to their last
LABELS_OVER = 1.0  # s that labels may end after the recording; they are cut
LABELS_ROUNDED = 0.05  # s that is not worth a note

NOBODY = {"", "unknown", "unknown artist", "va", "various", "various artists"}


class File(BaseModel):
    """What reading a recording told; good as long as its `bytes` and `modified` (s) stay. `problem`: unreadable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    modified: float
    sha256: str = ""
    title: str | None = None
    artist: str | None = None
    problem: str | None = None
    measures: Measures | None = None


class Entry(BaseModel):
    """One recording. `format` is that of its labels; `notes` are problems it is kept with, `dropped` why it is not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    audio: Path
    labels: Path | None = None
    format: Literal["lab", "jams"] | None = None
    song: str
    artist: str | None = None
    seconds: float
    split: Split
    source: str = ""
    notes: tuple[str, ...] = ()
    dropped: str | None = None
    file: File | None = None


class Probe(BaseModel):
    """A recording that was read, before it is an entry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: Path
    seconds: float
    file: File


class Found(NamedTuple):
    """A recording and what its folder says of it; `title` and `artist` where they are known better than by its tags."""

    audio: Path
    root: Path
    source: str
    labels: Path | None = None
    title: str | None = None
    artist: str | None = None


# --- names and splits -------------------------------------------------------------------------------------------------


def normalise(name: str) -> str:
    """What stays the same of a title or an artist's name from one set to the next.

    Case, accents, punctuation, ``the``, what is in brackets and featured guests are dropped, unless nothing is left.
    """
    text = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    text = re.sub(r"['’`]", "", text.replace("&", " and "))
    plain = re.sub(r"\([^)]*\)|\[[^]]*\]|\b(feat|featuring|ft)\b.*", " ", text)
    words = re.findall(r"[^\W_]+", plain)
    return " ".join(word for word in words if word != "the") or " ".join(re.findall(r"[^\W_]+", text)) or text


def split_of(song: str, artist: str | None) -> Split:
    """Split of a song: by its artist's name where that is known, so that an artist never is in two; else by its title.

    A function of the normalised names alone: the first 8 bytes of their SHA-256, as a share of 1, against 80/10/10 %.
    """
    name = normalise(artist) if artist and normalise(artist) not in NOBODY else normalise(song)
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    for split, upto in zip(SHARES, itertools.accumulate(SHARES.values()), strict=True):
        if share < upto:
            return split
    return STRICTEST[0]


def names_in(stem: str) -> tuple[str, str | None]:
    """(title, artist) of a file name: ``01 - Title``, ``Artist - Title`` or ``Title``."""
    number = r"^(\d{1,3}\s*[-_.]+\s*|0\d\s+)(?=\S)"
    parts = [part.strip() for part in re.sub(number, "", stem).replace("_", " ").split(" - ") if part.strip()]
    title = re.sub(number, "", parts[-1]) if parts else stem
    return title, parts[0] if len(parts) > 1 else None


# --- reading and writing a catalogue ----------------------------------------------------------------------------------


def read_all(path: Path) -> list[Entry]:
    """Every entry, those that were dropped too; errors name file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {str(path)!r} as a catalogue ({error}); make one: `python -m train catalogue`"
        ) from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError as error:
            raise UserError(
                f"{path}, line {number} is no entry of a catalogue ({first_problem(error.errors())}); make it again"
            ) from None
        labels = entry.labels and path.parent / entry.labels
        entries.append(entry.model_copy(update={"audio": path.parent / entry.audio, "labels": labels}))
    return entries


def read(path: Path) -> list[Entry]:
    """Entries that are to be used, in order of their keys."""
    entries = [entry for entry in read_all(path) if entry.dropped is None]
    if not entries:
        raise UserError(f"{str(path)!r} lists no recording to use")
    return entries


def write(path: Path, entries: list[Entry]) -> None:
    """Write a catalogue."""
    base = _absolute(path).parent

    def portable(other: Path | None) -> Path | None:
        return other.relative_to(base) if other and other.is_relative_to(base) else other

    with replaced(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for entry in entries:
            moved = entry.model_copy(update={"audio": portable(entry.audio), "labels": portable(entry.labels)})
            file.write(moved.model_dump_json() + "\n")


def segments(entry: Entry) -> list[Segment]:
    """True chords of an entry, cut to its recording; errors name file and line."""
    if entry.labels is None:
        raise UserError(f"{entry.key} has no labels")
    found = read_labels(entry.labels, entry.seconds + LABELS_OVER).segments
    return [(start, min(end, entry.seconds), chord) for start, end, chord in found if start < entry.seconds]


# --- finding recordings -----------------------------------------------------------------------------------------------


def _absolute(path: Path | str) -> Path:
    """Without ``..``, but with the symbolic links that the user sees."""
    return Path(os.path.abspath(path))


def find_audio(folder: Path) -> Iterator[Found]:
    """Every recording under `folder`, without labels."""
    root = _absolute(folder)
    yield from (Found(path, root, "audio") for path in under(root))


def _find_beside(folder: Path, source: str, suffix: str) -> Iterator[Found]:
    """Every recording under `folder`, with the labels of the same name beside it."""
    alone = set(_absolute(folder).rglob(f"*{suffix}"))
    for each in find_audio(folder):
        labels = each.audio.with_suffix(suffix)
        alone.discard(labels)
        yield each._replace(source=source, labels=labels)
    if alone:
        print(f"{len(alone)} {suffix} files have no recording beside them, e.g. {min(alone)}", file=sys.stderr)


def find_labelled(folder: Path) -> Iterator[Found]:
    """Every recording under `folder`, with the .lab of the same name beside it."""
    return _find_beside(folder, "labelled", ".lab")


def find_jams(folder: Path) -> Iterator[Found]:
    """Every recording under `folder`, with the .jams of the same name beside it, and title and artist from that."""
    for each in _find_beside(folder, "jams", ".jams"):
        try:
            about = json.loads(each.labels.read_text(encoding="utf-8"))["file_metadata"]  # type: ignore[union-attr]
            title, artist = about.get("title"), about.get("artist")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            title = artist = None  # reading the labels will tell what is wrong
        yield each._replace(title=title or None, artist=artist or None)


class Loader(NamedTuple):
    """What a mirdata track calls its recording and its chords, which downloads hold the annotations, and how to get
    (title, artist) of a track."""

    audio: str
    labels: str
    downloads: tuple[str, ...]
    names: Callable[[Any], tuple[str, str | None]]


def _unnumbered(title: str) -> str:
    return re.sub(r"^[\d\W_]+", "", title) or title


# The loaders of mirdata 1.0 with chords in seconds and a recording. GuitarSet's players all play the same 30 pieces:
# the piece is the title, and nobody the artist.
LOADERS = {
    "beatles": Loader(
        "audio_path", "chords_path", ("annotations",), lambda track: (_unnumbered(track.title), "The Beatles")
    ),
    "billboard": Loader(
        "audio_path", "lab_full_path", ("metadata", "annotation_lab"), lambda track: (track.title, track.artist)
    ),
    "guitarset": Loader(
        "audio_mic_path", "jams_path", ("annotations",), lambda track: (track.track_id.split("_")[1], None)
    ),
    "queen": Loader("audio_path", "chords_path", ("annotations",), lambda track: (_unnumbered(track.title), "Queen")),
    "rwc_popular": Loader(
        "audio_path", "chords_path", ("metadata", "annotations_chords"), lambda track: (track.title, track.artist)
    ),
}


def find_mirdata(spec: str, download: bool) -> Iterator[Found]:
    """Recordings of a set that mirdata knows, ``NAME:FOLDER``: the user's audio in mirdata's layout (in any format),
    mirdata's annotations, which are downloaded only where `download` says so.

    mirdata's list of files is downloaded with them; one that lies in the folder is used before that.
    """
    name, colon, where = spec.partition(":")
    if name not in LOADERS or not colon:
        raise UserError(f"cannot use {spec!r}: give NAME:FOLDER with a NAME of {', '.join(LOADERS)}")
    try:
        import mirdata
    except ImportError:
        raise UserError("labelled sets need mirdata; `pip install mirdata`") from None
    folder = _absolute(where)
    if not download and not folder.is_dir():
        raise UserError(f"there is no folder {where!r}; give the one with the recordings of {name}")
    loader = LOADERS[name]
    dataset = mirdata.initialize(name, data_home=str(folder))
    if download:
        try:
            dataset.download(partial_download=list(loader.downloads))
        except OSError as error:
            raise UserError(f"mirdata cannot download the annotations of {name} ({error})") from None
    own_index = folder / Path(dataset.index_path).name
    if own_index.is_file():
        dataset.index_path = str(own_index)
    try:
        tracks = list(dataset.load_tracks().values())
        yield from _tracks(tracks, loader, folder, name)
    except FileNotFoundError as error:
        raise UserError(f"cannot list {name}: {error} Give --download-annotations, once") from None


def _tracks(tracks: list[Any], loader: Loader, folder: Path, name: str) -> Iterator[Found]:
    there = 0
    for track in tracks:
        expected = Path(getattr(track, loader.audio))
        formats = (expected, *(expected.with_suffix(suffix) for suffix in sorted(SUFFIXES)))
        audio = next((path for path in formats if path.is_file()), None)
        labels = getattr(track, loader.labels)
        if audio is None:
            continue
        there += 1
        yield Found(audio, folder, f"mirdata:{name}", Path(labels) if labels else None, *loader.names(track))
    if not there:
        raise UserError(
            f"none of the {len(tracks)} recordings of {name} is under {str(folder)!r}, e.g. {str(expected)!r}"
        )
    print(f"{name}: {there} of {len(tracks)} recordings are there", file=sys.stderr)


# --- reading recordings -----------------------------------------------------------------------------------------------


def probe(path: Path) -> Probe:
    """Read one recording: its hash, tags, length and measures. What cannot be read is told in `file.problem`."""
    try:
        stat = path.stat()
        file = File(bytes=stat.st_size, modified=stat.st_mtime)
        with path.open("rb") as raw:
            file = file.model_copy(update={"sha256": hashlib.file_digest(raw, "sha256").hexdigest()})
        with opened(path) as recording:
            if recording.seconds > LONGEST:  # too long to be read at all
                return Probe(audio=path, seconds=recording.seconds, file=file)
            meter, samples = Meter(recording.rate), 0
            for block in recording.blocks:
                meter.push(block)
                samples += len(block)
                if samples > LONGEST * recording.rate:
                    break
        known = {**tags(path), "measures": meter.result()}
        return Probe(audio=path, seconds=round(samples / recording.rate, 3), file=file.model_copy(update=known))
    except (UserError, OSError) as error:
        file = File(bytes=0, modified=0.0, problem=str(error))
        return Probe(audio=path, seconds=0.0, file=file)


def _probes(paths: list[Path], target: Path, workers: int) -> dict[Path, Probe]:
    """A probe of every path. What an earlier catalogue, or a run that was stopped, has read of a file that has not
    changed is taken from there."""
    begun = target.with_name(target.name + ".part")
    known = {
        _absolute(e.audio): Probe(audio=e.audio, seconds=e.seconds, file=e.file) for e in _previous(target) if e.file
    }
    for line in begun.read_text(encoding="utf-8", errors="replace").splitlines() if begun.is_file() else ():
        with suppress(ValidationError):  # of the line under way when a run was stopped
            done = Probe.model_validate_json(line)
            known[done.audio] = done

    def fresh(path: Path) -> bool:
        earlier = known.get(path)
        if earlier is None or earlier.file.problem is not None:
            return True
        stat = path.stat()
        return (earlier.file.bytes, earlier.file.modified) != (stat.st_size, stat.st_mtime)

    new = [path for path in paths if fresh(path)]
    with writing(target.parent), ExitStack() as stack:
        begun.parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(begun.open("a", encoding="utf-8"))
        read: Iterable[Probe] = map(probe, new)
        if workers > 1 and len(new) > 1:
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(min(workers, len(new)), spawn)
            stack.callback(pool.shutdown, cancel_futures=True)
            read = pool.map(probe, new)
        for done in tqdm(read, total=len(paths), initial=len(paths) - len(new), unit="file", desc="catalogue"):
            known[done.audio] = done
            log.write("\n" + done.model_dump_json())  # first the end of a line that a stopped run may have left
            log.flush()
    return {path: known[path] for path in paths}


def _previous(target: Path) -> list[Entry]:
    return read_all(target) if target.is_file() else []


# --- judging them -----------------------------------------------------------------------------------------------------


def speech_like(measures: Measures) -> bool:
    """Energy swings as syllables do, and no note lasts."""
    return measures.modulation > SPEECH_MODULATION and measures.tonality < SPEECH_TONALITY


def unfit(probed: Probe, labelled: bool) -> str | None:
    """Why a recording cannot be used, `kind: detail`. Labels vouch for music that looks like speech."""
    seconds, measures = probed.seconds, probed.file.measures
    if probed.file.problem is not None:
        return f"unreadable: {probed.file.problem}"
    if seconds > LONGEST:
        return f"too long: {seconds / 60:.0f} min, more than {LONGEST / 60:.0f}"
    if seconds < SHORTEST or measures is None:
        return f"too short: {seconds:.1f} s, less than {SHORTEST:.0f}"
    if measures.silence > MOST_SILENCE:
        return f"silent: {100 * measures.silence:.0f} % of the time"
    if speech_like(measures) and not labelled:
        return f"speech-like: modulation {measures.modulation:.2f}, tonality {measures.tonality:.2f}"
    return None


def remarks(measures: Measures) -> list[str]:
    """What is worth knowing of a recording that is used all the same, `kind: detail`."""
    found = []
    if measures.clipped > MOST_CLIPPED:
        found.append(f"clipped: {100 * measures.clipped:.2f} % of the samples")
    if speech_like(measures):
        found.append(f"speech-like: modulation {measures.modulation:.2f}, tonality {measures.tonality:.2f}")
    return found


def _file(entry: Entry) -> File:
    return entry.file or File(bytes=0, modified=0.0)


def alike(entries: list[Entry]) -> set[tuple[int, int]]:
    """Pairs (i, j) of entries with the same music: the same bytes, or about as long and with like fingerprints."""
    pairs: set[tuple[int, int]] = set()
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if sha256 := _file(entry).sha256:
            other = first.setdefault(sha256, index)
            if other != index:
                pairs.add((other, index))
    measured = [(measures, i) for i, entry in enumerate(entries) if (measures := _file(entry).measures)]
    measured.sort(key=lambda pair: pair[0].sounding)
    lengths = np.array([measures.sounding for measures, _ in measured])
    prints = normalised([measures.fingerprint for measures, _ in measured])
    # Sorted by length, those that a block of rows may be alike to lie together.
    for start in range(0, len(measured), 256):
        rows = prints[start : start + 256]
        stop = int(np.searchsorted(lengths, lengths[start + len(rows) - 1] + SAME_LENGTH, side="right"))
        for i, j in np.argwhere(rows @ prints[start:stop].T > SAME_MUSIC).tolist():
            if i < j and lengths[start + j] - lengths[start + i] <= SAME_LENGTH:
                pairs.add((measured[start + i][1], measured[start + j][1]))
    return pairs


def _groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Connected components of `count` nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(pairs), int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    groups: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(connected_components(graph, directed=False)[1].tolist()):
        groups[label].append(index)
    return list(groups.values())


def _worth(entry: Entry) -> tuple[bool, int, str]:
    """Of copies the first in this order stays: labelled ones, then larger files."""
    return entry.labels is None, -_file(entry).bytes, entry.key


def drop_copies(entries: list[Entry], pairs: Iterable[tuple[int, int]]) -> list[Entry]:
    """Of every group with the same music one stays: a labelled one before others, then the largest file."""
    usable = [pair for pair in pairs if all(entries[i].dropped is None for i in pair)]
    judged = list(entries)
    for group in _groups(len(entries), usable):
        kept, *copies = sorted(group, key=lambda i: _worth(entries[i]))
        for copy in copies:
            same = _file(entries[copy]).sha256 == _file(entries[kept]).sha256
            kind = "duplicate: the same bytes as" if same else "near-duplicate: the same music as"
            judged[copy] = entries[copy].model_copy(update={"dropped": f"{kind} {entries[kept].key}"})
    return judged


def settle_splits(entries: list[Entry], pairs: Iterable[tuple[int, int]]) -> list[Entry]:
    """Splits again, so that no music is in two: the strictest of a group of copies, and of a title where an artist is
    missing, is that of them all."""
    titles: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        titles[normalise(entry.song)].append(index)
    of_a_title = (
        (indices[0], other)
        for indices in titles.values()
        if any(entries[i].artist is None for i in indices)
        for other in indices[1:]
    )
    settled = list(entries)
    for group in _groups(len(entries), [*pairs, *of_a_title]):
        strictest = min((entries[i].split for i in group), key=STRICTEST.index)
        for i in group:
            settled[i] = entries[i].model_copy(update={"split": strictest})
    return settled


# --- the whole --------------------------------------------------------------------------------------------------------


def build(target: Path, found: Iterable[Found], hold_out: list[Path], workers: int = 1) -> list[Entry]:
    """Make or bring up to date the catalogue `target` of what was found; songs named by a .lab of `hold_out` are
    always in the test split."""
    by_path: dict[Path, Found] = {}
    for each in found:
        if each.audio not in by_path or by_path[each.audio].labels is None:
            by_path[each.audio] = each
    if not by_path:
        raise UserError("a catalogue of nothing: name folders with --audio, --labelled, --jams or --mirdata")
    held = _stems(hold_out)
    keys = {_absolute(entry.audio): entry.key for entry in _previous(target)}
    probes = _probes(list(by_path), target, workers)
    taken = set(keys.values())
    entries = []
    for path, each in by_path.items():
        if path not in keys:
            keys[path] = _key(each, taken)
            taken.add(keys[path])
        entries.append(_entry(each, probes[path], keys[path], held))
    pairs = alike(entries)
    entries = sorted(settle_splits(drop_copies(entries, pairs), pairs), key=lambda entry: entry.key)
    write(target, entries)
    target.with_name(target.name + ".part").unlink(missing_ok=True)
    return entries


def _stems(folders: list[Path]) -> set[str]:
    stems = {normalise(path.stem) for folder in folders for path in folder.rglob("*.lab")}
    if folders and not stems:
        raise UserError(f"no .lab under {', '.join(repr(str(folder)) for folder in folders)}")
    return stems


def _key(each: Found, taken: set[str]) -> str:
    """``FOLDER/RELATIVE/STEM`` without dots (a shard's member ends at the first); with its format, and then a number,
    where that is taken."""
    stem = (Path(each.root.name) / each.audio.relative_to(each.root).with_suffix("")).as_posix().replace(".", "_")
    longer = f"{stem}-{each.audio.suffix[1:].lower()}"
    candidates = itertools.chain((stem, longer), (f"{longer}-{n}" for n in itertools.count(2)))
    return next(key for key in candidates if key not in taken)


def _entry(each: Found, probed: Probe, key: str, held: set[str]) -> Entry:
    title, artist = names_in(each.audio.stem)
    if probed.file.title:
        title, artist = probed.file.title, probed.file.artist
    if each.title:
        title, artist = each.title, each.artist
    artist = artist if artist and normalise(artist) not in NOBODY else None
    dropped = unfit(probed, each.labels is not None)
    notes = remarks(probed.file.measures) if probed.file.measures and dropped is None else []
    if dropped is None and each.labels is not None:
        try:
            found = read_labels(each.labels, probed.seconds + LABELS_OVER)
            last = found.segments[-1][1]
            if found.mended:
                notes.append(f"labels mended: {found.told}")
            if last > probed.seconds + LABELS_ROUNDED:
                notes.append(f"labels cut: they end {last - probed.seconds:.2f} s after the recording")
        except UserError as error:
            dropped = f"labels: {error}"
    is_held = bool({normalise(title), normalise(each.audio.stem)} & held)
    return Entry(
        key=key,
        audio=each.audio,
        labels=each.labels,
        format=None if each.labels is None else "jams" if each.labels.suffix.lower() == ".jams" else "lab",
        song=title,
        artist=artist,
        seconds=probed.seconds,
        split="test" if is_held else split_of(title, artist),
        source=each.source,
        notes=tuple(notes),
        dropped=dropped,
        file=probed.file,
    )


def report(entries: list[Entry]) -> str:
    """The catalogue in two tables of plain text: by source, and by problem."""
    columns = ("source", "kept", "hours", "labelled", "dropped", *SHARES)
    sources = sorted({entry.source for entry in entries})
    rows = [_row(source, [e for e in entries if e.source == source]) for source in sources]
    lines = _table([columns, *rows, _row("all", entries)])
    dropped = Counter(entry.dropped.partition(":")[0] for entry in entries if entry.dropped)
    noted = Counter(note.partition(":")[0] for entry in entries if not entry.dropped for note in entry.notes)
    problems = [(name, str(n), "dropped") for name, n in dropped.most_common()]
    problems += [(name, str(n), "kept") for name, n in noted.most_common()]
    if problems:
        lines += ["", *_table([("problem", "files", "result"), *problems])]
    return "\n".join(lines)


def _row(name: str, entries: list[Entry]) -> tuple[str, ...]:
    kept = [entry for entry in entries if entry.dropped is None]
    splits = Counter(entry.split for entry in kept)
    hours = sum(entry.seconds for entry in kept) / 3600
    labelled = sum(entry.labels is not None for entry in kept)
    counts = (len(kept), f"{hours:.2f}", labelled, len(entries) - len(kept), *(splits[split] for split in SHARES))
    return (name, *map(str, counts))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of aligned columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def catalogue(
    target: Path,
    audio: list[Path],
    labelled: list[Path],
    jams: list[Path],
    mirdata: list[str],
    hold_out: list[Path],
    download_annotations: bool,
    workers: int,
) -> None:
    """Find, read, judge, write and report: what `python -m train catalogue` does."""
    check_place(target)
    found = itertools.chain(
        itertools.chain.from_iterable(find_audio(folder) for folder in audio),
        itertools.chain.from_iterable(find_labelled(folder) for folder in labelled),
        itertools.chain.from_iterable(find_jams(folder) for folder in jams),
        itertools.chain.from_iterable(find_mirdata(spec, download_annotations) for spec in mirdata),
    )
    entries = build(target, found, hold_out, workers)
    for entry in entries:
        for problem in (*entry.notes, entry.dropped):
            if problem:
                print(f"{entry.key}: {problem}", file=sys.stderr)
    print(report(entries))
