"""Export of a student's streaming step to ONNX, checked against the student itself."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rtchord.cqt import Features
from rtchord.engine import MANIFEST, Manifest, OnnxEngine, read_manifest, sealed, sha256
from rtchord.errors import UserError
from train.fit import load_student
from train.model import Cache, Student

MODEL = "step.onnx"
TOLERANCE = 1e-4  # largest difference of a posterior from the student's
CHECK_FRAMES = 400


class Step(nn.Module):
    """The student's step with flat inputs and outputs, posteriors instead of logits."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, frame: Tensor, keys: Tensor, values: Tensor, filled: Tensor) -> tuple[Tensor, ...]:
        classes, bass, cache = self.student.step(frame, Cache(keys, values, filled))
        return torch.softmax(classes, -1), torch.softmax(bass, -1), cache.keys, cache.values, cache.filled


def write_onnx(student: Student, path: Path) -> None:
    """The streaming step of one stream, static shapes."""
    cache = student.empty_cache()
    inputs = (torch.zeros(1, student.config.bins), cache.keys, cache.values, cache.filled)
    program = torch.onnx.export(
        Step(student).eval(),
        inputs,
        input_names=["frame", "keys", "values", "filled"],
        output_names=["classes", "bass", "next_keys", "next_values", "next_filled"],
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    for node in model.graph.node:  # traces of where the code lay on the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


def difference(student: Student, engine: OnnxEngine, frames: np.ndarray) -> dict[str, float]:
    """Largest and mean difference of posteriors over a stream of frames (n, bins), and agreement of their argmax."""
    with torch.no_grad():
        classes, bass = student(torch.from_numpy(frames)[None])
    expected = torch.softmax(classes[0], -1).numpy(), torch.softmax(bass[0], -1).numpy()
    engine.reset()
    answers = [tuple(part.copy() for part in engine.step(frame)) for frame in frames]
    got = np.stack([a for a, _ in answers]), np.stack([b for _, b in answers])
    errors = np.concatenate([np.abs(e - g).ravel() for e, g in zip(expected, got, strict=True)])
    agree = float((expected[0].argmax(-1) == got[0].argmax(-1)).mean())
    return {"frames": len(frames), "max_error": float(errors.max()), "mean_error": float(errors.mean()), "agree": agree}


def check_frames(features: Features, count: int) -> np.ndarray:
    """A stream of feature frames of music-like sound: sampled chords of decaying partials, from a fixed seed."""
    from rtchord.cqt import FrameStream

    rng = np.random.default_rng(0)
    rate = features.sample_rate
    samples = count * features.hop
    t = np.arange(rate) / rate
    audio = np.zeros(samples + rate, np.float32)
    for start in range(0, samples, rate // 2):
        for note in rng.choice(np.arange(40, 80), 4, replace=False):
            frequency = 440 * 2 ** ((note - 69) / 12)
            tone = sum(np.sin(2 * np.pi * frequency * k * t) / k for k in (1, 2, 3, 4))
            audio[start : start + rate] += (0.1 * tone * np.exp(-3 * t)).astype(np.float32)
    return FrameStream(rate, features).push(audio[:samples])


def export(weights: Path, target: Path, name: str, delay: float, replace: bool) -> Manifest:
    """Write an engine folder from a student; nothing is left behind if the check fails."""
    student, features, provenance = load_student(weights)
    if target.exists() and not replace:
        raise UserError(f"{str(target)!r} exists; choose another folder or give --replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write_onnx(student, temporary / MODEL)
        cache = tuple(student.empty_cache().keys.shape)
        draft = Manifest(
            name=name, backend="onnx", model=MODEL, sha256=sha256(temporary / MODEL), features=features,
            cache=cache, delay=delay, check={}, provenance=provenance,
        )  # fmt: skip
        check = difference(student, OnnxEngine(temporary, draft), check_frames(features, CHECK_FRAMES))
        if not check["max_error"] <= TOLERANCE:
            raise UserError(f"the exported engine differs from its student by {check['max_error']:.2g} (> {TOLERANCE})")
        manifest = sealed(draft.model_copy(update={"check": check}))
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def describe(folder: Path, delay: float | None, results: list[Path]) -> Manifest:
    """Write a measured delay and scores (files of `python -m benchmarks online --output`) into an engine's manifest."""
    manifest = read_manifest(folder)
    scores = dict(manifest.scores)
    for path in results:
        try:
            result = json.loads(path.read_text())
            scores[f"{result['set']}, {result['latency']}"] = {k: float(v) for k, v in result["scores"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{str(path)!r} is no result of `python -m benchmarks online` ({error})") from None
    changes = {"scores": scores} | ({} if delay is None else {"delay": delay})
    manifest = sealed(Manifest.model_validate({**manifest.model_dump(), **changes}))
    temporary = folder / f".{MANIFEST}.tmp"
    temporary.write_text(manifest.model_dump_json(indent=1) + "\n")
    temporary.replace(folder / MANIFEST)
    return manifest
