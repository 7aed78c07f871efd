"""The training loop: it learns, it resumes exactly, its weights carry what is needed to use them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import train.fit
from rtchord.chords import N_BASS, N_CLASSES, class_index
from rtchord.cqt import DEFINITIONS, Features
from rtchord.errors import UserError
from train import store
from train.__main__ import main
from train.augment import Augmentation
from train.fit import FitConfig, Run, fit, learning_rate
from train.losses import cross_entropy, distill, selective_weight
from train.model import ModelConfig, Student
from train.regularise import REGULARISERS
from train.students import KINDS, AnyStudent, kind_of, load_student, save_student, tensors_of

FEATURES = Features()
SMALL = ModelConfig(channels=4, registers=3, width=4, feed=6, heads=2, context=8, temporal_layers=1, decoder_layers=1)


def config(steps: int, stage: str = "supervised", **changes: object) -> FitConfig:
    settings = {"batch": 4, "frames": 16, "warm_up": 2, "save_every": 5, "ema": 0.9, **changes}
    if settings.get("student", "live") == "live":
        settings.setdefault("features", "live")
    return FitConfig.model_validate({"stage": stage, "steps": steps, **settings})


def write(folder: Path, definition: str = "live", **tracks: store.Track) -> Path:
    with store.Writer(folder) as writer:
        for key, track in tracks.items():
            writer.write(key, {definition: track}, {})
    return folder


def chord(root: int, quality: str, peaks: tuple[int, ...]) -> store.Track:
    features = np.full((200, FEATURES.bins), -6.0, np.float16)
    features[:, list(peaks)] = 2.0
    return {
        "features": features,
        "class_index": np.full(200, class_index(root, quality), np.int16),
        "bass_index": np.full(200, root, np.int8),
    }


def taught(track: store.Track, seed: int) -> store.Track:
    """The track with a teacher that is unsure, and an embedding teacher."""
    rng = np.random.default_rng(seed)
    return {
        **track,
        "classes": rng.dirichlet(np.ones(N_CLASSES), 200).astype(np.float16),
        "bass": rng.dirichlet(np.ones(N_BASS), 200).astype(np.float16),
        "embedding": rng.standard_normal((10, 6)).astype(np.float16),
    }


C = chord(0, "maj", (72, 80, 86))
A = chord(9, "min", (66, 72, 80))


@pytest.fixture
def hard(tmp_path: Path) -> Path:
    """Two tracks with true labels: a C major triad and an A minor triad, as bare peaks."""
    return write(tmp_path / "hard", c=C, a=A)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """The same with teachers beside the labels."""
    return write(tmp_path / "both", c=taught(C, 1), a=taught(A, 2))


@pytest.fixture
def soft(tmp_path: Path) -> Path:
    """One track with soft targets."""
    track = taught(C, 0)
    return write(tmp_path / "soft", one={name: track[name] for name in ("features", "classes", "bass")})


@pytest.fixture
def beginner(tmp_path: Path) -> Path:
    """An untrained student to start stage 2 from."""
    torch.manual_seed(1)
    student = KINDS["live"].build(SMALL)
    student.mean.fill_(-5.8)
    save_student(tmp_path / "beginner.safetensors", student, FEATURES, {"soft": True})
    return tmp_path / "beginner.safetensors"


def logged(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.log.read_text().splitlines()]


def same(first: AnyStudent, second: AnyStudent) -> bool:
    one, two = tensors_of(first), tensors_of(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_loss_falls(tmp_path: Path, hard: Path) -> None:
    run = Run(tmp_path / "run")
    fit(run, config(60, learning_rate=3e-3), [hard], model_config=SMALL)
    lines = logged(run)
    assert lines[-1]["step"] == 60
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]


@pytest.mark.parametrize("kind", ["2e1d", "btc"])
def test_the_papers_students_learn(kind: str, tmp_path: Path) -> None:
    data = write(tmp_path / "data", KINDS[kind].definition, c=C, a=A)
    run = Run(tmp_path / "run")
    fit(run, config(60, student=kind, batch=4, learning_rate=1e-3), [data], model_config=ModelConfig(dropout=0.05))
    lines = logged(run)
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    student = load_student(run.weights)[0]
    assert kind_of(student) == kind
    assert float(student.mean) == pytest.approx(-5.8, abs=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"focal": 2.0, "balance": 0.5, "detune": 20.0},
        {"precision": "fp16"},
        {"precision": "fp32", "frames": 64, "time_masks": 1, "frequency_masks": 1, "mixture": 0.5},
    ],
)
def test_it_learns_with_every_option(changes: dict[str, object], tmp_path: Path, hard: Path) -> None:
    augmentation = Augmentation.model_validate({k: changes[k] for k in changes if k in Augmentation.model_fields})
    others = {k: v for k, v in changes.items() if k not in Augmentation.model_fields}
    run = Run(tmp_path / "run")
    settings = config(60, learning_rate=3e-3, augmentation=augmentation, **others)
    fit(run, settings, [hard], validation=[hard], model_config=SMALL)
    lines = logged(run)
    assert lines[-1]["validation_loss"] < 0.85 * lines[0]["validation_loss"]


class StopError(Exception):
    pass


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, run: Run, *args: object, **options: object) -> None:
    """A run that dies while it computes the loss of step `at`, counted from 1."""
    original, calls = train.fit.Objective.forward, []

    def forward(*inputs: object) -> object:
        calls.append(1)
        if len(calls) == at:
            raise StopError
        return original(*inputs)

    with monkeypatch.context() as patched:
        patched.setattr(train.fit.Objective, "forward", forward)
        with pytest.raises(StopError):
            fit(run, *args, **options)


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, hard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    fit(whole, config(10), [hard], model_config=SMALL)
    interrupted(monkeypatch, 8, broken, config(10), [hard], model_config=SMALL)
    fit(broken, config(10), [hard], model_config=SMALL, resume=True)
    assert same(load_student(whole.weights)[0], load_student(broken.weights)[0])


def test_a_resumed_run_with_everything_on_equals_an_unbroken_one(
    tmp_path: Path, both: Path, soft: Path, beginner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distillation, mixture, rehearsal, fp16 with its scaler, and what early stopping remembers."""
    settings = config(10, "stage2", precision="fp16", save_every=2, augmentation=Augmentation(mixture=0.5, detune=10.0))
    options = {"rehearse": [soft], "validation": [both], "initial": beginner}
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    fit(whole, settings, [both], **options)
    interrupted(monkeypatch, 8, broken, settings, [both], **options)
    fit(broken, settings, [both], **options, resume=True)
    assert same(load_student(whole.weights)[0], load_student(broken.weights)[0])
    losses = [[line["validation_loss"] for line in logged(run)] for run in (whole, broken)]
    assert len(losses[0]) == 5
    assert losses[0] == losses[1]
    states = [torch.load(run.resume, weights_only=True) for run in (whole, broken)]
    assert states[0]["best"] == states[1]["best"] == pytest.approx(min(losses[0]), rel=1e-5)
    assert states[0]["waited"] == states[1]["waited"]


