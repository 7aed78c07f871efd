"""A session without devices: what becomes of time, notes and ports when the input or something else goes."""

from __future__ import annotations

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
from rtchord.outputs.text import say
from rtchord.outputs.worker import Port, Worker
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


class Ear(Port[ChordEvent]):
    """An output that notes everything."""

    name = "an ear"

    def __init__(self) -> None:
        self.events: list[ChordEvent] = []
        self.statuses: list[Status] = []
        self.calls: list[str] = []

    def send(self, event: ChordEvent) -> None:
        self.events.append(event)
        self.calls.append("send")

    def status(self, status: Status) -> None:
        self.statuses.append(status)

    def renew(self) -> None:
        self.calls.append("renew")

    def release(self) -> None:
        self.calls.append("release")

    def close(self) -> None:
        self.calls.append("close")
        self.open = False


@pytest.fixture(scope="module")
def demo() -> tuple[np.ndarray, int]:
    samples, rate = read_mono(DEMO)
    return samples[: 6 * rate], rate


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def start(source: Input, *ports: Ear) -> int:
        monkeypatch.setattr(session, "DeviceSource", lambda *_: source)
        monkeypatch.setattr(
            session, "open_outputs", lambda _s, opened, *_: opened.extend(Worker(port, say) for port in ports)
        )
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

    port = Ear()
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

    port = Ear()
    run(Input(script, rate), port)
    assert {status.connected for status in port.statuses} == {True, False}
    times = [status.time for status in port.statuses]
    assert times == sorted(times)
    away = [status.time for status in port.statuses if not status.connected]
    assert len(away) >= 3
    assert 0.3 < away[-1] - away[0] < 0.6 + 0.5  # it goes on by the clock
    assert port.statuses[-1].delay < 1.0


def test_a_machine_that_cannot_follow_is_told_once(run: Run, demo: Demo, capfd: pytest.CaptureFixture[str]) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        for block in source.play(samples):
            source.arrived -= 0.5
            yield block

    port = Ear()
    run(Input(script, rate), port)
    assert max(status.delay for status in port.statuses) > 0.5
    told = [line for line in capfd.readouterr().err.splitlines() if "cannot follow" in line]
    assert len(told) == 1
    assert "0.5 s late" in told[0]


def test_another_rate_after_the_return_is_heard_right(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples[: 2 * rate])
        yield from source.away(0.2)
        source.rate = rate // 2
        yield from source.play(samples[::2])

    port = Ear()
    run(Input(script, rate), port)
    assert [event.chord for event in port.events if event.time > 2.2][1:] != []
    assert port.statuses[-1].time == pytest.approx(8.2, abs=0.5)


def test_outputs_are_told_that_the_jack_server_died(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples[:rate])
        yield from source.away(0.1, server_died=True)
        yield from source.play(samples[:rate])
        time.sleep(0.2)
        yield from source.play(samples[:rate])

    port = Ear()
    run(Input(script, rate), port)
    assert port.calls.count("renew") == 1


def test_a_port_stays_when_only_the_device_has_gone(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples[:rate])
        yield from source.away(0.3)
        yield from source.play(samples[:rate])
        yield from source.away(0.2)

    port = Ear()
    run(Input(script, rate), port)
    assert "renew" not in port.calls


def test_silence_is_wondered_at_once(
    run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "SILENT_SECONDS", 0.3)

    def script(source: Input) -> Script:
        for _ in range(20):
            yield from source.play(np.zeros(BLOCK, np.float32))
            time.sleep(0.05)

    run(Input(script, demo[1]), Ear())
    assert capsys.readouterr().err.count("is the cable in?") == 1


def test_sound_is_not_taken_for_silence(
    run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "SILENT_SECONDS", 0.3)

    def script(source: Input) -> Script:
        for _ in range(12):
            yield from source.play(np.full(BLOCK, 1e-6, np.float32))
            time.sleep(0.05)

    run(Input(script, demo[1]), Ear())
    assert "cable" not in capsys.readouterr().err


class Deaf(Ear):
    """Raises what nobody foresaw, at its second event."""

    name = "a deaf one"

    def send(self, event: ChordEvent) -> None:
        super().send(event)
        if len(self.events) == 2:
            raise RuntimeError(f"out of order at {event.chord}")


class DeafToTheState(Ear):
    name = "a deaf one"

    def status(self, status: Status) -> None:
        super().status(status)
        raise RuntimeError("out of order")


@pytest.mark.parametrize("kind", [Deaf, DeafToTheState])
def test_an_output_that_raises_is_closed_and_the_others_go_on(
    run: Run, demo: Demo, kind: type[Ear], capsys: pytest.CaptureFixture[str]
) -> None:
    samples, rate = demo
    alone, port, deaf = Ear(), Ear(), kind()
    run(Input(lambda source: source.play(samples), rate), alone)
    capsys.readouterr()
    assert run(Input(lambda source: source.play(samples), rate), deaf, port) == 0
    assert port.events == alone.events
    assert len(deaf.events) <= 2
    assert deaf.calls[-2:] == ["release", "close"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "out of order" in line]
    assert "a deaf one has failed and is used no more" in line


def test_the_last_output_that_raises_ends_it_with_2(run: Run, demo: Demo) -> None:
    samples, rate = demo
    assert run(Input(lambda source: source.play(samples), rate), Deaf(), Deaf()) == 2


def test_an_exception_that_is_no_outputs_ends_all_notes_and_closes_everything(run: Run, demo: Demo) -> None:
    samples, rate = demo

    def script(source: Input) -> Script:
        yield from source.play(samples)
        raise RuntimeError("out of order")

    port, source = Ear(), Input(script, rate)
    with pytest.raises(RuntimeError, match="out of order"):
        run(source, port)
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

    port, before = Ear(), threading.excepthook
    with pytest.raises(RuntimeError, match="in a thread"):
        run(Input(script, rate), port)
    assert port.calls[-2:] == ["release", "close"]
    assert threading.excepthook is before


def test_what_hangs_on_the_way_out_is_left_behind(run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rate = demo
    never, codes = threading.Event(), []

    class Hanging(Ear):
        def close(self) -> None:
            never.wait(20)

    def leave(code: int) -> Any:
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(session.os, "_exit", leave)
    monkeypatch.setattr(session, "CLOSE_SECONDS", 0.2)
    port = Ear()
    with pytest.raises(SystemExit):
        run(Input(lambda source: source.play(samples), rate), port, Hanging())
    never.set()
    assert codes == [0]
    assert port.calls[-1] == "close"
