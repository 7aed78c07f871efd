"""A session without devices: what becomes of time, notes and ports when the input or something else goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtchord import session
from rtchord.audio.device import JACK
from rtchord.audio.files import read_mono
from rtchord.audio.mix import MonoMix
from rtchord.events import ChordEvent, Status
from rtchord.settings import Settings

DEMO = Path(__file__).parents[1] / "data" / "demo.ogg"
BLOCK = 2048
Script = Iterator[np.ndarray]


class Input:
    """A source whose blocks come from a script that may change its state."""

    def __init__(self, script: Callable[[Input], Script], rate: int, host_api: str | None = JACK) -> None:
        self.rate, self.host_api, self.name = rate, host_api, "an input"
        self.connected, self.server_died, self.overflows, self.dropped = True, False, 0, 0.0
        self.arrived = time.perf_counter()
        self.mix = MonoMix((0,), BLOCK)
        self.closed = False
        self._script = script

    def start(self) -> None:
        pass

    def play(self, samples: np.ndarray) -> Script:
        for start in range(0, len(samples), BLOCK):
            self.arrived = time.perf_counter()
            yield self.mix.mix(samples[start : start + BLOCK, None])

    def away(self, seconds: float, server_died: bool = False) -> Script:
        self.connected, self.server_died = False, server_died
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield np.zeros(0, np.float32)
            time.sleep(0.02)
        self.connected = True

    def blocks(self) -> Script:
        return self._script(self)

    def close(self) -> None:
        self.closed = True


class Port:
    """An output that notes everything; `deaf` ones raise."""

    open = True
    name = "a port"

    def __init__(self) -> None:
        self.events: list[ChordEvent] = []
        self.statuses: list[Status] = []
        self.calls: list[str] = []

    def send(self, event: ChordEvent) -> None:
        self.events.append(event)
        self.calls.append("send")

    def status(self, status: Status) -> None:
        self.statuses.append(status)

    def release(self) -> None:
        self.calls.append("release")

    def close(self) -> None:
        self.calls.append("close")


class MortalPort(Port):
    """An output whose port can be made again, at the second attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.living, self.attempts = True, 0

    def alive(self) -> bool:
        return self.living

    def reopen(self) -> bool:
        self.attempts += 1
        return self.attempts == 2


@pytest.fixture(scope="module")
def demo() -> tuple[np.ndarray, int]:
    samples, rate = read_mono(DEMO)
    return samples[: 6 * rate], rate


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def start(source: Input, *outputs: Port) -> int:
        monkeypatch.setattr(session, "DeviceSource", lambda *_: source)
        monkeypatch.setattr(session, "open_outputs", lambda _s, opened, *_: opened.extend(outputs))
        return session.listen(Settings())

    return start


Run = Callable[..., int]
Demo = tuple[np.ndarray, int]


def test_an_input_that_goes_ends_the_chord_and_time_goes_on_by_the_clock(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples)
        yield from source.away(1.0)
        yield from source.play(samples)

    port = Port()
    assert run(Input(script, rate), port) == 0
    lost = next(event for event in port.events if event.onset == pytest.approx(samples.size / rate))
    before, after = (
        [e for e in port.events if e.time < lost.time],
        [e for e in port.events if e.time > lost.time],
    )
    assert lost.chord == "N"
    assert before[-1].chord != "N"
    assert 0 <= lost.time - lost.onset < 0.5
    # the same music, later by the music before and by the pause; the opening N is not said again
    again = [(e.onset - after[0].onset, e.chord) for e in after]
    first = [(e.onset - before[1].onset, e.chord) for e in before[1:]]
    assert [chord for _, chord in again] == [chord for _, chord in first]
    assert [t for t, _ in again] == pytest.approx([t for t, _ in first], abs=1e-6)
    assert after[0].onset - before[1].onset == pytest.approx(samples.size / rate + 1.0, abs=0.3)
    assert [e.time for e in port.events] == sorted(e.time for e in port.events)


def test_the_status_says_that_the_input_is_away_and_its_time_never_runs_backwards(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples)
        yield from source.away(0.6)
        yield from source.play(samples[:rate])

    port = Port()
    run(Input(script, rate), port)
    assert {status.connected for status in port.statuses} == {True, False}
    assert sum(not status.connected for status in port.statuses) >= 3
    times = [status.time for status in port.statuses]
    assert times == sorted(times)
    assert port.statuses[-1].delay < 1.0


