"""From a strum to its MIDI notes: what deciding takes, and what the machine adds.

A JACK server runs as a driver would (asynchronous, real-time). One program plays strums from a known frame on, another
notes the frame of every MIDI message; `rtchord listen` stands between them and knows of neither.

algorithmic    from the strum to `time` of the first event with its root and third: sound that has to be heard. The same
               on any machine, and known from the samples alone
machine        from that moment on JACK's clock to the frame at which the MIDI notes arrive, for every event: driver,
               hand-over between processes, polling, computing, sending. What is sent in one period arrives with the
               next, so that it is never less than the rest of the period, and half a period in the middle

Both need the frame of the session's first sample, which nobody prints: it lies whole periods before the player's first,
as near as leaves no event sent before it was heard. Given as much silence before the piece, the library must tell the
session's very lines, confidences included. Where it does up to some line only, audio was lost there, and what follows
is not counted.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks import rig
from benchmarks.hop import QUANTILES, RATE, hop_cost
from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.chords import Chord
from rtchord.decoder import FAMILY
from rtchord.engine import Engine
from rtchord.errors import UserError
from rtchord.events import ChordEvent
from rtchord.names import Naming
from rtchord.outputs.messages import voicing
from rtchord.recognizer import Recognizer
from rtchord.settings import NameSettings
from train.labels import parse, read_labels
from train.results import load_average

Float32 = NDArray[np.float32]

DEMO = Path(__file__).parents[1] / "tests" / "data" / "demo.ogg"
STRUM_SECONDS = 0.8
FADE_SECONDS = 0.005  # at the end of each, so that the next strum alone has an attack
SILENCE_SECONDS = 1.2  # before the first and after the last
PERIODS = (64, 128, 256, 512)
NEIGHBOURS = ("none", "busy")
PIECE_STRUMS = 30  # of a performance: audio lost in one says nothing of the next
LEEWAY_MS = 3.0  # that the machine may take beyond one period
LATEST_SECONDS = 0.05  # that the least machine delay of a performance may be, for its beginning to be found
SLACK = 4  # periods that JACK's clock may have been set back in
BLOCK = 4096  # frames


class Piece(NamedTuple):
    """Strums one after the other: `samples`, their `rate`, and (s, chord) of each."""

    samples: Float32
    rate: int
    strums: list[tuple[float, Chord]]


class Performance(NamedTuple):
    """What came out: the session's `lines`, `midi` as (JACK frame, message), and where the player's samples lay on
    JACK's clock: (sample, frame) of its first, and of every other at which that clock had jumped."""

    lines: list[str]
    midi: list[tuple[int, bytes]]
    cycles: list[tuple[int, int]]


class Delays(NamedTuple):
    """ms of one performance: `algorithmic` and `total` of every strum that was named, `machine` of every event that
    changed the notes; how many `strums` there were, lines `lost` to the comparison, and `jumps` of JACK's clock."""

    algorithmic: list[float]
    machine: list[float]
    total: list[float]
    strums: int
    lost: int
    jumps: int


class Aligned(NamedTuple):
    """Frames of `silence` the session heard before the piece, and the events that it and the library agree on."""

    silence: int
    events: list[ChordEvent]


def piece(strums: int, seed: int = 0) -> Piece:
    """The first strums of the demo's bars in another order: each has another root or third than the one before."""
    samples, rate = read_mono(DEMO)
    samples, rate = soxr.resample(samples, rate, RATE), RATE
    size = round(STRUM_SECONDS * rate)
    fade = np.minimum(1.0, np.arange(size, 0, -1) / (FADE_SECONDS * rate)).astype(np.float32)
    bars = [
        (samples[round(start * rate) :][:size] * fade, chord)
        for start, _, chord in read_labels(DEMO.with_suffix(".lab")).segments
        if chord.root >= 0
    ]
    rng, silence = random.Random(seed), np.zeros(round(SILENCE_SECONDS * rate), np.float32)
    parts, chords = [silence], [bars[0][1]]
    for _ in range(strums):
        sound, chord = rng.choice([bar for bar in bars if FAMILY[bar[1].index] != FAMILY[chords[-1].index]])
        parts.append(sound)
        chords.append(chord)
    times = [(silence.size + i * size) / rate for i in range(strums)]
    return Piece(np.concatenate((*parts, silence)), rate, list(zip(times, chords[1:], strict=True)))


@lru_cache
def _engine() -> Engine:
    """One for all, as most of what is heard is heard for a moment only."""
    return engines.load()


def heard_after(silence: int, played: Piece) -> Iterator[ChordEvent]:
    """Events of so many frames of silence, the piece, and silence again, named as a session names them."""
    recognizer, naming = Recognizer(played.rate, _engine()), Naming(NameSettings())
    recognizer.reset()
    stream = np.concatenate((np.zeros(silence, np.float32), played.samples, np.zeros(played.rate, np.float32)))
    for start in range(0, stream.size, BLOCK):
        yield from filter(None, map(naming.push, recognizer.push(stream[start : start + BLOCK])))


def paired(lines: Sequence[str], midi: Sequence[tuple[int, bytes]]) -> list[tuple[int, int]]:
    """(number of a line, JACK frame of its notes) for the session's lines that changed the notes."""
    changes = iter(rig.held_notes(midi))
    pairs: list[tuple[int, int]] = []
    before: tuple[int, ...] = ()
    for number, line in enumerate(lines):
        notes = voicing(parse(json.loads(line)["chord"]))
        if notes != before:
            frame, held = next(changes, (0, None))
            if held != notes:
                break
            pairs.append((number, frame))
            before = notes
    return pairs


