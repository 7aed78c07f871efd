"""Results on disk: every figure with the machine, versions and commit it was measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("rtchord", "numpy", "numba", "onnxruntime", "mir_eval", "soundfile")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def conditions() -> dict[str, object]:
    """Where and with what a result was measured."""
    return {
        "commit": _output("git", "rev-parse", "--short=12", "HEAD"),
        "modified": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def write(path: Path, result: dict[str, object]) -> None:
    """Write a result with its conditions, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**result, "conditions": conditions()}, indent=1) + "\n")
    temporary.replace(path)
