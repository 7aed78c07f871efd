"""Documents and results: the tables say what was measured."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.redo import COMMANDS, arguments, redo
from rtchord.errors import UserError
from rtchord.settings import LATENCIES


def test_the_documents_are_up_to_date_with_the_results() -> None:
    assert report.report(check=True) == []


@pytest.mark.parametrize("preset", LATENCIES)
def test_the_help_of_latency_tells_what_was_measured(preset: str) -> None:
    strums, songs = (report.result(f"online-{name}-{preset}")["scores"] for name in ("strum", "pop"))
    milliseconds = [round(1000 * scores["lat_med"]) for scores in (strums, songs)]
    assert (*milliseconds, *(round(scores["events_per_change"], 2) for scores in (strums, songs))) == LATENCIES[preset]


def test_a_marker_is_filled_and_the_rest_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(report.TABLES, "tiny", lambda: report.table(["a"], [["1"]]))
    text = "before\n<!-- table tiny -->\nold\n<!-- end -->\nafter\n"
    assert report.filled(text) == "before\n<!-- table tiny -->\n| a |\n| --- |\n| 1 |\n<!-- end -->\nafter\n"


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(UserError, match="no table 'nothing'"):
        report.filled("<!-- table nothing -->\n<!-- end -->")


def test_a_missing_result_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.json"):
        report.result("nowhere")


@pytest.mark.parametrize("name", ["latency", "curve", "peers-pop", "online-charts-fast"])
def test_a_table_without_its_result_fails_and_says_how_to_measure(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path in report.RESULTS.glob("*.json"):
        if path.stem != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.outdated.cache_clear()
    with pytest.raises(UserError, match=rf"{name}\.json.*python -m benchmarks {COMMANDS[name].split()[0]}"):
        report.report(check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A history of three commits: code, something else, code again."""

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    commits = []
    for name in ("code", "other", "code"):
        (tmp_path / name).write_text(str(len(commits)))
        git("add", "-A")
        git("commit", "-qm", name)
        commits.append(git("rev-parse", "--short=12", "HEAD"))
    (tmp_path / "commits").write_text("\n".join(commits))
    return tmp_path


def test_a_result_older_than_its_code_is_known(repository: Path) -> None:
    first, second, third = (repository / "commits").read_text().split()
    assert report.changed_since(first, ("code",), repository)
    assert report.changed_since(second, ("code",), repository)
    assert not report.changed_since(third, ("code",), repository)
    assert not report.changed_since(second, ("other",), repository)


def test_a_history_that_does_not_hold_the_commit_says_nothing(repository: Path, tmp_path: Path) -> None:
    assert not report.changed_since("0123456789ab", ("code",), repository)
    bare = tmp_path / "bare"
    bare.mkdir()
    assert not report.changed_since("0123456789ab", ("code",), bare)


def result_with(folder: Path, name: str, commit: str, modified: bool) -> None:
    text = json.dumps({"conditions": {"commit": commit, "modified": modified}})
    (folder / f"{name}.json").write_text(text)


def test_outdated_results_get_a_footnote_which_a_check_leaves_aside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.outdated.cache_clear()
    result_with(tmp_path, "start", "old", modified=False)
    result_with(tmp_path, "cqt", "new", modified=False)
    result_with(tmp_path, "resampling", "new", modified=True)
    monkeypatch.setattr(report, "changed_since", lambda commit, _: commit == "old")

    def tiny() -> str:
        for name in ("start", "cqt", "resampling"):
            report.result(name)
        return report.table(["a"], [["1"]])

    monkeypatch.setitem(report.TABLES, "tiny", tiny)
    bare = "<!-- table tiny -->\n| a |\n| --- |\n| 1 |\n<!-- end -->\n"
    marked = report.filled(bare)
    assert marked == bare.replace("<!-- end", "\n† Not of the present code: resampling, start.\n<!-- end")
    assert report.FOOTNOTE.sub("", marked) == bare

    (tmp_path / "a.md").write_text(bare)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "DOCUMENTS", ("a.md",))
    monkeypatch.setattr(report, "PICTURES", {})
    assert report.report(check=True) == []
    assert report.report(check=False) == []
    assert (tmp_path / "a.md").read_text() == marked
    assert report.report(check=True) == []
    report.outdated.cache_clear()


