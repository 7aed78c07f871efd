"""The online benchmark: the live path, scored."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from train.evaluate import read_reference
from train.score import score_song, summarize

DEMO = Path(__file__).parents[1] / "data"
ROOT = Path(__file__).parents[2]
CROSS_CHECK = ROOT.parent / "shared" / "tools" / "online_eval.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    output = tmp_path_factory.mktemp("online") / "demo.json"
    done = run("online", DEMO, "--json", "--output", output)
    assert done.returncode == 0, done.stderr
    kept = json.loads(output.read_text())
    assert json.loads(done.stdout) == {key: value for key, value in kept.items() if key != "conditions"}
    return kept


def test_the_demo_is_recognised(result: dict) -> None:
    assert result["songs"] == 1
    assert result["scores"]["majmin"] > 0.7
    assert result["scores"]["lat_med"] < 0.3


def test_a_result_says_where_it_was_measured(result: dict) -> None:
    assert {"commit", "machine", "versions", "date"} <= result["conditions"].keys()


@pytest.fixture(scope="module")
def listened() -> str:
    """What the command prints of the demo: an event a line."""
    listen = [sys.executable, "-m", "rtchord.cli", "listen", "--input", DEMO / "demo.ogg", "--no-realtime"]
    return subprocess.run([*listen, "--format", "jsonl"], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_what_is_scored_is_what_the_command_prints(result: dict, listened: str) -> None:
    events = [(event["time"], event["chord"]) for event in map(json.loads, listened.splitlines())]
    expected = summarize([score_song(*read_reference(DEMO / "demo.lab"), events)])
    assert result["scores"] == {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()}


@pytest.mark.skipif(not CROSS_CHECK.is_file(), reason="the other scorer is not beside this checkout")
def test_it_agrees_with_the_cross_check_script(result: dict, listened: str, tmp_path: Path) -> None:
    reference, events = tmp_path / "ref", tmp_path / "events"
    reference.mkdir()
    events.mkdir()
    shutil.copy(DEMO / "demo.lab", reference)
    (events / "demo.jsonl").write_text(listened)
    other = subprocess.run(
        [sys.executable, CROSS_CHECK, reference, events], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    cross = json.loads(other.stdout)
    for name, value in result["scores"].items():
        if name in cross:
            assert value == pytest.approx(cross[name], abs=1e-9), name
    assert len(cross.keys() & result["scores"].keys()) >= 12


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_songs_is_one_sentence(folder: str, tmp_path: Path) -> None:
    done = run("online", tmp_path / folder)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_bad_label_names_file_and_line(tmp_path: Path) -> None:
    shutil.copy(DEMO / "demo.ogg", tmp_path / "a.ogg")
    (tmp_path / "a.lab").write_text("0 1 N\n1 2 H:foo\n")
    done = run("online", tmp_path)
    assert done.returncode == 2
    assert "a.lab, line 2" in done.stderr
    assert "Traceback" not in done.stderr
