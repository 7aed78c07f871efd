"""Audio inputs: listing, choosing, capturing.

PortAudio is reached through sounddevice, which is imported on first use: without the library everything that needs no
device still works. PortAudio scans the devices once, when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtchord.audio.resample import MAX_RATE, MIN_RATE
from rtchord.audio.ring import MonoMix, RingBuffer
from rtchord.errors import UserError

Float32 = NDArray[np.float32]

USUAL_RATES = (8_000, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000)  # Hz, those `rtchord devices` tries
RING_SECONDS = 1.0  # at least; a chord that comes later than this helps nobody, so a longer backlog is dropped
MAX_BLOCK = 1 << 14  # frames mixed at once; longer blocks are mixed in pieces
MANY_CHANNELS = 8  # above this a device is a mixing desk or a bridge to a sound server (ALSA's `pulse` claims 32)
FIRST_CALLBACK_SECONDS = 5.0  # some drivers take seconds to start
STALL_SECONDS = 1.5  # without a callback, once they have begun
WATCH_GAP_SECONDS = 0.5  # a watcher that was itself asleep this long has seen nothing and starts over
CLOSE_SECONDS = 1.0  # after its server died PortAudio never returns from close
JACK = "JACK Audio Connection Kit"  # PortAudio's name of the host API


class DeviceLostError(UserError):
    """The input stopped delivering audio."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class InputDevice:
    """An audio input: PortAudio's `index`, `name`, `host_api`, number of `channels`, default `rate` in Hz."""

    index: int
    name: str
    host_api: str
    channels: int
    rate: int

    def __str__(self) -> str:
        return f"{self.index} {self.name!r} ({self.host_api})"


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Only Python writes to stderr inside; what C libraries print there is dropped.

    ALSA's and JACK's do so when no server runs, and again from threads of their own when one dies.
    RTCHORD_TRACEBACK in the environment lets them speak.
    """
    stream, ours = sys.stderr, False
    with contextlib.suppress(OSError, ValueError, AttributeError):  # there is none, or something that is no file
        stream.flush()
        ours = stream.fileno() == 2
    try:
        saved = -1 if "RTCHORD_TRACEBACK" in os.environ else os.dup(2)
    except OSError:  # the program was started without one
        saved = -1
    if saved < 0:
        yield
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        if ours:
            sys.stderr = open(  # noqa: SIM115 (the descriptor is closed below)
                saved, "w", buffering=1, encoding=stream.encoding, errors="backslashreplace", closefd=False
            )
        yield
    finally:
        if ours:
            sys.stderr = stream
        os.dup2(saved, 2)
        os.close(saved)


def bounded(actions: Sequence[Callable[[], object]], seconds: float) -> bool:
    """Run each action in a daemon thread of its own; False where one has not returned after `seconds`.

    Errors are swallowed: this is for closing things on the way out.
    """

    def run(action: Callable[[], object]) -> None:
        with contextlib.suppress(Exception):
            action()

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _sounddevice() -> Any:
    """The sounddevice module; UserError where PortAudio is missing or does not start."""
    try:
        with quiet_stderr():
            import sounddevice
    except OSError:
        raise UserError(
            "there is no audio input because the PortAudio library is missing: install it (Debian and Ubuntu: "
            "`apt install libportaudio2`), or play a file with --input FILE"
        ) from None
    except Exception as error:  # sounddevice starts PortAudio while it is imported
        raise UserError(f"there is no audio input because PortAudio does not start: {_reason(error)}") from None
    return sounddevice


def _reason(error: BaseException) -> str:
    """PortAudio's message without its error number."""
    return str(error.args[0] if error.args else error).split(" [PaErrorCode")[0].strip().rstrip(".")


def list_inputs() -> list[InputDevice]:
    """Every audio input, in PortAudio's order. UserError where PortAudio is missing."""
    sounddevice = _sounddevice()
    try:
        with quiet_stderr():
            apis = [str(api["name"]) for api in sounddevice.query_hostapis()]
            found = sounddevice.query_devices()
    except sounddevice.PortAudioError as error:
        raise UserError(f"cannot list the audio inputs: {_reason(error)}") from None
    return [
        InputDevice(
            index=index,
            name=str(device["name"]),
            host_api=apis[device["hostapi"]],
            channels=int(device["max_input_channels"]),
            rate=round(device["default_samplerate"]),
        )
        for index, device in enumerate(found)
        if device["max_input_channels"] > 0
    ]


def supported_rates(device: InputDevice) -> tuple[int, ...]:
    """Those of USUAL_RATES, Hz, that the device says it can run at."""
    sounddevice = _sounddevice()
    rates = []
    with quiet_stderr():
        for rate in USUAL_RATES:
            with contextlib.suppress(sounddevice.PortAudioError, ValueError):
                sounddevice.check_input_settings(
                    device=device.index, channels=default_channels(device), dtype="float32", samplerate=rate
                )
                rates.append(rate)
    return tuple(rates)


def default_input() -> InputDevice:
    """The system's default input, or else the first one. UserError where there is none."""
    sounddevice = _sounddevice()
    inputs = list_inputs()
    if not inputs:
        raise UserError(
            "there is no audio input: connect one, start the sound server, or play a file with --input FILE"
        )
    with quiet_stderr():
        wanted = [sounddevice.default.device[0], *(api["default_input_device"] for api in sounddevice.query_hostapis())]
    by_index = {device.index: device for device in inputs}
    return next((by_index[index] for index in wanted if index in by_index), inputs[0])


