"""What a step costs in every engine that is there, beside recomputing a window, on one core of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from engines.build import build
from engines.measure import one_core, resident_mb
from engines.network import Form, from_student
from engines.published import window_network
from rtchord.engine import BACKENDS, backend_class, folders, load, shipped
from rtchord.errors import UserError
from train.published import TwoEncoders

SHIPPED = Path(__file__).parent / "students" / "2e1d-live-7.safetensors"
CHECK_S = 4.0  # of stream, for engines that are built to be measured and thrown away
STREAMS = (1, 8, 64, 512)
STARTS = 7


def usable(backend: str) -> str:
    """Why a backend cannot run here; empty if it can."""
    try:
        backend_class(backend).probe()
    except UserError as error:
        return str(error)
    return ""


def in_a_process(what: Path | str, steps: int, paced: int) -> dict[str, object]:
    """`engines.measure` on its own."""
    command = [sys.executable, "-m", "engines.measure", str(what), str(steps), str(paced)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"measuring {what} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def starts(repeats: int = STARTS) -> dict[str, object]:
    """`rtchord listen` from the start of its process to the line that says it listens, and its memory 2 s later."""
    seconds, memory = [], []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "noise.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(48_000 * 4), 48_000)
        command = [sys.executable, "-m", "rtchord.cli", "listen", "--input", str(path)]
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    if "listening to" in line:
                        break
                seconds.append(time.perf_counter() - begin)
                time.sleep(2)
                memory.append(_resident_mb(process.pid))
                process.terminate()
    seconds, memory = seconds[1:], memory[1:]  # the first one fills the caches
    return {
        "starts": repeats,
        "ready_s_median": round(float(np.median(seconds)), 3),
        "ready_s_max": round(max(seconds), 3),
        "rss_mb_max": max(memory),
    }


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # no such thing outside Linux
        return resident_mb()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) / 1024, 1)


def bench(checkpoint: Path, extra: list[Path], steps: int) -> dict[str, object]:
    """Everything in one run. `extra`: engine folders beside those that are installed."""
    for folder in extra:  # asked for by name: told now, not after minutes of work
        load(folder)
    one_core()  # inherited by every process that is started here
    engines: dict[str, object] = {}
    batched: dict[str, object] = {}
    absent = {backend: why for backend in BACKENDS if (why := usable(backend))}
    with tempfile.TemporaryDirectory() as scratch:

        def built(backend: str, form: Form, streams: int) -> Path:
            target = Path(scratch) / f"{backend}-{form}-{streams}"
            folder, _, _ = build(from_student(checkpoint, form, streams), backend, target, seconds=CHECK_S)
            return folder

        targets = {"onnx step (shipped)": shipped(), "onnx window": built("onnx", "window", 1)}
        targets |= {
            f"{backend} step": built(backend, "step", 1) for backend in BACKENDS if backend not in {"onnx", *absent}
        }
        targets |= {folder.name: folder for folder in (*folders(), *extra) if folder != shipped() and _loads(folder)}
        # The papers' bidirectional network, which must look at its whole window anew at every hop.
        published, _, _ = build(window_network(TwoEncoders(), "2e1d"), "onnx", Path(scratch) / "2e1d", seconds=CHECK_S)
        targets["onnx 2E1D window"] = published
        for name, folder in targets.items():
            engines[name] = in_a_process(folder, steps, steps)
        for form in ("step", "window"):
            engines[f"eager {form}"] = in_a_process(f"eager-{form}:{checkpoint}", steps, steps)
        engines["eager 2E1D window"] = in_a_process("eager-window:2e1d", steps, steps)
        for backend in ("onnx", "cuda"):
            for streams in STREAMS if backend not in absent else ():
                folder = built(backend, "step", streams)
                batched[f"{backend} {streams}"] = in_a_process(folder, max(30, steps // streams), 0)
    step, window, wide = (
        engines[name]["unpaced"]  # type: ignore[index]
        for name in ("onnx step (shipped)", "onnx window", "onnx 2E1D window")
    )
    return {
        "steps": steps,
        "window_over_step": round(window["median_us"] / step["median_us"], 2),
        "window_over_step_cpu": round(window["cpu_median_us"] / step["cpu_median_us"], 2),
        "published_over_step_cpu": round(wide["cpu_median_us"] / step["cpu_median_us"], 2),
        "engines": engines,
        "streams": batched,
        "listen": starts(),
        "absent": absent,
    }


def _loads(folder: Path) -> bool:
    try:
        return load(folder).manifest.check is not None
    except UserError:
        return False


def table(result: dict[str, object]) -> str:
    """For people."""
    head = f"{'engine':26}{'step us':>9}{'p99':>9}{'paced':>9}{'p99':>9}{'RSS MB':>8}{'load s':>8}{'streams/core':>14}"
    lines = [head]
    for name, row in (result["engines"] | result["streams"]).items():  # type: ignore[operator]
        paced = row.get("paced", {"median_us": "-", "p99_us": "-"})
        lines.append(
            f"{name:26}{row['unpaced']['median_us']:>9}{row['unpaced']['p99_us']:>9}{paced['median_us']:>9}"
            f"{paced['p99_us']:>9}{row['rss_mb']:>8}{row['load_s']:>8}{row['real_time_streams']:>14}"
        )
    listen = result["listen"]
    ratio = f"{result['window_over_step']} by the clock, {result['window_over_step_cpu']} by processor time"
    lines.append(f"window over step, ONNX Runtime: {ratio}; 2E1D's {result['published_over_step_cpu']}")
    lines.append(f"rtchord listen: ready after {listen['ready_s_median']} s, {listen['rss_mb_max']} MB")  # type: ignore[index]
    lines += [f"not measured: {why}" for why in result["absent"].values()]  # type: ignore[attr-defined]
    return "\n".join(lines)
