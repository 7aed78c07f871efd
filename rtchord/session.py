"""A session on stage: threads, clocks and signals.

Processes: the audio driver is another one's business (rtchord.audio.capture), which fills a ring buffer in memory that
both share; the main thread here empties it, runs the recognizer and sends the events. A file takes the same way, from
blocks that are paced like a device's or not at all.

Time: seconds of audio heard, and of the clock on the wall while the input was away. So it never runs backwards, and
what was recorded fits a recording that somebody else made meanwhile.

Ways out, all of which release every sounding note first:
    the file ends, SIGINT, SIGTERM, SIGHUP    exit code 0
    the reader of stdout has gone             0, if nothing else is left to send to
    an exception in any thread                1
    bad input, or the last output failed      2
    the audio device is lost                  3, with --no-reconnect
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from statistics import median
from types import FrameType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rtchord.audio import device as devices
from rtchord.audio.source import DeviceSource, FileSource, Source
from rtchord.chords import NO_CHORD
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.names import Naming
from rtchord.outputs import Output, open_outputs
from rtchord.outputs.text import say
from rtchord.settings import Settings

if TYPE_CHECKING:
    from rtchord.engine import Engine
    from rtchord.recognizer import Recognizer

Float32 = NDArray[np.float32]

SWITCH_SECONDS = 0.0005  # between turns of threads, so that a busy one holds the recognizer up for less than with 0.005
STATUS_SECONDS = 0.1
SILENT_SECONDS = 5.0  # of zeros, which no cable gives that is plugged in
REVIVE_SECONDS = (1.0, 2.0, 4.0, 8.0)  # between attempts to open a port again that has died; the last is repeated
CLOSE_SECONDS = 1.0  # for the ports and for stdout
PRIORITY = 1  # of real-time programs: before all that is not, after every audio driver
LAST_RESORT_SECONDS = 2.8  # after which even a locked interpreter is ended
SLOW_START_SECONDS = 1.0
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # those the platform has


@runtime_checkable
class Mortal(Protocol):
    """An output whose port may die with a server and be made again."""

    def alive(self) -> bool:
        """Whether the port is there, as far as can be known."""

    def reopen(self) -> bool:
        """Try to make the port again; whether it is there now."""


class _Stop(BaseException):
    """A signal asked for the end."""


class _StopSignals:
    """Turns the first stop signal into _Stop in the main thread and ignores the rest.

    It is raised wherever the program is, even in a blocked write. Where Python swallows it (a destructor, a C
    callback), `check` raises it again.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, object] = {}
        self.fault: BaseException | None = None

    def __enter__(self) -> _StopSignals:
        self._excepthook, threading.excepthook = threading.excepthook, self.fail
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name, None) for name in STOP_SIGNALS):
                # What the parent chose to ignore (nohup, a background job of a shell) stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        threading.excepthook = self._excepthook
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            raise _Stop

    def check(self) -> None:
        if self._asked or self.fault is not None:
            raise _Stop

    def fail(self, arguments: threading.ExceptHookArgs) -> None:
        """An exception that ended another thread ends the session too, from the main thread; see `fault`."""
        if self.fault is None and arguments.exc_type is not SystemExit:
            self.fault = arguments.exc_value
            _thread.interrupt_main(signal.SIGTERM)  # nothing where that is ignored: `check` sees it too

    def ignore(self) -> None:
        """From here on nothing interrupts."""
        self._asked = True


