"""A session on stage: threads, clocks and signals.

Processes: the audio driver is another one's business (rtchord.audio.capture), which fills a ring buffer in memory that
both share; the main thread here empties it, runs the recognizer and hands the events to the outputs. Each output has a
thread of its own (rtchord.outputs.worker), and so has stderr: the main thread waits for no reader, disk or cable. A
file takes the same way, from blocks that are paced like a device's or not at all.

Time: seconds of audio heard, and of the clock on the wall while the input was away. So it never runs backwards, and
what was recorded fits a recording that somebody else made meanwhile.

Ways out, all of which release every sounding note first:
    the file ends, SIGINT, SIGTERM, SIGHUP    exit code 0
    the reader of stdout has gone             0, if nothing else is left to send to
    an exception, but not in an output        1
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
from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtchord.audio import device as devices
from rtchord.audio.source import DeviceSource, FileSource, Source
from rtchord.chords import NO_CHORD
from rtchord.errors import UserError
from rtchord.events import ChordEvent, Status
from rtchord.names import Naming
from rtchord.outputs import Output, open_outputs
from rtchord.outputs.text import Voice, cover, say, uncover
from rtchord.outputs.worker import Worker, first_in_line
from rtchord.settings import Settings

if TYPE_CHECKING:
    from rtchord.engine import Engine
    from rtchord.recognizer import Recognizer

Float32 = NDArray[np.float32]

SWITCH_SECONDS = 0.0005  # between turns of threads, so that a busy one holds the recognizer up for less than with 0.005
STATUS_SECONDS = 0.1
LATE_SECONDS = 0.25  # from a block of sound until its chords are sent; more is told, once until it is good again
SILENT_SECONDS = 5.0  # of zeros, which no cable gives that is plugged in
RELEASE_SECONDS = 0.2  # for the notes to be ended before anything else is
CLOSE_SECONDS = 1.0  # for the ports and for stdout
VOICE_SECONDS = 0.3  # for stderr
DONE_SECONDS = 0.005  # between looks whether the outputs have come to the end of a file
LAST_RESORT_SECONDS = 2.8  # after which even a locked interpreter is ended
SLOW_START_SECONDS = 1.0
GETTING_READY = "getting ready; this takes longer at the first start, and on a busy machine"
AGAIN_SECONDS = 0.05  # after which a signal that was swallowed is handled again
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # those the platform has


class _Stop(BaseException):
    """A signal asked for the end."""


class _StopSignals:
    """Turns the first stop signal into _Stop in the main thread and ignores the rest.

    It is raised wherever the program is, even in a blocked write. Where Python swallows it (a destructor, a C callback,
    as Numba's compiler makes many), it is raised again a moment later. `asked`: whether there was a signal; an error
    after that is a consequence of what was swallowed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._ended = False  # nothing interrupts any more
        self._before: dict[int, object] = {}
        self.fault: BaseException | None = None

    def __enter__(self) -> _StopSignals:
        self._excepthook, threading.excepthook = threading.excepthook, self.fail
        self._unraisablehook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name, None) for name in STOP_SIGNALS):
                # What the parent chose to ignore (nohup, a background job of a shell) stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        threading.excepthook, sys.unraisablehook = self._excepthook, self._unraisablehook
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self.asked and not self._ended:
            self.asked, self._number = True, signal.Signals(number)
            raise _Stop

    def _swallowed(self, what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not _Stop:
            self._unraisablehook(what)
        else:
            again = threading.Timer(AGAIN_SECONDS, self._again)
            again.daemon = True
            again.start()

    def _again(self) -> None:
        """Have the signal handled once more, as if it had come just now."""
        if not self._ended:
            self.asked = False
            _thread.interrupt_main(self._number)

    def check(self) -> None:
        if self.asked or self.fault is not None:
            raise _Stop

    def fail(self, arguments: threading.ExceptHookArgs) -> None:
        """An exception that ended another thread ends the session too, from the main thread; see `fault`."""
        if self.fault is None and arguments.exc_type is not SystemExit:
            self.fault = arguments.exc_value
            _thread.interrupt_main(signal.SIGTERM)  # nothing where that is ignored: `check` sees it too

    def ignore(self) -> None:
        """From here on nothing interrupts."""
        self._ended = True


class _Stage:
    """What a session has opened."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.outputs: list[Output] = []  # in the order in which events reach them
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115 (for the life of the process)
        self._voice = Worker(Voice(), lambda _: None)
        cover(self._speak)

    def _speak(self, sentence: str) -> bool:
        self._voice.send(sentence)
        return True

    def release(self) -> None:
        """End every sounding note, let every output say its last word; before all else, since what follows may wait."""
        for output in self.outputs:
            output.release()
        end = time.monotonic() + RELEASE_SECONDS
        for output in self.outputs:
            output.wait_released(end - time.monotonic())

    def close(self) -> bool:
        """Close everything; False where something hangs, so that only os._exit ends the process.

        The source goes first: a JACK server that two clients leave at once may keep both waiting. python-rtmidi waits
        with the interpreter locked, so that no thread of ours could end that; faulthandler needs no interpreter.
        """
        faulthandler.dump_traceback_later(LAST_RESORT_SECONDS, exit=True, file=self._nowhere)
        if self.source is not None:
            self.source.close()
        gone = devices.bounded([*(output.close for output in self.outputs), _flush], CLOSE_SECONDS)
        for output in self.outputs:
            if output.left_out:
                say(f"{output.name} did not keep up: {output.left_out} changes of chord were left out there")
        uncover(self._speak)
        gone = devices.bounded([self._voice.close], VOICE_SECONDS) and gone
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
        except Exception:
            if not signals.asked:
                raise
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
    notice = threading.Timer(
        SLOW_START_SECONDS, say, ["getting ready; this takes longer at the first start, and on a busy machine"]
    )
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
        with contextlib.nullcontext() if wanted.file is not None else first_in_line():
            return performance.run(signals)
    finally:
        if source.dropped:
            say(f"{source.dropped:.1f} s of audio came faster than this machine could follow and were dropped")
        if source.overflows:
            say(f"the audio driver reported {source.overflows} input overflows")


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
        self._late = False  # whether the delay is long, as was told

    def run(self, signals: _StopSignals) -> bool:
        """To the end of the source or of the last output; whether the latter had failed."""
        for block in self._source.blocks():
            self.take(block)
            signals.check()
            if not any(output.open for output in self._outputs):
                break
        else:
            self._send(self._recognizer.flush())
            self._tell(time.monotonic())
            for output in self._outputs:
                output.release()
            while not all(output.released for output in self._outputs):  # a slow reader may have its time now
                signals.check()
                time.sleep(DONE_SECONDS)
        return not any(output.open for output in self._outputs) and any(output.failed for output in self._outputs)

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
        if self._source.server_died and self._source.host_api == devices.JACK:  # and what MIDI it carried with it
            for output in self._outputs:
                output.renew()

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
        for output in self._outputs:
            if output.open:
                output.status(status)
        if delay > LATE_SECONDS and not self._late:
            say(f"this machine cannot follow: chords come {delay:.1f} s late; close other programs")
        self._late = delay > LATE_SECONDS / 2 if self._late else delay > LATE_SECONDS
        if level.peak > -np.inf or not self._connected:
            self._sounded = now
        elif now - self._sounded >= SILENT_SECONDS and not self._hinted:
            self._hinted = True
            say("the input is silent: is the cable in?")


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
