"""A session on stage: the only room with threads, clocks and signals.

Threads: PortAudio's calls the capture callback, which only fills the ring buffer; the main thread empties it, runs the
recognizer and sends the events. A file takes the same way, from blocks that are paced like a device's or not at all.

Ways out, all of which release every sounding note first:
    the file ends, SIGINT, SIGTERM, SIGHUP    exit code 0
    the reader of stdout has gone             0, if nothing else is left to send to
    bad input                                 2
    the audio device is lost                  3, by os._exit where PortAudio hangs
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rtchord.audio import device as devices
from rtchord.audio.files import AudioFile
from rtchord.audio.ring import MonoMix
from rtchord.errors import UserError
from rtchord.events import ChordEvent
from rtchord.outputs.midi import MidiOutput, NoMidiError
from rtchord.outputs.osc import OscOutput, Target
from rtchord.outputs.text import TextOutput, say

Float32 = NDArray[np.float32]

POLL_SECONDS = 0.002  # between looks into an empty ring; the callback must not wake anybody, that would take a lock
WATCH_SECONDS = 0.1  # between looks at the device's health
PACED_BLOCK_SECONDS = 0.01  # a file in real time comes in blocks as a device's do
FAST_BLOCK = 4096  # frames of a file at full speed
CLOSE_SECONDS = 1.2  # for the ports and for stdout, beside PortAudio's own limit
SLOW_START_SECONDS = 1.0
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # those the platform has


class ListenSettings(BaseModel):
    """What a session listens to and where it sends.

    `device`: index or name, None for the default input. `input`: a file in its place. `realtime`: pace the file.
    `channels`: 1-based, None for all. `style`: a key of `rtchord.outputs.text.STYLES`. `midi`: None decides by the
    source (not for a file at full speed). `midi_port`: part of the name of an existing port, None makes one.
    `midi_channel`: 1..16. `engine`: what `rtchord.engine.choose` takes. `latency`: preset of the decoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = None
    input: Path | None = None
    realtime: bool = True
    channels: tuple[int, ...] | None = None
    style: str = "text"
    osc: tuple[Target, ...] = ()
    midi: bool | None = None
    midi_port: str | None = None
    midi_channel: int = Field(1, ge=1, le=16)
    engine: str = "auto"
    latency: str = "balanced"

    @property
    def wants_midi(self) -> bool:
        if self.midi is None:
            return self.midi_port is not None or self.input is None or self.realtime
        return self.midi


class Source(Protocol):
    """Mono audio at `rate` Hz. `host_api` is PortAudio's name for where it comes from, if it does."""

    rate: int
    name: str
    host_api: str | None

    def start(self) -> None:
        """Begin; nothing is heard before."""

    def blocks(self) -> Iterator[Float32]:
        """(n,) float32 blocks as they come, until the end; each is overwritten by the next."""

    def close(self) -> bool:
        """Stop; False where something hangs that only os._exit ends."""


class Output(Protocol):
    """Somewhere events go, until it is no longer `open`; `name` says where, for people."""

    open: bool
    name: str

    def send(self, event: ChordEvent) -> None:
        """Say the change now."""

    def release(self) -> None:
        """End what sounds; never waits."""

    def close(self) -> None:
        """Go away."""


class DeviceSource:
    """An audio input. UserError where it cannot be used; `blocks` raises DeviceLostError when it goes away."""

    def __init__(self, query: str | None, channels: tuple[int, ...] | None) -> None:
        self._device = devices.default_input() if query is None else devices.choose(query, devices.list_inputs())
        self._asked = channels
        # Asked here as well as by Capture, so that bad input is told before anything else is set up.
        picked = devices.pick_channels(
            channels, self._device.channels, devices.default_channels(self._device), f"audio input {self._device}"
        )
        self._capture: devices.Capture | None = None
        self.rate = self._device.rate
        self.host_api: str | None = self._device.host_api
        numbers = ", ".join(str(channel + 1) for channel in picked)
        self.name = f"audio input {self._device}, {'channel' if len(picked) == 1 else 'channels'} {numbers}"

    def start(self) -> None:
        self._capture = devices.Capture(self._device, self._asked)

    def blocks(self) -> Iterator[Float32]:
        assert self._capture is not None
        capture = self._capture
        buffer = np.zeros(capture.ring.capacity, np.float32)
        watched = -np.inf
        while True:
            now = time.monotonic()
            if now - watched >= WATCH_SECONDS:
                watched = now
                if not capture.alive(now):
                    raise devices.DeviceLostError(f"audio input {self._device} is lost; start again when it is back")
            count = capture.ring.read_into(buffer)
            if count:
                yield buffer[:count]
            else:
                time.sleep(POLL_SECONDS)

    def close(self) -> bool:
        if self._capture is None:
            return True
        capture, self._capture = self._capture, None
        lost = capture.ring.dropped / capture.rate
        if lost:
            say(f"{lost:.1f} s of audio came faster than this machine could follow and were dropped")
        if capture.overflows:
            say(f"the audio driver reported {capture.overflows} input overflows")
        return capture.close()


