"""What a performer's install weighs, and how soon it listens.

The wheel is built and installed into an empty environment, with what it depends on and nothing else; `rtchord listen`
runs there on the demo, in real time, from a folder of its own.

cold    no compiled code is kept yet (an empty NUMBA_CACHE_DIR); files may be in the system's memory
warm    every start after the first
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.latency import DEMO
from benchmarks.soak import resident
from rtchord.errors import UserError
from train.results import load_average

ROOT = Path(__file__).parents[1]
LISTENING = "listening to"
MB = 1e6


def environment() -> dict[str, str]:
    """Ours, without what would lead Python to this tree or change how rtchord starts."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NUMBA", "RTCHORD"))}


def run(*command: object) -> None:
    """A command to its end; UserError with its last words where it fails."""
    done = subprocess.run(
        [str(part) for part in command], env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["?"]
        raise UserError(f"{' '.join(map(str, command[:4]))} .. failed: {said[-1]}")


def sizes(folder: Path) -> dict[str, float]:
    """MB under each top folder or file of a site-packages, largest first; links are not followed."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            # What auditwheel put beside a package belongs to it.
            found[path.relative_to(folder).parts[0].removesuffix(".libs")] += path.stat().st_size
    return {name: round(size / MB, 1) for name, size in found.most_common()}


def started(command: Sequence[str], env: Mapping[str, str], folder: Path, stay: float = 0.0) -> tuple[float, float]:
    """(s from a process' start to the line that says it listens, MB it has in memory `stay` s later)."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command, env=dict(env), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.strip())
            if LISTENING in line:
                break
        else:
            raise UserError(f"{' '.join(command[:3])} .. never listened: {said[-1:]}")
        ready = time.perf_counter() - begin
        time.sleep(stay)
        memory = resident(process.pid)
        process.terminate()
    return ready, memory


def starts(command: Sequence[str], cold: int, warm: int, stay: float) -> dict[str, object]:
    """Cold and warm starts of a session on the demo, and its memory."""
    listen = [*command, "listen", "--input", str(DEMO), "--realtime", "--no-midi", "--format", "jsonl"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def begin(cache: str, stay: float = 0.0) -> tuple[float, float]:
            return started(listen, environment() | {"NUMBA_CACHE_DIR": str(folder / cache)}, folder, stay)

        begin("first")  # byte code, and the system's memory of the files
        firsts = [begin(f"cold-{i}")[0] for i in range(cold)]
        again = [begin("first")[0] for _ in range(warm)]
        _, memory = begin("first", stay)
    return {
        "cold": {"n": cold, "median_s": _seconds(np.median(firsts)), "max_s": _seconds(max(firsts))},
        "warm": {"n": warm, "median_s": _seconds(np.median(again)), "max_s": _seconds(max(again))},
        "memory": {"after_s": stay, "mb": round(memory, 1)},
    }


def _seconds(value: float) -> float:
    return round(float(value), 2)


def start(cold: int, warm: int, stay: float) -> dict[str, object]:
    """Build, install, weigh, start. Needs what pip needs."""
    load = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tree = folder / "tree"  # a build leaves files behind, which the next one would take for sources
        shutil.copytree(ROOT / "rtchord", tree / "rtchord", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheel", tree)
        (wheel,) = (folder / "wheel").glob("*.whl")
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        python = next(
            path for path in (folder / "venv/bin/python", folder / "venv/Scripts/python.exe") if path.exists()
        )
        run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile", wheel)
        (site,) = folder.glob("venv/**/site-packages")
        packages = sizes(site)
        return {
            "load": load,
            "wheel_mb": round(wheel.stat().st_size / MB, 2),
            "install_mb": round(sum(packages.values()), 1),
            "packages_mb": packages,
            **starts([str(python), "-m", "rtchord.cli"], cold, warm, stay),
        }
