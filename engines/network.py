"""A network in PyTorch, in the form in which it is to become an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rtchord.cqt import Features
from rtchord.engine import Manifest, sha256
from rtchord.engine.base import Float32, state_shapes
from rtchord.errors import UserError
from train.model import Cache, Student
from train.students import kind_of, load_student

Form = Literal["step", "window"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Network:
    """What is exported and what it must equal.

    `module`: in evaluation mode; float32 frames in, float32 posteriors out. A step takes (frame (streams, bins), keys,
    values, filled) and returns (classes (streams, 170), bass (streams, 13), next keys, next values, next filled); a
    window takes (frames (streams, window, bins)) and returns (classes, bass). `reference`: frames (n, bins) of one
    stream -> posteriors (n, 170), (n, 13) of the same form, in float32, by PyTorch eager. `draft`: a manifest without
    files, check or target.
    """

    module: nn.Module
    reference: Callable[[Float32], tuple[Float32, Float32]]
    draft: Manifest

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Zeros of the shapes that the module takes, by name and in order."""
        m = self.draft
        if m.window is not None:
            return {"frames": torch.zeros(m.streams, m.window, m.features.bins)}
        frame = torch.zeros(m.streams, m.features.bins)
        state = {name: torch.from_numpy(np.zeros(shape, dtype)) for name, (shape, dtype) in state_shapes(m).items()}
        return {"frame": frame, **state}

    @property
    def outputs(self) -> list[str]:
        return ["classes", "bass", *(f"next_{name}" for name in state_shapes(self.draft))]


class Step(nn.Module):
    """The student's step with flat inputs and outputs, posteriors instead of logits."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student.fix()

    def forward(self, frame: Tensor, keys: Tensor, values: Tensor, filled: Tensor) -> tuple[Tensor, ...]:
        classes, bass, cache = self.student.step(frame, Cache(keys, values, filled))
        return softmax(classes), softmax(bass), cache.keys, cache.values, cache.filled


class Window(nn.Module):
    """The student over a whole window, of which the newest frame is answered: what recomputing each hop costs."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        classes, bass = self.student(frames)
        return softmax(classes[:, -1]), softmax(bass[:, -1])


def softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits.float(), -1)


def in_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """The module with weights of that precision; scalars, which normalise the input, stay in float32.

    For int8 it stays as it is: its weights are rounded in the ONNX file.
    """
    if precision == "fp16":
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim and tensor.is_floating_point():
                tensor.data = tensor.data.half()
    return module


def from_student(
    weights: Path,
    form: Form = "step",
    streams: int = 1,
    precision: Precision = "fp32",
    name: str = "",
    delay: float = 0.0,
) -> Network:
    """The student of a training run. A window is as long as the student's attention reaches in one layer."""
    student, features, provenance = load_student(weights)
    if not isinstance(student, Student):
        raise UserError(f"{str(weights)!r} is a student {kind_of(student)!r}; only live ones become engines")
    exact = load_student(weights)[0]
    window = student.config.context if form == "window" else None
    draft = Manifest(
        name=name or weights.stem,
        backend="onnx",
        precision=precision,
        form=form,
        streams=streams,
        files={"none": "0" * 64},
        features=features,
        cache=tuple(student.empty_cache(streams).keys.shape) if form == "step" else None,
        window=window,
        delay=delay,
        source=sha256(weights),
        provenance=provenance,
    )  # fmt: skip
    module = in_precision((Step if form == "step" else Window)(student), precision).eval()
    return Network(
        module, over_sequence(exact) if window is None else over_windows(Window(exact), window, features), draft
    )


def over_sequence(student: Student) -> Callable[[Float32], tuple[Float32, Float32]]:
    """Reference of a step: the student over the whole stream at once, which equals its steps."""

    def reference(frames: Float32) -> tuple[Float32, Float32]:
        with torch.no_grad():
            classes, bass = student(torch.from_numpy(frames)[None])
        return softmax(classes[0]).numpy(), softmax(bass[0]).numpy()

    return reference


def over_windows(module: nn.Module, window: int, features: Features, batch: int = 32) -> Any:
    """Reference of a window form: the module over the window that ends at each frame, silence before the first.

    `module`: frames (batch, window, bins) -> posteriors (batch, 170), (batch, 13).
    """

    def reference(frames: Float32) -> tuple[Float32, Float32]:
        silence = np.full((window - 1, features.bins), np.log(features.log_offset), np.float32)
        padded = torch.from_numpy(np.concatenate((silence, frames)))
        windows = padded.unfold(0, window, 1).transpose(1, 2)  # (n, window, bins), a view
        with torch.no_grad():
            answers = [module(part) for part in windows.split(batch)]
        classes, bass = (torch.cat(parts).numpy() for parts in zip(*answers, strict=True))
        return classes, bass

    return reference
