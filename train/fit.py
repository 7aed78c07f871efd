"""The training loop of both stages, its checkpoints and its resumption.

Stage 1 learns from a teacher's pseudo-labels alone; stage 2 starts from stage 1 and learns from true labels, with a
share of pseudo-labelled crops in every batch so that real recordings are not forgotten.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from rtchord.cqt import Features
from rtchord.errors import UserError
from train.data import Batch, Tracks, merge
from train.model import ModelConfig, Student


class FitConfig(BaseModel):
    """Settings of one training run; kept in its checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    batch: int = Field(16, gt=0)
    frames: int = Field(256, gt=0, description="frames of a crop")
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: int = 300
    weight_decay: float = 0.02
    clip: float = 1.0
    bass_weight: float = Field(0.3, description="of the bass loss beside the class loss")
    early: float = Field(1.0, ge=1, description="weight of true labels just after a change")
    smoothing: float = Field(0.03, description="label smoothing of true labels")
    rehearsal: float = Field(0.25, ge=0, lt=1, description="share of pseudo-labelled crops in a stage 2 batch")
    ema: float = Field(0.999, description="decay of the averaged weights, which are the ones kept")
    save_every: int = Field(500, gt=0)
    seed: int = Field(0, ge=0)


def cross_entropy(logits: Tensor, target: Tensor, known: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy against target distributions over the known frames."""
    classes = logits.shape[-1]
    target = target * (1 - smoothing) + smoothing / classes
    loss = -(target * torch.log_softmax(logits.float(), -1)).sum(-1)
    return (loss * known).sum() / known.sum().clamp(min=1)


def loss_of(model: Student, batch: Batch, config: FitConfig, smoothing: float) -> tuple[Tensor, float]:
    """Loss, and the share of known frames whose most likely class is the target's."""
    with torch.autocast("cpu", torch.bfloat16):
        classes, bass = model(batch.frames)
    loss = cross_entropy(classes, batch.classes, batch.known, smoothing)
    loss = loss + config.bass_weight * cross_entropy(bass, batch.bass, batch.bass_known, smoothing)
    hit = (classes.argmax(-1) == batch.classes.argmax(-1)).float()
    return loss, float((hit * batch.known).sum() / batch.known.sum().clamp(min=1))


def learning_rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


class Run:
    """A run folder: `student.safetensors` (averaged weights and how they came to be), `resume.pt`, `log.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / "student.safetensors"
        self.resume = folder / "resume.pt"
        self.log = folder / "log.jsonl"


def save_student(path: Path, model: Student, features: Features, provenance: dict[str, object]) -> None:
    """Weights with model sizes, feature definition and provenance in the file's metadata."""
    temporary = path.with_suffix(".tmp")
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        temporary,
        metadata={
            "model": model.config.model_dump_json(),
            "features": features.model_dump_json(),
            "provenance": json.dumps(provenance),
        },
    )
    temporary.replace(path)


def load_student(path: Path) -> tuple[Student, Features, dict[str, object]]:
    """A student in evaluation mode, its features and provenance."""
    if not path.is_file():
        raise UserError(f"no student at {str(path)!r}; train one with `python -m train stage1`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{str(path)!r} is not a student of this project ({error})") from None
    if not {"model", "features", "provenance"} <= metadata.keys():
        raise UserError(f"{str(path)!r} is not a student of this project (its metadata is missing)")
    model = Student(ModelConfig.model_validate_json(metadata["model"]))
    model.load_state_dict(load_file(path))
    features = Features.model_validate_json(metadata["features"])
    return model.eval(), features, json.loads(metadata["provenance"])


def fit(
    run: Run, config: FitConfig, features: Features, primary: list[Path], rehearsal: list[Path], initial: Path | None,
    model_config: ModelConfig, resume: bool,
) -> None:  # fmt: skip
    """Train on `primary` (and `rehearsal`), from `initial` or from scratch, into `run`."""
    if run.resume.exists() and not resume:
        raise UserError(f"{str(run.folder)!r} holds a run already; go on with --resume, or choose another folder")
    tracks = Tracks(primary, features)
    second = Tracks(rehearsal, features) if rehearsal else None
    provenance: dict[str, object] = {"fit": config.model_dump(), "hours": round(tracks.hours, 2), "soft": tracks.soft}
    if second:
        provenance["rehearsal_hours"] = round(second.hours, 2)
    torch.manual_seed(config.seed)
    if initial:
        model, initial_features, before = load_student(initial)
        if initial_features != features:
            raise UserError(f"{str(initial)!r} was trained on another feature definition")
        provenance["before"] = before
    else:
        model = Student(model_config)
        sample = torch.from_numpy(tracks.frames[:: max(1, len(tracks.frames) // 20_000)]).float()
        model.mean.copy_(sample.mean())
        model.std.copy_(sample.std())
    average = Student(model.config)
    average.load_state_dict(model.state_dict())
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    first = 0
    if resume and run.resume.exists():
        state = torch.load(run.resume, weights_only=True)
        if state["config"] != config.model_dump():
            raise UserError(f"{str(run.folder)!r} was started with other settings; repeat those, or start a new run")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    run.folder.mkdir(parents=True, exist_ok=True)
    print(f"{tracks.hours:.1f} h of music, {sum(p.numel() for p in model.parameters()):,} parameters", file=sys.stderr)

    n_second = round(config.batch * config.rehearsal) if second else 0
    model.train()
    started, seen = time.monotonic(), first
    with tqdm(range(first, config.steps), initial=first, total=config.steps, unit="step", desc="fit") as bar:
        for step in bar:
            rng = np.random.default_rng([config.seed, step])
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
            batch = tracks.batch(rng, config.batch - n_second, config.frames, config.early)
            if second and n_second:
                batch = merge(batch, second.batch(rng, n_second, config.frames))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            loss, hit = loss_of(model, batch, config, 0.0 if tracks.soft else config.smoothing)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            decay = min(config.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, new in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(new, 1 - decay)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}", hit=f"{hit:.3f}")
            done = step + 1
            if done % config.save_every == 0 or done == config.steps:
                per_step = (time.monotonic() - started) / (done - seen)
                line = {"step": done, "loss": round(loss.item(), 4), "hit": round(hit, 4), "s_per_step": per_step}
                with run.log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
                save_student(run.weights, average, features, {**provenance, "step": done})
                temporary = run.resume.with_suffix(".tmp")
                torch.save(
                    {
                        "config": config.model_dump(),
                        "step": done,
                        "model": model.state_dict(),
                        "average": average.state_dict(),
                        "optimizer": optimizer.state_dict(),
                    },
                    temporary,
                )
                temporary.replace(run.resume)