class FileSource:
    """A sound file, paced like a device or as fast as it can be read. UserError where it cannot be used."""

    def __init__(self, path: Path, channels: tuple[int, ...] | None, realtime: bool) -> None:
        self._file = AudioFile(path)
        try:
            picked = devices.pick_channels(channels, self._file.channels, self._file.channels, repr(str(path)))
        except UserError:
            self._file.close()
            raise
        self._realtime = realtime
        self.rate = self._file.rate
        self.host_api: str | None = None
        self.name = repr(str(path))
        size = max(1, round(PACED_BLOCK_SECONDS * self.rate)) if realtime else FAST_BLOCK
        self._mix = MonoMix(picked, size)

    def start(self) -> None:
        """Nothing to start: a file waits."""

    def blocks(self) -> Iterator[Float32]:
        begin, played = time.monotonic(), 0
        for block in self._file.blocks(self._mix.frames):
            played += len(block)
            if self._realtime:  # a block exists when its last sample has sounded
                time.sleep(max(0.0, begin + played / self.rate - time.monotonic()))
            yield self._mix.mix(block)

    def close(self) -> bool:
        self._file.close()
        return True


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

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name, None) for name in STOP_SIGNALS):
                # What the parent chose to ignore (nohup, a background job of a shell) stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            raise _Stop

    def check(self) -> None:
        if self._asked:
            raise _Stop

    def ignore(self) -> None:
        """From here on nothing interrupts."""
        self._asked = True


def listen(settings: ListenSettings) -> int:
    """Run a session to its end; returns the exit code. Leaves the process itself where something hangs."""
    code = 0
    stage = _Stage()
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
            os._exit(code)
    return code


class _Stage:
    """What a session has opened."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.outputs: list[Output] = []  # in the order in which events reach them

    def release(self) -> None:
        """End every sounding note; comes before all else, since whatever follows may wait."""
        for output in self.outputs:
            with contextlib.suppress(Exception):
                output.release()

    def close(self) -> bool:
        """Close everything; False where something hangs, so that only os._exit ends the process.

        The source goes first: see `MidiOutput.close`. Where it hangs, the ports are left to the operating system.
        """
        if self.source is not None and not self.source.close():
            devices.bounded([_flush], CLOSE_SECONDS)
            return False
        return devices.bounded([*(output.close for output in self.outputs), _flush], CLOSE_SECONDS)


def _listen(settings: ListenSettings, signals: _StopSignals, stage: _Stage) -> bool:
    """Set up and run; whether it had to end because the last output failed."""
    source: Source
    if settings.input is not None:
        source = FileSource(settings.input, settings.channels, settings.realtime)
    else:
        source = DeviceSource(settings.device, settings.channels)
    stage.source, outputs = source, stage.outputs
    _open_outputs(settings, source, outputs)

    # Where SciPy is installed Numba loads its linear algebra, which no kernel of ours uses: 12 MB, and time at start.
    sys.modules.setdefault("scipy.linalg", None)  # type: ignore[arg-type]
    from rtchord import engine as engines
    from rtchord.recognizer import Recognizer  # late: bad input is told before Numba and ONNX Runtime are loaded

    engine, why = engines.choose(settings.engine)
    recognizer = Recognizer(source.rate, engine, settings.latency)
    notice = threading.Timer(SLOW_START_SECONDS, say, ["getting ready; the first start on a machine takes longer"])
    notice.daemon = True
    notice.start()
    try:
        recognizer.warm_up()
    finally:
        notice.cancel()

    source.start()
    targets = ", ".join(output.name for output in outputs)
    say(f"listening to {source.name}, {source.rate} Hz; {why}; sending to {targets}")
    for block in source.blocks():
        _send(recognizer.push(block), outputs)
        signals.check()
        if not any(output.open for output in outputs):
            return any(getattr(output, "failed", False) for output in outputs)
    _send(recognizer.flush(), outputs)
    return False


def _open_outputs(settings: ListenSettings, source: Source, outputs: list[Output]) -> None:
    """Append the outputs: those that a performer hears come first."""
    if settings.wants_midi:
        # Who patches audio in JACK looks for the notes there too.
        prefer = "JACK" if source.host_api == devices.JACK else None
        try:
            outputs.append(MidiOutput(settings.midi_port, settings.midi_channel, prefer, say))
        except NoMidiError as error:
            say(str(error))
    outputs.extend(OscOutput(target, say) for target in settings.osc)
    outputs.append(TextOutput(sys.stdout, settings.style, say))


def _send(events: Iterable[ChordEvent], outputs: Iterable[Output]) -> None:
    for event in events:
        for output in outputs:
            if output.open:
                output.send(event)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
