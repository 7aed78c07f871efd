"""The snippets of docs/midi-osc.md are run as they stand there, and hear what is sent."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import rig
from benchmarks.rig import PYTHON, Program
from rtchord.chords import NO_CHORD, chord_with_bass, class_index
from rtchord.events import ChordEvent, Status
from rtchord.outputs.osc import OscOutput
from rtchord.settings import Target

DOCUMENT = Path(__file__).parents[2] / "docs" / "midi-osc.md"
C_OVER_E = ChordEvent(1.5, 1.75, chord_with_bass(class_index(0, "maj"), 4), 0.914)
NOTHING = ChordEvent(2.5, 2.75, NO_CHORD, 0.9)
AWAY = Status(3.0, float("-inf"), float("-inf"), 0, 0, 0.0, False, 0.0)
SECONDS = 60.0  # the class library of SuperCollider takes a while on a busy machine


def snippet(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


@pytest.fixture
def port() -> int:
    return rig.free_udp_port()


@pytest.fixture
def output(port: int) -> Iterator[OscOutput]:
    made = OscOutput(Target("127.0.0.1", port))
    yield made
    made.close()


def told(output: OscOutput, program: Program, event: ChordEvent | Status, line: str) -> None:
    """Say it until it is heard: a program may be up before it listens."""

    def heard(_: Program) -> bool:
        if isinstance(event, Status):
            output._due = 0.0
            output.status(event)
        else:
            output.send(event)
        return line in program.out

    program.wait_for(heard, SECONDS)


def test_python(tmp_path: Path, port: int, output: OscOutput) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet("python").replace("9000", str(port)))
    program = Program([*PYTHON, str(script)], rig.environment())
    try:
        told(output, program, C_OVER_E, "1.75 s: C:maj/3, root 0, bass 4, confidence 0.91")
        told(output, program, NOTHING, "2.75 s: N, root -1, bass -1, confidence 0.90")
        told(output, program, AWAY, "3.00 s: -120 dBFS, input away")
    finally:
        program.stop()
    assert not any("Traceback" in line for line in program.err)


@pytest.mark.skipif(shutil.which("sclang") is None, reason="needs sclang (supercollider-language)")
def test_supercollider(tmp_path: Path, port: int, output: OscOutput) -> None:
    script = tmp_path / "snippet.scd"
    script.write_text(snippet("supercollider"))
    # Its help browser is Chromium, which wants neither root nor the absence of a screen.
    env = rig.environment(
        HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path), QT_QPA_PLATFORM="offscreen", QTWEBENGINE_DISABLE_SANDBOX="1"
    )
    os.chmod(tmp_path, 0o700)
    program = Program(["stdbuf", "-oL", "sclang", "-D", "-u", str(port), str(script)], env)
    try:
        told(output, program, C_OVER_E, "C:maj/3 is a maj on 0, over 4; sure by 91 percent")
        told(output, program, NOTHING, "no chord")
        told(output, program, AWAY, "the input is away")
    finally:
        program.process.kill()
        program.wait(10)
    assert not any("ERROR" in line for line in program.out)
