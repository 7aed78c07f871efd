"""Three ways to take audio from PortAudio, and what each loses while a thread keeps the interpreter busy.

A JACK server runs as a driver would: what is late is lost. A player sends a ramp, so that every sample has a number.
It runs in real time beside the program under test, which is this module called by itself:

    callback   PortAudio calls Python in the program's own process, which copies into a ring buffer
    blocking   the program reads from PortAudio's ring buffer, which is filled by C
    process    PortAudio calls Python in a process of its own, which copies into shared memory (rtchord.audio.capture)

The second cannot be measured where PortAudio dies of it, as Debian 12's does with JACK ("malloc(): invalid size").

`lost` are the samples that never came out, whoever lost them; what the rig loses itself shows without a neighbour.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import rig
from rtchord.errors import UserError

RATE = 48_000
PERIODS = (64, 128, 256, 512)
NEIGHBOURS = ("none", "gil")
SCALE = 2.0**24  # float32 counts to this without a gap
POLL_SECONDS = 0.002  # as rtchord.audio.source


def _ring_reader(ring: Any) -> Callable[[], np.ndarray]:
    out = np.zeros((ring.channels, ring.capacity), np.float32)
    return lambda: out[0, : ring.read_into(out)]


def _callback() -> tuple[Callable[[], np.ndarray], Callable[[], int]]:
    from rtchord.audio.capture import open_stream
    from rtchord.audio.device import choose, list_inputs
    from rtchord.audio.ring import RingBuffer

    ring = RingBuffer(RATE)
    _callback.stream = open_stream(choose("player", list_inputs()), (0,), ring.write)  # type: ignore[attr-defined]
    return _ring_reader(ring), lambda: ring.overflows


def _blocking() -> tuple[Callable[[], np.ndarray], Callable[[], int]]:
    import sounddevice

    stream = sounddevice.InputStream(device="player", channels=1, samplerate=RATE, dtype="float32", latency=0.5)
    stream.start()
    overflows, nothing = 0, np.zeros(0, np.float32)

    def read() -> np.ndarray:
        nonlocal overflows
        ready = stream.read_available
        if not ready:
            return nothing
        block, overflowed = stream.read(ready)
        overflows += overflowed
        return block[:, 0]

    return read, lambda: overflows


def _process() -> tuple[Callable[[], np.ndarray], Callable[[], int]]:
    from rtchord.audio.capture import Capture

    capture = _process.capture = Capture("player")  # type: ignore[attr-defined]
    for step in (capture.find, capture.start):
        for _ in step():
            pass
    return _ring_reader(capture.ring), lambda: capture.ring.overflows


DESIGNS = {"callback": _callback, "blocking": _blocking, "process": _process}


def hold_the_interpreter() -> None:
    """Endless small NumPy calls, of which none lets another thread in by itself."""
    a = np.ones(64)
    while True:
        a = a * 1.0000001


def subject(design: str, neighbour: str, samples: int) -> None:
    """Capture until the ramp has ended; prints what was lost as JSON."""
    read, overflows = DESIGNS[design]()
    if neighbour == "gil":
        threading.Thread(target=hold_the_interpreter, daemon=True).start()
    got = np.zeros(2 * samples, np.float32)
    print("ready", flush=True)
    count, limit, waits = 0, time.monotonic() + 4 * samples / RATE + 10, 0
    while time.monotonic() < limit and count < got.size:
        block = read()[: got.size - count]
        if block.size:
            got[count : count + block.size] = block
            count += block.size
            if block[-1] == 0.0 and count > samples // 2 and got[:count].max() >= (samples - RATE // 20) / SCALE:
                break  # silence again, after the end of the ramp
        else:
            waits += 1
            time.sleep(POLL_SECONDS)
    heard = np.unique(np.round(got[:count] * SCALE).astype(np.int64))
    heard = heard[(heard > 0) & (heard <= samples)]
    print(json.dumps({"lost": int(samples - heard.size), "overflows": overflows()}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # past a PortAudio that may hang


def capture(seconds: float) -> dict[str, object]:
    """Lost samples of every design at every period, with and without a neighbour."""
    if reason := rig.missing():
        raise UserError(f"nothing to measure with: {reason}")
    samples = round(seconds * RATE)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ramp = Path(folder) / "ramp.wav"
        soundfile.write(ramp, (np.arange(1, samples + 1) / SCALE).astype(np.float32), RATE, subtype="FLOAT")
        for period in PERIODS:
            for design, neighbour in _pairs():
                with rig.JackServer(RATE, period, rig.LIVE) as server:
                    player = server.program(*rig.PLAYER, ramp)
                    player.wait_said("ready")
                    program = server.program(*rig.PYTHON, "-m", "benchmarks.capture", design, neighbour, str(samples))
                    program.wait_said("ready")
                    player.go()
                    found = {"lost": samples, "died": True}
                    with contextlib.suppress(AssertionError):  # it ended without a word
                        program.wait_for(lambda p: any("lost" in line for line in p.out), 6 * seconds + 30)
                        found = json.loads(program.out[-1])
                row = {"period": period, "design": design, "neighbour": neighbour, "samples": samples, **found}
                print(row, file=sys.stderr)
                rows.append(row)
    return {
        "rate": RATE,
        "seconds": seconds,
        "runs": rows,
        "lost": {
            f"{design}, {neighbour}": [row["lost"] for row in rows if (row["design"], row["neighbour"]) == pair]
            for pair in _pairs()
            for design, neighbour in [pair]
        },
    }


def _pairs() -> Iterator[tuple[str, str]]:
    return ((design, neighbour) for design in DESIGNS for neighbour in NEIGHBOURS)


if __name__ == "__main__":
    subject(sys.argv[1], sys.argv[2], int(sys.argv[3]))
