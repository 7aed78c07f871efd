"""Nothing is sent to anybody who was not named, and no file is left outside of our own folders.

Some libraries that we build on report to their makers, unless they find a variable of a build service set; so those
are taken away here, and the system calls are looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from benchmarks.rig import RTCHORD, environment
from rtchord import NO_REPORTS
from rtchord.compiled import KEPT
from rtchord.engine import shipped

WATCHED = "connect,sendto,sendmsg,sendmmsg,openat,creat,mkdir,mkdirat"
CALL = re.compile(r"^\d+\s+(\w+)\(")
PATH = re.compile(r'(?:AT_FDCWD|\d+<[^>]*>)?(?:, )?"([^"]*)"')
BUILD_SERVICES = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITHUB_RUN_ID", "JENKINS_URL", "GITLAB_CI", "TEAMCITY_VERSION")


def no_strace() -> str | None:
    """Why system calls cannot be looked at here."""
    if shutil.which("strace") is None:
        return "needs strace"
    done = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"strace is not allowed here: {done.stderr.strip()[-80:]}" if done.returncode else None


REASON = no_strace()


class Traces(NamedTuple):
    """What a program did to the world: calls with an internet address, and paths it made or opened for writing."""

    sent: list[str]
    written: set[str]


def traced(tmp_path: Path, command: Sequence[str | Path]) -> Traces:
    """Run it at an empty home, to its end."""
    log, home, temporary = tmp_path / "log", tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    env = {
        key: value
        for key, value in environment(HOME=str(home), TMPDIR=str(temporary), PYTHONDONTWRITEBYTECODE="1").items()
        if not key.startswith("XDG_") and key not in (*BUILD_SERVICES, NO_REPORTS)
    }
    if KEPT is not None:  # what is compiled already
        env["NUMBA_CACHE_DIR"] = str(KEPT.folder.parent)
    strace = ["strace", "-f", "--seccomp-bpf", "-s", "300", "-e", f"trace={WATCHED}", "-o", log]
    done = subprocess.run(
        [*map(str, strace), *map(str, command)], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 2), done.stderr  # 2: the doctor finds no audio input
    calls = [line for line in log.read_text(errors="replace").splitlines() if CALL.match(line)]
    making = [line for line in calls if re.search(r"O_CREAT|O_WRONLY|O_RDWR|\bcreat\(|\bmkdir(at)?\(", line)]
    return Traces(
        sent=[line for line in calls if "AF_INET" in line],
        written={found.group(1) for line in making if " = -1 " not in line and (found := PATH.search(line))},
    )


SONG = "song.wav"
LIBRARY = f"""
import soundfile, time
from rtchord import Recognizer
samples, rate = soundfile.read({SONG!r}, dtype="float32")
Recognizer(rate).push(samples)
time.sleep(1)
"""
OPENVINO = """
import sys, time
from pathlib import Path
from rtchord.engine.manifest import read_manifest
from rtchord.engine.openvino import OpenVinoEngine
OpenVinoEngine(Path(sys.argv[1]), read_manifest(Path(sys.argv[1])))
time.sleep(1)
"""
PROGRAMS = {
    "listen": (*RTCHORD, "listen", "--input", SONG, "--no-midi", "--format", "jsonl"),
    "transcribe": (*RTCHORD, "transcribe", SONG, "-o", "song.lab"),
    "doctor": (*RTCHORD, "doctor"),
    "library": (sys.executable, "-c", LIBRARY),
    "openvino": (sys.executable, "-c", OPENVINO, shipped()),
}


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_sent_and_no_file_is_left_elsewhere(tmp_path: Path, name: str) -> None:
    if name == "openvino" and find_spec("openvino") is None:
        pytest.skip("needs OpenVINO")
    soundfile.write(tmp_path / SONG, 0.1 * np.sin(2 * np.pi * 220 * np.arange(44_100) / 44_100), 44_100)
    traces = traced(tmp_path, PROGRAMS[name])
    ours = ("/dev/", str(tmp_path / ".song.lab"), *([str(KEPT.folder)] if KEPT else []))
    assert traces.sent == []
    assert [path for path in sorted(traces.written) if not path.startswith(ours)] == []
    assert list((tmp_path / "home").iterdir()) == []


FIRST = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "openvino"):
            print(name, os.environ.get("ORT_DISABLE_TELEMETRY"))
            sys.exit()
sys.meta_path.insert(0, Watch())
import {module}
"""


@pytest.mark.parametrize(
    ("variable", "module", "said"),
    [
        ({}, "train.teachers.onnx", "1"),
        ({}, "onnxruntime", "None"),  # the test can fail
        ({NO_REPORTS: "0"}, "rtchord, onnxruntime", "0"),  # a user's own wish
    ],
)
def test_it_is_switched_off_before_onnx_runtime_is_imported(variable: dict[str, str], module: str, said: str) -> None:
    env = {key: value for key, value in environment().items() if key != NO_REPORTS} | variable
    command = [sys.executable, "-c", FIRST.format(module=module)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert f"onnxruntime {said}\n" in done.stdout