def choose(query: str, inputs: Sequence[InputDevice]) -> InputDevice:
    """The input that `query` names: an index, a whole name, or part of ``name, host API`` in any case.

    UserError where none or several match, with those that come near.
    """
    if not inputs:
        raise UserError(f"there is no audio input {query!r}, nor any other; see `rtchord devices`")
    text = query.strip().casefold()
    stages: tuple[Callable[[InputDevice], bool], ...] = (
        lambda device: str(device.index) == text,
        lambda device: device.name == query,
        lambda device: device.name.casefold() == text,
        lambda device: bool(text) and text in f"{device.name}, {device.host_api}".casefold(),
    )
    # A number that is no index is not looked for inside names: after a replug it would pick some other device.
    for stage in stages[:1] if text.isdecimal() else stages:
        matches = [device for device in inputs if stage(device)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(f"{query!r} names several audio inputs: {_listed(matches)}; see `rtchord devices`")
    raise UserError(
        f"there is no audio input {query!r}; there is {_listed(_near(text, inputs))}; see `rtchord devices`"
    )


def _near(text: str, inputs: Sequence[InputDevice]) -> list[InputDevice]:
    names = get_close_matches(text, [device.name.casefold() for device in inputs], n=5, cutoff=0.5)
    return [device for device in inputs if device.name.casefold() in names] or list(inputs)


def _listed(devices: Sequence[InputDevice], most: int = 8) -> str:
    return ", ".join(map(str, devices[:most])) + (", and more" if len(devices) > most else "")


def default_channels(device: InputDevice) -> int:
    """How many channels, from the first, are mixed where the user names none."""
    return device.channels if device.channels <= MANY_CHANNELS else 2


def pick_channels(asked: tuple[int, ...] | None, available: int, default: int, owner: str) -> tuple[int, ...]:
    """Channel indices from 0 for the 1-based numbers `asked`, or the first `default` ones.

    UserError where a number is above `available`; `owner` names the device or file in it.
    """
    if asked is None:
        return tuple(range(default))
    if max(asked) > available:
        counted = "1 channel" if available == 1 else f"{available} channels"
        raise UserError(f"cannot use channel {max(asked)} of {owner}: it has {counted}")
    return tuple(channel - 1 for channel in asked)


class Watchdog:
    """Tells a device that stopped calling back from one that is slow to begin; owns no clock."""

    def __init__(self, now: float) -> None:
        """`now`: s on any steady clock, as everywhere here."""
        self._seen = 0
        self._seen_at = self._asked_at = now

    def alive(self, callbacks: int, now: float) -> bool:
        """Whether callbacks still come, going by their number so far. To be asked several times a second."""
        if callbacks != self._seen or now - self._asked_at > WATCH_GAP_SECONDS:
            self._seen, self._seen_at = callbacks, now
        self._asked_at = now
        return now - self._seen_at <= (STALL_SECONDS if callbacks else FIRST_CALLBACK_SECONDS)


class Capture:
    """A running input: `rate` in Hz, a `ring` of mono samples, counters.

    `device`: from `list_inputs`. `asked`: 1-based channels to mix, None for the default ones.
    The callback mixes, copies and counts; it never waits, and an overflow is a number, not an error.
    """

    def __init__(self, device: InputDevice, asked: tuple[int, ...] | None = None) -> None:
        if not MIN_RATE <= device.rate <= MAX_RATE:
            raise UserError(
                f"cannot use audio input {device}: its rate of {device.rate} Hz is outside {MIN_RATE}..{MAX_RATE} Hz"
            )
        sounddevice = _sounddevice()
        self.device = device
        self.rate = device.rate
        self.channels = pick_channels(asked, device.channels, default_channels(device), f"audio input {device}")
        self.ring = RingBuffer(round(RING_SECONDS * self.rate))
        self.callbacks = 0
        self.overflows = 0
        self._mix = MonoMix(self.channels, MAX_BLOCK)
        try:
            with quiet_stderr():
                self._stream = sounddevice.InputStream(
                    device=device.index,
                    channels=max(self.channels) + 1,
                    samplerate=self.rate,
                    blocksize=0,  # whatever the driver has: fixed sizes add a buffer, and delay
                    dtype="float32",
                    latency="low",
                    callback=self._callback,
                )
                self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise UserError(f"cannot open audio input {device}: {_reason(error)}") from None
        self._watchdog = Watchdog(time.monotonic())

    def _callback(self, block: Float32, frames: int, _time: Any, status: Any) -> None:
        self.callbacks += 1
        if status.input_overflow:
            self.overflows += 1
        if frames <= MAX_BLOCK:
            self.ring.write(self._mix.mix(block))
            return
        for start in range(0, frames, MAX_BLOCK):
            self.ring.write(self._mix.mix(block[start : start + MAX_BLOCK]))

    def alive(self, now: float) -> bool:
        """Whether audio still comes; `now` is time.monotonic(). To be asked several times a second.

        A dead server shows as an inactive stream or as callbacks that stop, never as an error.
        """
        try:
            active = bool(self._stream.active)
        except Exception:  # PortAudio may also say so with an error
            active = False
        return active and self._watchdog.alive(self.callbacks, now)

    def close(self) -> bool:
        """Stop capturing. False where PortAudio hangs: then only os._exit ends the process."""
        return bounded([self._stream.close], CLOSE_SECONDS)