def test_stage_2_starts_from_stage_1_and_remembers_it(tmp_path: Path, hard: Path, soft: Path) -> None:
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    fit(first, config(3, "stage1"), [soft], model_config=SMALL)
    settings = config(3, "stage2", learning_rate=1e-9, distil=False)
    fit(second, settings, [hard], rehearse=[soft], initial=first.weights)
    before, after = load_student(first.weights), load_student(second.weights)
    assert after[2]["before"]["soft"] is True
    for a, b in zip(before[0].parameters(), after[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_student_of_the_first_set_of_bins_learns_to_hear_the_second(tmp_path: Path, beginner: Path) -> None:
    pair = {**C, "features": np.concatenate((C["features"], C["features"] + 1), axis=1)}
    data = write(tmp_path / "data", "live-both", c=pair)
    run = Run(tmp_path / "run")
    fit(run, config(3, "stage2", features="live-both", distil=False), [data], initial=beginner)
    (student, features, _), (before, *_) = load_student(run.weights), load_student(beginner)
    assert features == DEFINITIONS["live-both"]
    assert isinstance(student, Student)
    first, second = student.harmonic.kernel.chunk(2)
    assert second.any()
    assert not torch.equal(first, before.harmonic.kernel)


# --- one step ---------------------------------------------------------------------------------------------------------


def kept(monkeypatch: pytest.MonkeyPatch, *args: object, **options: object) -> list[dict]:
    """Copies of the checkpoints of a run, in order."""
    states: list[dict] = []
    with monkeypatch.context() as patched:
        patched.setattr(Run, "keep", lambda _, state: states.append(copy.deepcopy(state)))
        fit(*args, **options)
    return states


def test_the_average_forgets_by_its_decay_and_sooner_at_first(
    tmp_path: Path, hard: Path, beginner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(4, ema=0.2, save_every=1, precision="fp32", learning_rate=1e-2)
    states = kept(monkeypatch, Run(tmp_path / "run"), settings, [hard], initial=beginner)
    expected = {name: tensor.clone() for name, tensor in load_student(beginner)[0].named_parameters()}
    for state, decay in zip(states, (1 / 10, 2 / 11, 0.2, 0.2), strict=True):
        for name, mean in expected.items():
            mean.mul_(decay).add_(state["student"][name], alpha=1 - decay)
            assert torch.allclose(state["average"][name], mean, atol=1e-6)
    assert not torch.equal(states[-1]["average"]["harmonic.kernel"], states[-1]["student"]["harmonic.kernel"])


@pytest.mark.parametrize(("clip", "expected"), [(1e-3, pytest.approx(1e-3, rel=1e-3)), (1e6, None)])
def test_a_gradient_is_no_longer_than_its_clip(
    clip: float, expected: float | None, tmp_path: Path, hard: Path, beginner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(1, clip=clip, precision="fp32")
    (state,) = kept(monkeypatch, Run(tmp_path / "run"), settings, [hard], initial=beginner)
    # After one step Adam's first moment is a tenth of the gradient.
    gradient = [10 * moment["exp_avg"] for moment in state["optimizer"]["state"].values()]
    length = float(torch.cat([part.flatten() for part in gradient]).norm())
    assert length == expected if expected is not None else length > 0.1


def test_the_learning_rate_warms_up_and_then_falls_as_a_cosine() -> None:
    settings = config(110, warm_up=10, learning_rate=1.0)
    found = [learning_rate(settings, step) for step in (0, 4, 9, 10, 60, 110)]
    assert found == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.51, 0.02])
    assert learning_rate(config(110, warm_up=0, learning_rate=1.0), 0) == 1.0


@pytest.mark.parametrize(("warm_up", "moved"), [(0, 1e-2), (4, 0.25e-2)])
def test_the_first_step_is_as_long_as_the_warm_up_lets_it(
    warm_up: int, moved: float, tmp_path: Path, hard: Path, beginner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(1, warm_up=warm_up, learning_rate=1e-2, weight_decay=0.0, precision="fp32")
    (state,) = kept(monkeypatch, Run(tmp_path / "run"), settings, [hard], initial=beginner)
    before = dict(load_student(beginner)[0].named_parameters())
    # Adam's first step moves every weight that matters by the learning rate.
    steps = [float((state["student"][name] - old.detach()).abs().max()) for name, old in before.items()]
    assert max(steps) == pytest.approx(moved, rel=1e-2)


# --- the loss of a batch ----------------------------------------------------------------------------------------------


def objective(settings: FitConfig, beginner: Path, balance: torch.Tensor | None = None) -> train.fit.Objective:
    return train.fit.Objective(load_student(beginner)[0], settings, balance)


def test_the_loss_of_stage_2_is_the_papers(both: Path, beginner: Path) -> None:
    settings = config(1, "stage2", precision="fp32", bass_weight=0.0)
    batch = train.fit.Tracks([both], "live", "true", teacher=True).batch(np.random.default_rng(0), 4, 16)
    made = objective(settings, beginner)
    with torch.no_grad():
        logits = made.student(batch.frames)[0]
        found = made(batch)[0]
    apart = (distill(logits, batch.teacher, 3.0) * selective_weight(batch.teacher, 3.0)).mean()
    expected = 0.3 * apart + 0.7 * cross_entropy(logits, batch.classes, batch.known, 0.03)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("selective", "lower"), [(True, True), (False, False)])
def test_a_teacher_that_does_not_know_is_left_out_if_selected(
    selective: bool, lower: bool, both: Path, beginner: Path
) -> None:
    batch = train.fit.Tracks([both], "live", "true", teacher=True).batch(np.random.default_rng(0), 4, 16)
    unsure = train.fit.Batch(**{**vars(batch), "teacher": torch.full_like(batch.teacher, 1 / N_CLASSES)})
    made = objective(config(1, "stage2", selective=selective, precision="fp32", bass_weight=0.0), beginner)
    with torch.no_grad():
        labels = 0.7 * made.prediction(made.student(batch.frames)[0], batch.classes, batch.known, None)
        assert (made(unsure)[0].item() == pytest.approx(labels.item(), rel=1e-6)) == lower


def test_stage_1_takes_soft_targets_as_they_are(soft: Path, beginner: Path) -> None:
    batch = train.fit.Tracks([soft], "live", "soft").batch(np.random.default_rng(0), 4, 16)
    made = objective(config(1, "stage1", precision="fp32", bass_weight=0.0), beginner)
    with torch.no_grad():
        expected = cross_entropy(made.student(batch.frames)[0], batch.classes, batch.known, 0.0)
        assert made(batch)[0].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["distance-correlation", "cosine-distance-difference"])
def test_an_embedding_teacher_takes_its_share_of_the_loss(kind: str, both: Path, beginner: Path) -> None:
    tracks = train.fit.Tracks([both], "live", "true", teacher=True, embedding=True)
    batch = tracks.batch(np.random.default_rng(0), 6, 64)
    settings = {"precision": "fp32", "embedding_kind": kind}
    with torch.no_grad():
        without, half, encoded = (
            objective(config(1, "stage2", **settings), beginner)(batch)[0],
            objective(config(1, "stage2", **settings, embedding_weight=0.5), beginner)(batch)[0],
            load_student(beginner)[0].encode(batch.frames),
        )
    means = torch.stack([torch.stack([encoded[i][batch.piece[i] == p].mean(0) for p in range(2)]) for i in range(6)])
    apart = REGULARISERS[kind](means, batch.embedding)
    assert half.item() == pytest.approx(0.5 * without.item() + 0.5 * apart.item(), rel=1e-4)


# --- when it ends -----------------------------------------------------------------------------------------------------


def test_a_run_that_gets_no_better_stops_and_keeps_the_best(tmp_path: Path, hard: Path) -> None:
    other = write(
        tmp_path / "other", c={**C, "class_index": A["class_index"]}, a={**A, "class_index": C["class_index"]}
    )
    run = Run(tmp_path / "run")
    settings = config(200, learning_rate=1e-2, ema=0.5, patience=2)
    fit(run, settings, [hard], validation=[other], model_config=SMALL)
    losses = [line["validation_loss"] for line in logged(run)]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 40
    provenance = load_student(run.weights)[2]
    assert provenance["step"] == 5 * (best + 1)
    assert provenance["validation_loss"] == pytest.approx(losses[best], abs=1e-4)
    fit(run, settings, [hard], validation=[other], model_config=SMALL, resume=True)
    assert len(logged(run)) == len(losses)  # it stays stopped


def test_a_run_whose_loss_is_no_number_is_told_so(tmp_path: Path) -> None:
    track = {**C, "features": np.full_like(C["features"], np.nan)}
    with pytest.raises(UserError, match="no number"):
        fit(Run(tmp_path / "run"), config(5), [write(tmp_path / "nan", c=track)], model_config=SMALL)


def test_tensorboard_has_what_the_log_has(tmp_path: Path, hard: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run(tmp_path / "run")
    fit(run, config(10), [hard], validation=[hard], model_config=SMALL)
    events = EventAccumulator(str(run.tensorboard)).Reload()
    for name in ("loss", "hit", "learning_rate", "validation_loss", "validation_hit"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(line["step"], pytest.approx(line[name], rel=1e-4)) for line in logged(run)]


# --- several processes ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
from pathlib import Path
from train.fit import FitConfig, Run, fit
from train.model import ModelConfig
import os
torch.set_num_threads(1)
folder = Path(sys.argv[1])
small = ModelConfig(
    channels=4, registers=3, width=4, feed=6, heads=2, context=8, temporal_layers=1, decoder_layers=1
)
config = FitConfig(
    stage="supervised", steps=40, batch=4, frames=16, warm_up=2, save_every=20, ema=0.9, learning_rate=3e-3,
    balance=0.5, patience=9, features="live",
)
student = fit(
    Run(folder / "run"), config, [folder / "hard"], validation=[folder / "hard"], model_config=small, device="cpu"
)
torch.save(student.state_dict(), folder / f"rank{os.environ['RANK']}.pt")
"""


def test_two_processes_learn_one_student(tmp_path: Path, hard: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(train.fit.__file__).parents[1])}
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    run = Run(tmp_path / "run")
    lines = logged(run)
    assert [line["step"] for line in lines] == [20, 40]
    assert lines[-1]["validation_loss"] < lines[0]["validation_loss"]
    student, _, provenance = load_student(run.weights)
    assert all(torch.equal(first[name], tensor) for name, tensor in student.state_dict().items())
    assert provenance["processes"] == 2
    with pytest.raises(UserError, match=r"begun with (world 2, not 1|context)"):
        fit(run, FitConfig.model_validate(provenance["fit"]), [hard], model_config=SMALL, resume=True)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path, hard: Path) -> None:
    run = Run(tmp_path / "run")
    fit(run, config(2), [hard], model_config=SMALL)
    with pytest.raises(UserError, match="--resume"):
        fit(run, config(2), [hard], model_config=SMALL)
    with pytest.raises(UserError, match="begun with steps 2, not 4"):
        fit(run, config(4), [hard], model_config=SMALL, resume=True)
    with pytest.raises(UserError, match="begun with context 8, not 9"):
        fit(run, config(2), [hard], model_config=SMALL.model_copy(update={"context": 9}), resume=True)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, hard: Path, damage: bytes | None) -> None:
    run = Run(tmp_path / "run")
    fit(run, config(2), [hard], model_config=SMALL)
    run.resume.write_bytes(run.resume.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(UserError, match=r"resume\.pt' is damaged; delete it"):
        fit(run, config(2), [hard], model_config=SMALL, resume=True)


def test_the_checkpoint_of_another_command_is_told(tmp_path: Path, hard: Path) -> None:
    run = Run(tmp_path / "run")
    run.open()
    run.keep({"settings": {}, "step": 1})
    run.close()
    with pytest.raises(UserError, match="another command"):
        fit(run, config(2), [hard], model_config=SMALL, resume=True)


def test_two_runs_at_a_time_on_one_folder_are_refused(tmp_path: Path, hard: Path) -> None:
    first = Run(tmp_path / "run")
    first.open()
    with pytest.raises(UserError, match="another run is at work"):
        fit(Run(tmp_path / "run"), config(2), [hard], model_config=SMALL)
    first.close()
    fit(Run(tmp_path / "run"), config(2), [hard], model_config=SMALL)


def test_a_stage_asks_for_what_it_needs(tmp_path: Path, hard: Path, soft: Path, beginner: Path) -> None:
    run = Run(tmp_path / "run")
    for words, settings, data, options in (
        ("--initial", config(2, "stage2"), hard, {}),
        ("--distil off", config(2, "stage2"), hard, {"initial": beginner}),
        ("--embedding-weight", config(2, embedding_weight=0.5), hard, {}),
        ("no pseudo-labels", config(2, "stage1"), hard, {}),
        ("no true labels", config(2), soft, {}),
        ("true labels alone", config(2), hard, {"rehearse": [soft]}),
        ("is a student 'live'", config(2, student="btc", features="live"), hard, {"initial": beginner}),
        ("other sizes", config(2), hard, {"initial": beginner, "model_config": ModelConfig()}),
        ("sizes of its paper", config(2, student="btc", features="live"), hard, {"model_config": SMALL}),
        ("finds no GPU", config(2), hard, {"device": "cuda"}),
    ):
        if words == "finds no GPU" and torch.cuda.is_available():
            continue
        with pytest.raises(UserError, match=words):
            fit(run, settings, [data], **options)
    assert not run.folder.exists()


def test_a_student_of_other_features_is_no_start(tmp_path: Path, beginner: Path) -> None:
    data = write(tmp_path / "data", "live-vq", c=C)
    with pytest.raises(UserError, match="another feature definition"):
        fit(Run(tmp_path / "run"), config(2, features="live-vq"), [data], initial=beginner)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student": "crnn"}, "crnn"),
        ({"features": "mel"}, "mel"),
        ({"focal": 0.5}, "gradient"),
        ({"low": 0.95}, "above high"),
        ({"rate": 1}, "rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(2, **changes)


def test_weights_without_metadata_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "student.safetensors")
    with pytest.raises(UserError, match="not a student"):
        load_student(tmp_path / "student.safetensors")


# --- command line -----------------------------------------------------------------------------------------------------


def test_the_commands_reach_every_setting(tmp_path: Path, both: Path, beginner: Path) -> None:
    argv = ["stage2", str(tmp_path / "run"), str(both), "--steps", "2", "--initial", str(beginner), "--batch", "2"]
    argv += ["--features", "live"]
    argv += [
        "--frames",
        "8",
        "--focal",
        "2",
        "--distil",
        "on",
        "--selective",
        "off",
        "--mixture",
        "0.5",
        "--device",
        "cpu",
    ]
    assert main([*argv, "--alpha", "0.4", "--validation", str(both), "--patience", "3"]) == 0
    found = FitConfig.model_validate(load_student(tmp_path / "run" / "student.safetensors")[2]["fit"])
    assert found == FitConfig(
        stage="stage2", steps=2, batch=2, frames=8, focal=2.0, selective=False, alpha=0.4, patience=3,
        augmentation=Augmentation(mixture=0.5), features="live",
    )  # fmt: skip


def test_every_setting_is_an_option() -> None:
    from train.__main__ import SIZES, STAGE_OPTIONS

    options = {name.replace("-", "_") for name in STAGE_OPTIONS}
    settings = {*FitConfig.model_fields, *Augmentation.model_fields, *SIZES}
    assert options == settings - {"stage", "steps", "augmentation"}


def test_a_bad_setting_is_told_in_a_sentence(tmp_path: Path, hard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["supervised", str(tmp_path / "run"), str(hard), "--steps", "0"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "steps" in error
    assert error.count("\n") == 1