class _Stage:
    """What a session has opened."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.outputs: list[Output] = []  # in the order in which events reach them
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115 (for the life of the process)

    def release(self) -> None:
        """End every sounding note; comes before all else, since whatever follows may wait."""
        for output in self.outputs:
            with contextlib.suppress(Exception):
                output.release()

    def close(self) -> bool:
        """Close everything; False where something hangs, so that only os._exit ends the process.

        The source goes first: a JACK server that two clients leave at once may keep both waiting. python-rtmidi waits
        with the interpreter locked, so that no thread of ours could end that; faulthandler needs no interpreter.
        """
        faulthandler.dump_traceback_later(LAST_RESORT_SECONDS, exit=True, file=self._nowhere)
        if self.source is not None:
            self.source.close()
        gone = devices.bounded([*(output.close for output in self.outputs), _flush], CLOSE_SECONDS)
        faulthandler.cancel_dump_traceback_later()
        return gone


def listen(settings: Settings) -> int:
    """Run a session to its end; returns the exit code. Leaves the process itself where something hangs."""
    code = 0
    stage = _Stage()
    sys.setswitchinterval(SWITCH_SECONDS)
    with devices.quiet_stderr(), _StopSignals() as signals:
        try:
            try:
                code = UserError.exit_code if _listen(settings, signals, stage) else 0
            finally:
                signals.ignore()
                stage.release()
        except _Stop:
            pass
        except UserError as error:
            say(str(error))
            code = error.exit_code
        finally:
            gone = stage.close()
        if not gone:
            os._exit(code if signals.fault is None else 1)
        if signals.fault is not None:
            raise signals.fault
    return code


def _listen(settings: Settings, signals: _StopSignals, stage: _Stage) -> bool:
    """Set up and run; whether it had to end because the last output failed."""
    source: Source
    wanted = settings.input
    if wanted.file is not None:
        source = FileSource(wanted.file, wanted.channels, wanted.realtime, say)
    else:
        source = DeviceSource(wanted.device, wanted.channels, wanted.reconnect, say)
    stage.source = source
    # Who patches audio in JACK looks for the notes there too.
    open_outputs(settings, stage.outputs, "JACK" if source.host_api == devices.JACK else None, say)

    # Where SciPy is installed Numba loads its linear algebra, which no kernel of ours uses: 12 MB, and time at start.
    sys.modules.setdefault("scipy.linalg", None)  # type: ignore[arg-type]
    from rtchord import engine as engines  # late: bad input is told before ONNX Runtime is loaded

    engine, why = engines.choose(settings.recognise.engine)
    notice = threading.Timer(SLOW_START_SECONDS, say, ["getting ready; the first start on a machine takes longer"])
    notice.daemon = True
    notice.start()
    try:
        performance = _Performance(settings, source, stage.outputs, engine)
    finally:
        notice.cancel()
    source.start()
    targets = ", ".join(output.name for output in stage.outputs)
    say(f"listening to {source.name}, {source.rate} Hz; {why}; sending to {targets}")
    try:
        with contextlib.nullcontext() if wanted.file is not None else _first():
            return performance.run(signals)
    finally:
        if source.dropped:
            say(f"{source.dropped:.1f} s of audio came faster than this machine could follow and were dropped")
        if source.overflows:
            say(f"the audio driver reported {source.overflows} input overflows")


@contextlib.contextmanager
def _first() -> Iterator[None]:
    """Let no ordinary program make a chord late, where the system lets us (Linux, as audio servers are let).

    For this thread alone: what it starts meanwhile, as a new process for a lost input, is an ordinary program.
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