def aligned(lines: Sequence[str], pairs: Sequence[tuple[int, int]], first: int, period: int, played: Piece) -> Aligned:
    """Where the session's stream began, going by what it told and when; see above."""
    began = min((frame - json.loads(lines[number])["time"] * played.rate for number, frame in pairs), default=first)
    least = max(0, math.ceil((first - began) / period - 1e-6))
    most = least + max(SLACK, math.ceil(LATEST_SECONDS * played.rate / period))
    best = Aligned(0, [])
    for periods in (*range(least, most), *range(least - 1, max(-1, least - SLACK), -1)):
        told = zip(heard_after(periods * period, played), lines, strict=False)
        same = [event for event, line in takewhile(lambda pair: pair[0].json() == pair[1], told)]
        if len(same) > len(best.events):
            best = Aligned(periods * period, same)
        if len(same) == len(lines):
            break
    return best


def delays(performance: Performance, period: int, played: Piece) -> Delays:
    """Algorithmic and machine delay of one performance."""
    lines, rate = performance.lines, played.rate
    pairs = paired(lines, performance.midi)
    silence, events = aligned(lines, pairs, performance.cycles[0][1], period, played)

    def frame_of(event: ChordEvent) -> float:
        """JACK frame at which all that the event needs has sounded."""
        sample = event.time * rate - silence
        position, frame = [cycle for cycle in performance.cycles if cycle[0] <= max(sample, 0)][-1]
        return frame + sample - position

    machine = {
        number: 1000 * (frame - frame_of(events[number])) / rate for number, frame in pairs if number < len(events)
    }
    algorithmic, total = [], []
    ends = [start for start, _ in played.strums[1:]] + [played.strums[-1][0] + STRUM_SECONDS]
    for (start, chord), end in zip(played.strums, ends, strict=True):
        for number, event in enumerate(events):
            at = event.time - silence / rate
            if start < at <= end and FAMILY[event.symbol.index] == FAMILY[chord.index] and number in machine:
                algorithmic.append(1000 * (at - start))
                total.append(algorithmic[-1] + machine[number])
                break
    lost, jumps = len(lines) - len(events), len(performance.cycles) - 1
    return Delays(algorithmic, list(machine.values()), total, len(played.strums), lost, jumps)


def summary(found: Sequence[Delays], period_ms: float) -> dict[str, Any]:
    """Of all performances together."""
    algorithmic, machine, total = ([ms for each in found for ms in each[part]] for part in range(3))
    return {
        "period_ms": round(period_ms, 2),
        "strums": sum(each.strums for each in found),
        "named": len(total),
        "events": len(machine),
        "lost": sum(each.lost for each in found),
        "jumps": sum(each.jumps for each in found),
        "algorithmic_ms": spread(algorithmic),
        "machine_ms": spread(machine),
        "total_ms": spread(total),
        "next_period": share(machine, period_ms),
        "within": share(machine, period_ms + LEEWAY_MS),
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, p95, p99 and max; None of nothing."""
    return {name: round(float(np.percentile(values, at)), 2) for name, at in QUANTILES.items()} if values else None


def share(values: Sequence[float], limit: float) -> float | None:
    """Of the values that are not above `limit`."""
    return round(float(np.mean(np.array(values) <= limit + 1e-6)), 4) if values else None


def perform(song: Path, rate: int, period: int, neighbour: str) -> Performance:
    """Play a sound file to `rtchord listen` over JACK. AssertionError where something did not come."""
    seconds = soundfile.info(song).duration
    with rig.JackServer(rate, period, rig.LIVE) as server:
        player = server.program(*rig.PLAYER, song)
        player.wait_said("ready")
        receiver = server.program(*rig.MIDI_RECEIVER, "rtchord:chords")
        session = server.program(*rig.RTCHORD, "listen", "--device", "player", "--format", "jsonl")
        session.wait_said("listening", 120)
        receiver.wait_said("connected")
        if neighbour == "busy":
            for _ in range(os.cpu_count() or 1):
                server.program(*rig.PYTHON, "-c", "while True: pass")
        player.go()
        player.wait_said("ended", 3 * seconds + 60)
        time.sleep(SILENCE_SECONDS)
        session.stop()
        time.sleep(0.3)  # for the receiver to print what it has
        cycles = json.loads(player.out[-1])["cycles"]
        return Performance(list(session.out), rig.midi_messages(receiver), [(at, frame) for at, frame in cycles])


def end_to_end(strums: int) -> dict[str, object]:
    """Every period without and with a neighbour that keeps all cores busy."""
    if reason := rig.missing():
        raise UserError(f"no delay can be measured, because {reason}; --strums 0 measures the stages alone")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        songs = []
        for first in range(0, strums, PIECE_STRUMS):
            played = piece(min(PIECE_STRUMS, strums - first), seed=first)
            songs.append((Path(folder) / f"{first}.wav", played))
            soundfile.write(songs[-1][0], played.samples, played.rate, subtype="FLOAT")
        for period in PERIODS:
            for neighbour in NEIGHBOURS:
                row: dict[str, Any] = {"period": period, "neighbour": neighbour, "load": load_average()}
                found, failed = [], []
                for song, played in songs:
                    try:
                        found.append(delays(perform(song, played.rate, period, neighbour), period, played))
                    except AssertionError as error:  # a program that died, or a server that came to a stop
                        failed.append(str(error)[:200])
                row |= {**summary(found, 1000 * period / RATE), "failed": failed}
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
    return {"rate": RATE, "strum_s": STRUM_SECONDS, "runs": rows}


def latency(engine_folder: Path | None, hops: int, strums: int) -> dict[str, object]:
    """Stages, then whole performances; 0 for none."""
    result: dict[str, object] = {"load": load_average()}
    if hops:
        result["stages"] = hop_cost(engine_folder, hops)
    if strums:
        result["end_to_end"] = end_to_end(strums)
    return result
