"""Training data on disk: WebDataset shards, which are uncompressed tar files, with safetensors inside.

A sample is one piece of music: a member ``KEY.DEFINITION.safetensors`` for each feature definition (a key of
`rtchord.cqt.DEFINITIONS`), then ``KEY.json``, what is known about the piece. That member comes last, so a sample that
has it is whole. Keys have no dots; slashes are allowed.

The tensors of a piece in one definition, a `Track`:

    features     (frames, bins) float16    always
    classes      (frames, 170)  float16    a teacher's posteriors, beside
    bass         (frames, 13)   float16      those of the bass, zeros where the teacher has none
    class_index  (frames,)      int16      true labels, -1 where unknown, beside
    bass_index   (frames,)      int8         those of the bass
    embedding    (pieces, width) float16   of a frozen network, the mean over each half second: row floor(t / 0.5)

The safetensors metadata holds the feature definition as JSON. Nothing is compressed, so `open_tracks` maps the tensors
into memory where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from rtchord.cqt import DEFINITIONS, Features
from rtchord.errors import UserError

Track = dict[str, NDArray[Any]]

EMBEDDING_SECONDS = 0.5
DTYPES = {
    "features": "float16", "classes": "float16", "bass": "float16", "class_index": "int16", "bass_index": "int8",
    "embedding": "float16",
}  # fmt: skip
CODES = {"F16": "<f2", "I16": "<i2", "I8": "i1"}  # safetensors' names of the same
END = 2 * tarfile.BLOCKSIZE  # zeros that end a tar file


class Opened(NamedTuple):
    """A piece of music in one feature definition; the arrays of `track` are read-only and mapped from the shard."""

    key: str
    about: dict[str, Any]
    track: Track


def key_of(name: str) -> str:
    """The key of a file or catalogue name: itself, or, where it has dots or other trouble, freed of it and hashed."""
    key = re.sub(r"[.\x00-\x1f\x7f\ud800-\udfff]", "_", name).strip("/")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return key if key == name != "" else f"{key}-{digest[:8]}"


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Appends samples to ``PROCESS-NUMBER.tar.part``, which is renamed to ``.tar`` when `limit_mb` are reached, and at
    the end. Every sample is on the disk when `write` returns. Whatever ends the writing, shards hold whole samples.
    """

    def __init__(self, folder: Path, process: int = 0, limit_mb: int = 512) -> None:
        self._folder, self._process, self._limit = folder, process, limit_mb * 2**20
        self._part: Path | None = None  # the shard under way, if there is one
        self._file = self._end = 0  # its descriptor, and where its last whole sample ends

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, key: str, tracks: dict[str, Track], about: dict[str, Any]) -> None:
        """One piece of music: its tracks by name of the definition. UserError where the disk does not take it."""
        if not tracks or key != key_of(key):
            raise ValueError(f"a sample needs tracks and a key without dots, not {key!r} with {len(tracks)} tracks")
        tensors = [_member(f"{key}.{name}.safetensors", _safetensors(name, track)) for name, track in tracks.items()]
        mark = _member(f"{key}.json", json.dumps({**about, "key": key}).encode())
        size = sum(map(len, tensors)) + len(mark)
        try:
            if self._part is None:
                self._open()
            for members in (tensors, [mark]):  # the mark goes to the disk after what it vouches for
                for member in members:
                    _write(self._file, member)
                os.fsync(self._file)
        except OSError as error:
            self.close()
            raise UserError(
                f"cannot write {key!r} to {str(self._folder)!r}: {error.strerror}; the pieces before it are kept in "
                "whole shards; make room and start again"
            ) from None
        self._end += size
        if self._end >= self._limit:
            self.close()

    def close(self) -> None:
        """End the shard under way; a later `write` begins the next."""
        if self._part is not None:
            part, self._part = self._part, None
            os.close(self._file)
            _finish(part, self._end)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[6:12]) for path in self._folder.glob(f"{self._process:05d}-*.tar*")]
        part = self._folder / f"{self._process:05d}-{max(taken, default=-1) + 1:06d}.tar.part"
        self._file, self._end = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), 0
        self._part = part


def recover(folder: Path) -> None:
    """End every shard that a killed writer left under way, with its last whole sample. No writer may be at work."""
    for part in sorted(folder.glob("*.tar.part")):
        _finish(part, _whole(part))


def _finish(part: Path, end: int) -> None:
    """Cut a shard after `end` bytes and give it its name; one that holds nothing goes."""
    if not end:
        part.unlink()
        return
    os.truncate(part, end)
    os.truncate(part, end + END)  # zeros that a full disk has room for: they take none
    part.rename(part.with_suffix(""))
    folder = os.open(part.parent, os.O_RDONLY)
    os.fsync(folder)  # the name as well
    os.close(folder)


