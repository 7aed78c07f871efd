"""A thread for each output, so that none waits for another, nor the recognizer for any.

`Port` is what an output is: plain code that may block, called by one thread. `Worker` is that thread, with what waits
for it: items in their order, and the newest status alone.

    the port keeps up          every item, at once: the thread is woken by a lock, and nothing is polled
    the port was blocked       the newest of those that waited longer than STALE_SECONDS, where only that counts;
                               elsewhere the newest MOST. What was left out is counted
    nothing is live            (`patient`) the giver waits, and nothing is left out
    the port raises            that is told in a sentence, and the port is closed; the other outputs go on

What the session's thread does here it does with single operations that the interpreter does not interrupt: a signal
raises an exception in that thread, and no lock may be left behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from rtchord.events import Status

MOST = 4096  # items that wait; an hour of music or two
STALE_SECONDS = 0.05
PATIENCE_SECONDS = 0.001  # between looks whether a port has come so far, where nothing is live
PRIORITY = 1  # of real-time programs: before all that is not, after every audio driver

Item = TypeVar("Item")


class Port(Generic[Item]):
    """Somewhere items go, until it is no longer `open`. One thread makes it, another one uses it.

    `name`: where that is, for people. `failed`: closed by an error, not because nobody is there any more. `every`:
    whether each item counts, not the newest alone.
    """

    open = True
    failed = False
    name = ""
    every = True

    def send(self, item: Item, /) -> None:
        """Say it now."""
        raise NotImplementedError

    def status(self, status: Status) -> None:
        """How the session is doing, ten times a second while it runs."""

    def flush(self) -> None:
        """All that there is has been sent."""

    def renew(self) -> None:
        """The server that carried it has died."""

    def release(self) -> None:
        """End what sounds, say the last word; may be asked again."""

    def close(self) -> None:
        """Go away; may be asked again."""
        self.open = False


class Worker(Generic[Item]):
    """The thread that uses `port`. `report` is told, in a sentence, if the port raises.

    `patient`: whether `send` may wait. `first`: whether the thread goes before ordinary programs.
    """

    def __init__(
        self, port: Port[Item], report: Callable[[str], None], patient: bool = False, first: bool = False
    ) -> None:
        self._port, self._report, self._patient, self._first = port, report, patient, first
        self._items: deque[tuple[int, float, Item]] = deque(maxlen=MOST)  # (number, when it was given, what)
        self._status: deque[Status] = deque(maxlen=1)
        self._given = self._taken = self._skipped = 0
        self._renewing = self._releasing = self._closing = False
        self._news = threading.Lock()  # held while there are none
        self._news.acquire()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._run, name=port.name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._port.name

    @property
    def open(self) -> bool:
        """Whether the port takes more."""
        return self._port.open

    @property
    def failed(self) -> bool:
        return self._port.failed

    @property
    def left_out(self) -> int:
        """Items that the port was not given, because it did not keep up."""
        return self._skipped + (len(self._items) if self._thread.is_alive() else 0)

    @property
    def released(self) -> bool:
        """Whether all that was given before `release` has been dealt with, and the port released."""
        return self._released.is_set()

    def send(self, item: Item) -> None:
        """Have it sent; returns at once, or, if patient, when there is room."""
        while self._patient and len(self._items) == MOST and self._thread.is_alive():
            time.sleep(PATIENCE_SECONDS)
        self._items.append((self._given + 1, time.monotonic(), item))  # a full queue loses its oldest
        self._given += 1
        self._wake()

    def status(self, status: Status) -> None:
        self._status.append(status)
        self._wake()

    def renew(self) -> None:
        self._renewing = True
        self._wake()

    def release(self) -> None:
        """Have the port released, after all that it was given; returns at once."""
        self._releasing = True
        self._wake()

    def wait_released(self, seconds: float) -> bool:
        """Whether the port was released in that time. Not to be interrupted by an exception."""
        return self._released.wait(max(0.0, seconds))

    def close(self) -> None:
        """Release the port and close it; returns when that is done, which may be never."""
        self._releasing = self._closing = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # there were news already
            self._news.release()

    def _run(self) -> None:
        with first_in_line() if self._first else contextlib.nullcontext():
            with self._told():
                closing = False
                while self._port.open and not closing:
                    self._news.acquire()
                    closing = self._closing  # asked for after all that is here now
                    self._turn()
            for last in (self._port.release, self._port.close):
                with self._told():
                    last()
            self._port.open = False
            self._released.set()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a port raises ends that port alone."""
        try:
            yield
        except Exception as error:
            if not self._port.failed:
                self._port.failed = True
                self._report(f"{self.name} has failed and is used no more: {error!r}")

    def _turn(self) -> None:
        """Deal with all that there is."""
        port, releasing = self._port, self._releasing  # likewise
        while self._items and port.open:
            number, given, item = self._items.popleft()
            self._skipped += number - self._taken - 1
            self._taken = number
            if self._items and not port.every and not self._patient and time.monotonic() - given > STALE_SECONDS:
                self._skipped += 1
            else:
                port.send(item)
        if self._renewing:
            self._renewing = False
            port.renew()
        if self._status and port.open:
            port.status(self._status.popleft())
        if port.open:
            port.flush()
        if releasing and not self._released.is_set():
            port.release()
            self._released.set()


@contextlib.contextmanager
def first_in_line() -> Iterator[None]:
    """Let no ordinary program make a chord late, where the system lets us (Linux, as audio servers are let).

    For this thread alone: what it starts meanwhile, as a new process for a lost input, is an ordinary program. Every
    thread of a live session needs it that takes the interpreter, or those that have it would wait for one that has not.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except (AttributeError, OSError):
        yield
        return
    try:
        yield
    finally:  # an ordinary thread may still not fork a real-time one
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