class _Performance:
    """The way of blocks through the recognizer to the outputs, and the state of it all."""

    def __init__(self, settings: Settings, source: Source, outputs: list[Output], engine: Engine) -> None:
        self._settings, self._source, self._outputs, self._engine = settings, source, outputs, engine
        self._rate = source.rate
        self._recognizer = self._prepared()
        self._start = 0.0  # s of the session at which the recognizer's stream begins
        self._samples = 0  # that the recognizer was given
        self._connected = True
        self._heard = self._told = self._sounded = time.monotonic()  # last audio, last status, last sound
        self._hinted = source.host_api is None
        self._naming = Naming(settings.names)
        self._delays: list[float] = []
        self._revive_at: dict[int, tuple[float, int]] = {}  # output -> when to try again, attempts so far

    def run(self, signals: _StopSignals) -> bool:
        """To the end of the source or of the last output; whether the latter had failed."""
        for block in self._source.blocks():
            self.take(block)
            signals.check()
            if not any(output.open for output in self._outputs):
                return any(getattr(output, "failed", False) for output in self._outputs)
        self._send(self._recognizer.flush())
        self._tell(time.monotonic())
        return False

    def take(self, block: Float32) -> None:
        """A block of audio, or an empty one for a look around."""
        now = time.monotonic()
        if self._source.connected != self._connected:
            self._connected = self._source.connected
            (self._return if self._connected else self._lose)(now)
        if block.size:
            self._samples += block.size
            self._heard = now
            self._send(self._recognizer.push(block))
            self._delays.append(time.perf_counter() - self._source.arrived)
        if now - self._told >= STATUS_SECONDS:
            self._tell(now)

    def _prepared(self) -> Recognizer:
        from rtchord.recognizer import Recognizer  # late: bad input is told before Numba is loaded

        how = self._settings.recognise
        recognizer = Recognizer(
            self._rate, self._engine, how.latency, gate=self._settings.input.gate, hold=how.hold / 1000
        )
        recognizer.warm_up()
        return recognizer

    def _time(self, now: float) -> float:
        """Seconds of the session."""
        time_heard = self._start + self._samples / self._rate
        return time_heard if self._connected else time_heard + now - self._heard

    def _lose(self, now: float) -> None:
        """The input has gone: so has the chord."""
        self._pass_on([ChordEvent(self._start + self._samples / self._rate, self._time(now), NO_CHORD, 1.0)])

    def _return(self, now: float) -> None:
        """Audio comes again, and the clock has gone on."""
        self._start += self._samples / self._rate + now - self._heard
        self._samples, self._hinted = 0, False
        self._sounded = now
        if self._rate == self._source.rate:
            self._recognizer.reset()
        else:
            self._rate = self._source.rate
            self._recognizer = self._prepared()
        if self._source.server_died:  # and what MIDI it carried with it
            for number, output in enumerate(self._outputs):
                if isinstance(output, Mortal) and self._source.host_api == devices.JACK:
                    self._revive_at[number] = (now, 0)

    def _send(self, events: Iterable[ChordEvent]) -> None:
        """Events of the recognizer, at the session's time."""
        start = self._start
        self._pass_on(replace(e, onset=e.onset + start, time=e.time + start) if start else e for e in events)

    def _pass_on(self, events: Iterable[ChordEvent]) -> None:
        for event in filter(None, map(self._naming.push, events)):
            for output in self._outputs:
                if output.open:
                    output.send(event)

    def _tell(self, now: float) -> None:
        self._told = now
        source, level = self._source, self._source.mix.take()
        delay = median(self._delays) if self._delays else 0.0
        self._delays.clear()
        status = Status(
            self._time(now), *level, source.overflows, source.dropped, self._connected, delay,
            source.name, self._engine.manifest.name,
        )  # fmt: skip
        for number, output in enumerate(self._outputs):
            if output.open:
                output.status(status)
            if isinstance(output, Mortal):
                self._revive(number, output, now)
        if level.peak > -np.inf or not self._connected:
            self._sounded = now
        elif now - self._sounded >= SILENT_SECONDS and not self._hinted:
            self._hinted = True
            say("the input is silent: is the cable in?")

    def _revive(self, number: int, output: Mortal, now: float) -> None:
        """Make a port again that has died, now and then."""
        if number not in self._revive_at:
            if output.alive():
                return
            self._revive_at[number] = (now, 0)
        due, attempt = self._revive_at[number]
        if now >= due:
            if output.reopen():
                del self._revive_at[number]
            else:
                self._revive_at[number] = (now + REVIVE_SECONDS[min(attempt, len(REVIVE_SECONDS) - 1)], attempt + 1)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
