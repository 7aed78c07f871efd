"""Every kind of path that a command may be given, and what lies around it before and after."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path


def linked(folder: Path, ending: str, target: str) -> str:
    path = folder / f"link{ending}"
    path.symlink_to(target)
    return str(path)


def looping(folder: Path, ending: str) -> str:
    (folder / f"back{ending}").symlink_to(folder / f"link{ending}")
    return linked(folder, ending, str(folder / f"back{ending}"))


def made(folder: Path, name: str, make: Callable[[Path], object]) -> str:
    make(folder / name)
    return str(folder / name)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):  # addresses are short
        listener.bind(path.name)


def unreadable(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0)


# kind -> makes it in a folder, with the ending that its place asks for, and says how it is written.
PATHS: dict[str, Callable[[Path, str], str]] = {
    "missing": lambda folder, ending: str(folder / f"x{ending}"),
    "not UTF-8": lambda folder, ending: str(folder / os.fsdecode(b"M\xfcller" + ending.encode())),
    "NUL": lambda folder, ending: str(folder / f"a\0b{ending}"),
    "control characters": lambda folder, ending: str(folder / f"a\n\x1b[2J\x07{ending}"),
    "300 characters": lambda folder, ending: str(folder / f"{'x' * 300}{ending}"),
    "5000 characters": lambda folder, ending: str(folder / f"{'x/' * 2500}x{ending}"),
    "loop": looping,
    "link to nowhere": lambda folder, ending: linked(folder, ending, str(folder / "nowhere")),
    "folder": lambda folder, ending: made(folder, f"d{ending}", Path.mkdir),
    "file": lambda folder, ending: made(folder, f"f{ending}", Path.touch),
    "below a file": lambda folder, ending: made(folder, "file", Path.touch) + f"/x{ending}",
    "pipe": lambda folder, ending: made(folder, f"p{ending}", os.mkfifo),
    "socket": lambda folder, ending: made(folder, f"s{ending}", bound),
    "full": lambda folder, ending: linked(folder, ending, "/dev/full"),
    "null": lambda folder, ending: linked(folder, ending, "/dev/null"),
    "zero": lambda folder, ending: linked(folder, ending, "/dev/zero"),
    "empty": lambda _folder, _ending: "",
    "-": lambda _folder, _ending: "-",
    "unreadable": lambda folder, ending: made(folder, f"u{ending}", unreadable),
}


def contents(folder: Path) -> dict[str, object]:
    """Everything below a folder: what it is, its size, when it was changed."""
    found = {}
    for path in folder.rglob("*"):
        seen = path.lstat()
        found[str(path)] = (seen.st_mode, seen.st_size, seen.st_mtime_ns) if not path.is_dir() else seen.st_mode
    return found


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's licence to read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """AssertionError where what is inside takes longer; for the main thread."""

    def ring(_number: int, _frame: object) -> None:
        raise AssertionError(f"it waited for {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
