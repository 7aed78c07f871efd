"""Where machine code is kept between runs.

It lies where the user's caches are, or among the temporary files, which the system empties now and then. What is read
from there is run, so it must be ours, and nobody else may write there.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Kept(NamedTuple):
    """A folder that takes files, and whether it outlives the next emptying of temporary files."""

    folder: Path
    lasting: bool


def place(name: str, asked: str | None = None) -> Kept | None:
    """The first usable folder `name`, which is made where it is missing; None where nothing can be written.

    `asked`: where to look before the usual places.
    """
    return next((kept for kept in _candidates(name, asked) if _usable(kept.folder)), None)


def _candidates(name: str, asked: str | None) -> Iterator[Kept]:
    """Folders of that name, the best place first."""
    if asked:
        yield Kept(Path(asked) / name, True)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~\\AppData\\Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):  # nobody knows this user's home
        folder = Path(base).expanduser()
        if folder.is_dir() or folder.parent.is_dir():  # a home that is not there is not made
            yield Kept(folder / "rtchord" / name, True)
    with contextlib.suppress(OSError):  # no temporary files can be written either
        yield Kept(Path(tempfile.gettempdir()) / f"rtchord-{_user()}-{name}", False)


def _user() -> int | str:
    return os.getuid() if hasattr(os, "getuid") else getpass.getuser()


def _usable(folder: Path) -> bool:
    """Whether the folder is there or could be made, takes files, and nobody else can have put code into it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return False
    if not hasattr(os, "getuid"):  # Windows: all of these places are the user's own
        return True
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not others
