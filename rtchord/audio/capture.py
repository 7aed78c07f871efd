"""Audio input in a process of its own, into memory that both processes share.

Why a process: PortAudio, and JACK's library, are used from there alone, so that
* no busy thread here can keep the audio callback waiting for the interpreter (measured: docs/architecture.md);
* a PortAudio that hangs, as it does after its server died, is ended like any process;
* a device that was plugged in later is found: PortAudio looks for devices once in the life of a process.

    child                                                       parent
    finds the device        -> (InputDevice, channels) or str   a sentence is the reason why not
                            <- None                             open it
    opens the stream        -> None or str
    fills the ring                                              empties it
    sees that it is lost    -> LOST or VANISHED, and ends
                            <- end of the pipe                  close it

What the callback does is in `RingBuffer.write`: it copies, and waits for nobody.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from rtchord.audio.device import (
    JACK,
    InputDevice,
    bounded,
    choose,
    default_channels,
    default_input,
    find_again,
    list_inputs,
    pick_channels,
    reason,
    sounddevice_module,
)
from rtchord.audio.jack_server import JackStream, binding
from rtchord.audio.ring import HEADER, RingBuffer
from rtchord.errors import UserError

MEMORY = 1 << 22  # bytes of samples that the processes share: 10 s of two channels at 48 kHz
RING_SECONDS = 8.0  # at least, where it fits; a machine that was held up catches up at many times the speed of sound
TICK_SECONDS = 0.05  # between looks at the device's health, and at signals while there is nothing else to do
ANSWER_SECONDS = 8.0  # for PortAudio to look for devices, or to open one; some drivers take seconds
FIRST_CALLBACK_SECONDS = 5.0
STALL_SECONDS = 1.5  # without a callback, once they have begun
JACK_STALL_SECONDS = 6.0  # it says itself when it goes; until then it may wait for a client that is late
WATCH_GAP_SECONDS = 0.5  # a watcher that was itself asleep this long has seen nothing and starts over
CLOSE_SECONDS = 1.2  # after its server died PortAudio never returns from close
SILENT_FRAMES = 4096  # of zeros, from a JACK client that is not there, say that it has gone
LOST, VANISHED = "lost", "vanished"  # the second: the device alone has gone, its server is well

Wanted = str | InputDevice | None  # a query, a device that was lost, or the default input


class NoAnswerError(UserError):
    """PortAudio hangs, as it may while a server comes or goes."""


class Watchdog:
    """Tells a device that stopped calling back from one that is slow to begin; owns no clock."""

    def __init__(self, now: float, stall: float = STALL_SECONDS) -> None:
        """`now`: s on any steady clock, as everywhere here. `stall`: s without a callback, once they have begun."""
        self._stall = stall
        self._seen = 0
        self._seen_at = self._asked_at = now

    def alive(self, callbacks: int, now: float) -> bool:
        """Whether callbacks still come, going by their number so far. To be asked several times a second."""
        if callbacks != self._seen or now - self._asked_at > WATCH_GAP_SECONDS:
            self._seen, self._seen_at = callbacks, now
        self._asked_at = now
        return now - self._seen_at <= (self._stall if callbacks else FIRST_CALLBACK_SECONDS)


class Capture:
    """An audio input that another process fills: `device`, its 0-based `picked` channels and their `ring`.

    `find` and `start` say whether it works; both are iterators that give the caller its turn while they wait.
    """

    device: InputDevice
    picked: tuple[int, ...]
    ring: RingBuffer

    def __init__(self, wanted: Wanted, asked: tuple[int, ...] | None = None) -> None:
        """`asked`: 1-based channels, None for the default ones."""
        context = multiprocessing.get_context("spawn")  # a fork would take threads' locks and Numba's state along
        self._memory = context.RawArray("b", HEADER + MEMORY)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, self._memory, wanted, asked), name="rtchord audio input", daemon=True
        )
        self._process.start()
        theirs.close()
        self._verdict: str | None = None

    def find(self) -> Iterator[None]:
        """Find the device. UserError where there is none or several, or where it lacks a channel."""
        for answer in self._answers():
            if answer:
                self.device, self.picked = answer[0]
                self.ring = _ring(self.device, self.picked, self._memory)
            yield

    def start(self) -> Iterator[None]:
        """Open the device. UserError where that fails."""
        with contextlib.suppress(OSError):  # a child that has died says so by the end of its pipe
            self._pipe.send(None)
        for _ in self._answers():
            yield

    def lost(self) -> str | None:
        """LOST or VANISHED, or None while all is well as far as PortAudio says."""
        if self._verdict is None and self._pipe.poll():
            try:
                self._verdict = self._pipe.recv()
            except (EOFError, OSError):
                self._verdict = LOST
        return self._verdict

    def close(self) -> None:
        """Stop capturing: at once where nothing hangs, after CLOSE_SECONDS otherwise."""
        self._pipe.close()
        self._process.join(CLOSE_SECONDS + 2 * TICK_SECONDS)
        self._process.kill()
        self._process.join(CLOSE_SECONDS)

    def _answers(self) -> Iterator[list[Any]]:
        """[] while the child's next answer is waited for, then [answer]; a sentence is raised as UserError."""
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            while not self._pipe.poll(TICK_SECONDS):
                if time.monotonic() > deadline:
                    raise NoAnswerError("there is no audio input because PortAudio does not answer")
                yield []
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError("there is no audio input because the process that captures it has died") from None
        if isinstance(answer, str):
            raise UserError(answer)
        yield [answer]


