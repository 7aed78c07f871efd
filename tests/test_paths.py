"""Whatever a path is that a maker's command is given: where it cannot be used, that is one sentence, and no work."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.rig import ROOT
from rtchord.chords import N_BASS, N_CLASSES
from rtchord.cqt import DEFINITIONS, STAGE
from tests.paths import PATHS, at_most, contents, unprivileged
from train.rvq import Quantiser, RVQConfig, save_quantiser
from train.store import Writer

STUDENT = str(next((ROOT / "engines" / "students").glob("*.safetensors")))
SONGS = str(ROOT / "tests" / "data")
SHIPPED = str(ROOT / "rtchord" / "engines" / "default")

# command, with PATH in the place that is tried, and the ending that a path has there.
READ: dict[str, tuple[str, str]] = {
    "engines export CHECKPOINT": ("engines export PATH out", ".safetensors"),
    "engines build CHECKPOINT": ("engines build PATH out --backend onnx", ".safetensors"),
    "engines import-published CHECKPOINT": ("engines import-published PATH out", ".pt"),
    "engines verify": ("engines verify PATH", ""),
    "engines verify --checkpoint": (f"engines verify {SHIPPED} --checkpoint PATH", ".safetensors"),
    "engines bench --engine": ("engines bench --steps 1 --engine PATH", ""),
    "engines describe": ("engines describe PATH --delay 0.1", ""),
    "engines describe --scores": (f"engines describe {SHIPPED} --scores PATH", ".json"),
    "train label FOLDER": ("train label PATH out", ""),
    "train label CATALOGUE": ("train label PATH out", ".jsonl"),
    "train label --teacher": (f"train label {SONGS} out --teacher btc:PATH", ".pt"),
    "train render --embedding": ("train render out --charts 1 --embedding onnx:PATH", ".onnx"),
    "train prepare": ("train prepare PATH out", ".jsonl"),
    "train render --pop909": ("train render out --songs 1 --pop909 PATH", ""),
    "train render --billboard": ("train render out --billboard PATH", ""),
    "train render --sheets": ("train render out --sheets PATH", ""),
    "train render --exclude": ("train render out --charts 1 --exclude PATH", ""),
    "train render --guitars": ("train render out --charts 1 --guitars PATH", ""),
    "train stage1 DATA": ("train stage1 out PATH --steps 1", ""),
    "train stage1 --initial": ("train stage1 out STORE --steps 1 --initial PATH", ".safetensors"),
    "train supervised --validation": ("train supervised out STORE --steps 1 --validation PATH", ""),
    "train stage2 DATA": (f"train stage2 out PATH --steps 1 --initial {STUDENT}", ""),
    "train stage2 --rehearse": (f"train stage2 out STORE --steps 1 --initial {STUDENT} --rehearse PATH", ""),
    "train catalogue --audio": ("train catalogue out.jsonl --audio PATH", ""),
    "train catalogue --labelled": ("train catalogue out.jsonl --labelled PATH", ""),
    "train catalogue --jams": ("train catalogue out.jsonl --jams PATH", ""),
    "train catalogue --hold-out": (f"train catalogue out.jsonl --labelled {SONGS} --hold-out PATH", ""),
    "train catalogue --mirdata": ("train catalogue out.jsonl --mirdata guitarset:PATH", ""),
    "train blend FIRST": (f"train blend PATH {STUDENT} out.safetensors", ".safetensors"),
    "train blend SECOND": (f"train blend {STUDENT} PATH out.safetensors", ".safetensors"),
    "train fetch-teacher --from": ("train fetch-teacher btc --to out.pt --from PATH", ".pt"),
    "train codebooks DATA": ("train codebooks out.safetensors PATH", ""),
    "train pretrain DATA": ("train pretrain out PATH --codebooks CODEBOOKS --steps 1", ""),
    "train pretrain --codebooks": ("train pretrain out STORE --codebooks PATH --steps 1", ".safetensors"),
    "train evaluate STUDENT": (f"train evaluate PATH {SONGS}", ".safetensors"),
    "train evaluate TEACHER": (f"train evaluate btc:PATH {SONGS}", ".pt"),
    "train evaluate FOLDER": (f"train evaluate {STUDENT} PATH", ""),
    "train reproduce --data": ("train reproduce out --size tiny --data PATH", ""),
    "benchmarks online": ("benchmarks online PATH", ""),
    "benchmarks online --engine": (f"benchmarks online {SONGS} --engine PATH", ""),
    "benchmarks curve": ("benchmarks curve PATH", ""),
    "benchmarks curve --engine": (f"benchmarks curve {SONGS} --engine PATH", ""),
    "benchmarks robustness": ("benchmarks robustness PATH", ""),
    "benchmarks robustness --engine": (f"benchmarks robustness {SONGS} --engine PATH", ""),
    "benchmarks peers": ("benchmarks peers PATH", ""),
    "benchmarks offline": ("benchmarks offline PATH", ""),
    "benchmarks offline --engine": (f"benchmarks offline {SONGS} --engine PATH", ""),
    "benchmarks latency --engine": ("benchmarks latency --hops 1 --strums 0 --engine PATH", ""),
    "benchmarks engines --engine": ("benchmarks engines --steps 1 --engine PATH", ""),
    "benchmarks throughput": ("benchmarks throughput PATH --rounds 1 --hops 0 --minutes 0", ""),
    "benchmarks gate --engine": ("benchmarks gate --engine PATH", ""),
    "benchmarks make-songs POP909": ("benchmarks make-songs PATH out --skip 0 --font FONT", ""),
    "benchmarks make-songs --font": ("benchmarks make-songs POP909 out --skip 0 --font PATH", ".sf2"),
    "benchmarks make-songs --exclude": ("benchmarks make-songs POP909 out --skip 0 --font FONT --exclude PATH", ""),
    "benchmarks make-strums": ("benchmarks make-strums PATH out --variant a", ""),
    "benchmarks make-charts --font": ("benchmarks make-charts out --font PATH", ".sf2"),
    "benchmarks cqt-picture": ("benchmarks cqt-picture PATH --png out.png", ".wav"),
}
WRITTEN: dict[str, tuple[str, str]] = {
    "engines export TARGET": (f"engines export {STUDENT} PATH", ""),
    "engines build TARGET": (f"engines build {STUDENT} PATH --backend onnx", ""),
    "train label TARGET": (f"train label {SONGS} PATH", ""),
    "train prepare TARGET": ("train prepare CATALOGUE PATH", ""),
    "train render TARGET": ("train render PATH --charts 1", ""),
    "train render --audio": ("train render out --charts 1 --audio PATH", ""),
    "train stage1 RUN": ("train stage1 PATH STORE --steps 1", ""),
    "train supervised RUN": ("train supervised PATH STORE --steps 1", ""),
    "train stage2 RUN": (f"train stage2 PATH STORE --steps 1 --initial {STUDENT}", ""),
    "train catalogue TARGET": (f"train catalogue PATH --labelled {SONGS}", ".jsonl"),
    "train blend TARGET": (f"train blend {STUDENT} {STUDENT} PATH", ".safetensors"),
    "train fetch-teacher --to": (f"train fetch-teacher btc --from {STUDENT} --to PATH", ".pt"),
    "train codebooks TARGET": ("train codebooks PATH STORE --steps 1", ".safetensors"),
    "train pretrain RUN": ("train pretrain PATH STORE --codebooks CODEBOOKS --steps 1", ""),
    "train evaluate --output": (f"train evaluate {STUDENT} {SONGS} --output PATH", ".json"),
    "train evaluate --confusion": (f"train evaluate {STUDENT} {SONGS} --confusion PATH", ".png"),
    "train reproduce RUNS": ("train reproduce PATH --size tiny", ""),
    "train reproduce --output": ("train reproduce out --size tiny --output PATH", ".json"),
    "benchmarks --output": ("benchmarks latency --hops 0 --strums 0 --output PATH", ".json"),
    "benchmarks make-songs TARGET": ("benchmarks make-songs POP909 PATH --skip 0 --font FONT", ""),
    "benchmarks make-strums TARGET": ("benchmarks make-strums CLIPS PATH --variant a", ""),
    "benchmarks make-charts TARGET": ("benchmarks make-charts PATH", ""),
    "benchmarks cqt-picture --png": (f"benchmarks cqt-picture {SONGS}/demo.ogg --png PATH", ".png"),
}

# What goes wrong wherever it stands, and what does only where something is read.
NOWHERE = ("NUL", "300 characters", "5000 characters", "loop", "below a file", "empty")
NOTHING = ("missing", "not UTF-8", "control characters", "link to nowhere", "unreadable")


def opened(folder: str) -> Path:
    """A folder that everybody may use: pytest's own are root's alone, and then `unprivileged` sees nothing of them."""
    Path(folder).chmod(0o777)
    return Path(folder)


@pytest.fixture(scope="module")
def around() -> Iterator[dict[str, str]]:
    """What other words of the table stand for, each in order."""
    with tempfile.TemporaryDirectory() as folder:
        yield in_order(opened(folder))


def in_order(folder: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    bins = DEFINITIONS[STAGE].bins
    track = {
        "features": rng.standard_normal((64, bins)),
        "class_index": np.zeros(64),
        "bass_index": np.zeros(64),
        "classes": rng.dirichlet(np.ones(N_CLASSES), 64),
        "bass": rng.dirichlet(np.ones(N_BASS), 64),
    }
    with Writer(folder / "store") as writer:
        writer.write("piece", {STAGE: track}, {})
    quantiser = Quantiser(torch.zeros(2, 4, bins), torch.tensor(0.0), torch.tensor(1.0))
    save_quantiser(folder / "codebooks.safetensors", quantiser, STAGE, RVQConfig(codebooks=2, entries=4), {})
    (folder / "clips").mkdir()
    (folder / "clips" / "labels.csv").write_text("file,chord,seconds,variant\nc.wav,C:maj,1.0,a\n")
    soundfile.write(folder / "clips" / "c.wav", rng.standard_normal(8_000) / 10, 8_000)
    (folder / "font.sf2").write_bytes(b"RIFF\0\0\0\0sfbk")
    (folder / "pop909").mkdir()
    names = {"STORE": "store", "CODEBOOKS": "codebooks.safetensors", "CLIPS": "clips", "FONT": "font.sf2"}
    return {word: str(folder / name) for word, name in {**names, "POP909": "pop909"}.items()}


def ended(words: list[str]) -> int:
    """The exit code of `python -m PACKAGE ..`, in this process."""
    main = importlib.import_module(f"{words[0]}.__main__").main
    with at_most(60):
        try:
            return int(main(words[1:]))
        except SystemExit as end:
            return int(end.code or 0)


def refused(
    command: str, path: str, kind: str, around: dict[str, str], home: Path, capsys: pytest.CaptureFixture
) -> None:
    """It ends with 2 and one sentence, and leaves everything as it was."""
    before = contents(home)
    words = [word.replace("PATH", path) if "PATH" in word else around.get(word, word) for word in command.split()]
    with unprivileged() if kind == "unreadable" else contextlib.nullcontext():
        code = ended(words)
    told = capsys.readouterr().err
    *said_before, last = told.removesuffix("\n").split("\n")
    assert code == 2, told
    assert last.startswith(f"{words[0]}: ") or (last.startswith(f"python -m {words[0]} ") and ": error: " in last)
    assert last.isprintable()
    assert kind == "empty" or repr(path)[1:-1] in last, last
    assert all(line.startswith(("usage: ", " ")) or not line for line in said_before), told
    assert contents(home) == before


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, where the commands run."""
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        patch.chdir(opened(folder))
        patch.setenv("RTCHORD_ENGINES", f"{folder}/own")
        yield Path(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has all of these")
@pytest.mark.parametrize("place", READ)
def test_a_path_that_cannot_be_read_is_one_sentence(
    place: str, around: dict[str, str], home: Path, capsys: pytest.CaptureFixture
) -> None:
    command, ending = READ[place]
    for number, kind in enumerate((*NOWHERE, *NOTHING, "folder" if ending else "file")):
        (home / str(number)).mkdir()
        refused(command, PATHS[kind](home / str(number), ending), kind, around, home, capsys)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has all of these")
@pytest.mark.parametrize("place", WRITTEN)
def test_a_path_that_cannot_be_written_is_one_sentence(
    place: str, around: dict[str, str], home: Path, capsys: pytest.CaptureFixture
) -> None:
    command, ending = WRITTEN[place]
    for number, kind in enumerate((*NOWHERE, "folder" if ending else "file")):
        (home / str(number)).mkdir()
        refused(command, PATHS[kind](home / str(number), ending), kind, around, home, capsys)
