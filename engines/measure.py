"""One engine in a process of its own, on one core: load time, memory, time of a step. Run by `python -m engines bench`.

Prints JSON. Imports no PyTorch unless what it measures is PyTorch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

WARM_UP = 50
GRACE_S = 0.5
PUBLISHED = "2e1d"  # in place of a checkpoint: the papers' network with random weights
MOST_PACED_S = 60.0


def resident_mb() -> float:
    """Memory of this process in MB, as the system counts it now."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return round(int(line.split()[1]) / 1024, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def one_core() -> None:
    """Stay on the last core that this process may use: the first is where interrupts go."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def timings(step: Callable[[int], object], steps: int, pause: float) -> dict[str, float]:
    """Microseconds a step; `pause` s lie between the starts of two steps, 0 for none.

    `cpu_*` count only the time for which the thread had the core: what is left of the step where others want it too.
    """
    import numpy as np

    for i in range(WARM_UP):
        step(i)
    spent, used = np.empty(steps), np.empty(steps)
    begin = time.perf_counter()
    for i in range(steps):
        if pause:
            time.sleep(max(0.0, begin + i * pause - time.perf_counter()))
        start, cpu = time.perf_counter_ns(), time.thread_time_ns()
        step(i)
        used[i], spent[i] = time.thread_time_ns() - cpu, time.perf_counter_ns() - start
    result: dict[str, float] = {"steps": steps}
    for prefix, taken in (("", spent / 1000), ("cpu_", used / 1000)):
        median, p99 = float(np.median(taken)), float(np.percentile(taken, 99))
        result[f"{prefix}median_us"], result[f"{prefix}p99_us"] = round(median, 1), round(p99, 1)
        result[f"{prefix}p99_over_median"] = round(p99 / median, 2)
    return {**result, "max_us": round(float(spent.max() / 1000), 1)}


def eager(checkpoint: Path, form: str) -> tuple[Callable[[object], object], object]:
    """A step of the network by PyTorch eager on one thread, caches handed on from step to step."""
    import torch

    from engines.network import from_student
    from engines.published import window_network
    from train.published import TwoEncoders

    torch.set_num_threads(1)
    published = str(checkpoint) == PUBLISHED
    network = window_network(TwoEncoders(), PUBLISHED) if published else from_student(checkpoint, form)  # type: ignore[arg-type]
    inputs = list(network.inputs.values())

    def step(frame: object) -> None:
        with torch.inference_mode():
            inputs[0][:, ...] = torch.from_numpy(frame)
            _, _, *inputs[1:] = network.module(*inputs)

    return step, network.draft


def measure(what: str, steps: int, paced: int) -> dict[str, object]:
    """`what`: an engine folder, or `eager-step:CHECKPOINT` or `eager-window:CHECKPOINT` (or PUBLISHED)."""
    one_core()
    started = time.perf_counter()
    if what.startswith("eager-"):
        form, checkpoint = what.removeprefix("eager-").split(":", 1)
        step, manifest = eager(Path(checkpoint), form)
        backend, streams = "eager", 1
    else:
        from rtchord.engine import load

        engine = load(Path(what))
        step, manifest = engine.stepper().step, engine.manifest
        form, backend, streams = manifest.form, manifest.backend, manifest.streams
    load_s = time.perf_counter() - started
    import numpy as np

    features = manifest.features
    shape = (64, features.bins) if streams == 1 else (64, streams, features.bins)
    frames = np.random.default_rng(0).normal(-1, 2, shape).astype(np.float32)
    result: dict[str, object] = {
        "backend": backend, "precision": manifest.precision, "form": form, "streams": streams,
        "load_s": round(load_s, 3),
        "unpaced": timings(lambda i: step(frames[i % 64]), steps, 0.0),
    }  # fmt: skip
    if paced:
        time.sleep(GRACE_S)
        paced = min(paced, round(MOST_PACED_S * features.frame_rate) if features.hop > 1024 else paced)
        result["paced"] = timings(lambda i: step(frames[i % 64]), paced, 1 / features.frame_rate)
    result["rss_mb"] = resident_mb()
    median = result["unpaced"]["median_us"]  # type: ignore[index]
    result["us_per_stream"] = round(median / streams, 1)
    result["real_time_streams"] = int(streams * 1e6 / features.frame_rate / median)
    return result


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