def _ring(device: InputDevice, picked: tuple[int, ...], memory: Any) -> RingBuffer:
    """The ring in the shared memory, the same on both sides."""
    room = MEMORY // (4 * len(picked))
    wanted = min(1 << (round(RING_SECONDS * device.rate) - 1).bit_length(), 1 << (room.bit_length() - 1))
    return RingBuffer(wanted, len(picked), memory)


# ---- in the child ---------------------------------------------------------------------------------------------------


def serve(pipe: Connection, memory: Any, wanted: Wanted, asked: tuple[int, ...] | None) -> None:
    """The child: find, open, watch, leave. Ends with the parent, hung or not."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # the parent decides when it is over
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if "RTCHORD_TRACEBACK" not in os.environ:  # ALSA and JACK print what they like
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    opened: list[Callable[[], object]] = []
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        try:
            _capture(pipe, memory, wanted, asked, opened)
        except UserError as error:
            pipe.send(str(error))
    bounded([lambda: [close() for close in reversed(opened)]], CLOSE_SECONDS)
    os._exit(0)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(CLOSE_SECONDS + 2 * TICK_SECONDS)  # in which the pipe's end brings the orderly way out
    os._exit(1)


def _capture(
    pipe: Connection, memory: Any, wanted: Wanted, asked: tuple[int, ...] | None, opened: list[Callable[[], object]]
) -> None:
    """Until it is over; `opened` is given what must be closed then, in reverse order."""
    with contextlib.suppress(UserError):  # without PortAudio there may still be a JACK server
        # PortAudio is a client of JACK too, and one that leaves without a word holds a synchronous server up.
        opened.append(sounddevice_module()._terminate)
    if wanted is None:
        device = default_input()
    else:
        inputs = list_inputs()
        device = find_again(wanted, inputs) if isinstance(wanted, InputDevice) else choose(wanted, inputs)
    picked = pick_channels(asked, device.channels, default_channels(device), f"audio input {device}")
    pipe.send((device, picked))
    pipe.recv()
    ring = _ring(device, picked, memory)
    stream = open_stream(device, picked, ring.write)
    opened.append(stream.close)
    pipe.send(None)
    while not pipe.poll(TICK_SECONDS):
        if not _active(stream):
            pipe.send(LOST)
            opened.clear()  # nothing of a dead server can be closed
            break
        # Someone may have patched another client into our ports, so zeros are part of the evidence.
        if isinstance(stream, JackStream) and ring.silent(SILENT_FRAMES) and stream.vanished():
            pipe.send(VANISHED)
            break


def open_stream(device: InputDevice, picked: tuple[int, ...], write: Callable[..., object]) -> Any:
    """A running stream that gives `write` every block. UserError where the device cannot be opened."""
    if device.host_api == JACK and binding() is not None:
        return JackStream(device.name, picked, write)
    sounddevice = sounddevice_module()

    def callback(block: Any, _frames: int, _time: Any, status: Any) -> None:
        write(block, picked, bool(status.input_overflow))

    try:
        stream = sounddevice.InputStream(
            device=device.index,
            channels=max(picked) + 1,
            samplerate=device.rate,
            blocksize=0,  # whatever the driver has: fixed sizes add a buffer, and delay
            dtype="float32",
            latency="low",
            callback=callback,
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(f"cannot open audio input {device}: {reason(error)}") from None
    return stream


def _active(stream: Any) -> bool:
    """A dead server shows here, never as an error of the stream."""
    try:
        return bool(stream.active)
    except Exception:  # PortAudio may also say so with an error
        return False
