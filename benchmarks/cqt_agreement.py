"""How close centred frames are to librosa's, and whether a long stream stays what a fresh one is."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from rtchord.cqt import DEFINITIONS, Features, FrameStream
from train.audio import SNDFILE

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "tests" / "data" / "demo.ogg"
AUDIBLE = 1e-4  # magnitudes that count
SECONDS = 30  # of each recording
RATE = 22_050

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def data() -> Path | None:
    """Folder of unlabelled recordings: $RTCHORD_DATA, or the one beside the checkout; None where there is none."""
    named = os.environ.get("RTCHORD_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "unlabelled"
    return folder if folder.is_dir() else None


def tracks(folder: Path, count: int) -> list[Path]:
    """The longest recording of each subfolder, at most `count`, in alphabetical order of the subfolders."""
    found = []
    for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = [path for path in sorted(sub.iterdir()) if path.suffix.lower() in SNDFILE]
        found += [max(files, key=lambda path: path.stat().st_size)] if files else []
    return found[:count]


def read(path: Path) -> Float32:
    """The first SECONDS of a recording, mono at RATE."""
    with soundfile.SoundFile(path) as file:
        samples = file.read(SECONDS * file.samplerate, dtype="float32", always_2d=True).mean(axis=1)
        return soxr.resample(samples, file.samplerate, RATE).astype(np.float32)


def synthetic() -> dict[str, Float32]:
    """Ten seconds each of white noise, a chirp, silence and tones at bin centres."""
    t = np.arange(10 * RATE) / RATE
    signals = {
        "noise": 0.1 * np.random.default_rng(0).standard_normal(t.size),
        "chirp": 0.5 * librosa.chirp(fmin=30, fmax=10_000, sr=RATE, length=t.size),
        "silence": 0 * t,
    }
    for k in (0, 37, 77, 100, 143):
        signals[f"tone in bin {k}"] = 0.5 * np.sin(2 * np.pi * Features().frequencies[k] * t)
    return {name: signal.astype(np.float32) for name, signal in signals.items()}


def reference(samples: Float32, features: Features) -> Float64:
    """Magnitudes (frames, bins) that librosa gives; 0.6.3's window lengths and edges asked for by their arguments."""
    options = {}
    if features.definition == "librosa-0.6.3":
        options = {"pad_mode": "reflect", "filter_scale": features.q / DEFINITIONS["librosa-0.11"].q}
    found = librosa.cqt(
        samples,
        sr=features.sample_rate,
        hop_length=features.hop,
        fmin=features.fmin,
        n_bins=features.bins,
        bins_per_octave=features.bins_per_octave,
        **options,
    )
    return np.abs(found).T.astype(np.float64)


def magnitudes(frames: Float32, features: Features) -> Float64:
    """Magnitudes of feature frames."""
    return np.exp(frames.astype(np.float64)) - features.log_offset


def differences(samples: Float32, features: Features) -> Float64:
    """|difference of log magnitude| of every audible bin of every frame, ours as a stream against librosa's."""
    stream = FrameStream(features.sample_rate, features)
    pieces = [stream.push(samples[i : i + 10_000]) for i in range(0, samples.size, 10_000)]
    ours = magnitudes(np.concatenate([*pieces, stream.finish()]), features)
    theirs = reference(samples, features)
    if ours.shape != theirs.shape:
        raise ValueError(f"{ours.shape} frames and bins are not librosa's {theirs.shape}")
    audible = theirs > AUDIBLE
    result: Float64 = np.abs(np.log(np.maximum(ours[audible], 1e-12) / theirs[audible]))
    return result


def summary(found: Float64) -> dict[str, float]:
    if not found.size:
        return {"mean": 0.0, "p99": 0.0}
    return {"mean": float(f"{found.mean():.3g}"), "p99": float(f"{np.percentile(found, 99):.3g}")}


def agreement() -> dict[str, object]:
    """Differences on recordings (pooled) and on synthetic signals (each), for both hops and both versions."""
    folder = data()
    paths = [DEMO, *(tracks(folder, 12) if folder else [])]
    recordings = {path.stem if path == DEMO else f"{path.parent.name}/{path.stem}": read(path) for path in paths}
    result: dict[str, object] = {"recordings": sorted(recordings), "seconds_of_each": SECONDS}
    pooled = []
    for name in ("librosa-0.11", "librosa-0.11-hop512", "librosa-0.6.3"):
        features = DEFINITIONS[name]
        each = [differences(samples, features) for samples in recordings.values()]
        if name != "librosa-0.6.3":
            pooled += each
        made = {kind: summary(differences(samples, features)) for kind, samples in synthetic().items()}
        result[name] = {"recordings": summary(np.concatenate(each)), **made}
    found = summary(np.concatenate(pooled))
    return {"mean_abs_dlog": found["mean"], "p99_abs_dlog": found["p99"], "agreement": result}


def _resident() -> int | None:
    """Bytes of memory that the process holds now; None where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else None


def drift(hours: float) -> dict[str, dict[str, float | None]]:
    """After `hours` of noise: largest difference from a fresh state on the same last samples, and memory grown."""
    result: dict[str, dict[str, float | None]] = {}
    for name in ("live", "live-vq", "librosa-0.11-hop512"):
        features = DEFINITIONS[name]
        rng = np.random.default_rng(1)
        block = 256 * features.hop
        noise = (0.1 * rng.standard_normal(4 * block)).astype(np.float32)
        stream = FrameStream(features.sample_rate, features)
        blocks = max(1, round(hours * 3600 * features.sample_rate / block))
        for _ in range(20):  # until the allocator has what it needs
            stream.push(noise[:block])
        before = _resident()
        for i in range(1, blocks):
            start = (7919 * i) % (3 * block)  # another stretch of the noise each time
            stream.push(noise[start : start + block])
        after = _resident()
        fresh = FrameStream(features.sample_rate, features)
        last = [stream.push(noise[:block]), stream.push(noise[block : 2 * block])][1]
        new = np.concatenate([fresh.push(noise[:block]), fresh.push(noise[block : 2 * block])])[-100:]
        result[name] = {
            "hours": round((blocks + 2) * block / features.sample_rate / 3600, 3),
            "largest_difference": float(np.abs(last[-100:] - new).max()),
            "grown_bytes": after - before if before is not None and after is not None else None,
        }
    return result
