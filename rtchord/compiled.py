"""Numba's compiler, with its machine code kept between runs.

Numba knows a function by the file it stands in, not by the functions of other files that were compiled into it. So
the folder is named after all sources of compiled code: a change to any of them makes a new one. Old ones stay, half a
megabyte each, since another rtchord on the machine may be using them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from numba import config, njit

from rtchord.cache import place

P = ParamSpec("P")
R = TypeVar("R")

PACKAGE = Path(__file__).parent
SOURCES = ("compiled.py", "gate.py", "audio/resample.py", "cqt/*.py")  # all that compiled functions are made of


def digest(package: Path = PACKAGE) -> str:
    """12 hex digits that tell one state of all sources of compiled code from another."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in package.glob(pattern)):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]


KEPT = place(f"numba-{digest()}", os.environ.get("NUMBA_CACHE_DIR"))  # None: everything is compiled at each start


def compiled(fastmath: bool | set[str] = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: `numba.njit` without the interpreter's lock, its machine code kept in KEPT."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        settings: Any = config
        before, settings.CACHE_DIR = settings.CACHE_DIR, str(KEPT.folder if KEPT else "")
        try:
            made: Any = njit(cache=KEPT is not None, nogil=True, fastmath=fastmath)(function)
        finally:
            settings.CACHE_DIR = before  # a program's own functions stay where they were
        return cast(Callable[P, R], made)

    return decorate
