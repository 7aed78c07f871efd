"""Export and build: an engine gives its network's numbers, or is not written."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import engines
from engines.build import as_both, build, default_target
from engines.network import Network, from_student
from engines.verify import LIMITS, Limits, check_frames, verified
from rtchord.cqt import DEFINITIONS, STAGE
from rtchord.engine import MANIFEST, load, read_manifest, write_manifest
from rtchord.engine.cuda import CudaEngine, read_program
from rtchord.errors import UserError
from train.students import KINDS, load_student, save_student

FEATURES = DEFINITIONS[STAGE]
SECONDS = 5.0
FORMS = [("step", 1), ("step", 8), ("window", 1), ("window", 3)]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: f"{form[0]}-{form[1]}")
def made(weights: Path, request: pytest.FixtureRequest) -> tuple[Network, Path]:
    """Every form as an exported engine: ONNX and torch.export."""
    form, streams = request.param
    network = from_student(weights, form, streams, name="test", delay=0.05)
    folder, _, why = build(network, "onnx", weights.parent / f"{form}-{streams}", seconds=SECONDS, write=as_both)
    assert why == ""
    return network, folder


@pytest.fixture
def one(weights: Path) -> Network:
    return from_student(weights)


def test_an_exported_engine_loads_and_says_what_it_passed(made: tuple[Network, Path]) -> None:
    network, folder = made
    manifest = load(folder).manifest
    assert sorted(manifest.files) == ["model.onnx", "model.pt2"]
    assert manifest.check is not None
    assert manifest.check.max_error < 1e-4
    assert manifest.check.chords == 1
    assert (manifest.form, manifest.streams) == (network.draft.form, network.draft.streams)
    assert manifest.name == "test"
    assert manifest.delay == 0.05
    assert manifest.features == FEATURES
    assert manifest.provenance == {"made": "for a test"}


def test_the_exported_program_gives_the_same_numbers(made: tuple[Network, Path]) -> None:
    """The CUDA engine's buffers and resets, run on the CPU: all but the graph."""
    network, folder = made
    from engines.verify import compare

    engine = CudaEngine(folder, read_manifest(folder), device="cpu")
    check = compare(engine, network, check_frames(FEATURES, 150))
    assert check.max_error < 1e-5
    assert check.agree == 1


def test_a_window_equals_the_student_over_the_frames_it_holds(weights: Path) -> None:
    network = from_student(weights, "window")
    student = load_student(weights)[0]
    frames = check_frames(FEATURES, 40)
    silence = np.full((7, FEATURES.bins), np.log(1e-3), np.float32)
    with torch.no_grad():
        expected = torch.softmax(student(torch.from_numpy(frames[32:40])[None])[0][0, -1], -1).numpy()
        start = np.concatenate((silence, frames[:1]))
        first = torch.softmax(student(torch.from_numpy(start)[None])[0][0, -1], -1).numpy()
    found = network.reference(frames)[0]
    np.testing.assert_allclose(found[39], expected, atol=1e-6)
    np.testing.assert_allclose(found[0], first, atol=1e-6)


def test_half_precision_is_close_and_takes_float32_frames(weights: Path) -> None:
    network = from_student(weights, precision="fp16")
    assert [str(t.dtype) for t in network.inputs.values()] == [
        "torch.float32", "torch.float16", "torch.float16", "torch.int64",
    ]  # fmt: skip
    folder, manifest, _ = build(network, "onnx", seconds=SECONDS)
    assert load(folder).manifest.precision == "fp16"
    assert manifest.check is not None
    assert 1e-6 < manifest.check.max_error < 0.1


def test_eight_bit_weights_make_a_small_engine_for_onnx_alone(weights: Path, own: Path) -> None:
    network = from_student(weights, precision="int8")
    folder, manifest, _ = build(network, "onnx", seconds=SECONDS)
    exact, _, _ = build(from_student(weights), "onnx", seconds=SECONDS)
    assert (folder / "model.onnx").stat().st_size < (exact / "model.onnx").stat().st_size
    assert load(folder).manifest.precision == "int8"
    assert manifest.check is not None
    assert manifest.check.max_error > 1e-6
    with pytest.raises(UserError, match="precision int8 is for `build --backend onnx` only"):
        build(network, "cuda", own / "other")


def test_nothing_of_the_exporting_machine_is_in_the_files(made: tuple[Network, Path]) -> None:
    here = str(Path(engines.__file__).parents[1]).encode()
    for path in made[1].iterdir():
        assert here not in path.read_bytes()


