"""The papers' experiment: its plan, its resumption, and all of it at the smallest size."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from rtchord.errors import UserError
from train import report
from train import reproduce as rp
from train.__main__ import main, parser
from train.labels import read_labels
from train.render import SOUNDFONTS
from train.reproduce import SIZES, STAGES, Step, do, sized

# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_size_takes_changes() -> None:
    size = sized("tiny", ["stage1_steps=300", "students=live,btc", "seeds=1,2", "hours=0.5"])
    assert (size.stage1_steps, size.students, size.seeds, size.hours) == (300, ("live", "btc"), (1, 2), 0.5)
    assert sized("small", ["hours=none"]).hours is None


@pytest.mark.parametrize("change", ["stage1_steps=0", "seeds=", "billboard=perhaps"])
def test_a_change_that_makes_no_sense_is_refused(change: str) -> None:
    with pytest.raises(ValidationError):
        sized("tiny", [change])


@pytest.mark.parametrize("change", ["stage1_steps", "students=crnn", "nothing=1"])
def test_a_change_that_cannot_be_read_is_told(change: str) -> None:
    with pytest.raises(UserError, match=change.rpartition("=")[2]):
        sized("tiny", [change])


def test_supervised_training_has_the_steps_of_both_stages() -> None:
    for name in ("small", "full"):
        assert SIZES[name].supervised_steps == SIZES[name].stage1_steps + SIZES[name].stage2_steps


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for part in ("unlabelled", "labelled", "dev/pop"):
        (folder / part).mkdir(parents=True)
    return folder


def planned(name: str, data: Path, runs: Path, *changes: str) -> list[Step]:
    size = sized(name, changes)
    before = rp.preparation(size, data, runs)
    chains = [rp.chain(size, student, seed, runs, before) for seed in size.seeds for student in size.students]
    return [*before, *(step for steps in chains for step in steps)]


@pytest.mark.parametrize("name", SIZES)
def test_every_step_is_a_command_that_there_is(name: str, data: Path, tmp_path: Path) -> None:
    steps = planned(name, data, tmp_path / "runs")
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        assert parser().parse_args(step.argv).command == step.argv[0]


def test_what_a_stage_begins_with_was_made_before(data: Path, tmp_path: Path) -> None:
    made: set[str] = set()
    for step in planned("tiny", data, tmp_path / "runs"):
        for name, value in zip(step.argv, step.argv[1:], strict=False):
            if name == "--initial":
                assert str(Path(value).parent) in made
            if name == "--codebooks":
                assert value in made
        made.add(step.argv[2] if step.argv[0] in ("label", "prepare") else step.argv[1])


def test_the_test_set_is_kept_out_of_training(data: Path, tmp_path: Path) -> None:
    kept_out = str(data / "dev" / "pop")
    by_command = {step.argv[0]: step.argv for step in planned("small", data, tmp_path)}
    assert by_command["render"][by_command["render"].index("--exclude") + 1] == kept_out
    assert by_command["catalogue"][by_command["catalogue"].index("--hold-out") + 1] == kept_out


def test_the_stages_two_share_their_stage_one() -> None:
    assert {stage.initial for stage in STAGES if stage.run in ("stage2-plain", "stage2-kd", "stage2-selective")} == {
        "stage1"
    }


def test_seeds_have_folders_of_their_own(data: Path, tmp_path: Path) -> None:
    steps = planned("full", data, tmp_path, "students=live")
    runs = [step.argv[1] for step in steps if step.argv[0] == "stage1"]
    assert len(set(runs)) == len(runs) == 3 * 3


# --- doing it ---------------------------------------------------------------------------------------------------------


def test_a_step_that_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr("train.__main__.main", lambda argv: calls.append(argv) or 0)
    for _ in range(2):
        do(Step("label", ("label", "a", "b")), tmp_path)
    assert calls == [["label", "a", "b"]]
    mark = json.loads((tmp_path / "steps" / "label.json").read_text())
    assert mark["attempts"] == 1
    assert mark["seconds"] >= 0


def test_a_step_that_was_broken_off_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: list[str]) -> int:
        raise SystemExit(2)

    monkeypatch.setattr("train.__main__.main", fails)
    step = Step("label", ("label", "a", "b"))
    with pytest.raises(SystemExit):
        do(step, tmp_path)
    monkeypatch.setattr("train.__main__.main", lambda _: 0)
    do(step, tmp_path)
    assert json.loads((tmp_path / "steps" / "label.json").read_text())["attempts"] == 2


def test_chains_in_processes_of_their_own_leave_their_marks(tmp_path: Path) -> None:
    """Two chains of steps that are done: their checkpoints go, nothing else happens."""
    chains = []
    for name in ("a", "b"):
        (tmp_path / "steps").mkdir(exist_ok=True)
        (tmp_path / "steps" / f"{name}.json").write_text('{"attempts": 1, "seconds": 1.0}')
        (tmp_path / name).mkdir()
        (tmp_path / name / "resume.pt").touch()
        chains.append([Step(name, ("stage1", str(tmp_path / name)))])
    rp.train_all(chains, tmp_path, workers=2)
    assert not list(tmp_path.rglob("resume.pt"))


def test_a_chain_that_fails_in_its_process_ends_the_experiment(tmp_path: Path) -> None:
    missing = Step("a", ("blend", str(tmp_path / "no"), str(tmp_path / "no"), str(tmp_path / "a")))
    with pytest.raises(SystemExit) as found:
        rp.train_all([[missing]], tmp_path, workers=2)
    assert found.value.code == 2


def stopped(*arguments: object) -> int:
    with pytest.raises(SystemExit) as found:
        main(["reproduce", *map(str, arguments)])
    return int(found.value.code or 0)


def test_without_data_only_the_smallest_size_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(tmp_path / "runs", "--size", "small") == 2
    assert "--data" in capsys.readouterr().err


def test_data_without_a_test_set_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "dev" / "pop").rmdir()
    assert stopped(tmp_path / "runs", "--size", "tiny", "--data", data) == 2
    assert "dev/pop" in capsys.readouterr().err


def test_data_without_true_labels_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "labelled").rmdir()
    assert stopped(tmp_path / "runs", "--size", "tiny", "--data", data) == 2
    assert "true labels" in capsys.readouterr().err


def test_another_size_in_the_same_folder_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "size.json").write_text(sized("tiny", []).model_dump_json(indent=1))
    assert stopped(tmp_path, "--size", "tiny", "--data", data, "--set", "batch=3") == 2
    assert "another size" in capsys.readouterr().err


def test_the_made_data_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        rp.make_data(tmp_path / name)
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert first == second
    assert len([path for path in first if path.suffix == ".wav"]) == 8
    for path in (tmp_path / "one").rglob("*.lab"):
        assert read_labels(path).segments[-1][1] >= rp.PIECE_SECONDS


# --- all of it --------------------------------------------------------------------------------------------------------


# One chart more is rendered where that can be done.
SYNTHESIZER = shutil.which("fluidsynth") and any(font.exists() for font in SOUNDFONTS)
TINY = ("--size", "tiny", *(("--set", "charts=1") if SYNTHESIZER else ()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The whole experiment at the smallest size."""
    runs = tmp_path_factory.mktemp("reproduce") / "runs"
    assert main(["reproduce", str(runs), *TINY]) == 0
    yield runs
    shutil.rmtree(runs)  # 30 networks


