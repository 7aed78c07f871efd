"""The numeric check: an engine beside PyTorch eager over ten minutes of stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engines.network import Network
from rtchord.cqt import Features, FrameStream
from rtchord.decoder import PRESETS, Decoder
from rtchord.engine import Engine, Manifest, backend_class, load, read_manifest, write_manifest
from rtchord.engine.base import Float32
from rtchord.engine.manifest import Check
from rtchord.errors import UserError

SECONDS = 600.0  # of stream, all streams of an engine taken together
LEAST_SECONDS = 20.0  # of each stream
KEPT, STAGGER = 4, 7


@dataclass(frozen=True)
class Limits:
    """What a check must keep to."""

    max_error: float
    mean_error: float
    chords: float


LIMITS = {
    "fp32": Limits(max_error=1e-4, mean_error=1e-6, chords=0.9999),
    "fp16": Limits(max_error=0.02, mean_error=5e-5, chords=0.995),
    "int8": Limits(max_error=0.1, mean_error=5e-4, chords=0.99),
}


def check_frames(features: Features, count: int) -> Float32:
    """(count, bins) frames of music-like sound from a fixed seed.

    Decaying chords of 3 to 5 notes over a bass, at any loudness, with bursts of noise, and a rest now and then.
    """
    rng = np.random.default_rng(0)
    rate = features.sample_rate
    samples = count * features.hop
    t = np.arange(rate, dtype=np.float32) / rate
    fade = np.minimum(1, (1 - t) * 50) * np.exp(-3 * t)
    audio = np.zeros(samples + rate, np.float32)
    for start in range(0, samples, rate // 2):
        if rng.random() < 0.05:
            continue
        notes = [*rng.choice(np.arange(48, 80), rng.integers(3, 6), replace=False), rng.integers(28, 48)]
        for note in notes:
            frequency = 440 * 2 ** ((note - 69) / 12)
            tone = sum(np.sin(2 * np.pi * frequency * k * t) / k for k in (1, 2, 3, 4))
            audio[start : start + rate] += (10 ** rng.uniform(-2.5, -0.8) * tone * fade).astype(np.float32)
        audio[start : start + rate // 10] += 0.03 * rng.random() * rng.standard_normal(rate // 10).astype(np.float32)
    stream = FrameStream(rate, features)
    return np.concatenate((stream.push(audio[:samples]), stream.finish()))[:count]


def answers_of(engine: Engine, frames: Float32) -> tuple[Float32, Float32]:
    """Posteriors (n, kept, 170), (n, kept, 13) of a stream (frames, bins).

    Of several streams, up to `KEPT` are looked at. Each of these is reset on its own, `STAGGER` frames after the one
    before it, and hears the stream from its beginning: all must give the same, later. `n` is what all of them heard.
    """
    stepper, streams = engine.stepper(), engine.manifest.streams
    kept = np.unique(np.linspace(0, streams - 1, KEPT).astype(int))
    late = np.zeros(streams, int)
    late[kept] = STAGGER * np.arange(kept.size)
    n = len(frames) - int(late.max())
    found = np.zeros((n, kept.size, 170), np.float32), np.zeros((n, kept.size, 13), np.float32)
    for i in range(len(frames)):
        if streams == 1:
            answers = [part[None] for part in stepper.step(frames[i])]
        else:
            for stream in kept[(late[kept] == i) & (i > 0)]:
                stepper.reset(int(stream))
            answers = [part[kept] for part in stepper.step(frames[np.maximum(i - late, 0)])]
        rows = i - late[kept]
        inside = np.flatnonzero((rows >= 0) & (rows < n))
        for part, new in zip(found, answers, strict=True):
            part[rows[inside], inside] = new[inside]
    return found


def decoded(classes: Float32, bass: Float32, hop: float) -> list[object]:
    """The chord that the live decoder holds at each frame; frames are `hop` s apart."""
    decoder = Decoder(PRESETS["balanced"], hop=hop)
    chords: list[object] = []
    for i in range(len(classes)):
        decoder.push(i, classes[i], bass[i])
        chords.append(decoder.current)
    return chords


def compare(engine: Engine, network: Network, frames: Float32) -> Check:
    """The engine beside the network's reference over a stream (n, bins)."""
    expected = network.reference(frames)
    got = answers_of(engine, frames)
    n = len(got[0])
    expected = expected[0][:n], expected[1][:n]
    errors = [np.nan_to_num(np.abs(g - e[:, None]), nan=np.inf) for e, g in zip(expected, got, strict=True)]
    total = sum(error.sum(dtype=np.float64) for error in errors)
    features = engine.manifest.features
    hop = 1 / features.frame_rate
    chords, last = decoded(*expected, hop), decoded(got[0][:, -1], got[1][:, -1], hop)
    return Check(
        against=f"PyTorch {torch.__version__}, eager, float32",
        frames=n,
        seconds=round(n / features.frame_rate, 3),
        max_error=max(float(error.max()) for error in errors),
        mean_error=float(total / sum(error.size for error in errors)),
        agree=float((got[0].argmax(-1) == expected[0].argmax(-1)[:, None]).mean()),
        chords=sum(a == b for a, b in zip(chords, last, strict=True)) / n,
    )


def verified(folder: Path, network: Network, seconds: float = SECONDS) -> Manifest:
    """Check an engine folder against its network and write the result and this machine into its manifest.

    UserError where it differs by more than `LIMITS`; the manifest then keeps no check, so that it is not loaded.
    """
    manifest = read_manifest(folder)
    same = ("form", "streams", "precision", "features", "cache", "window", "lookahead", "future", "source")
    odd = [field for field in same if getattr(manifest, field) != getattr(network.draft, field)]
    if odd:
        raise UserError(f"engine {str(folder)!r} was not made from this checkpoint ({', '.join(odd)} differ)")
    engine = load(folder, verified=False)
    features = manifest.features
    seconds = max(seconds / manifest.streams, min(seconds, LEAST_SECONDS))
    check = compare(engine, network, check_frames(features, round(seconds * features.frame_rate)))
    limits = LIMITS[manifest.precision]
    passed = (
        check.max_error <= limits.max_error and check.mean_error <= limits.mean_error and check.chords >= limits.chords
    )
    if not passed:
        write_manifest(folder, manifest.model_copy(update={"check": None}))
        raise UserError(
            f"engine {str(folder)!r} differs from its network: at most {check.max_error:.2g} "
            f"(limit {limits.max_error:g}), {check.mean_error:.2g} on average ({limits.mean_error:g}), "
            f"{check.chords:.3%} of frames with the same chord ({limits.chords:.2%}); it will not be loaded"
        )
    target = backend_class(manifest.backend).probe()
    return write_manifest(folder, manifest.model_copy(update={"check": check, "target": target}))
