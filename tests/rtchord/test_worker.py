"""Outputs that block, fall behind or raise, and what the others have of it."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rtchord.chords import chord_with_bass, class_index
from rtchord.events import ChordEvent, Status
from rtchord.outputs import midi, worker
from rtchord.outputs.display import Display
from rtchord.outputs.files import ChordText, Recording, encoder
from rtchord.outputs.midi import MidiOutput
from rtchord.outputs.osc import OscOutput
from rtchord.outputs.text import TextOutput, Voice
from rtchord.outputs.worker import PRIORITY, Port, Worker, first_in_line
from rtchord.settings import MidiSettings, Target

STATUS = Status(1.0, -20.0, -10.0, 0, 0, 0.0, True, 0.0)
EVENTS = [ChordEvent(i, i + 0.1, chord_with_bass(class_index(i * 5, "maj"), i * 5 % 12), 0.9) for i in range(21)]
SOON = 0.010  # s


class Line:
    """Stands where rtmidi's client stands: the notes that are on."""

    def __init__(self) -> None:
        self.on: set[int] = set()

    def send_message(self, message: bytes) -> None:
        (self.on.add if message[0] == 0x90 else self.on.discard)(message[1])

    def close_port(self) -> None:
        pass

    def delete(self) -> None:
        pass


class Gate:
    """Holds a function up while it is shut."""

    def __init__(self) -> None:
        self.shut, self.reached, self.free = False, threading.Event(), threading.Event()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any) -> Any:
            if self.shut:
                self.reached.set()
                assert self.free.wait(60)
            return function(*args)

        return held


