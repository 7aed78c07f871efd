"""Files that are whole or not there, folders that one run at a time writes to, and settings that must stay the same."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtchord.errors import UserError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to inside; what is there at the end takes the place of `path`, whose folder is made.

    UserError where the disk does not take it. Whatever goes wrong inside, `path` is as it was before.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}; make room, or choose another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
