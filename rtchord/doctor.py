"""`rtchord doctor`: looks at everything that a session will need, and says what to do about what is missing.

Each check is a function that yields findings; they are told as they come. A check never ends the others.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from rtchord import __version__
from rtchord.errors import UserError
from rtchord.settings import Settings

RATE = 48_000  # Hz of the sound that the timing is measured on
SECONDS = 8.0  # of it
BUSY = 0.5  # share of a hop's time above which there is little left for anything else
SLOW_TIMER_SECONDS = 0.005
NAPS = 40
RT_PRIORITY = 20  # a lower limit is of no use to a sound server
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


class Finding(NamedTuple):
    """What a check found: whether it can be used so, and a sentence that also says what to do."""

    state: Literal["ok", "warning", "problem"]
    text: str


def ok(text: str) -> Finding:
    return Finding("ok", text)


def warning(text: str) -> Finding:
    return Finding("warning", text)


def _machine(_settings: Settings) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    yield ok(
        f"rtchord {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
    )
    if GOVERNOR.is_file() and (governor := GOVERNOR.read_text().strip()) == "powersave":
        yield warning(f"the processor's governor is {governor!r}: `cpupower frequency-set -g performance` saves delay")


def _inputs(settings: Settings) -> Iterator[Finding]:
    from rtchord.audio.device import choose, default_input, list_inputs

    inputs = list_inputs()
    wanted = default_input() if settings.input.device is None else choose(settings.input.device, inputs)
    yield ok(f"{len(inputs)} audio input{'s' * (len(inputs) > 1)}; without --device: {wanted}, {wanted.rate} Hz")


def _servers(_settings: Settings) -> Iterator[Finding]:
    """Which systems PortAudio can reach; on Linux also which servers answer at their sockets."""
    from rtchord.audio.device import JACK, list_inputs

    try:
        reached = {device.host_api for device in list_inputs()}
    except UserError:  # told above
        return
    if sys.platform != "linux":
        yield ok(f"sound systems: {', '.join(sorted(reached)) or 'none'}")
        if sys.platform == "darwin":
            yield ok(
                "if only silence comes in: System Settings, Privacy & Security, Microphone must allow the terminal"
            )
        return
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    sockets = {"PipeWire": folder / "pipewire-0", "PulseAudio": folder / "pulse" / "native"}
    running = [*(["JACK"] if JACK in reached else []), *(name for name, path in sockets.items() if path.exists())]
    yield ok(f"sound systems: {', '.join(sorted(reached)) or 'none'}; servers: {', '.join(running) or 'none'}")
    if "PipeWire" in running and JACK not in reached:
        yield ok("`pw-jack rtchord listen` reaches PipeWire without another layer between")


def _permissions(_settings: Settings) -> Iterator[Finding]:
    """On Linux: the sound cards, and whether this user may run audio with priority."""
    if sys.platform != "linux":
        return
    import resource

    cards = sorted(Path("/dev/snd").glob("pcm*c")) if Path("/dev/snd").is_dir() else []
    if closed := [str(card) for card in cards if not os.access(card, os.R_OK | os.W_OK)]:
        yield warning(f"no permission for {', '.join(closed)}: `sudo usermod -aG audio $USER`, then log in again")
    priority = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    if priority == resource.RLIM_INFINITY or priority >= RT_PRIORITY or os.geteuid() == 0:
        yield ok("audio may run with real-time priority")
    else:
        yield warning(
            f"this user may not run audio with real-time priority (limit {priority}): "
            "`sudo usermod -aG audio $USER` and `@audio - rtprio 95` in /etc/security/limits.d/audio.conf"
        )


def _midi(_settings: Settings) -> Iterator[Finding]:
    from rtchord.outputs.midi import NoMidiError, list_ports

    try:
        ports = list_ports()
    except NoMidiError as error:
        hint = "; `sudo modprobe snd-seq` starts ALSA's" if sys.platform == "linux" else ""
        yield warning(f"{error}{hint}")
        return
    names = ", ".join(f"{name!r} ({api})" for api, name in ports) or "none yet"
    yield ok(f"MIDI ports to send to: {names}")
    if sys.platform == "win32" and not any("loopMIDI" in name for _, name in ports):
        yield warning("to reach a DAW on this computer install loopMIDI, then say --midi-port loopMIDI")


def _compiled_code(_settings: Settings) -> Iterator[Finding]:
    from rtchord.compiled import KEPT

    remedy = "make the folder for your caches writable, or set NUMBA_CACHE_DIR to a folder of yours that is"
    if KEPT is None:
        yield warning(f"compiled code can be kept nowhere, so every start takes some seconds longer: {remedy}")
    elif not KEPT.lasting:
        yield warning(
            f"compiled code is kept in {str(KEPT.folder)!r}, among temporary files; when the system has removed them "
            f"the next start takes some seconds longer: {remedy}"
        )
    else:
        there = any(KEPT.folder.rglob("*.nbi"))
        yield ok(f"compiled code {'is' if there else 'will be'} kept in {str(KEPT.folder)!r}")


def _engine(settings: Settings) -> Iterator[Finding]:
    """The engine that a session would take is whole, and a step of it and of the chain before it are quick enough."""
    import numpy as np

    from rtchord.engine import choose
    from rtchord.recognizer import Recognizer

    how = settings.recognise
    began = time.perf_counter()
    engine, why = choose(how.engine)
    recognizer = Recognizer(RATE, engine, how.latency, gate=settings.input.gate, hold=how.hold / 1000)
    recognizer.warm_up()
    ready = time.perf_counter() - began
    manifest = recognizer.engine.manifest
    yield ok(f"{why}: whole (hashes agree) and ready after {ready:.1f} s")

    hop = manifest.features.hop / manifest.features.sample_rate
    block = round(hop * RATE)
    noise = np.random.default_rng(0).standard_normal(round(SECONDS * RATE), np.float32) * np.float32(0.02)
    stepper, steps, chain = recognizer.engine.stepper(), [], []
    silence = np.zeros(manifest.features.bins, np.float32)
    for start in range(0, noise.size - block, block):
        before = time.perf_counter()
        recognizer.push(noise[start : start + block])
        between = time.perf_counter()
        stepper.step(silence)
        chain.append(between - before)
        steps.append(time.perf_counter() - between)
    recognizer.reset()
    middle, most = statistics.median(chain), statistics.quantiles(chain, n=100)[98]
    told = (
        f"a hop of {1000 * hop:.1f} ms takes {1000 * middle:.2f} ms, {1000 * most:.2f} ms at worst in a hundred "
        f"(the engine's step: {1000 * statistics.median(steps):.2f} ms)"
    )
    if middle > hop:
        yield Finding("problem", f"{told}: this machine is too slow, so sound will be dropped")
    elif most > BUSY * hop:
        yield warning(f"{told}: little is left for others; close other programs, plug in the power supply")
    else:
        yield ok(told)


def _timer(_settings: Settings) -> Iterator[Finding]:
    naps = []
    for _ in range(NAPS):
        before = time.perf_counter()
        time.sleep(0.001)
        naps.append(time.perf_counter() - before)
    middle = statistics.median(naps)
    told = f"a sleep of 1 ms takes {1000 * middle:.1f} ms"
    yield warning(f"{told}: names come that much later") if middle > SLOW_TIMER_SECONDS else ok(told)


def _terminal(_settings: Settings) -> Iterator[Finding]:
    from rtchord.outputs.display import fits

    if not fits(sys.stdout):
        yield ok("the standard output is no terminal for the display: chords come as lines")
    elif (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        yield ok("the display draws in ASCII here; set LANG to a UTF-8 locale for smoother letters")
    else:
        yield ok("the display can be drawn on this terminal")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _machine, _inputs, _servers, _permissions, _midi, _compiled_code, _engine, _timer, _terminal,
)  # fmt: skip


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in order. What a check stumbles over is a finding too."""
    for check in CHECKS:
        try:
            yield from check(settings)
        except UserError as error:
            yield Finding("problem", str(error))
        except Exception as error:
            yield Finding("problem", f"the check of the {check.__name__[1:]} failed ({type(error).__name__}: {error})")
