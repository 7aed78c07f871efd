"""What one hop costs, part by part, on one core; and how much faster than real time a file goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from rtchord import engine as engines
from rtchord.chords import N_BASS, N_CLASSES
from rtchord.cqt import SlidingCQT
from rtchord.cqt.latency import resampler_of
from rtchord.decoder import PRESETS, Decoder
from rtchord.recognizer import Recognizer

RATE = 48_000  # what most devices run at


def timings(action: Callable[[int], object], hops: int) -> dict[str, float]:
    """Microseconds a call of `action(i)`: median, p99 and max over `hops` calls."""
    for i in range(min(100, hops)):
        action(i)
    spent = np.empty(hops)
    for i in range(hops):
        start = time.perf_counter_ns()
        action(i)
        spent[i] = time.perf_counter_ns() - start
    spent /= 1000
    return {
        "median_us": round(float(np.median(spent)), 1),
        "p99_us": round(float(np.percentile(spent, 99)), 1),
        "max_us": round(float(spent.max()), 1),
    }


def hop_cost(engine_folder: Path | None, hops: int) -> dict[str, object]:
    """Each stage alone, then the whole chain, over the same noise."""
    engine = engines.load(engine_folder)
    features = engine.manifest.features
    rng = np.random.default_rng(0)
    block_size = round(features.hop * RATE / features.sample_rate)
    audio = (0.1 * rng.standard_normal(block_size * 64)).astype(np.float32)
    blocks = audio.reshape(64, block_size)
    resampler = resampler_of(RATE, features)
    transform, out = SlidingCQT(features), np.empty((1, features.bins), np.float32)
    hop = audio[: features.hop].copy()
    decoder = Decoder(PRESETS["balanced"])
    classes = rng.dirichlet(np.full(N_CLASSES, 0.1), 64).astype(np.float32)
    bass = rng.dirichlet(np.full(N_BASS, 0.1), 64).astype(np.float32)
    frames = rng.normal(-1, 2, (64, features.bins)).astype(np.float32)
    recognizer, frame = Recognizer(RATE, engine_folder), count()
    parts = {
        "resample": timings(lambda i: resampler.push(blocks[i % 64]), hops),
        "cqt": timings(lambda _: transform.push(hop, out), hops),
        "model": timings(lambda i: engine.step(frames[i % 64]), hops),
        "decode": timings(lambda i: decoder.push(next(frame), classes[i % 64], bass[i % 64]), hops),
        "whole": timings(lambda i: recognizer.push(blocks[i % 64]), hops),
    }
    hop_us = 1e6 * features.hop / features.sample_rate
    return {
        "hops": hops,
        "hop_us": round(hop_us, 1),
        "rate": RATE,
        "parts": parts,
        "times_real_time": round(hop_us / parts["whole"]["median_us"], 1),
        "share_of_hop_p99": round(parts["whole"]["p99_us"] / hop_us, 4),
    }
