"""What the constant-Q transform costs, beside its peers; how close it is to librosa; how late it is; whether it drifts.

One core: every peer is held to one thread. Times are medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import librosa
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.cqt_agreement import agreement, drift
from benchmarks.cqt_latency import onsets
from rtchord.cqt import DEFINITIONS, CentredCQT, Features, FrameStream, SlidingCQT, half_band, kernels
from rtchord.cqt.kernels import HALF_BAND_TAPS, minimum_phase
from rtchord.cqt.tile import respond

Float32 = NDArray[np.float32]

RING_S = 1.2  # s of the newest audio that a peer transforms to get one frame
BATCH_S = 600  # s of audio for the batch speed
HOPS = (512, 2048)
FRAMES = 108  # of a window, as published models read it


def median_us(action: Callable[[], object], times: int) -> float:
    """Median µs of a call."""
    for _ in range(max(2, times // 50)):
        action()
    spent = np.empty(times)
    for i in range(times):
        start = time.perf_counter_ns()
        action()
        spent[i] = time.perf_counter_ns() - start
    return round(float(np.median(spent)) / 1000, 2)


def multiply_adds(features: Features) -> int:
    """Multiply-adds that one right-aligned hop needs: the kernels' rows and the decimators' taps."""
    matrices, _ = kernels(features)
    rows = [m.shape[0] - int(np.flatnonzero(m.any(axis=1))[0]) for m in matrices]
    met = sum(rows) * (features.octaves if len(rows) == 1 else 1)
    outputs = sum(features.hop >> (octave + 1) for octave in range(features.octaves))
    return met * 2 * features.bins_per_octave + outputs * HALF_BAND_TAPS


def matrix_rate(size: int = 1024) -> float:
    """Multiply-adds a µs of a float32 matrix product on one core."""
    a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    out = np.empty_like(a)
    return size**3 / median_us(lambda: np.dot(a, a, out=out), 20)


def product() -> dict[str, float]:
    """µs of the live mode's kernel product, six windows at once: ours, and NumPy's."""
    matrix = kernels(DEFINITIONS["live"])[0][0]
    windows = np.random.default_rng(0).standard_normal((6, matrix.shape[0])).astype(np.float32)
    starts, out = np.arange(6) * matrix.shape[0], np.empty((6, matrix.shape[1]), np.float32)
    return {
        "product_us": median_us(lambda: respond(windows.reshape(-1), starts, 1, matrix, 0, out), 5000),
        "numpy_product_us": median_us(lambda: np.dot(windows, matrix, out=out), 5000),
    }


def ours(name: str, hop: int, hops: int) -> dict[str, float]:
    """µs a hop of one of our modes; for centred ones also with the window of newest frames computed at each hop."""
    features = DEFINITIONS[name].model_copy(update={"hop": hop})
    block = (0.1 * np.random.default_rng(0).standard_normal(hop)).astype(np.float32)
    out = np.empty((2, features.bins), np.float32)
    if features.alignment == "right":
        sliding, one = SlidingCQT(features), out[:1]
        return {"us": median_us(lambda: sliding.push(block, one), hops)}
    centred, window = CentredCQT(features, FRAMES), np.empty((FRAMES, features.bins), np.float32)
    for _ in range(30 * 2048 // hop):
        centred.push(block, out)

    def both() -> None:
        centred.push(block, out)
        centred.window(window)

    return {"us": median_us(lambda: centred.push(block, out), hops), "with_window_us": median_us(both, hops // 10)}


def peer_calls(hop: int, gamma: float) -> dict[str, Callable[[], object]]:
    """The peers' ways to the newest frame of the same stream: each transforms the last RING_S seconds."""
    features = Features()
    ring = (0.1 * np.random.default_rng(0).standard_normal(int(RING_S * features.sample_rate))).astype(np.float32)
    same = {
        "sr": features.sample_rate, "hop_length": hop, "fmin": features.fmin, "n_bins": features.bins,
        "bins_per_octave": features.bins_per_octave,
    }  # fmt: skip
    calls: dict[str, Callable[[], object]] = {
        "librosa.cqt": lambda: librosa.cqt(ring, **same),
        "librosa.vqt": lambda: librosa.vqt(ring, gamma=gamma, **same),
    }
    try:
        import torch
        from nnAudio import features as nn
    except ImportError:
        return calls
    torch.set_num_threads(1)
    tensor = torch.from_numpy(ring)[None]
    for kind in ("CQT1992v2", "CQT2010v2"):
        layer = getattr(nn, kind)(**same, verbose=False)
        calls[f"nnAudio {kind}"] = torch.inference_mode()(lambda layer=layer: layer(tensor))
    return calls


def peers(hop: int, gamma: float) -> dict[str, float]:
    """µs of the peers for the newest frame."""
    return {name: median_us(call, 50) for name, call in peer_calls(hop, gamma).items()}


