"""Checkpoints of teachers from their authors' public repositories; none is in this one."""

from __future__ import annotations

import hashlib
import re
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from rtchord.engine import own_folder
from rtchord.errors import UserError
from train.files import check_place

TIMEOUT = 60  # s that may pass without a byte
BLOCK = 1 << 18  # bytes


@dataclass(frozen=True)
class Source:
    """Where a layout's checkpoint is: `url`, and the SHA-256 that others have published for it, None if nobody has."""

    layout: str
    url: str
    sha256: str | None


SOURCES = {
    source.layout: source
    for source in (
        Source(
            "btc",
            "https://github.com/jayg996/BTC-ISMIR19/raw/2682317be668032e6e4b269ded36adaa2ad57df0"
            "/test/btc_model_large_voca.pt",
            "1673d23f8f9a55ae7f9e8b80a51da616debb22675b8d8b67ea6ce0ef37b0ab51",
        ),
        Source(
            "2e1d",
            "https://github.com/ptnghia-j/ChordMini/raw/aa6e3a8d7b017f082fd2aaff9329d5c26af49c03"
            "/checkpoints/2e1d_model_best.pth",
            None,
        ),
    )
}


def default_path(name: str) -> Path:
    """Where a teacher's checkpoint is kept if its user does not say where."""
    return own_folder().with_name("teachers") / Path(SOURCES[name].url).name


def fetch(source: Source, target: Path, sha256: str | None = None, local: Path | None = None) -> Path:
    """Put the checkpoint of `source` at `target`, from its URL or from a `local` file, when hash and layout are right.

    `sha256`: hex digest to expect in place of the source's. UserError where it cannot be had, or is another one; then
    `target` is as it was before.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UserError(f"--sha256 {sha256!r} is no SHA-256; give 64 hexadecimal digits")
    check_place(target)
    where = source.url if local is None else str(local)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    try:
        found = _copy(source.url if local is None else local, temporary)
        _check_hash(source, where, found, sha256)
        _check_layout(source, where, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _copy(origin: str | Path, target: Path) -> str:
    """Write what is at a URL or path to `target`; its SHA-256."""
    digest = hashlib.sha256()
    with (
        _opened(origin) as (file, size),
        target.open("wb") as out,
        tqdm(total=size, unit="B", unit_scale=True, desc="fetch", file=sys.stderr) as bar,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            out.write(block)
            bar.update(len(block))
        if size is not None and bar.n != size:
            raise UserError(f"{str(origin)!r} broke off after {bar.n} of {size} bytes; try again")
    return digest.hexdigest()


@contextmanager
def _opened(origin: str | Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """A readable stream and its size, if that is known."""
    if isinstance(origin, Path):
        if not origin.is_file():
            raise UserError(f"no checkpoint at {str(origin)!r}; give the path of one")
        with origin.open("rb") as file:
            yield file, origin.stat().st_size
        return
    try:
        with urllib.request.urlopen(origin, timeout=TIMEOUT) as answer:
            size = answer.headers.get("Content-Length")
            yield answer, int(size) if size else None
    except (OSError, HTTPException) as error:  # URLError and HTTPError are OSErrors
        raise UserError(
            f"cannot fetch {origin} ({error}); get the file in another way and give it by --from PATH"
        ) from None


def _check_hash(source: Source, where: str, found: str, asked: str | None) -> None:
    expected = (asked or source.sha256 or "").lower()
    if not expected:
        print(f"nobody has published a SHA-256 of this file that could be compared; it is {found}", file=sys.stderr)
    elif found != expected:
        raise UserError(
            f"{where} has SHA-256 {found}, not {expected}"
            + (
                " as you gave by --sha256"
                if asked
                else ", which a third party published and we could not verify; the authors may have changed the file, "
                f"or it is not theirs: if you trust it, go on with --sha256 {found}"
            )
        )


def _check_layout(source: Source, where: str, path: Path) -> None:
    """Nothing but tensors and numbers in it, and exactly those of the layout."""
    from train.published import load_published

    try:
        load_published(path, source.layout)
    except UserError as error:
        raise UserError(str(error).replace(str(path), where)) from None
