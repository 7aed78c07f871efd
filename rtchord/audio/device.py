"""Audio inputs: listing and choosing.

PortAudio is reached through sounddevice, which is imported on first use: without the library everything that needs no
device still works. PortAudio scans the devices once, when it is imported. JACK's clients are listed by JACK itself.
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

from rtchord.audio.jack_server import clients
from rtchord.errors import UserError

USUAL_RATES = (8_000, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000)  # Hz, those `rtchord devices` tries
MANY_CHANNELS = 8  # above this a device is a mixing desk or a bridge to a sound server (ALSA's `pulse` claims 32)
JACK = "JACK Audio Connection Kit"  # PortAudio's name of the host API


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


def sounddevice_module() -> Any:
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
        raise UserError(f"there is no audio input because PortAudio does not start: {reason(error)}") from None
    return sounddevice


def reason(error: BaseException) -> str:
    """PortAudio's message without its error number."""
    return str(error.args[0] if error.args else error).split(" [PaErrorCode")[0].strip().rstrip(".")


def list_inputs() -> list[InputDevice]:
    """Every audio input: PortAudio's in its order, then JACK's clients, whose numbers follow.

    UserError where PortAudio is missing and no JACK server runs.
    """
    with quiet_stderr():
        jack = clients()
    try:
        found, count = _portaudio_inputs()
    except UserError:
        if jack is None:
            raise
        found, count = [], 0
    if jack is None:
        return found
    return [device for device in found if device.host_api != JACK] + [
        InputDevice(index, name, JACK, len(ports), jack.rate)
        for index, (name, ports) in enumerate(jack.ports.items(), count)
    ]


def _portaudio_inputs() -> tuple[list[InputDevice], int]:
    """PortAudio's inputs, and how many devices it has in all."""
    sounddevice = sounddevice_module()
    try:
        with quiet_stderr():
            apis = [str(api["name"]) for api in sounddevice.query_hostapis()]
            found = sounddevice.query_devices()
    except sounddevice.PortAudioError as error:
        raise UserError(f"cannot list the audio inputs: {reason(error)}") from None
    inputs = [
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
    return inputs, len(found)


def supported_rates(device: InputDevice) -> tuple[int, ...]:
    """Those of USUAL_RATES, Hz, that the device says it can run at; of a JACK server the one it runs at."""
    if device.host_api == JACK:
        return (device.rate,)
    sounddevice = sounddevice_module()
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
    """The first of JACK's where a server runs, the system's default input, or else the first. UserError without any."""
    inputs = list_inputs()
    if not inputs:
        raise UserError(
            "there is no audio input: connect one, start the sound server, or play a file with --input FILE"
        )
    # ALSA may have a plug-in named `jack` for its default: another layer on the way to the same server.
    if jack := next((device for device in inputs if device.host_api == JACK), None):
        return jack
    sounddevice = sounddevice_module()
    with quiet_stderr():
        wanted = [sounddevice.default.device[0], *(api["default_input_device"] for api in sounddevice.query_hostapis())]
    by_index = {device.index: device for device in inputs}
    return next((by_index[index] for index in wanted if index in by_index), inputs[0])


def find_again(lost: InputDevice, inputs: Sequence[InputDevice]) -> InputDevice:
    """The input that was lost, by its name and host API, since its index may be another now. UserError without it."""
    same = [device for device in inputs if (device.name, device.host_api) == (lost.name, lost.host_api)]
    if not same:
        raise UserError(f"there is no audio input {str(lost)!r} any more")
    return next((device for device in same if device.index == lost.index), same[0])


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