def _safetensors(definition: str, track: Track) -> bytes:
    arrays = {name: np.ascontiguousarray(array, DTYPES[name]) for name, array in track.items()}
    return save(arrays, {"features": DEFINITIONS[definition].model_dump_json()})


def _member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar archive."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


# --- reading ----------------------------------------------------------------------------------------------------------


def keys(folder: Path) -> set[str]:
    """Keys of all whole samples in the finished shards of a folder; a missing folder has none."""
    return {key for shard in folder.glob("*.tar") for key in _whole_keys(_members(shard))}


def open_tracks(folders: list[Path], definition: str, share: tuple[int, int] = (0, 1)) -> list[Opened]:
    """Every piece in the shards of `folders` in one feature definition, sorted by key.

    `share` = (rank, world) takes every world-th of them, from number rank on. Only names and headers are read. Raises
    UserError for a folder without shards, a damaged shard, a definition that a piece is not there in, and one that has
    changed since.
    """
    if definition not in DEFINITIONS:
        raise UserError(f"there are no features {definition!r}; there are {', '.join(DEFINITIONS)}")
    found: list[tuple[str, Path, dict[str, slice]]] = []
    for folder in folders:
        shards = sorted(folder.glob("*.tar"))
        if not shards:
            raise UserError(
                f"no training data (*.tar) in {str(folder)!r}; make some with `python -m train label`, `prepare` or "
                "`render`"
            )
        for shard in shards:
            members = _members(shard)
            found += [(key, shard, members) for key in _whole_keys(members)]
    found.sort(key=lambda sample: sample[0])
    rank, world = share
    maps: dict[Path, NDArray[np.uint8]] = {}
    return [_open(maps, key, shard, members, definition) for key, shard, members in found[rank::world]]


def _open(
    maps: dict[Path, NDArray[np.uint8]], key: str, shard: Path, members: dict[str, slice], definition: str
) -> Opened:
    wanted = f"{key}.{definition}.safetensors"
    if wanted not in members:
        there = [name.split(".", 1)[1].removesuffix(".safetensors") for name in members if name.startswith(f"{key}.")]
        raise UserError(
            f"{key!r} in {str(shard)!r} has no features {definition!r}, only {', '.join(there[:-1])}; make it again "
            f"with --features {definition}"
        )
    if shard not in maps:
        maps[shard] = np.asarray(np.memmap(shard, np.uint8, "r"))
    try:
        about = json.loads(maps[shard][members[f"{key}.json"]].tobytes())
        made_with, track = _tensors(maps[shard][members[wanted]])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(_damaged(shard, f"{wanted}: {error!r}")) from None
    if made_with != DEFINITIONS[definition]:
        raise UserError(f"{key!r} in {str(shard)!r} was made with another definition of {definition!r}; make it again")
    return Opened(key, about, track)


def _tensors(data: NDArray[np.uint8]) -> tuple[Features, Track]:
    """The feature definition and the arrays of a safetensors file, as views of its bytes (n,) uint8.

    The format: the header's length (8 bytes, little-endian), the header (JSON: of each tensor its dtype, shape, and
    first and last byte after the header; ``__metadata__``), the tensors.
    """
    length = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:length].tobytes())
    made_with = Features.model_validate_json(header.pop("__metadata__")["features"])
    track = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        track[name] = data[length + first : length + last].view(CODES[entry["dtype"]]).reshape(entry["shape"])
    return made_with, track


def _members(shard: Path) -> dict[str, slice]:
    """The members of a shard: name, and which of its bytes they are."""
    found, end = {}, 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                found[member.name] = slice(member.offset_data, member.offset_data + member.size)
                end = _end_of(member)
        with shard.open("rb") as file:  # tarfile takes a header that it cannot read for the end
            file.seek(end)
            if file.read(END) != bytes(END):
                raise tarfile.ReadError(f"it breaks off at byte {end}")
    except (tarfile.TarError, OSError) as error:
        raise UserError(_damaged(shard, str(error))) from None
    return found


def _damaged(shard: Path, why: str) -> str:
    return f"shard {str(shard)!r} is damaged ({why}); delete it, and run what made it again: only its pieces are redone"


def _whole_keys(members: dict[str, slice]) -> list[str]:
    return [name.removesuffix(".json") for name in members if name.endswith(".json")]


def _whole(part: Path) -> int:
    """Where the last whole sample of an unfinished shard ends, in bytes."""
    whole, size = 0, part.stat().st_size
    try:
        with tarfile.open(part, "r:") as tar:
            for member in tar:
                if member.name.endswith(".json") and _end_of(member) <= size:
                    whole = _end_of(member)
    except tarfile.TarError:  # it breaks off there
        pass
    return whole


def _end_of(member: tarfile.TarInfo) -> int:
    return member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