def test_an_existing_engine_is_kept_unless_told(one: Network, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    build(one, "onnx", folder, seconds=SECONDS)
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(UserError, match="--replace"):
        build(one, "onnx", folder, seconds=SECONDS)
    assert (folder / MANIFEST).read_bytes() == before
    build(from_student_of(one, "other"), "onnx", folder, replace_old=True, seconds=SECONDS)
    assert read_manifest(folder).name == "other"


def from_student_of(network: Network, name: str) -> Network:
    return replace(network, draft=network.draft.model_copy(update={"name": name}))


def test_an_own_engine_is_replaced_where_it_is_of_no_use_any_more(one: Network) -> None:
    folder, manifest, _ = build(one, "onnx", seconds=SECONDS)
    assert folder == default_target(one.draft)
    with pytest.raises(UserError, match="--replace"):
        build(one, "onnx", seconds=SECONDS)
    write_manifest(folder, manifest.model_copy(update={"check": None}))
    assert build(one, "onnx", seconds=SECONDS)[1].check is not None


def spoiled(network: Network) -> Network:
    """A network whose reference has another head: what the check exists for."""

    def reference(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, bass = network.reference(frames)
        return np.roll(classes, 1, axis=1), bass

    return replace(network, reference=reference)


def test_an_engine_that_differs_is_not_written(one: Network, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="differs from its network"):
        build(spoiled(one), "onnx", tmp_path / "here" / "engine", seconds=SECONDS)
    assert list((tmp_path / "here").iterdir()) == []


def test_an_engine_that_fails_its_check_later_is_not_loaded_any_more(one: Network) -> None:
    folder = build(one, "onnx", seconds=SECONDS)[0]
    with pytest.raises(UserError, match="it will not be loaded"):
        verified(folder, spoiled(one), SECONDS)
    with pytest.raises(UserError, match="never verified"):
        load(folder)


SLACK = Limits(max_error=np.inf, mean_error=np.inf, chords=0.0)


@pytest.mark.parametrize(
    "limit", [{"max_error": 1e-4}, {"mean_error": 1e-6}, {"chords": 0.9999}], ids=lambda limit: next(iter(limit))
)
def test_each_limit_alone_refuses_an_engine(limit: dict, one: Network, exported: Path, own: Path) -> None:
    folder = Path(shutil.copytree(exported, own / "engine"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "fp32", replace(SLACK, **limit))
        assert verified(folder, one, SECONDS).check is not None
        with pytest.raises(UserError, match="differs from its network"):
            verified(folder, sure_of_c(one), SECONDS)
        patch.setitem(LIMITS, "fp32", SLACK)
        assert verified(folder, sure_of_c(one), SECONDS).check is not None


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    """An engine that passed its check."""
    return build(from_student(weights), "onnx", weights.parent / "exported", seconds=SECONDS)[0]


def sure_of_c(network: Network) -> Network:
    """A network whose reference says C:maj, whatever is played."""

    def reference(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.eye(170, dtype=np.float32)[np.zeros(len(frames), int)], network.reference(frames)[1]

    return replace(network, reference=reference)


def test_the_limits_are_those_of_the_documentation() -> None:
    text = (Path(engines.__file__).parents[1] / "docs" / "engines.md").read_text()
    for precision, limits in LIMITS.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| {precision} |")]
        largest, mean, chords = (cell.strip() for cell in row.strip("|").split("|")[1:])
        assert (float(largest), float(mean)) == (limits.max_error, limits.mean_error)
        assert float(chords.removesuffix(" %")) / 100 == pytest.approx(limits.chords)


def test_posteriors_that_are_no_numbers_fail_the_check(one: Network) -> None:
    broken = replace(one, reference=lambda frames: tuple(np.full_like(x, np.nan) for x in one.reference(frames)))
    with pytest.raises(UserError, match="differs from its network: at most inf"):
        build(broken, "onnx", seconds=SECONDS)


def test_an_engine_of_another_checkpoint_is_not_verified(one: Network) -> None:
    folder = build(one, "onnx", seconds=SECONDS)[0]
    other = replace(one, draft=one.draft.model_copy(update={"source": "0" * 64}))
    with pytest.raises(UserError, match=r"not made from this checkpoint \(source differ"):
        verified(folder, other, SECONDS)


def test_a_program_with_a_pickle_inside_is_refused(made: tuple[Network, Path], tmp_path: Path) -> None:
    """torch.export.load would run it."""
    import zipfile

    target = tmp_path / "model.pt2"
    for pattern, content in (
        ("sample_inputs", b"\x80\x04cos\nsystem\n(S'false'\ntR."),
        ("weights_config.json", None),
    ):
        with zipfile.ZipFile(made[1] / "model.pt2") as old, zipfile.ZipFile(target, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if pattern in name:
                    data = content or data.replace(b'"use_pickle":false', b'"use_pickle":true').replace(
                        b'"use_pickle": false', b'"use_pickle": true'
                    )
                    assert data != old.read(name)
                new.writestr(name, data)
        with pytest.raises(UserError, match="is no program of ours"):
            read_program(target)


def test_the_command_exports_and_lists(weights: Path, own: Path) -> None:
    command = [sys.executable, "-m", "engines"]
    made = subprocess.run(
        [*command, "export", weights, own / "e", "--seconds", "5"], capture_output=True, text=True, check=True
    )
    assert "differs from its network by at most" in made.stdout
    assert json.loads((own / "e" / MANIFEST).read_text())["name"] == "student"
    done = subprocess.run([*command, "verify", own / "e", "--seconds", "5", "--checkpoint", weights], check=True)
    assert done.returncode == 0
    (own / "e" / "model.onnx").write_bytes(b"")
    listed = subprocess.run([*command, "list"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "cannot be used" in listed[0]
    assert "has another hash" in listed[0]
    assert "2e1d-live-7, onnx fp32, step, 1 stream, verified" in listed[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export", "nowhere", "e"], "no student at 'nowhere'"),
        (["verify", "nowhere"], "no engine at 'nowhere'"),
        (["build", "nowhere", "--backend", "cuda"], "no student at 'nowhere'"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = subprocess.run([sys.executable, "-m", "engines", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"engines: {sentence}")
    assert len(done.stderr.splitlines()) == 1


def test_a_student_of_a_papers_layout_is_no_live_engine(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_student(path, KINDS["btc"].build(None), DEFINITIONS["librosa-0.6.3"], {})
    with pytest.raises(UserError, match="'btc'; only live ones"):
        from_student(path)
