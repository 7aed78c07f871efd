"""Self-supervised pre-training in the manner of MERT (Li et al., ICLR 2024, arXiv 2306.00107).

Spans of a crop's frames are hidden from a student, which says what they were in two ways: which entries of a residual
vector quantiser's codebooks (the acoustic teacher), and which constant-Q magnitudes (the musical teacher). Here and
there snippets of other crops sound too, of which the targets know nothing. No label is read. Stage 1 then starts from
the student's encoder; the rest is thrown away.

    loss = sum over codebooks of the cross-entropy + 1 * mean squared error, both means over the hidden frames

A student that hears only the past predicts a hidden present from it, and no more than that.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from rtchord.errors import UserError
from train.augment import mix
from train.fit import Run, learning_rate, save_student
from train.frames import Frames
from train.model import ModelConfig
from train.rvq import Quantiser, load_quantiser
from train.students import KINDS


class PretrainConfig(BaseModel):
    """Settings of one pre-training; kept in its checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: str = Field(description="a key of train.students.KINDS")
    steps: int = Field(gt=0)
    batch: int = Field(16, gt=0)
    frames: int = Field(gt=0, description="frames of a crop")
    mask: float = Field(0.8, gt=0, le=1, description="span times the number of spans, over the frames; spans overlap")
    span: int = Field(5, gt=0, description="frames that are hidden together")
    mixture: float = Field(0.5, ge=0, le=1, description="share of the crops in which others sound")
    learning_rate: float = Field(5e-4, gt=0)
    warm_up: int = 300
    weight_decay: float = 0.02
    clip: float = 1.0
    save_every: int = Field(500, gt=0)
    seed: int = Field(0, ge=0)


def spans(rng: np.random.Generator, clips: int, frames: int, share: float, span: int) -> NDArray[np.bool_]:
    """(clips, frames): True in `share * frames / span` spans a clip, at least one.

    Spans start at different frames but overlap, as HuBERT's and MERT's do: of the default 0.8 about 0.57 is hidden.
    The number is rounded up or down at random, for all clips alike.
    """
    starts = max(1, frames - span + 1)
    count = min(max(1, int(share * frames / span + rng.random())), starts)
    first = rng.permuted(np.tile(np.arange(starts), (clips, 1)), axis=1)[:, :count]
    hidden = np.zeros((clips, frames), bool)
    for offset in range(min(span, frames)):
        np.put_along_axis(hidden, first + offset, True, axis=1)
    return hidden


class Pretraining(nn.Module):
    """A student with what pre-training adds: a learnt frame in place of hidden ones, and heads for both targets."""

    def __init__(self, student: nn.Module, codebooks: int, entries: int, bins: int) -> None:
        super().__init__()
        self.student = student
        self.shape = (codebooks, entries)
        self.hidden = nn.Parameter(torch.randn(bins) * 0.1)  # as a normalised frame
        self.codes = nn.Linear(student.width, codebooks * entries)  # one head for each codebook, side by side
        self.frame = nn.Linear(student.width, bins)

    def forward(self, frames: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Log magnitudes (clips, time, bins) and hidden (clips, time) bool -> of the n hidden frames: logits of the
        codes (n, codebooks, entries), and normalised frames (n, bins)."""
        student = self.student
        stand_in = student.mean + student.std * self.hidden
        encoded = student.encode(torch.where(hidden[..., None], stand_in, frames))[hidden]
        return self.codes(encoded).unflatten(-1, self.shape), self.frame(encoded)


def loss_of(
    network: Pretraining, quantiser: Quantiser, clean: Tensor, heard: Tensor, hidden: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Loss, and what to log of it. `clean` (clips, time, bins) is what the hidden frames are, `heard` what the student
    gets of the others."""
    targets = clean[hidden]
    codes = quantiser.codes(targets)
    with torch.autocast(clean.device.type, torch.bfloat16):
        logits, frame = network(heard, hidden)
    entropy = functional.cross_entropy(logits.float().mT, codes, reduction="none").mean(0)
    error = functional.mse_loss(frame.float(), (targets - network.student.mean) / network.student.std)
    hit = (logits.argmax(-1) == codes).float().mean()
    return entropy.sum() + error, {"entropy": entropy.mean().item(), "error": error.item(), "hit": hit.item()}


def pretrain(
    run: Run,
    config: PretrainConfig,
    folders: list[Path],
    codebooks: Path,
    model_config: ModelConfig | None,
    resume: bool,
) -> None:
    """Pre-train a student on the frames of `folders`, in the feature definition of `codebooks`, into `run`.

    `model_config`: as of `Kind.build`.
    """
    if run.resume.exists() and not resume:
        raise UserError(f"{str(run.folder)!r} holds a run already; go on with --resume, or choose another folder")
    quantiser, definition = load_quantiser(codebooks)
    frames = Frames(folders, definition)
    settings = {
        **config.model_dump(),
        "model": model_config.model_dump() if model_config else None,
        "codebooks": hashlib.sha256(codebooks.read_bytes()).hexdigest(),
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    student = KINDS[config.student].build(model_config)
    mean, std = frames.scale(np.random.default_rng(config.seed))
    student.mean.copy_(mean)
    student.std.copy_(std)
    network = Pretraining(student, *quantiser.codebooks.shape).to(device)
    quantiser.to(device)
    decayed = [p for p in network.parameters() if p.ndim >= 2]
    plain = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    first = 0
    if resume and run.resume.exists():
        state = torch.load(run.resume, weights_only=True, map_location=device)
        if state["config"] != settings:
            raise UserError(f"{str(run.folder)!r} was started with other settings; repeat those, or start a new run")
        network.load_state_dict(state["network"])
        student.mean.copy_(state["mean"])  # published layouts keep them out of their state
        student.std.copy_(state["std"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    run.folder.mkdir(parents=True, exist_ok=True)
    provenance = {"pretrain": settings, "hours": round(frames.hours, 2)}
    print(
        f"{frames.hours:.1f} h of music, {sum(p.numel() for p in student.parameters()):,} parameters", file=sys.stderr
    )

    network.train()
    started = time.monotonic()
    with tqdm(range(first, config.steps), initial=first, total=config.steps, unit="step", desc="pretrain") as bar:
        for step in bar:
            rng = np.random.default_rng([config.seed, step])
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
            clean = frames.crops(rng, config.batch, config.frames)
            heard = mix(clean, rng, config.mixture, frames.features)
            hidden = torch.from_numpy(spans(rng, *clean.shape[:2], config.mask, config.span))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            loss, parts = loss_of(network, quantiser, *(x.to(device) for x in (clean, heard, hidden)))
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(network.parameters(), config.clip)
            optimizer.step()
            if step % 20 == 0:
                bar.set_postfix({name: f"{value:.3f}" for name, value in parts.items()})
            done = step + 1
            if done % config.save_every == 0 or done == config.steps:
                per_step = (time.monotonic() - started) / (done - first)
                line = {"step": done, "loss": loss.item(), **parts, "s_per_step": per_step}
                with run.log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
                save_student(run.weights, student, frames.features, {**provenance, "step": done})
                temporary = run.resume.with_suffix(".tmp")
                state = {"network": network.state_dict(), "mean": student.mean, "std": student.std}
                state |= {"config": settings, "step": done, "optimizer": optimizer.state_dict()}
                torch.save(state, temporary)
                temporary.replace(run.resume)
