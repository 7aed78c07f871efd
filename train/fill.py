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
from train.files import agree, lock, replaced, writing


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
                    with writing(target), log.open("a") as file:
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
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        file = (target / ".lock").open("a+")  # over NFS a shared lock needs reading, another needs writing
    with file:
        if rank == 0:
            lock(file.fileno(), fcntl.LOCK_EX, target)
            with writing(target):
                _note(target / "settings.json", settings)
                store.recover(target)
                for log in target.glob("skipped*.jsonl") if retry else ():
                    log.unlink()
            lock(file.fileno(), fcntl.LOCK_SH, target)
        if world > 1:
            from torch import distributed

            distributed.init_process_group("gloo")
            distributed.barrier()
            distributed.destroy_process_group()
        if rank:
            lock(file.fileno(), fcntl.LOCK_SH, target)
        yield


def _note(path: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a folder, or see that they are those noted before."""
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{str(path)!r} is damaged ({error}); choose another folder") from None
        agree(path.parent, before, settings)
        return
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(settings))


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