def interleaved(rounds: int) -> dict[str, dict[str, object]]:
    """How many times longer each peer takes for the newest live frame than we do, round by round in turn: the median
    ratio and what the middle 95 % of rounds lie between."""
    features = DEFINITIONS["live"]
    block = (0.1 * np.random.default_rng(0).standard_normal(features.hop)).astype(np.float32)
    sliding, out = SlidingCQT(features), np.empty((1, features.bins), np.float32)
    calls = peer_calls(features.hop, DEFINITIONS["live-vq"].gamma)
    spent: dict[str, list[float]] = {"rtchord": [], **{name: [] for name in calls}}
    with threadpool_limits(1):
        for _ in range(rounds):
            # The median of a handful of ours: one alone is too short for the clock.
            spent["rtchord"].append(median_us(lambda: sliding.push(block, out), 50))
            for name, call in calls.items():
                start = time.perf_counter_ns()
                call()
                spent[name].append((time.perf_counter_ns() - start) / 1000)
    ours_us = np.array(spent["rtchord"][1:])  # the first round warms up
    return {
        name: {
            "median_us": round(float(np.median(values[1:])), 1),
            "ratio": round(float(np.median(np.array(values[1:]) / ours_us)), 1),
            "interval": [round(float(q), 1) for q in np.percentile(np.array(values[1:]) / ours_us, [2.5, 97.5])],
        }
        for name, values in spent.items()
    }


def batch() -> dict[str, float]:
    """s for BATCH_S seconds of audio in one call, and the ratio; the live mode against librosa.cqt at its hop."""
    features = Features()
    noise = 0.1 * np.random.default_rng(0).standard_normal(BATCH_S * features.sample_rate)
    samples = noise.astype(np.float32)
    live, centred = DEFINITIONS["live"], DEFINITIONS["librosa-0.11-hop512"]
    seconds = {
        "live_s": median_us(lambda: FrameStream(live.sample_rate, live).push(samples), 5) / 1e6,
        "centred_s": median_us(lambda: FrameStream(centred.sample_rate, centred).push(samples), 5) / 1e6,
        "librosa_s": median_us(
            lambda: librosa.cqt(
                samples, sr=live.sample_rate, hop_length=live.hop, fmin=live.fmin, n_bins=live.bins,
                bins_per_octave=live.bins_per_octave,
            ), 3,
        ) / 1e6,
    }  # fmt: skip
    return {name: round(value, 4) for name, value in seconds.items()}


def decimators() -> dict[str, dict[str, float]]:
    """Of each candidate for the right-aligned chain: its delay at the lowest octave, and what it lets through."""
    linear = half_band()
    chosen = {"linear phase, 23 taps": linear, "linear phase, 15 taps": half_band(15, 4.0),
              "minimum phase, 23 taps": minimum_phase(linear)}  # fmt: skip
    top = Features().frequencies[-1] / Features().sample_rate * 2  # of the rate in front of the second stage
    result = {}
    for name, taps in chosen.items():
        n = np.arange(taps.size)[::-1]
        spectrum = np.exp(-2j * np.pi * np.linspace(0, 0.5, 4096)[:, None] * n) @ taps.astype(np.float64)
        at = np.linspace(0, 0.5, 4096)
        kept, dropped = np.abs(spectrum[at <= top / 2]), np.abs(spectrum[at >= 0.5 - top / 2])
        delay = float((n * taps).sum() / taps.sum()) + (0 if name.startswith("minimum") else 1)
        result[name] = {
            "alias_db": round(float(20 * np.log10(dropped.max())), 1),
            "ripple_db": round(float(20 * np.log10(kept.max() / kept.min())), 4),
            "delay_c1_ms": round(1000 * delay * (2 ** Features().octaves - 1) / Features().sample_rate, 1),
        }
    return result


def denormals(hops: int) -> float:
    """How many times longer the live stream takes on denormal samples than on noise."""
    features = DEFINITIONS["live"]
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(features.hop)).astype(np.float32)
    tiny = (1e-40 * rng.standard_normal(features.hop)).astype(np.float32)
    stream = FrameStream(features.sample_rate, features)
    ordinary = median_us(lambda: stream.push(noise), hops)
    stream.reset()
    return round(median_us(lambda: stream.push(tiny), hops) / ordinary, 2)


def cqt(hops: int, hours: float) -> dict[str, object]:
    """Everything that is claimed of the transform, measured in one run."""
    with threadpool_limits(1):
        gamma = DEFINITIONS["live-vq"].gamma
        costs = {
            str(hop): {
                "ours": {name: ours(name, hop, hops) for name in ("live", "live-vq", "librosa-0.11", "librosa-0.6.3")},
                "peers_us": peers(hop, gamma),
            }
            for hop in HOPS
        }
        hop_us = costs["512"]["ours"]["live"]["us"]
        librosa_hop_us = costs["512"]["peers_us"]["librosa.cqt"]
        rate, needed = matrix_rate(), multiply_adds(DEFINITIONS["live"])
        whole = batch()
        result: dict[str, object] = {
            "hop_us": hop_us,
            "librosa_hop_us": librosa_hop_us,
            "ratio": round(librosa_hop_us / hop_us, 1),
            "batch_ratio": round(whole["librosa_s"] / whole["live_s"], 2),
            "limit_ratio": round(hop_us / (needed / rate), 2),
            **agreement(),
            "hops": hops,
            "ring_s": RING_S,
            "batch": {"seconds": BATCH_S, **whole},
            "limit": {"multiply_adds": needed, "per_us": round(rate), "us": round(needed / rate, 2), **product()},
            "costs": costs,
            "decimators": decimators(),
            "latency": onsets({name: DEFINITIONS[name] for name in ("live", "live-vq", "librosa-0.11-hop512")}),
            "denormal_slowdown": denormals(hops),
            "drift": drift(hours),
        }
    for package in ("librosa", "nnAudio", "torch"):
        try:
            result[f"{package}_version"] = version(package)
        except PackageNotFoundError:
            result[f"{package}_version"] = None
    return result
