"""Compiled code: never stale, kept where it can be, and no fault where it cannot."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rig import environment
from rtchord.compiled import PACKAGE, SOURCES, digest

COVERED = {path.relative_to(PACKAGE).as_posix() for pattern in SOURCES for path in PACKAGE.glob(pattern)}


def imports(path: Path) -> set[str]:
    """Modules that a file imports from."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_the_hash_covers_every_file_with_compiled_code() -> None:
    with_loops = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(module.startswith(("numba", "llvmlite", "rtchord.compiled")) for module in imports(path))
    }
    assert with_loops - {"doctor.py"} <= COVERED  # the doctor only tells where they are kept
    assert len(with_loops) >= 5


@pytest.mark.parametrize("changed", ["cqt/kernels.py", "audio/resample.py", "compiled.py"])
def test_a_change_to_any_source_changes_the_hash(tmp_path: Path, changed: str) -> None:
    for name in COVERED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, tmp_path / name)
    assert digest(tmp_path) == digest()
    with (tmp_path / changed).open("a") as file:
        file.write("# another\n")
    assert digest(tmp_path) != digest()


CALLED = """
from rtchord.compiled import compiled

@compiled()
def called(x):
    return x + 1
"""
CALLING = """
from rtchord.compiled import compiled
from rtchord.cqt.called import called

@compiled()
def calling(x):
    return called(x)
"""


def test_a_changed_loop_that_others_call_is_compiled_anew(tmp_path: Path) -> None:
    """Two files of loops, of which Numba looks at that of the caller alone."""
    package = tmp_path / "rtchord"
    (package / "cqt").mkdir(parents=True)
    for name in ("__init__.py", "cache.py", "compiled.py"):
        shutil.copy(PACKAGE / name, package / name)
    (package / "cqt/called.py").write_text(CALLED)
    (package / "cqt/calling.py").write_text(CALLING)
    env = environment(PYTHONPATH=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"))
    env.pop("NUMBA_CACHE_DIR", None)

    def answer() -> str:
        command = [sys.executable, "-B", "-c", "from rtchord.cqt.calling import calling; print(calling(1))"]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert answer() == "2\n"
    (package / "cqt/called.py").write_text(CALLED.replace("x + 1", "x + 2"))
    assert answer() == "3\n"
    folders = [folder for folder in (tmp_path / "cache/rtchord").iterdir() if any(folder.rglob("calling*.nbc"))]
    assert len(folders) == 2


STARTED = """
import numpy as np
from rtchord.cqt.stream import _clean
from rtchord.doctor import _compiled_code
from rtchord.settings import Settings
assert _clean(np.full(3, np.nan, np.float32)) == 3
print(*_compiled_code(Settings()))
"""


@pytest.mark.parametrize(
    ("cannot", "words"), [(("HOME",), "among temporary files"), (("HOME", "TMPDIR"), "can be kept nowhere")]
)
def test_it_starts_where_no_cache_can_be_written(tmp_path: Path, cannot: tuple[str, ...], words: str) -> None:
    """As a service or a kiosk has it; a file in place of a folder stops even root."""
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    env = environment(HOME=str(tmp_path), TMPDIR=str(tmp_path / "temporary"))
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        env.pop(name, None)
    env |= {name: str(tmp_path / "file") for name in cannot}
    code = STARTED
    if "TMPDIR" in cannot:  # Python would find another one
        code = "import tempfile\ntempfile._candidate_tempdir_list = lambda: []\n" + code
    beside = sorted(PACKAGE.rglob("*.nbi"))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert words in done.stdout, done.stderr
    assert sorted(PACKAGE.rglob("*.nbi")) == beside  # nor beside the sources, where it would grow stale
    assert (tmp_path / "file").read_text() == ""