def test_every_result_that_is_measured_here_says_what_code_it_measures() -> None:
    for path in report.RESULTS.glob("*.json"):
        if "conditions" in json.loads(path.read_text()):
            paths = report.MEASURED[path.stem.split("-")[0]]
            assert all((report.ROOT / each).exists() for each in paths)
            assert path.stem in COMMANDS or path.stem.split("-")[0] in ("pipeline", "search")  # of `python -m train`


def test_a_search_says_in_what_each_run_differs_from_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    scores = {"mean7": 0.5, "class_mean": None, "lat_med": 0.2, "events_per_change": 1.5}
    for name, width, provenance in (
        ("base", 40, {"fit": {"early": 1.0, "seed": 0, "save_every": 500, "augmentation": {"detune": 0.0}}}),
        ("b", 40, {"blend": 0.8}),
        ("a", 48, {"fit": {"early": 3.0, "seed": 0, "save_every": 100, "augmentation": {"detune": 40.0}}}),
    ):
        result = {"provenance": provenance, "sizes": {"width": width}, "sets": {"pop": {"online": {"scores": scores}}}}
        (tmp_path / f"search-{name}.json").write_text(json.dumps(result))
    rows = [line.split(" | ")[:3] for line in report.search().splitlines()[2:]]
    changed = "width 48, early 3.0, detune 40.0"
    assert rows == [["| base", "-", "0.500"], ["| a", changed, "0.500"], ["| b", "blend 0.8", "0.500"]]


def test_what_a_quality_is_taken_for_is_told_largest_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    confusion = [[0.0] * 16 for _ in range(15)]
    for row in confusion:
        row[0], row[1], row[14], row[15] = 5.0, 3.0, 1.5, 0.5
    qualities = {name: {"right": 0.4} for name in report.CLASSES}
    result = {"confusion": confusion, "qualities": qualities}
    (tmp_path / "online-charts-balanced.json").write_text(json.dumps(result))
    first, second = report.confused().splitlines()[2:4]
    names = report.CLASSES
    assert first == f"| {names[0]} | 40 % | 10 % | {names[1]} 30 %, N 15 %, other 5 % |"
    assert second == f"| {names[1]} | 40 % | -10 % | {names[0]} 50 %, N 15 %, other 5 % |"


def test_folders_are_put_into_a_command() -> None:
    given = arguments("online DATA/pop --engine RUNS/stage1/engine", Path("/d"), Path("r"))
    assert given == ["online", "/d/pop", "--engine", "r/stage1/engine"]


def test_what_cannot_be_measured_again_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert redo(tmp_path, tmp_path, ["peers-pop", "offline-strum"], tmp_path) == 1
    said = capsys.readouterr().err
    assert "peers-pop: skipped, there is no folder" in said
    assert "offline-strum: skipped" in said


def test_a_result_is_measured_again_by_its_name(tmp_path: Path) -> None:
    data = tmp_path / "sets"
    (data / "strum").mkdir(parents=True)
    demo = report.ROOT / "tests" / "data"
    for name in ("demo.ogg", "demo.lab"):
        (data / "strum" / name).write_bytes((demo / name).read_bytes())
    assert redo(data, tmp_path, ["online-strum-fast"], tmp_path) == 0
    kept = json.loads((tmp_path / "online-strum-fast.json").read_text())
    assert kept["latency"] == "fast"
    assert kept["conditions"]["took_s"] >= 0
    assert {"mean7", "lat_med"} <= kept["intervals"].keys()
