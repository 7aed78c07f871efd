"""Long runs: does memory grow, do event times drift, is anything lost or left sounding?

stream   hours of audio as fast as they go, through `Recognizer.push`
live     minutes over JACK at period 256, into `rtchord listen` beside a thread that keeps its interpreter busy and
         a process that keeps a core busy; the server waits for whoever is late, so that it loses nothing itself
stops    SIGTERM at random moments of a performance; an independent receiver says which notes are left on
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import rig
from rtchord.audio.files import read_mono
from rtchord.errors import UserError
from rtchord.recognizer import Recognizer

DEMO = Path("tests/data/demo.ogg")
WARM_UP_SHARE = 0.1  # of a run, after which memory has its size
PERIOD = 256  # frames


def resident(pid: int | str = "self") -> float:
    """Memory of a process that is in RAM, MB (Linux)."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1]) / 1024


def growth(sizes: list[float]) -> float:
    """MB between the largest size during the warm-up and the largest of the last tenth."""
    tenth = max(1, round(WARM_UP_SHARE * len(sizes)))
    return round(max(sizes[-tenth:]) - max(sizes[:tenth]), 2)


def loop(rate_hop: int) -> tuple[np.ndarray, int]:
    """The demo, cut to whole hops so that every repetition falls on the same frames; and its rate."""
    samples, rate = read_mono(DEMO)
    return samples[: samples.size // rate_hop * rate_hop], rate


def stream(hours: float) -> dict[str, object]:
    """The demo again and again; its events must come at the same times of every repetition."""
    samples, rate = loop(1024)
    length = samples.size / rate
    recognizer = Recognizer(rate)
    recognizer.warm_up()
    started, sizes, drift, different = time.perf_counter(), [], 0.0, 0
    known: list[tuple[float, str]] = []
    turns = max(3, round(hours * 3600 / length))
    for turn in range(turns):
        events = [
            event for start in range(0, samples.size, 4096) for event in recognizer.push(samples[start : start + 4096])
        ]
        found = [(event.time - turn * length, event.chord) for event in events]
        if turn == turns // 2:  # by then the decoder has heard what this music repeats
            known = found
        elif known:
            different += [chord for _, chord in found] != [chord for _, chord in known]
            drift = max([drift, *(abs(a - b) for (a, _), (b, _) in zip(found, known, strict=False))])
        sizes.append(resident())
    spent = time.perf_counter() - started
    return {
        "hours": round(turns * length / 3600, 3),
        "repetitions": turns,
        "times_real_time": round(turns * length / spent, 1),
        "drift_s": drift,
        "repetitions_with_other_chords": different,
        "memory_mb": [round(sizes[0], 1), round(sizes[-1], 1)],
        "growth_mb": growth(sizes),
    }


def live(minutes: float) -> dict[str, object]:
    """A session that hears the demo again and again."""
    samples, rate = loop(1024)
    with tempfile.TemporaryDirectory() as folder, rig.JackServer(rate, PERIOD) as server:
        song = Path(folder) / "song.wav"
        soundfile.write(song, samples, rate, subtype="FLOAT")
        player = server.program(*rig.PLAYER, song, "--loop")
        player.wait_said("ready")
        server.program(*rig.PYTHON, "-c", "while True: pass")
        session = server.program(*rig.BESIDE_A_BUSY_THREAD, "listen", "--device", "player", "--format", "jsonl")
        session.wait_said("listening")
        children = Path(f"/proc/{session.process.pid}/task/{session.process.pid}/children")
        player.go()
        sizes, end = [], time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            pids = [session.process.pid, *map(int, children.read_text().split())]
            sizes.append(sum(resident(pid) for pid in pids))
            time.sleep(1)
        code = session.stop()
        events = [json.loads(line) for line in session.out]
        times = [event["time"] for event in events]
        return {
            "minutes": minutes,
            "period": PERIOD,
            "exit_code": code,
            "events": len(events),
            "last_event_s": times[-1],
            "in_order": times == sorted(times),
            "said": [line for line in session.err if "listening" not in line and "getting ready" not in line],
            "memory_mb": [round(sizes[0], 1), round(sizes[-1], 1)],
            "growth_mb": growth(sizes),
        }


def stops(count: int, seed: int = 0) -> dict[str, object]:
    """How often notes were left on, and how long it took to end."""
    rng, samples, rate = random.Random(seed), *loop(1024)
    left, spent, codes, sounding = [], [], [], 0
    with tempfile.TemporaryDirectory() as folder, rig.JackServer(rate) as server:
        song = Path(folder) / "song.wav"
        soundfile.write(song, samples, rate, subtype="FLOAT")
        player = server.program(*rig.PLAYER, song, "--loop")
        player.wait_said("ready")
        player.go()
        receiver = server.program(*rig.MIDI_RECEIVER, "rtchord:chords")
        receiver.wait_said("ready")
        for number in range(count):
            session = server.program(*rig.RTCHORD, "listen", "--device", "player", "--format", "jsonl")
            session.wait_said("listening")
            time.sleep(rng.uniform(0, 2.5))
            started = time.monotonic()
            codes.append(session.stop(seconds=10))
            spent.append(time.monotonic() - started)
            time.sleep(0.2)  # for the receiver to print what it has
            changes = rig.held_notes(rig.midi_messages(receiver))
            sounding += len(changes) > 1 and changes[-2][1] != ()
            if changes and changes[-1][1]:
                left.append(number)
    return {
        "stops": count,
        "while_a_chord_sounded": sounding,
        "notes_left_on": left,
        "exit_codes": sorted(set(codes)),
        "median_s": round(float(np.median(spent)), 2),
        "longest_s": round(max(spent), 2),
    }


def soak(hours: float, minutes: float, count: int) -> dict[str, object]:
    """Each part that is asked for, with a line of result on stderr when it is over."""
    if (reason := rig.missing()) and (minutes or count):
        raise UserError(f"nothing to soak with: {reason}")
    result: dict[str, object] = {}
    for name, part, size in (("stops", stops, count), ("live", live, minutes), ("stream", stream, hours)):
        if size:
            result[name] = part(size)  # type: ignore[operator]
            print(f"{name}: {json.dumps(result[name])}", file=sys.stderr, flush=True)
    return result
