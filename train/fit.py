"""Training, whole: its settings, the loop, its checkpoints and its resumption.

stage1      from pseudo-labels alone
supervised  from true labels alone, from scratch
stage2      from a student of stage 1, on true labels, with selective distillation from the teacher; a share of
            pseudo-labelled crops in every batch, if wanted, so that real recordings are not forgotten

A step on several processes (torchrun) is one of a batch that many times as large: each draws from its own share of the
tracks, gradients are averaged.
"""

from __future__ import annotations

import copy
import fcntl
import json
import math
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, TextIO

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from train.augment import Augmentation
from train.data import Batch, Tracks, merge, quality_groups
from train.files import agree, check_place, lock, replaced, writing
from train.losses import class_weights, cross_entropy, distill, focal, mean_over, piece_means, selective_weight
from train.model import ModelConfig
from train.parallel import Ranks, made_ahead, processes
from train.students import (
    KINDS,
    AnyStudent,
    config_of,
    fresh,
    kind_of,
    load_student,
    load_tensors,
    save_student,
    tensors_of,
    widened,
)

BATCHES_AHEAD = 4  # made by threads while a GPU computes
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FitConfig(BaseModel):
    """Settings of one training run; kept in its checkpoint, which only goes on with the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Literal["stage1", "supervised", "stage2"]
    student: str = Field("live", description="a key of KINDS")
    features: str | None = Field(None, description="a key of DEFINITIONS; None: of `initial`, or the kind's own")
    steps: int = Field(gt=0)
    batch: int = Field(16, gt=0, description="crops a step, of each process")
    frames: int | None = Field(None, gt=0, description="of a crop; None for the student's own")
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: int = Field(300, ge=0, description="steps")
    weight_decay: float = Field(0.02, ge=0)
    clip: float = Field(1.0, gt=0, description="norm of the gradient at most")
    targets: Literal["soft", "hard"] = Field("soft", description="pseudo-labels as they are, or their likeliest class")
    bass_weight: float = Field(0.3, ge=0, description="of the bass loss beside the class loss")
    early: float = Field(1.0, ge=1, description="weight of true labels just after a change")
    label_delay: int = Field(0, ge=0, description="frames by which true labels come late")
    focal: float = Field(0.0, ge=0, description="gamma of the focal loss; 0 is the cross-entropy")
    smoothing: float = Field(0.03, ge=0, lt=1, description="label smoothing of the cross-entropy with hard targets")
    balance: float = Field(0.0, ge=0, le=1, description="a quality's frames weigh (their number)^-balance")
    rehearsal: float = Field(0.25, ge=0, lt=1, description="share of pseudo-labelled crops in a batch")
    distil: bool = Field(True, description="stage 2 learns from the teacher too")
    alpha: float = Field(0.3, ge=0, le=1, description="share of the distillation in the loss")
    temperature: float = Field(3.0, ge=1)
    selective: bool = Field(True, description="the teacher counts by its confidence")
    low: float = Field(0.1, ge=0, le=1, description="confidence below which the teacher does not count")
    high: float = Field(0.9, ge=0, le=1, description="confidence from which it counts less")
    floor: float = Field(0.2, ge=0, le=1, description="what it counts where it is certain")
    embedding_weight: float = Field(0.0, ge=0, lt=1, description="share of the embedding regulariser in the loss")
    embedding_kind: Literal["distance-correlation", "cosine-distance-difference"] = "distance-correlation"
    augmentation: Augmentation = Augmentation()
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are the ones kept")
    save_every: int = Field(500, gt=0, description="steps between checks: checkpoint, validation, log")
    patience: int = Field(10, gt=0, description="checks without a better validation loss before the run stops")
    validation_crops: int = Field(512, gt=0, description="of the validation set, evenly spread, at each check")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> FitConfig:
        if self.student not in KINDS:
            raise ValueError(f"student={self.student!r} is not one of {', '.join(KINDS)}")
        if self.features is not None and self.features not in DEFINITIONS:
            raise ValueError(f"features={self.features!r} is not one of {', '.join(DEFINITIONS)}")
        if 0 < self.focal < 1:
            raise ValueError(f"focal={self.focal} has no gradient at certainty; use 0 (cross-entropy), 1 or more")
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}")
        return self

    @property
    def definition(self) -> str:
        return self.features or KINDS[self.student].definition

    @property
    def crop(self) -> int:
        return self.frames or KINDS[self.student].frames

    @property
    def distilling(self) -> bool:
        return self.stage == "stage2" and self.distil and self.alpha > 0


class Objective(nn.Module):
    """A batch to its loss. A module, so that processes can average the gradients of the student inside it."""

    def __init__(self, student: AnyStudent, config: FitConfig, balance: Tensor | None = None) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.balance = balance  # (170,) weight of each class
        self.smoothing = 0.0 if config.stage == "stage1" and config.targets == "soft" else config.smoothing

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss, and the share of known frames whose most likely class is the target's."""
        config = self.config
        encoded, classes, bass = self.answers(batch.frames)
        loss = self.prediction(classes, batch.classes, batch.known, batch.teacher, self.balance)
        if bass is not None:
            loss = loss + config.bass_weight * self.prediction(bass, batch.bass, batch.bass_known, batch.teacher_bass)
        if batch.embedding is not None and batch.piece is not None:
            clips = batch.piece[:, 0] >= 0
            if int(clips.sum()) > 1:  # distances need two
                from train.regularise import REGULARISERS

                means = piece_means(encoded.float(), batch.piece, batch.embedding.shape[1])
                apart = REGULARISERS[config.embedding_kind](means[clips], batch.embedding[clips])
                loss = (1 - config.embedding_weight) * loss + config.embedding_weight * apart
        return loss, self.hit(classes, batch)

    def answers(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the heads read, and their logits, in the precision of the run."""
        dtype = DTYPES[self.config.precision]
        with torch.autocast(frames.device.type, dtype, enabled=dtype != torch.float32):
            encoded = self.student.encode(frames)
            return encoded, *self.student.heads(encoded)

    def prediction(
        self, logits: Tensor, target: Tensor, known: Tensor, teacher: Tensor | None, balance: Tensor | None = None
    ) -> Tensor:
        """alpha T^2 KL + (1 - alpha) focal where there is a teacher to learn from, else the latter alone."""
        config = self.config
        if config.focal:
            loss = focal(logits, target, known, config.focal, balance)
        else:
            loss = cross_entropy(logits, target, known, self.smoothing, balance)
        if teacher is None:
            return loss
        apart = distill(logits, teacher, config.temperature)
        if config.selective:
            apart = apart * selective_weight(teacher, config.temperature, config.low, config.high, config.floor)
        present = (teacher.sum(-1) > 0).float()
        return config.alpha * mean_over(apart, present) + (1 - config.alpha) * loss

    def validation(self, batch: Batch) -> Tensor:
        """(3,): sums over the known frames of the loss without a teacher, of the hits, and of the frames' weights."""
        _, classes, bass = self.answers(batch.frames)
        loss = self.prediction(classes, batch.classes, batch.known, None)
        if bass is not None:
            loss = loss + self.config.bass_weight * self.prediction(bass, batch.bass, batch.bass_known, None)
        known = batch.known.sum()
        return torch.stack((loss * known, self.hit(classes, batch) * known, known)).double()

    @staticmethod
    def hit(logits: Tensor, batch: Batch) -> Tensor:
        return mean_over((logits.argmax(-1) == batch.classes.argmax(-1)).float(), batch.known).detach()


def learning_rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


class Run:
    """A run folder: `student.safetensors` (averaged weights, the best where there is validation, and how they came to
    be), `resume.pt`, `log.jsonl`, `tensorboard/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / "student.safetensors"
        self.resume = folder / "resume.pt"
        self.log = folder / "log.jsonl"
        self.tensorboard = folder / "tensorboard"
        self._lock: TextIO | None = None

    def check_new(self, resume: bool) -> None:
        """UserError where the folder cannot be made, or holds a run already, unless that is wanted: `resume`."""
        check_place(self.folder, folder=True)
        if self.resume.exists() and not resume:
            raise UserError(f"{str(self.folder)!r} holds a run already; go on with --resume, or choose another folder")

    def open(self) -> None:
        """Make the folder, and let nobody else train there until `close`."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("a+")
        lock(self._lock.fileno(), fcntl.LOCK_EX, self.folder)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def checkpoint(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The last one, on the CPU, if there is one; UserError where it cannot be read or has other `settings`."""
        if not self.resume.exists():
            return None
        try:
            state = torch.load(self.resume, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, OSError, UnpicklingError):
            raise UserError(
                f"{str(self.resume)!r} is damaged; delete it to start anew, or choose another folder"
            ) from None
        if not settings.keys() <= state.keys():
            raise UserError(f"{str(self.resume)!r} is another command's; choose another folder")
        agree(self.folder, {name: state[name] for name in settings}, settings)
        return state

    def keep(self, state: dict[str, Any]) -> None:
        """Write a checkpoint."""
        file = BytesIO()
        torch.save(state, file)
        with replaced(self.resume) as temporary:
            temporary.write_bytes(file.getbuffer())

    def note(self, line: dict[str, float]) -> None:
        """Add a line to the log."""
        with writing(self.folder), self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")


def optimizer_of(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases and norms do not."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def fit(
    run: Run, config: FitConfig, data: list[Path], *, rehearse: list[Path] | None = None,
    validation: list[Path] | None = None, initial: Path | None = None, model_config: ModelConfig | None = None,
    resume: bool = False, device: str = "auto",
) -> AnyStudent:  # fmt: skip
    """Train a student on the tracks of `data` into `run`; returns the averaged network after the last step.

    `rehearse`: folders of pseudo-labelled tracks mixed into every batch. `validation`: folders of tracks with the same
    kind of targets; the averaged weights with the least loss there are the ones kept, and the run ends after
    `config.patience` checks without a better one. `initial`: a student of the same kind to start from (stage 2 needs
    one). `model_config`: sizes of a student from scratch. `device`: "auto", "cpu" or "cuda". Under torchrun every
    process calls this with the same arguments, and the first one writes.
    """
    if config.stage == "stage2" and initial is None:
        raise UserError(
            "stage2 goes on from a student; name it with --initial, or start from scratch with `supervised`"
        )
    if config.stage == "supervised" and rehearse:
        raise UserError("supervised learns from true labels alone; use stage2 to mix pseudo-labelled tracks in")
    run.check_new(resume)
    if config.features is None:
        config = config.model_copy(update={"features": _features_of(initial) or config.definition})
    with processes(device) as ranks, closing(run):
        return _fit(run, config, ranks, data, rehearse or [], validation or [], initial, model_config)


def _fit(
    run: Run, config: FitConfig, ranks: Ranks, data: list[Path], rehearse: list[Path], validation: list[Path],
    initial: Path | None, model_config: ModelConfig | None,
) -> AnyStudent:  # fmt: skip
    share = (ranks.rank, ranks.world)
    targets = config.targets if config.stage == "stage1" else "true"
    embedding = config.embedding_weight > 0
    tracks = Tracks(
        data, config.definition, targets, share, teacher=config.distilling, embedding=embedding,
        delay=config.label_delay,
    )  # fmt: skip
    second = Tracks(rehearse, config.definition, config.targets, share) if rehearse else None
    # Not shared out: of few tracks each process takes other crops.
    held_out = Tracks(validation, config.definition, targets) if validation else None
    provenance = _provenance(config, ranks, tracks, second)
    torch.manual_seed(config.seed)
    student, before = _student(config, initial, model_config, tracks)
    if before is not None:
        provenance["before"] = before
    student.to(ranks.device)
    objective = Objective(student, config, _balance(config, ranks, tracks))
    average = copy.deepcopy(student).eval()
    train = DistributedDataParallel(objective) if ranks.world > 1 else objective
    load_tensors(average, tensors_of(student))  # now every process has the first one's
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = optimizer_of(trained, config.learning_rate, config.weight_decay)
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.precision == "fp16")
    if ranks.rank == 0:
        run.open()
    progress = Progress(run, config, ranks, student, average, optimizer, scaler)
    first = progress.resumed()
    if ranks.total(torch.tensor(float(first))).item() != first * ranks.world:
        raise UserError(f"not every process sees the checkpoint of {str(run.folder)!r}; put the run on a shared folder")
    if ranks.rank == 0:
        print(
            f"{provenance['hours']} h of music, {sum(p.numel() for p in trained):,} parameters, {ranks.world} x "
            f"{ranks.device.type}",
            file=sys.stderr,
        )

    n_second = round(config.batch * config.rehearsal) if second else 0

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step, ranks.rank])
        batch = tracks.batch(rng, config.batch - n_second, config.crop, config.early, config.augmentation)
        if second and n_second:
            return merge(batch, second.batch(rng, n_second, config.crop, augmentation=config.augmentation))
        return batch

    student.train()
    started = time.monotonic()
    steps = range(first, first if progress.stopped else config.steps)
    ahead = BATCHES_AHEAD if ranks.device.type == "cuda" else 0
    with tqdm(
        made_ahead(make, steps, ahead), initial=first, total=config.steps, unit="step", desc=config.stage,
        disable=ranks.rank > 0,
    ) as bar:  # fmt: skip
        for step, batch in zip(steps, bar, strict=True):
            torch.manual_seed(config.seed * 1_000_003 + step + ranks.rank * 1_000_000_007)  # dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            loss, hit = train(batch.to(ranks.device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_grad_norm_(trained, config.clip)
            scaler.step(optimizer)
            scaler.update()
            decay = min(config.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, new in zip(average.parameters(), student.parameters(), strict=True):
                    mean.lerp_(new, 1 - decay)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}", hit=f"{hit.item():.3f}")
            done = step + 1
            if done % config.save_every == 0 or done == config.steps:
                line = {"loss": loss.item(), "hit": hit.item(), "learning_rate": learning_rate(config, step)}
                if held_out:
                    line |= validate(average, config, ranks, held_out)
                line["s_per_step"] = (time.monotonic() - started) / (done - first)
                progress.check(done, line, {**provenance, "step": done})
                if progress.stopped:
                    break
    progress.close()
    return average


def _provenance(config: FitConfig, ranks: Ranks, tracks: Tracks, second: Tracks | None) -> dict[str, object]:
    """What a student's file says of its training; UserError where no process has the teachers that are asked for."""
    having = [sum(name in one.track for one in tracks.opened) for name in ("classes", "embedding")]
    numbers = torch.tensor([tracks.hours, second.hours if second else 0.0, *having], dtype=torch.float64)
    hours, second_hours, taught, embedded = ranks.total(numbers).tolist()
    if config.distilling and not taught:
        raise UserError("no track has a teacher's posteriors beside its true labels; add them, or give --distil off")
    if config.embedding_weight and not embedded:
        raise UserError("no track has an embedding teacher's vectors; add them, or leave out --embedding-weight")
    provenance: dict[str, object] = {"fit": config.model_dump(), "hours": round(hours, 2), "soft": tracks.soft}
    if ranks.world > 1:
        provenance["processes"] = ranks.world
    if second:
        provenance["rehearsal_hours"] = round(second_hours, 2)
    return provenance


def _features_of(initial: Path | None) -> str | None:
    """The name of the features that a student hears, if they have one."""
    if initial is None:
        return None
    _, features, _ = load_student(initial)
    return next((name for name, definition in DEFINITIONS.items() if definition == features), None)


def _student(
    config: FitConfig, initial: Path | None, sizes: ModelConfig | None, tracks: Tracks
) -> tuple[AnyStudent, dict[str, object] | None]:
    """The network to train, and the provenance of the one it starts from."""
    if initial is None:
        student = fresh(config.student, sizes, tracks.features)
        sample = tracks.sample(20_000)
        student.mean.copy_(sample.mean())
        student.std.copy_(sample.std().clamp(min=1e-6))
        return student, None
    student, features, before = load_student(initial)
    if kind_of(student) != config.student:
        raise UserError(f"{str(initial)!r} is a student {kind_of(student)!r}, not {config.student!r}; see --student")
    student, features = widened(student, features, tracks.features)
    if features != tracks.features:
        raise UserError(f"{str(initial)!r} was trained on another feature definition than {config.definition!r}")
    if sizes and sizes != config_of(student).model_copy(update={"sets": sizes.sets}):
        raise UserError(f"{str(initial)!r} has other sizes than the ones given; leave those out to keep its own")
    return student, before


def _balance(config: FitConfig, ranks: Ranks, tracks: Tracks) -> Tensor | None:
    """(170,) weights of the classes, from the frames of each quality in all processes' tracks."""
    if not config.balance:
        return None
    return class_weights(ranks.total(tracks.quality_counts()), config.balance)[quality_groups()].to(ranks.device)


@torch.no_grad()
def validate(average: AnyStudent, config: FitConfig, ranks: Ranks, tracks: Tracks) -> dict[str, float]:
    """Loss and hits of the averaged network on crops of the validation set, unchanged and always the same ones."""
    which, first = tracks.windows(config.crop)
    chosen = np.linspace(0, len(which) - 1, min(len(which), config.validation_crops)).round().astype(np.int64)
    mine = chosen[ranks.rank :: ranks.world]
    objective = Objective(average, config)
    sums = torch.zeros(3, dtype=torch.float64, device=ranks.device)
    for start in range(0, len(mine), config.batch):
        part = mine[start : start + config.batch]
        sums += objective.validation(tracks.at(which[part], first[part], config.crop).to(ranks.device))
    loss, hit, known = ranks.total(sums).tolist()
    if not known:
        raise UserError("the validation set has no labelled frame; give another folder with --validation")
    return {"validation_loss": loss / known, "validation_hit": hit / known}


class Progress:
    """What a run knows of itself between steps: its checkpoint, its log, its best validation loss so far."""

    def __init__(
        self, run: Run, config: FitConfig, ranks: Ranks, student: AnyStudent, average: AnyStudent,
        optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
    ) -> None:  # fmt: skip
        self.run, self.config, self.ranks = run, config, ranks
        self.student, self.average, self.optimizer, self.scaler = student, average, optimizer, scaler
        self.settings = {"fit": config.model_dump(), "sizes": config_of(student).model_dump(), "world": ranks.world}
        self.best, self.waited = math.inf, 0
        self.writer: Any = None

    @property
    def stopped(self) -> bool:
        return self.waited >= self.config.patience

    def resumed(self) -> int:
        """Take up the run's last checkpoint, if it has one; steps done so far."""
        state = self.run.checkpoint(self.settings)
        if state is None:
            return 0
        load_tensors(self.student, state["student"])
        load_tensors(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best, self.waited = state["best"], state["waited"]
        return int(state["step"])

    def check(self, step: int, line: dict[str, float], provenance: dict[str, object]) -> None:
        """Keep the averaged weights if they are the best, the state of the run, and a line of its log."""
        if not all(map(math.isfinite, line.values())):
            raise UserError(
                f"at step {step} the loss is no number any more; start anew in another folder with a lower "
                "--learning-rate"
            )
        loss = line.get("validation_loss")
        better = loss is None or loss < self.best
        if loss is not None:
            self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        if self.ranks.rank > 0:
            return
        if better:
            kept = {name: round(line[name], 5) for name in ("validation_loss", "validation_hit") if name in line}
            save_student(self.run.weights, self.average, DEFINITIONS[self.config.definition], {**provenance, **kept})
        self.run.keep(
            {
                **self.settings,
                "step": step,
                "student": tensors_of(self.student),
                "average": tensors_of(self.average),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best": self.best,
                "waited": self.waited,
            }
        )
        self.run.note({"step": step, **{name: float(f"{x:.6g}") for name, x in line.items()}})
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.run.tensorboard), purge_step=step)
        for name, number in line.items():
            self.writer.add_scalar(name, number, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
