"""What one hop of sound costs on one core: every stage of the live path alone, then from samples to events.

capture              a stereo hop in blocks of PERIOD frames: the callback fills the ring, it is read and mixed
resample .. decode   once a hop; `whole` is `Recognizer.push` of a hop, which is all of these together
encode               the messages of one change: MIDI, OSC and JSON
send OSC             to a port of this machine; `write JSON` to /dev/null, flushed
send MIDI            its encoding included, to a port that nobody is connected to, where JACK is installed

The last four are paid for a change only, of which there are fewer than one in twenty hops.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks import rig
from rtchord import engine as engines
from rtchord.audio.mix import MonoMix
from rtchord.audio.ring import RingBuffer
from rtchord.chords import N_BASS, N_CLASSES, Chord, class_index
from rtchord.cqt import SlidingCQT
from rtchord.cqt.latency import resampler_of
from rtchord.decoder import PRESETS, Decoder
from rtchord.events import ChordEvent
from rtchord.gate import Gate
from rtchord.outputs import osc
from rtchord.outputs.messages import change, voicing
from rtchord.outputs.midi import MidiOutput
from rtchord.outputs.text import TextOutput
from rtchord.recognizer import Recognizer
from rtchord.settings import GATE_DBFS

RATE = 48_000  # what most devices run at
PERIOD = 256  # frames
SENT = 2000  # MIDI changes at most
PAUSE_SECONDS = 0.004  # between them, for the server to take them: a full queue is waited for
CHANGES = [
    ChordEvent(1.0, 1.1, Chord(class_index(root, quality), root), 0.9)
    for root, quality in ((0, "maj"), (9, "min7"), (5, "maj7"), (7, "7"))
]

Timings = dict[str, float]


def timings(action: Callable[[int], object], times: int, pause: float = 0.0) -> Timings:
    """Microseconds a call of `action(i)` over `times` calls, `pause` s apart.

    `cpu_*` count only the time for which this thread had a core: what remains where others want it too.
    """
    for i in range(min(100, times)):
        action(i)
        time.sleep(pause)
    spent, used = np.empty(times), np.empty(times)
    for i in range(times):
        cpu = time.thread_time_ns()
        start = time.perf_counter_ns()
        action(i)
        spent[i] = time.perf_counter_ns() - start
        used[i] = time.thread_time_ns() - cpu
        if pause:
            time.sleep(pause)
    found = {f"{name}_us": np.percentile(spent, share) for name, share in QUANTILES.items()}
    found |= {f"cpu_{name}_us": np.percentile(used, QUANTILES[name]) for name in ("median", "p99")}
    return {"n": times, **{name: round(float(value) / 1000, 1) for name, value in found.items()}}


QUANTILES = {"median": 50, "p95": 95, "p99": 99, "max": 100}


def hop_cost(engine_folder: Path | None, hops: int) -> dict[str, object]:
    """Each stage alone, then the whole chain, over the same noise."""
    engine = engines.load(engine_folder)
    stepper, features = engine.stepper(), engine.manifest.features
    rng = np.random.default_rng(0)
    size = round(features.hop * RATE / features.sample_rate)
    audio = (0.1 * rng.standard_normal(size * 64)).astype(np.float32)
    blocks = audio.reshape(64, size)
    resampler = resampler_of(RATE, features)
    transform, out = SlidingCQT(features), np.empty((1, features.bins), np.float32)
    hop = audio[: features.hop].copy()
    gate, decoder = Gate(features, GATE_DBFS), Decoder(PRESETS["balanced"], hop=1 / features.frame_rate)
    classes = rng.dirichlet(np.full(N_CLASSES, 0.1), 64).astype(np.float32)
    bass = rng.dirichlet(np.full(N_BASS, 0.1), 64).astype(np.float32)
    frames = rng.normal(-1, 2, (64, features.bins)).astype(np.float32)
    recognizer, frame = Recognizer(RATE, engine), count()
    parts = {
        "capture": timings(_capturing(audio, size), hops),
        "resample": timings(lambda i: resampler.push(blocks[i % 64]), hops),
        "cqt": timings(lambda _: transform.push(hop, out), hops),
        "gate": timings(lambda i: gate.silent(frames[i % 64]), hops),
        "model": timings(lambda i: stepper.step(frames[i % 64]), hops),
        "decode": timings(lambda i: decoder.push(next(frame), classes[i % 64], bass[i % 64]), hops),
        "whole": timings(lambda i: recognizer.push(blocks[i % 64]), hops),
        **_sending(hops),
    }
    hop_us = 1e6 * features.hop / features.sample_rate
    return {
        "hops": hops,
        "hop_us": round(hop_us, 1),
        "rate": RATE,
        "parts": parts,
        "times_real_time": round(hop_us / parts["whole"]["median_us"], 1),
        "share_of_hop_p99": round(parts["whole"]["p99_us"] / hop_us, 4),
        "cpu_share_of_hop_p99": round(parts["whole"]["cpu_p99_us"] / hop_us, 4),
    }


def _capturing(audio: np.ndarray, size: int) -> Callable[[int], object]:
    stereo = np.stack((audio, audio), axis=1)[:size]
    pieces = [stereo[start : start + PERIOD] for start in range(0, size, PERIOD)]
    ring, mix = RingBuffer(RATE, 2), MonoMix((0, 1), RATE)
    heard = np.zeros((2, RATE), np.float32)

    def capture(_: int) -> None:
        for piece in pieces:
            ring.write(piece, (0, 1))
            mix.mix(heard[:, : ring.read_into(heard)].T)

    return capture


def _sending(hops: int) -> dict[str, Timings]:
    chords = [voicing(event.symbol) for event in CHANGES]

    def encode(i: int) -> None:
        event = CHANGES[i % 4]
        list(change(chords[i % 4 - 1], voicing(event.symbol), 0, 100))
        osc.encode(event)
        event.json()

    parts = {"encode": timings(encode, hops)}
    datagram = osc.encode(CHANGES[0])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        open(os.devnull, "w") as nowhere,
    ):
        receiver.bind(("127.0.0.1", 0))  # what nobody reads is dropped there, and costs the sender the same
        sender.setblocking(False)
        address = receiver.getsockname()
        parts["send OSC"] = timings(lambda _: sender.sendto(datagram, address), hops)
        text = TextOutput(nowhere, "jsonl")
        parts["write JSON"] = timings(lambda i: text.send(CHANGES[i % 4]), hops)
    if rig.missing() is None:
        try:
            with rig.JackServer(RATE, PERIOD, rig.LIVE) as server, mock.patch.dict(os.environ, server.env):
                port = MidiOutput(prefer="JACK")
                try:
                    parts["send MIDI"] = timings(lambda i: port.send(CHANGES[i % 4]), min(hops, SENT), PAUSE_SECONDS)
                finally:
                    port.close()
        except AssertionError as error:  # all else is measured by now
            print(f"sending MIDI is not measured: {error}", file=sys.stderr)
    return parts
