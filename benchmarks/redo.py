"""Everything that docs/benchmarks.md shows, measured again in order: one table of results and their commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rtchord.decoder import PRESETS

RESULTS = Path(__file__).parent / "results"
OWN, TUNED, HELD_OUT = "charts", ("pop", "strum"), ("songs", "guitars12")

# name: arguments of `python -m benchmarks`. DATA is the folder of the sets,
# RUNS that of training.
COMMANDS: dict[str, str] = {
    **{f"online-{s}-{p}": f"online DATA/{s} --latency {p}" for s in (*TUNED, OWN) for p in PRESETS},
    **{f"online-{s}-balanced": f"online DATA/{s}" for s in HELD_OUT},
    **{f"offline-{s}": f"offline DATA/{s}" for s in TUNED},
    **{f"int8-{s}": f"online DATA/{s} --engine RUNS/int8" for s in TUNED},
    "curve": f"curve DATA/pop DATA/strum DATA/{OWN}",
    "robustness": "robustness DATA/pop DATA/strum --songs 6 --seconds 20",
    "peers-pop": "peers DATA/pop --songs 6 --seconds 15",
    "peers-strum": "peers DATA/strum --songs 12 --seconds 15",
    "peers-charts": f"peers DATA/{OWN} --songs 6 --seconds 15",
    "engines": "engines",
    "gate": "gate",
    "capture": "capture",
    "soak": "soak",
    "latency": "latency",
    "throughput": "throughput DATA/pop --rounds 2",
    "start": "start",
    "cqt": "cqt --hops 10000 --hours 10",
    "resampling": "resampling",
}


def arguments(command: str, data: Path, runs: Path) -> list[str]:
    """A command of the table with its folders put in."""
    folders = {"DATA": data, "RUNS": runs}
    parts = [part.partition("/") for part in command.split()]
    return [str(folders[head] / rest) if head in folders else head + slash + rest for head, slash, rest in parts]


def redo(data: Path, runs: Path, only: list[str] | None, results: Path = RESULTS) -> int:
    """Run every command whose name begins with one of `only`, or all; 1 if one was skipped or failed, else 0."""
    whole = True
    for name, command in COMMANDS.items():
        if only and not any(name.startswith(beginning) for beginning in only):
            continue
        given = arguments(command, data, runs)
        missing = [each for each in given if each.startswith((str(data), str(runs))) and not Path(each).is_dir()]
        if missing:
            print(f"{name}: skipped, there is no folder {missing[0]!r}", file=sys.stderr)
            whole = False
            continue
        print(f"{name}: {command}", file=sys.stderr)
        # A process of its own, so that no measurement finds what another left behind.
        output = results / f"{name}.json"
        command_line = [sys.executable, "-m", "benchmarks", *given, "--output", str(output)]
        done = subprocess.run(command_line, stdout=subprocess.DEVNULL)
        whole = whole and done.returncode == 0
    return 0 if whole else 1
