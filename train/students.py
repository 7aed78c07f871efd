"""The students by name: how each is built, what it is trained on, and its file.

"live": the causal, streaming 2E1D of `train.model` (with `future` > 0 its bidirectional twin). "2e1d" and "btc": the
papers' bidirectional networks of `train.published`. All of them have `encode` (frames -> what the heads read), `heads`
(that -> logits of the classes and, the live one alone, of the bass), `width`, and normalise their input by the buffers
`mean` and `std`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from rtchord.cqt import STAGE, Features
from rtchord.errors import UserError
from train.files import replaced
from train.model import ModelConfig, Student
from train.published import BTC, WINDOW, Published, TwoEncoders

AnyStudent = Student | Published
Float32 = NDArray[np.float32]

WINDOWS_AT_ONCE = 32


@dataclass(frozen=True)
class Kind:
    """A kind of student. `definition`: default feature definition (a key of DEFINITIONS). `frames`: of a training crop.

    `build(config)`: a network with fresh weights; None for the kind's own sizes. The papers' networks have one size:
    of a config they take the dropout, and what else it sets is a UserError.
    """

    network: type[AnyStudent]
    definition: str
    frames: int
    build: Callable[[ModelConfig | None], AnyStudent]


PAPERS_DROPOUT = ModelConfig(dropout=0.2)  # of BTC; used for 2E1D as well


def _published(network: type[TwoEncoders] | type[BTC], definition: str) -> Kind:
    def build(config: ModelConfig | None) -> AnyStudent:
        config = config or PAPERS_DROPOUT
        if config.model_fields_set - {"dropout"}:
            raise UserError(f"{network.__name__} has the sizes of its paper; only its dropout can be set")
        return network(dropout=config.dropout)

    return Kind(network, definition, WINDOW, build)


KINDS: dict[str, Kind] = {
    "live": Kind(Student, STAGE, 256, lambda config: Student(config or ModelConfig())),
    "2e1d": _published(TwoEncoders, "librosa-0.11"),
    "btc": _published(BTC, "librosa-0.6.3"),
}


def fresh(kind: str, sizes: ModelConfig | None, features: Features) -> AnyStudent:
    """A network of a kind with fresh weights, for frames of `features`; `sizes` as for `Kind.build`."""
    if len(features.sets) > 1:
        sizes = (sizes or ModelConfig()).model_copy(update={"sets": len(features.sets)})
    return KINDS[kind].build(sizes)


def widened(model: AnyStudent, features: Features, wanted: Features) -> tuple[AnyStudent, Features]:
    """A student and its features, for frames of `wanted` if those of `features` are the first set of bins in them: it
    does not heed the other sets yet. Where they are not, both as they are."""
    if not isinstance(model, Student) or features == wanted or features != wanted.sets[0]:
        return model, features
    wider = Student(model.config.model_copy(update={"sets": len(wanted.sets)}))
    kernel = torch.zeros_like(wider.harmonic.kernel.data)
    kernel[: len(model.harmonic.kernel)] = model.harmonic.kernel.data
    load_tensors(wider, {**tensors_of(model), "harmonic.kernel": kernel})
    return wider.train(model.training), wanted


def kind_of(model: AnyStudent) -> str:
    """The key of KINDS of a network."""
    return next(name for name, kind in KINDS.items() if isinstance(model, kind.network))


def config_of(model: AnyStudent) -> ModelConfig:
    """What `Kind.build` made the network of."""
    return model.config if isinstance(model, Student) else ModelConfig(dropout=model.dropout)


def tensors_of(model: AnyStudent) -> dict[str, Tensor]:
    """Every tensor of a student by name, the normalisation `mean` and `std` among them; no copies."""
    return {"mean": model.mean, "std": model.std, **model.state_dict()}


def load_tensors(model: AnyStudent, tensors: dict[str, Tensor]) -> None:
    """The reverse of `tensors_of`; RuntimeError where they are another network's."""
    own = model.state_dict()
    model.load_state_dict({name: t for name, t in tensors.items() if name in own or name not in ("mean", "std")})
    # The published layouts keep the normalisation beside their tensors.
    model.mean.copy_(tensors["mean"])
    model.std.copy_(tensors["std"])


