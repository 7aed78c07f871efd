"""Where audio comes from: an input that may go and return, or a file that is paced like one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtchord.audio.capture import (
    JACK_STALL_SECONDS,
    STALL_SECONDS,
    TICK_SECONDS,
    VANISHED,
    Capture,
    NoAnswerError,
    Wanted,
    Watchdog,
)
from rtchord.audio.device import JACK, pick_channels
from rtchord.audio.files import AudioFile
from rtchord.audio.mix import MonoMix
from rtchord.audio.resample import MAX_RATE, MIN_RATE
from rtchord.audio.ring import RingBuffer
from rtchord.errors import UserError

Float32 = NDArray[np.float32]

POLL_SECONDS = 0.002  # between looks into an empty ring; the callback must not wake anybody, that would take a lock
AWAY_SECONDS = 0.4  # without audio, after which no chord can be taken for sounding
PAUSES = (0.2, 0.5, 1.0, 2.0)  # s between attempts to find a lost input again; the last is repeated
PACED_BLOCK_SECONDS = 0.01  # a file in real time comes in blocks as a device's do
FAST_BLOCK = 4096  # frames of a file at full speed
NOTHING: Float32 = np.zeros(0, np.float32)


class DeviceLostError(UserError):
    """The input stopped delivering audio."""

    exit_code = 3


class Source(Protocol):
    """Mono audio at `rate` Hz; `mix` knows how loud it was. Whatever changes does so only between two blocks."""

    rate: int
    name: str
    mix: MonoMix
    host_api: str | None  # PortAudio's name for where it comes from, if it does
    connected: bool  # whether audio comes
    server_died: bool  # whether what was lost last was more than the device alone
    arrived: float  # when the newest sample came, s on the clock of time.perf_counter

    @property
    def overflows(self) -> int:
        """How often the driver had lost audio."""

    @property
    def dropped(self) -> float:
        """Seconds of audio that came faster than they were taken."""

    def start(self) -> None:
        """Begin; nothing is heard before."""

    def blocks(self) -> Iterator[Float32]:
        """(n,) float32 blocks as they come, until the end; each is overwritten by the next.

        Empty ones give the caller its turn where nothing comes.
        """

    def close(self) -> None:
        """Stop; takes a second where something hangs."""


class DeviceSource:
    """An audio input. UserError where it cannot be used.

    When it goes away it is waited for, `report` being told, or `blocks` raises DeviceLostError if not `reconnect`.
    """

    def __init__(
        self, query: str | None, channels: tuple[int, ...] | None, reconnect: bool, report: Callable[[str], None]
    ) -> None:
        self._asked, self._reconnect, self._report = channels, reconnect, report
        self.connected, self.server_died = True, False
        self.arrived = time.perf_counter()
        self._overflows, self._dropped = 0, 0.0  # of captures that are over
        self.host_api: str | None = None
        self._capture: Capture | None = None
        self._ring: RingBuffer | None = None
        try:
            for _ in self._find(query):
                pass
        except NoAnswerError:  # another process may have more luck
            for _ in self._find(query):
                pass

    @property
    def overflows(self) -> int:
        return self._overflows + (self._ring.overflows if self._ring else 0)

    @property
    def dropped(self) -> float:
        return self._dropped + (self._ring.dropped / self.rate if self._ring else 0)

    def start(self) -> None:
        assert self._capture is not None
        for _ in self._capture.start():
            pass

    def blocks(self) -> Iterator[Float32]:
        while True:
            yield from self._heard()
            if not self._reconnect:
                raise DeviceLostError(f"audio input {self._device} is lost; start again when it is back")
            self._report(f"audio input {self._device} is lost; waiting for it to return")
            self.connected = False
            yield NOTHING  # for the notes to be ended, before anything that takes time
            self.close()
            yield from self._returned()
            self._report(f"audio input {self._device} is back, {self.rate} Hz")

    def close(self) -> None:
        self._overflows, self._dropped, self._ring = self.overflows, self.dropped, None
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()

    def _find(self, wanted: Wanted) -> Iterator[None]:
        """A capture that is ready to start; gives the caller its turn while it waits."""
        self._capture = Capture(wanted, self._asked)
        try:
            yield from self._capture.find()
            device, picked = self._capture.device, self._capture.picked
            if not MIN_RATE <= device.rate <= MAX_RATE:
                raise UserError(
                    f"cannot use audio input {device}: its rate of {device.rate} Hz is outside "
                    f"{MIN_RATE}..{MAX_RATE} Hz"
                )
        except BaseException:
            self.close()
            raise
        self._ring = ring = self._capture.ring
        self._device = device
        self.rate, self.host_api = device.rate, device.host_api
        self._buffer = np.zeros((ring.channels, ring.capacity), np.float32)
        numbers = tuple(channel + 1 for channel in picked)
        self.mix = MonoMix(tuple(range(ring.channels)), ring.capacity, device.rate, self._report, numbers)
        counted = "channel" if len(picked) == 1 else "channels"
        self.name = f"audio input {device}, {counted} {', '.join(map(str, numbers))}"

    def _heard(self) -> Iterator[Float32]:
        """Blocks until the input is lost."""
        assert self._capture is not None
        assert self._ring is not None
        ring, buffer = self._ring, self._buffer
        ticked = heard = time.monotonic()
        jack = self.host_api == JACK
        watchdog = Watchdog(heard, JACK_STALL_SECONDS if jack else STALL_SECONDS)
        away = JACK_STALL_SECONDS if jack else AWAY_SECONDS
        while True:
            count = ring.read_into(buffer)
            now = time.monotonic()
            if count:
                heard, self.connected, self.arrived = now, True, ring.arrived
                yield self.mix.mix(buffer[:, :count].T)
            if now - ticked >= TICK_SECONDS:
                ticked = now
                verdict = self._capture.lost()
                if verdict or not watchdog.alive(ring.blocks, now):
                    self.server_died = verdict != VANISHED
                    return
                if now - heard > away:
                    self.connected = False
                if not count:
                    yield NOTHING
            if not count:
                time.sleep(POLL_SECONDS)

    def _returned(self) -> Iterator[Float32]:
        """Nothing, until the input is back; a fresh process looks for it each time."""
        lost, attempt = self._device, 0
        while True:
            until = time.monotonic() + PAUSES[min(attempt, len(PAUSES) - 1)]
            attempt += 1
            while time.monotonic() < until:
                yield NOTHING
                time.sleep(TICK_SECONDS)
            try:
                for _ in self._find(lost):
                    yield NOTHING
                assert self._capture is not None
                for _ in self._capture.start():
                    yield NOTHING
                return
            except UserError:
                self._device = lost
                self.close()


class FileSource:
    """A sound file or a pipe, paced like a device or as fast as it can be read. UserError where it cannot be used;
    what is wrong with it and does not keep it from being heard, `report` is told."""

    host_api: str | None = None
    connected, server_died, overflows, dropped = True, False, 0, 0.0

    def __init__(
        self, path: Path, channels: tuple[int, ...] | None, realtime: bool, report: Callable[[str], None]
    ) -> None:
        self._file = AudioFile(path, report)
        try:
            picked = pick_channels(channels, self._file.channels, self._file.channels, repr(str(path)))
        except UserError:
            self._file.close()
            raise
        self._realtime = realtime
        self.rate = self._file.rate
        self.name = repr(str(path))
        self.arrived = time.perf_counter()
        size = max(1, round(PACED_BLOCK_SECONDS * self.rate)) if realtime else FAST_BLOCK
        self.mix = MonoMix(picked, size, self.rate, report)

    def start(self) -> None:
        """Nothing to start: a file waits."""

    def blocks(self) -> Iterator[Float32]:
        begin, played = time.perf_counter(), 0
        for block in self._file.blocks(self.mix.frames):
            played += len(block)
            self.arrived = time.perf_counter()
            if self._realtime:  # a block exists when its last sample has sounded
                due = begin + played / self.rate
                time.sleep(max(0.0, due - self.arrived))
                self.arrived = due
            yield self.mix.mix(block)

    def close(self) -> None:
        self._file.close()
