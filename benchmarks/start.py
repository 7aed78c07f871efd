"""What a performer's install weighs, and how soon it listens.

The wheel is built and installed into an empty environment, with what it depends on and nothing else; `rtchord listen`
runs there on the demo, in real time, from a folder of its own.

cold    no compiled code is kept yet (an empty NUMBA_CACHE_DIR); files may be in the system's memory
warm    every start after the first

Memory is that of all processes of a session together, MB: `mb` resident, so that what several share counts in each;
`shared_out_mb` with shared pages divided by those who share them; `own_mb` the pages that are theirs alone, which is
what the session costs. A JACK server's shared memory (100 MB, locked) is resident in each of its clients. Over a device
where there is a JACK server to be had, and from a file.
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
import soundfile

from benchmarks import rig
from benchmarks.latency import DEMO
from rtchord.audio.files import read_mono
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


def family(pid: int) -> list[int]:
    """A process and all that it started (Linux)."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [other for child in children.read_text().split() for other in family(int(child))]
    return found


def memory_of(pid: int) -> dict[str, float]:
    """MB of a process and all that it started (Linux): resident, with shared pages divided, and own pages alone."""
    totals: Counter[str] = Counter()
    for each in family(pid):
        for row in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]:
            name, kilobytes = row.split()[:2]
            totals[name.rstrip(":")] += int(kilobytes)
    return {
        "mb": round(totals["Rss"] / 1024, 1),
        "shared_out_mb": round(totals["Pss"] / 1024, 1),
        "own_mb": round((totals["Private_Clean"] + totals["Private_Dirty"]) / 1024, 1),
    }


def started(
    command: Sequence[str], env: Mapping[str, str], folder: Path, stay: float = 0.0
) -> tuple[float, dict[str, float]]:
    """(s from a process' start to the line that says it listens, `memory_of` it `stay` s later)."""
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
        memory = memory_of(process.pid)
        process.terminate()
    return ready, memory


def starts(command: Sequence[str], cold: int, warm: int, stay: float) -> dict[str, object]:
    """Cold and warm starts of a session on the demo, and its memory."""
    listen = [*command, "listen", "--input", str(DEMO), "--realtime", "--no-midi", "--format", "jsonl"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def begin(cache: str, stay: float = 0.0) -> tuple[float, dict[str, float]]:
            return started(listen, environment() | {"NUMBA_CACHE_DIR": str(folder / cache)}, folder, stay)

        begin("first")  # byte code, and the system's memory of the files
        firsts = [begin(f"cold-{i}")[0] for i in range(cold)]
        again = [begin("first")[0] for _ in range(warm)]
        _, memory = begin("first", stay)
        live = over_jack(command, {"NUMBA_CACHE_DIR": str(folder / "first")}, folder, stay)
    return {
        "cold": {"n": cold, "median_s": _seconds(np.median(firsts)), "max_s": _seconds(max(firsts))},
        "warm": {"n": warm, "median_s": _seconds(np.median(again)), "max_s": _seconds(max(again))},
        "memory": {"after_s": stay, **memory},
        **({"memory_over_jack": {"after_s": stay, **live}} if live else {}),
    }


def over_jack(command: Sequence[str], more: dict[str, str], folder: Path, stay: float) -> dict[str, float] | None:
    """`memory_of` a live session that hears a player over JACK and sends MIDI there; None without a server."""
    if rig.missing() is not None:
        return None
    samples, rate = read_mono(DEMO)
    song = folder / "song.wav"
    soundfile.write(song, samples, rate)
    with rig.JackServer(rate) as server:
        player = server.program(*rig.PLAYER, song, "--loop")
        player.wait_said("ready")
        player.go()
        jack = {name: value for name, value in server.env.items() if name.startswith(("JACK", "ALSA"))}
        return started([*command, "listen", "--device", "player"], environment() | jack | more, folder, stay)[1]


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
            **starts([str(python), "-m", "rtchord"], cold, warm, stay),
        }