def test_the_smallest_size_goes_through_everything(tiny: Path) -> None:
    result = json.loads((tiny / "pipeline.json").read_text())
    assert len(result["rows"]) == 1 + 3 * sum(stage.after is not None for stage in STAGES)
    for row in result["rows"]:
        found = row["sets"]["pop"]
        assert found.keys() == ({"offline", "online"} if row["student"] == "live" else {"offline"})
        assert 0 <= found["offline"]["scores"]["mean7"] <= 1
    assert result["rows"][0]["sets"]["pop"]["offline"]["scores"]["mean7"] > 0.5  # the teacher knows plucked chords
    assert result["data"]["unlabelled_h"] > 0
    assert result["data"]["labelled_h"] > 0
    assert all("seconds" in step for step in result["steps"])
    assert "commit" in result["conditions"]


def test_a_second_run_only_scores(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tiny / "pipeline.json").read_text()
    marks = {path: path.stat().st_mtime_ns for path in (tiny / "steps").iterdir()}
    (tiny / "pipeline.json").unlink()
    assert main(["reproduce", str(tiny), *TINY]) == 0
    assert marks == {path: path.stat().st_mtime_ns for path in (tiny / "steps").iterdir()}
    assert "python -m train" not in capsys.readouterr().err
    kept, again = json.loads(before), json.loads((tiny / "pipeline.json").read_text())
    assert kept["rows"] == again["rows"]


def test_what_it_made_can_be_evaluated_blended_and_reported(tiny: Path, tmp_path: Path) -> None:
    first, second = (tiny / "live-0" / stage / "student.safetensors" for stage in ("stage1", "stage2-kd"))
    assert main(["blend", str(first), str(second), str(tmp_path / "blend.safetensors")]) == 0
    output = tmp_path / "scores.json"
    songs = tiny / "data" / "dev" / "pop"
    assert main(["evaluate", str(tmp_path / "blend.safetensors"), str(songs), "--output", str(output)]) == 0
    assert json.loads(output.read_text())["sets"]["pop"].keys() >= {"offline", "online"}
    document, png = tmp_path / "page.md", tmp_path / "page.png"
    document.write_text("<!-- table pipeline -->\n<!-- end -->\n")
    report.report(False, tiny / "pipeline.json", document, png)
    assert "| live | stage 2, selective KD |" in document.read_text()
    assert png.is_file()