def window_starts(frames: int) -> list[int]:
    """First frames of the windows over a recording of `frames`: each half over the one before, the last one ends with
    the recording."""
    last = max(0, frames - WINDOW)
    return [*range(0, last, WINDOW // 2), last]


@torch.no_grad()
def posteriors(network: AnyStudent, frames: Tensor) -> tuple[Float32, Float32 | None]:
    """Posteriors (n, 170) and (n, 13), None of a network without a bass, of a recording's `frames` (n, bins).

    Our own network hears everything at once. The papers' hear windows of WINDOW frames, as they were trained (a
    shorter recording is a window of its own length); what several say of a frame is averaged.
    """
    device = next(network.parameters()).device
    whole = isinstance(network, Student)
    starts = [0] if whole else window_starts(len(frames))
    size = len(frames) if whole else min(WINDOW, len(frames))
    sums: list[Tensor] = []
    heard = torch.zeros(len(frames), 1, device=device)
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        batch = starts[first : first + WINDOWS_AT_ONCE]
        windows = torch.stack([frames[start : start + size] for start in batch]).to(device)
        logits = [part for part in network.heads(network.encode(windows)) if part is not None]
        found = [torch.softmax(part.float(), -1) for part in logits]
        sums = sums or [part.new_zeros(len(frames), part.shape[-1]) for part in found]
        for number, start in enumerate(batch):
            heard[start : start + size] += 1
            for total, part in zip(sums, found, strict=True):
                total[start : start + size] += part[number]
    classes, *bass = [(total / heard).cpu().numpy() for total in sums]
    return classes, bass[0] if bass else None


def save_student(path: Path, model: AnyStudent, features: Features, provenance: dict[str, object]) -> None:
    """Weights with kind, model sizes, feature definition and provenance in the file's metadata."""
    kind = kind_of(model)
    metadata = {
        "model": config_of(model).model_dump_json(exclude_unset=kind != "live"),
        "features": features.model_dump_json(),
        "provenance": json.dumps(provenance),
    }
    if kind != "live":
        metadata["kind"] = kind
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors_of(model).items()}
    with replaced(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def load_student(path: Path) -> tuple[AnyStudent, Features, dict[str, object]]:
    """A student in evaluation mode, its features and provenance. UserError where the file holds none."""
    if not path.is_file():
        raise UserError(f"no student at {str(path)!r}; train one with `python -m train stage1`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:  # of a file that may not be read too
        raise UserError(f"{str(path)!r} is not a student of this project ({error})") from None
    if not {"model", "features", "provenance"} <= metadata.keys():
        raise UserError(f"{str(path)!r} is not a student of this project (its metadata is missing)")
    kind = metadata.get("kind", "live")
    if kind not in KINDS:
        raise UserError(f"{str(path)!r} is a student of kind {kind!r}, not one of {', '.join(KINDS)}")
    try:
        model = KINDS[kind].build(ModelConfig.model_validate_json(metadata["model"]))
        features = Features.model_validate_json(metadata["features"])
        provenance = json.loads(metadata["provenance"])
    except ValueError:
        raise UserError(
            f"{str(path)!r} is not a student of this project (its metadata is damaged, or of an earlier layout)"
        ) from None
    if isinstance(model, Student) and model.config.bins * model.config.sets != features.bins:
        raise UserError(f"{str(path)!r} is damaged: its network hears other bins than its features have")
    try:
        load_tensors(model, load_file(path))
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{str(path)!r} does not hold the tensors of its kind {kind!r} ({reason})") from None
    return model.eval(), features, provenance