def test_another_rate_after_the_return_is_heard_right(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples[: 2 * rate])
        yield from source.away(0.2)
        source.rate = rate // 2
        yield from source.play(samples[::2])

    port = Port()
    run(Input(script, rate), port)
    assert [event.chord for event in port.events if event.time > 2.2][1:] != []
    assert port.statuses[-1].time == pytest.approx(8.2, abs=0.5)


def test_a_port_that_dies_is_opened_again_with_pauses(run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "REVIVE_SECONDS", (0.2,))
    port = MortalPort()

    def script(source: Input) -> Script:
        port.living = False
        yield from source.away(0.15)
        assert port.attempts == 1
        yield from source.away(0.6)
        port.living = True

    run(Input(script, demo[1]), port)
    assert port.attempts >= 2


def test_a_port_is_made_again_after_its_jack_server_died_though_it_seems_alive(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples[:rate])
        yield from source.away(0.1, server_died=True)
        yield from source.play(samples[:rate])
        time.sleep(0.2)
        yield from source.play(samples[:rate])

    port = MortalPort()
    run(Input(script, rate), port)
    assert port.attempts >= 1


def test_a_port_stays_when_only_the_device_has_gone(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples[:rate])
        yield from source.away(0.3)
        yield from source.play(samples[:rate])
        yield from source.away(0.2)

    port = MortalPort()
    run(Input(script, rate), port)
    assert port.attempts == 0


def test_silence_is_wondered_at_once(
    run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "SILENT_SECONDS", 0.3)

    def script(source: Input) -> Script:
        for _ in range(20):
            yield from source.play(np.zeros(BLOCK, np.float32))
            time.sleep(0.05)

    run(Input(script, demo[1]), Port())
    assert capsys.readouterr().err.count("is the cable in?") == 1


def test_sound_is_not_taken_for_silence(
    run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "SILENT_SECONDS", 0.3)

    def script(source: Input) -> Script:
        for _ in range(12):
            yield from source.play(np.full(BLOCK, 1e-6, np.float32))
            time.sleep(0.05)

    run(Input(script, demo[1]), Port())
    assert "cable" not in capsys.readouterr().err


class DeafPort(Port):
    def send(self, event: ChordEvent) -> None:
        raise RuntimeError(f"out of order at {event.chord}")


def test_an_exception_ends_the_notes_of_all_others_and_closes_everything(run: Run, demo: Demo) -> None:
    samples, rate = demo
    port, source = Port(), Input(lambda source: source.play(samples), rate)
    with pytest.raises(RuntimeError, match="out of order"):
        run(source, port, DeafPort())
    assert port.calls[-2:] == ["release", "close"]
    assert source.closed


def test_an_exception_in_another_thread_does_so_too(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def fail() -> None:
        raise RuntimeError("in a thread")

    def script(source: Input) -> Script:
        yield from source.play(samples)
        threading.Thread(target=fail).start()
        while True:
            yield from source.away(0.1)

    port, before = Port(), threading.excepthook
    with pytest.raises(RuntimeError, match="in a thread"):
        run(Input(script, rate), port)
    assert port.calls[-2:] == ["release", "close"]
    assert threading.excepthook is before


def test_what_hangs_on_the_way_out_is_left_behind(run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rate = demo
    never, codes = threading.Event(), []

    class Hanging(Port):
        def close(self) -> None:
            never.wait(20)

    def leave(code: int) -> Any:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(session.os, "_exit", leave)
    monkeypatch.setattr(session, "CLOSE_SECONDS", 0.2)
    port = Port()
    with pytest.raises(SystemExit):
        run(Input(lambda source: source.play(samples), rate), port, Hanging())
    never.set()
    assert codes == [0]
    assert port.calls[-1] == "close"


def _allowed() -> bool:
    try:
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(session.PRIORITY))
        os.sched_setscheduler(0, before, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.skipif(not _allowed(), reason="the system lets nobody here go first")
def test_a_live_session_goes_before_ordinary_programs_and_what_it_starts_does_not() -> None:
    say = "import os; print(os.sched_getscheduler(0) == os.SCHED_OTHER)"
    with session._first():
        assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
        started = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert started.stdout == "True\n"
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


def test_a_session_that_may_not_go_first_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    with session._first():
        entered = True
    assert entered
