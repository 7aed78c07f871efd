"""The doctor: it looks at everything, tells it in lines, and its exit code says whether rtchord can be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rig import ROOT, JackServer, environment, missing, rtchord
from rtchord import compiled, doctor
from rtchord.cache import Kept
from rtchord.doctor import CHECKS, Finding, examine
from rtchord.engine import Engine, choose
from rtchord.errors import UserError
from rtchord.settings import Settings

STATES = ("ok", "warning", "problem")


def told(check: str, settings: Settings | None = None) -> list[Finding]:
    (function,) = (function for function in CHECKS if function.__name__ == f"_{check}")
    return list(function(settings or Settings()))


def rows(stdout: str) -> list[tuple[str, str]]:
    return [(line[:8].strip(), line[9:]) for line in stdout.splitlines()]


def test_without_an_audio_input_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    env = environment(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))
    done = rtchord("doctor", env=env)
    found = rows(done.stdout)
    assert done.returncode == 2
    assert done.stderr == ""
    assert {state for state, _ in found} <= set(STATES)
    assert [text for state, text in found if state == "problem" and "libportaudio2" in text]
    assert [text for state, text in found if "hashes agree" in text and state == "ok"]


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_with_an_input_it_says_which_one_is_taken() -> None:
    with JackServer() as server:
        done = rtchord("doctor", env=server.env)
    assert "JACK Audio Connection Kit" in done.stdout
    assert "servers: JACK" in done.stdout
    assert done.returncode == 0


def test_a_bad_configuration_is_a_problem_and_does_not_end_it(tmp_path: Path) -> None:
    path = tmp_path / "bad\x1b[31m.toml"
    path.write_text("[midi]\nchanel = 3\n")
    done = rtchord("doctor", "--config", path)
    assert done.returncode == 2
    first, *rest = rows(done.stdout)
    assert first[0] == "problem"
    assert "midi.chanel" in first[1]
    assert "\x1b" not in done.stdout
    assert len(rest) >= 7


def test_an_engine_that_is_not_there_is_a_problem() -> None:
    findings = list(examine(Settings.model_validate({"recognise": {"engine": "no-such-engine"}})))
    assert [finding for finding in findings if finding.state == "problem" and "no-such-engine" in finding.text]


def test_the_engine_is_timed() -> None:
    whole, timed = told("engine")
    assert whole.state == "ok"
    assert "a hop of 23.2 ms takes" in timed.text


@pytest.mark.parametrize("asked", ["onnx", "auto"])
def test_the_engine_that_is_timed_is_the_one_that_a_session_takes(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, why = choose(asked)
    taken: list[object] = []

    def chosen(query: str) -> tuple[Engine, str]:
        taken.append(query)
        return engine, f"{why}, of the test"

    monkeypatch.setattr("rtchord.engine.choose", chosen)
    monkeypatch.setattr(doctor, "SECONDS", 0.5)
    whole, timed = told("engine", Settings.model_validate({"recognise": {"engine": asked}}))
    assert taken == [asked]
    assert whole.text.startswith(f"{why}, of the test: whole (hashes agree)")
    assert "a hop of 23.2 ms takes" in timed.text


def test_a_machine_that_is_too_slow_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.statistics, "median", lambda _: 1.0)
    assert told("engine")[-1].state == "problem"


def test_a_busy_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BUSY", 0.0)
    assert told("engine")[-1].state == "warning"


@pytest.mark.parametrize(
    ("kept", "state", "words"),
    [
        (None, "warning", "nowhere, so every start takes some seconds longer"),
        (Kept(Path("/tmp/x"), lasting=False), "warning", "'/tmp/x', among temporary files"),
        (Kept(Path("/cache/x"), lasting=True), "ok", "will be kept in '/cache/x'"),
    ],
)
def test_it_says_where_compiled_code_is_kept_and_what_it_costs(
    kept: Kept | None, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "KEPT", kept)
    (finding,) = told("compiled_code")
    assert finding.state == state
    assert words in finding.text
    assert ("NUMBA_CACHE_DIR" in finding.text) == (state == "warning")


def test_a_coarse_timer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOW_TIMER_SECONDS", 0.0)
    assert told("timer")[0].state == "warning"


def test_a_check_that_stumbles_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken(_: Settings) -> Iterator[Finding]:
        yield doctor.ok("so far")
        raise ZeroDivisionError("of the test")

    def _missing(_: Settings) -> Iterator[Finding]:
        raise UserError("there is none")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (_broken, _missing))
    assert [(finding.state, finding.text) for finding in examine(Settings())] == [
        ("ok", "so far"),
        ("problem", "the check of the broken failed (ZeroDivisionError: of the test)"),
        ("problem", "there is none"),
    ]
