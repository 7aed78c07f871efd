"""Filling a folder of shards piece by piece: resumable, and alone or as one of the processes that torchrun starts.

Beside the shards the folder holds ``settings.json`` (what its pieces were made with: all of them alike), and
``skipped.jsonl`` (pieces that could not be made, and why; of process N > 0 ``skipped-N.jsonl``).
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from tqdm import tqdm

from rtchord.errors import UserError
from train import store


class Job(Protocol):
    """A piece to be made."""

    @property
    def key(self) -> str: ...


class Made(NamedTuple):
    """A piece that was made: its tracks by feature definition, and what is known of it (with `seconds`)."""

    tracks: dict[str, store.Track]
    about: dict[str, Any]


J = TypeVar("J", bound=Job)


def processes() -> tuple[int, int]:
    """(number of this process, how many there are), as torchrun says; else (0, 1)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def fill(
    target: Path, jobs: Sequence[J], make: Callable[[J], Made], settings: dict[str, Any], retry: bool = False
) -> None:
    """Make every job that `target` does not hold yet, and write it there.

    A job that raises UserError is told on stderr, noted and left out, also by later runs unless `retry`. Of several
    processes each makes its own part of `jobs`: process r those numbered r, r + world, .. Raises UserError where a key
    comes twice, another run is at work on `target`, it was made with other settings, or the disk is full.
    """
    for key, count in Counter(job.key for job in jobs).items():
        if count > 1:
            raise UserError(f"{key!r} is there {count} times; give every piece a name of its own")
    rank, world = processes()
    log = target / ("skipped.jsonl" if rank == 0 else f"skipped-{rank}.jsonl")
    with _alone(target, settings, retry), store.Writer(target, rank) as writer:
        done, bad = store.keys(target), _skipped(target)
        mine = jobs[rank::world]
        todo = [job for job in mine if job.key not in done and job.key not in bad]
        seconds, failed, start = 0.0, 0, time.monotonic()
        with tqdm(total=len(mine), initial=len(mine) - len(todo), unit="piece", disable=rank > 0) as bar:
            for job in todo:
                try:
                    tracks, about = make(job)
                except UserError as error:
                    failed += 1
                    tqdm.write(f"skipped: {error}", file=sys.stderr)
                    with _writing(target), log.open("a") as file:
                        file.write(json.dumps({"key": job.key, "problem": str(error)}) + "\n")
                else:
                    writer.write(job.key, tracks, about)
                    seconds += about["seconds"]
                speed = seconds / (time.monotonic() - start)
                bar.set_postfix_str(f"{seconds / 3600:.2f} h, {speed:.1f} x real time", refresh=False)
                bar.update()
    before = sum(job.key in bad for job in mine)
    print(
        (f"process {rank} of {world}: " if world > 1 else "")
        + f"{len(mine) - failed - before} of {len(mine)} pieces are in {target}, {len(todo) - failed} of them new "
        f"({seconds / 3600:.2f} h); {failed + before} skipped"
        + (f" ({log.name} says why; --retry tries them again)" if failed + before else ""),
        file=sys.stderr,
    )


@contextmanager
def _alone(target: Path, settings: dict[str, Any], retry: bool) -> Iterator[None]:
    """Inside, no other run is at work on `target`, and shards that a killed one left under way are ended.

    Process 0 comes alone first and puts the folder in order. Then all processes hold the lock together, each as long as
    it lives, so that the next run waits for the last of them.
    """
    rank, world = processes()
    with _writing(target):
        target.mkdir(parents=True, exist_ok=True)
        lock = (target / ".lock").open("a+")  # over NFS a shared lock needs reading, another needs writing
    with lock:
        if rank == 0:
            _lock(lock.fileno(), fcntl.LOCK_EX, target)
            with _writing(target):
                _agree(target / "settings.json", settings)
                store.recover(target)
                for log in target.glob("skipped*.jsonl") if retry else ():
                    log.unlink()
            _lock(lock.fileno(), fcntl.LOCK_SH, target)
        if world > 1:
            from torch import distributed

            distributed.init_process_group("gloo")
            distributed.barrier()
            distributed.destroy_process_group()
        if rank:
            _lock(lock.fileno(), fcntl.LOCK_SH, target)
        yield


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {str(target)!r}: {error.strerror}; make room, or choose another folder"
        ) from None


def _lock(file: int, kind: int, target: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another run is at work on {str(target)!r}; wait for it, or choose another folder") from None


def _agree(path: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a folder, or see that they are those noted before."""
    if path.exists():
        before = json.loads(path.read_text())
        for name in sorted(before.keys() | settings.keys()):
            if before.get(name) != settings.get(name):
                raise UserError(
                    f"{str(path.parent)!r} was begun with {name} {before.get(name)!r}, not {settings.get(name)!r}; "
                    "go on with the same, or choose another folder"
                )
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(settings))
    temporary.replace(path)


def _skipped(target: Path) -> set[str]:
    """Keys of the pieces that earlier runs left out; a line that a killed run left half is not counted."""
    found = set()
    for log in target.glob("skipped*.jsonl"):
        for line in log.read_text().splitlines():
            try:
                found.add(json.loads(line)["key"])
            except ValueError:
                continue
    return found