class Stage:
    """One output of each kind; `sent` are the times at which each was through with an event."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.line, self.gates = Line(), {}
        self._ends = contextlib.ExitStack()
        monkeypatch.setattr(midi, "_virtual_port", lambda _prefer: ("test", self.line, "rtchord:chords"))
        receiver = self._ends.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        self.pipe, self.stderr, self.terminal = os.pipe(), os.pipe(), pty.openpty()
        out = self._ends.enter_context(os.fdopen(self.pipe[1], "w"))
        monkeypatch.setattr("sys.stderr", self._ends.enter_context(os.fdopen(self.stderr[1], "w")))
        screen = self._ends.enter_context(os.fdopen(self.terminal[1], "w"))
        osc, text = OscOutput(Target("127.0.0.1", receiver.getsockname()[1])), ChordText(folder / "chord.txt")
        recording = Recording(folder / "a.mid", encoder(folder / "a.mid", MidiSettings()))
        self.ports: dict[str, Port[ChordEvent]] = {
            "midi": MidiOutput(),
            "osc": osc,
            "text": text,
            "recording": recording,
            "display": Display(screen, "balanced"),
            "stdout": TextOutput(out, "jsonl"),
        }
        self.gates = {name: Gate() for name in ("midi", "osc", "text", "recording")}
        self.line.send_message = self.gates["midi"].before(self.line.send_message)  # type: ignore[method-assign]
        osc._send = self.gates["osc"].before(osc._send)  # type: ignore[method-assign]
        recording._put = self.gates["recording"].before(recording._put)  # type: ignore[method-assign]
        monkeypatch.setattr(os, "replace", self.gates["text"].before(os.replace))
        self.sent: dict[str, list[float]] = {name: [] for name in self.ports}
        for name, port in self.ports.items():
            self._stamp(name, port)
        self.voice = Worker(Voice(), print)
        self.workers = {name: Worker(port, self.voice.send) for name, port in self.ports.items()}

    def _stamp(self, name: str, port: Port[ChordEvent]) -> None:
        deed = port.flush if name == "display" else port.send

        def stamped(*args: Any) -> None:
            deed(*args)
            self.sent[name].append(time.monotonic())

        setattr(port, "flush" if name == "display" else "send", stamped)

    def block(self, name: str) -> None:
        """Fill the pipe or shut the gate, and wait until the worker hangs there."""
        if name in self.gates:
            self.gates[name].shut = True
            self.workers[name].send(EVENTS[1])
            assert self.gates[name].reached.wait(20)
            return
        end = {"stdout": self.pipe[1], "display": self.terminal[1], "stderr": self.stderr[1]}[name]
        os.set_blocking(end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(end, b" " * 1024)
        os.set_blocking(end, True)

    def free(self, name: str) -> None:
        if name in self.gates:
            self.gates[name].shut = False
            self.gates[name].free.set()
            return
        end = {"stdout": self.pipe[0], "display": self.terminal[0], "stderr": self.stderr[0]}[name]

        def read() -> None:
            with contextlib.suppress(OSError):
                while os.read(end, 65536):
                    pass

        threading.Thread(target=read, daemon=True).start()

    def close(self) -> None:
        for name in (*self.gates, "stdout", "display", "stderr"):
            self.free(name)
        for each in (*self.workers.values(), self.voice):
            each.close()
        self._ends.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as in a session
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    sys.setswitchinterval(before)


@pytest.mark.parametrize("blocked", ["midi", "osc", "text", "recording", "display", "stdout", "stderr"])
def test_whatever_is_blocked_all_others_go_on_and_no_note_is_left_on(stage: Stage, blocked: str) -> None:
    for name, each in stage.workers.items():
        if name == "display":
            stage.free("display") if blocked != "display" else None
        each.send(EVENTS[0])
    stage.block(blocked)
    others = {name: each for name, each in stage.workers.items() if name != blocked}
    late: dict[str, list[float]] = {name: [] for name in others}
    for event in EVENTS:
        stage.voice.send("something went wrong")
        before = {name: len(stage.sent[name]) for name in others}
        begun = time.monotonic()
        for each in stage.workers.values():
            each.send(event)
            each.status(STATUS)
        assert time.monotonic() - begun < 1.0  # the giver is not held up, or it would be for ever
        for name in others:
            while len(stage.sent[name]) == before[name]:
                assert time.monotonic() - begun < 20, name
                time.sleep(0.0005)
            late[name].append(stage.sent[name][before[name]] - begun)
    # A busy machine may hold up any of them, but not half of the time.
    assert {name: t for name, times in late.items() if (t := statistics.median(times)) > SOON} == {}

    for each in stage.workers.values():
        each.release()
    assert all(each.wait_released(20) for each in others.values())
    if blocked != "midi":
        assert stage.line.on == set()
    assert not stage.workers.get(blocked, stage.voice).released
    stage.free(blocked)
    if blocked != "stderr":
        assert stage.workers[blocked].wait_released(20)
    assert stage.line.on == set()


class Log(Port[int]):
    """An output that notes what it was given, when it is let."""

    name = "a log"

    def __init__(self, every: bool = True) -> None:
        self.every = every
        self.items: list[int] = []
        self.states: list[Status] = []
        self.calls: list[str] = []
        self.free = threading.Event()

    def send(self, item: int) -> None:
        assert self.free.wait(60)
        self.items.append(item)

    def status(self, status: Status) -> None:
        self.states.append(status)

    def release(self) -> None:
        self.calls.append("release")

    def close(self) -> None:
        self.calls.append("close")
        self.open = False


def taken_up(made: Worker[int]) -> None:
    """Until the thread hangs in its first item."""
    while len(made._items) > 0:
        time.sleep(0.001)


def test_where_only_the_newest_counts_what_came_meanwhile_is_left_out_and_counted() -> None:
    log = Log(every=False)
    made = Worker(log, print)
    made.send(0)
    taken_up(made)
    for item in range(1, 6):
        made.send(item)
    time.sleep(2 * worker.STALE_SECONDS)
    log.free.set()
    made.close()
    assert log.items == [0, 5]
    assert made.left_out == 4


def test_where_only_the_newest_counts_what_comes_together_is_not_left_out() -> None:
    log = Log(every=False)
    log.free.set()
    made = Worker(log, print)
    for item in range(3):
        made.send(item)
    made.close()
    assert log.items == [0, 1, 2] or made.left_out  # on a machine that held the thread up for so long


def test_where_all_count_nothing_is_left_out_until_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MOST", 5)
    log = Log()
    made = Worker(log, print)
    made.send(0)
    taken_up(made)
    for item in range(1, 9):
        made.send(item)
    time.sleep(2 * worker.STALE_SECONDS)
    log.free.set()
    made.close()
    assert log.items == [0, 4, 5, 6, 7, 8]
    assert made.left_out == 3


@pytest.mark.parametrize("every", [True, False])
def test_where_nothing_is_live_the_giver_waits_and_nothing_is_left_out(
    every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST", 5)
    log = Log(every)
    made = Worker(log, print, patient=True)
    giver = threading.Thread(target=lambda: [made.send(item) for item in range(100)])
    giver.start()
    giver.join(2 * worker.STALE_SECONDS)
    assert giver.is_alive()
    log.free.set()
    giver.join(60)
    made.close()
    assert log.items == list(range(100))
    assert made.left_out == 0


def test_of_the_states_the_newest_is_told_after_the_events() -> None:
    log = Log()
    made = Worker(log, print)
    made.send(0)
    taken_up(made)
    states = [Status(float(i), 0.0, 0.0, 0, 0, 0.0, True, 0.0) for i in range(5)]
    for state in states:
        made.status(state)
    log.free.set()
    made.close()
    assert log.states == states[-1:]


def test_what_was_given_before_the_release_comes_before_it() -> None:
    log = Log()
    made = Worker(log, print)
    for item in range(50):
        made.send(item)
    made.release()
    assert not made.released
    log.free.set()
    assert made.wait_released(60)
    assert (log.items, log.calls) == (list(range(50)), ["release"])
    made.close()
    assert log.calls[-1] == "close"
    assert not made.open


def test_what_hangs_is_counted_as_left_out() -> None:
    log = Log()
    made = Worker(log, print)
    for item in range(4):
        made.send(item)
    while len(made._items) == 4:
        time.sleep(0.001)
    assert made.left_out == 3
    log.free.set()
    made.close()
    assert made.left_out == 0


@pytest.mark.parametrize("where", ["send", "status", "flush", "renew", "release", "close"])
def test_whatever_a_port_raises_is_a_sentence_and_closes_it(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    log = Log()
    log.free.set()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(log, where, broken)
    made = Worker(log, said.append)
    made.send(1)
    made.status(STATUS)
    made.renew()
    made.release()
    assert made.wait_released(60)
    made.close()
    assert (made.open, made.failed) == (False, True)
    assert said == ["a log has failed and is used no more: ZeroDivisionError('of the test')"]
    assert [call for call in ("release", "close") if call != where] == [
        call for call in dict.fromkeys(log.calls) if call != where
    ]


def _allowed() -> bool:
    try:
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        os.sched_setscheduler(0, before, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.skipif(not _allowed(), reason="the system lets nobody here go first")
def test_a_live_session_goes_before_ordinary_programs_and_what_it_starts_does_not() -> None:
    say = "import os; print(os.sched_getscheduler(0) == os.SCHED_OTHER)"
    with first_in_line():
        assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
        started = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert started.stdout == "True\n"
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


@pytest.mark.skipif(not _allowed(), reason="the system lets nobody here go first")
@pytest.mark.parametrize("first", [True, False])
def test_the_threads_of_a_live_session_go_first_too(first: bool) -> None:
    """They are no children of a thread that does, and would stand behind every ordinary program."""
    found: list[int] = []
    log = Log()
    log.free.set()
    log.flush = lambda: found.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)  # type: ignore[method-assign]
    made = Worker(log, print, first=first)
    made.send(1)
    made.close()
    assert set(found) == {os.SCHED_RR if first else os.SCHED_OTHER}


def test_a_session_that_may_not_go_first_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    with first_in_line():
        entered = True
    assert entered
