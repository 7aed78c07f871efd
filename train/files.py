"""Files that are whole or not there, folders that one run at a time writes to, and settings that must stay the same."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtchord.errors import UserError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to inside; what is there at the end takes the place of `path`, whose folder is made. A link stays
    one: what it leads to is replaced.

    UserError where the disk does not take it. Whatever goes wrong inside, `path` is as it was before.
    """
    whole = path.resolve()
    temporary = whole.with_name(f"{whole.name}.tmp")
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(whole)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}; make room, or choose another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_place(path: Path, folder: bool = False) -> None:
    """UserError where no file, or no `folder`, can be written at `path`: for whoever would learn it after long work."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        why = "" if is_folder == folder else f"it is a {'folder' if is_folder else 'file'}"
    except FileNotFoundError:
        nearest = next(above for above in path.absolute().parents if above.exists())
        why = "" if os.access(nearest, os.W_OK) else f"{str(nearest)!r} may not be written to"
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise UserError(f"cannot write {str(path)!r}: {why}; choose another place")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """UserError where the disk does not take what is written to `folder` inside."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {str(folder)!r}: {error.strerror}; make room, or choose another folder"
        ) from None


def lock(file: int, kind: int, folder: Path) -> None:
    """Lock the lock file of `folder` by its descriptor (fcntl.LOCK_EX or LOCK_SH); UserError where others hold it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another run is at work on {str(folder)!r}; wait for it, or choose another folder") from None


def agree(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """UserError, naming the first that differs, unless the settings that `folder` was begun with are those of now."""
    for name in {**before, **now}:
        one, two = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            agree(folder, one, two)
        elif one != two:
            raise UserError(
                f"{str(folder)!r} was begun with {name} {one!r}, not {two!r}; go on with the same, or choose another "
                "folder"
            )
