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
import math
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from rtchord.errors import UserError
from train.augment import mix
from train.fit import BATCHES_AHEAD, Run, learning_rate, optimizer_of
from train.frames import Frames
from train.model import ModelConfig
from train.parallel import Ranks, made_ahead, processes
from train.rvq import Quantiser, load_quantiser
from train.students import KINDS, AnyStudent, config_of, fresh, load_tensors, save_student, tensors_of


class PretrainConfig(BaseModel):
    """Settings of one pre-training; kept in its checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: str = Field("live", description="a key of KINDS")
    steps: int = Field(gt=0)
    batch: int = Field(16, gt=0, description="crops a step, of each process")
    frames: int | None = Field(None, gt=0, description="of a crop; None for the student's own")
    mask: float = Field(0.8, gt=0, le=1, description="span times the number of spans, over the frames; spans overlap")
    span: int = Field(5, gt=0, description="frames that are hidden together")
    mixture: float = Field(0.5, ge=0, le=1, description="share of the crops in which others sound")
    learning_rate: float = Field(5e-4, gt=0)
    warm_up: int = Field(300, ge=0, description="steps")
    weight_decay: float = Field(0.02, ge=0)
    clip: float = Field(1.0, gt=0, description="norm of the gradient at most")
    save_every: int = Field(500, gt=0, description="steps between checkpoints")
    seed: int = Field(0, ge=0)

    @property
    def crop(self) -> int:
        return self.frames or KINDS[self.student].frames


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
    """A crop to its loss: a student, a learnt frame in place of hidden ones, heads for both targets, and the quantiser
    that makes one of them. A module, so that processes can average the gradients inside it."""

    def __init__(self, student: AnyStudent, quantiser: Quantiser) -> None:
        super().__init__()
        self.student, self.quantiser = student, quantiser
        self.shape = codebooks, entries = quantiser.codebooks.shape[:2]
        bins = quantiser.codebooks.shape[2]
        self.hidden = nn.Parameter(torch.randn(bins) * 0.1)  # as a normalised frame
        self.codes = nn.Linear(student.width, codebooks * entries)  # one head for each codebook, side by side
        self.frame = nn.Linear(student.width, bins)

    def answers(self, heard: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Log magnitudes (clips, time, bins) and hidden (clips, time) bool -> of the n hidden frames: logits of the
        codes (n, codebooks, entries), and normalised frames (n, bins); both float32."""
        stand_in = self.student.mean + self.student.std * self.hidden
        with torch.autocast(heard.device.type, torch.bfloat16):
            encoded = self.student.encode(torch.where(hidden[..., None], stand_in, heard))[hidden]
            codes, frame = self.codes(encoded), self.frame(encoded)
        return codes.float().unflatten(-1, self.shape), frame.float()

    def forward(self, clean: Tensor, heard: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Loss; and (3,) cross-entropy a codebook, squared error, share of codes found, without gradient.

        `clean` (clips, time, bins): what the hidden frames are. `heard`: what the student gets of the others.
        """
        rows = clean[hidden]
        codes = self.quantiser.codes(rows)
        logits, frame = self.answers(heard, hidden)
        entropy = functional.cross_entropy(logits.mT, codes, reduction="none").mean(0)
        error = functional.mse_loss(frame, (rows - self.student.mean) / self.student.std)
        found = (logits.argmax(-1) == codes).float().mean()
        return entropy.sum() + error, torch.stack((entropy.mean(), error, found)).detach()


def pretrain(
    run: Run, config: PretrainConfig, folders: list[Path], codebooks: Path, model_config: ModelConfig | None = None,
    resume: bool = False, device: str = "auto",
) -> None:  # fmt: skip
    """Pre-train a student on the frames of `folders`, in the feature definition of `codebooks`, into `run`.

    `model_config`: sizes, as of `Kind.build`. `device`: "auto", "cpu" or "cuda". Under torchrun every process calls
    this with the same arguments and draws from its own share of the tracks; the first one writes.
    """
    run.check_new(resume)
    with processes(device) as ranks, closing(run):
        _pretrain(run, config, ranks, folders, codebooks, model_config)


def _pretrain(
    run: Run, config: PretrainConfig, ranks: Ranks, folders: list[Path], codebooks: Path,
    model_config: ModelConfig | None,
) -> None:  # fmt: skip
    quantiser, definition = load_quantiser(codebooks)
    frames = Frames(folders, definition, (ranks.rank, ranks.world))
    torch.manual_seed(config.seed)
    student = fresh(config.student, model_config, frames.features)
    mean, std = frames.scale(np.random.default_rng(config.seed))
    student.mean.copy_(mean)
    student.std.copy_(std)
    network = Pretraining(student, quantiser).to(ranks.device)
    # The student's own heads have no part in this. Wrapped, all processes begin with the first one's numbers.
    train = DistributedDataParallel(network, find_unused_parameters=True) if ranks.world > 1 else network
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = optimizer_of(trained, config.learning_rate, config.weight_decay)
    settings = {
        **config.model_dump(),
        "sizes": config_of(student).model_dump(),
        "codebooks": hashlib.sha256(codebooks.read_bytes()).hexdigest(),
        "processes": ranks.world,
    }
    if ranks.rank == 0:
        run.open()
    first = 0
    if (state := run.checkpoint({"settings": settings})) is not None:
        network.load_state_dict(state["network"])
        load_tensors(student, state["student"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    hours = round(float(ranks.total(torch.tensor(frames.hours))), 2)
    if ranks.rank == 0:
        count = sum(p.numel() for p in student.parameters())
        print(f"{hours} h of music, {count:,} parameters, {ranks.world} x {ranks.device.type}", file=sys.stderr)

    def make(step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([config.seed, step, ranks.rank])
        clean = frames.crops(rng, config.batch, config.crop)
        heard = mix(clean, rng, config.mixture, frames.features)
        return clean, heard, torch.from_numpy(spans(rng, *clean.shape[:2], config.mask, config.span))

    train.train()
    started = time.monotonic()
    steps = range(first, config.steps)
    with tqdm(
        made_ahead(make, steps, BATCHES_AHEAD if ranks.device.type == "cuda" else 0), initial=first,
        total=config.steps, unit="step", desc="pretrain", disable=ranks.rank > 0,
    ) as bar:  # fmt: skip
        for step, batch in zip(steps, bar, strict=True):
            torch.manual_seed(config.seed * 1_000_003 + step + ranks.rank * 1_000_000_007)  # dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            loss, parts = train(*(x.to(ranks.device) for x in batch))
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(trained, config.clip)
            optimizer.step()
            done = step + 1
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}", found=f"{parts[2]:.3f}")
            if done % config.save_every == 0 or done == config.steps:
                line = dict(zip(("loss", "entropy", "error", "found"), [loss.item(), *parts.tolist()], strict=True))
                if not math.isfinite(line["loss"]):
                    raise UserError(
                        f"at step {done} the loss is no number any more; start anew in another folder at a lower rate"
                    )
                if ranks.rank > 0:
                    continue
                line["s_per_step"] = (time.monotonic() - started) / (done - first)
                save_student(
                    run.weights, student, frames.features, {"pretrain": settings, "hours": hours, "step": done}
                )
                state = {"network": network.state_dict(), "student": tensors_of(student)}
                run.keep({**state, "settings": settings, "step": done, "optimizer": optimizer.state_dict()})
                run.note({"step": done, **line})
