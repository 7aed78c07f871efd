"""Any audio embedding that its user has as an ONNX file.

Input: float32 (1, samples), mono at the model's own rate, which the file's metadata names (`sample_rate`) or the user
does. Output (the first): float32 (1, frames, width), or (1, width) of all that went in.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from rtchord.errors import UserError
from train.store import EMBEDDING_SECONDS
from train.teachers.base import Float32, in_pieces

PROVIDERS = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in onnxruntime.get_available_providers()]
STRETCH = 10.0  # s of sound that a model with an answer for each frame hears at once


class OnnxEmbedder:
    """Runs the model over one stretch of sound after another and takes the mean of each piece.

    A stretch is as long as the model's input where that is fixed; else STRETCH, or one piece for a model that answers
    once. The last one is filled up with silence.
    """

    def __init__(self, path: Path, rate: int | None = None) -> None:
        if not path.is_file():
            raise UserError(f"no model at {str(path)!r}: give the path of an audio embedding in ONNX")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, PROVIDERS)
        except Exception as error:  # each kind of broken file has its own
            raise UserError(f"{str(path)!r} is no model that ONNX Runtime loads ({str(error)[:120]})") from None
        self.name = f"onnx:{path}"
        self.rate = rate or self._rate(path)
        self._input, shape, dims = self._fits(path)
        piece, long = EMBEDDING_SECONDS, STRETCH
        self._samples = shape if isinstance(shape, int) else round((piece if dims == 2 else long) * self.rate)
        self.width = self._run(np.zeros(self._samples, np.float32)).shape[1]

    def embed(self, audio: Float32, rate: int) -> Float32:
        import soxr

        if rate != self.rate:
            audio = soxr.resample(audio, rate, self.rate)
        starts = range(0, max(1, audio.size), self._samples)
        parts = [audio[start : start + self._samples] for start in starts]
        rows = [self._run(np.pad(part, (0, self._samples - part.size)).astype(np.float32)) for part in parts]
        # A row stands for its share of the stretch, and lies in the middle of that.
        times = [
            (start + (np.arange(len(part)) + 0.5) / len(part) * self._samples) / self.rate
            for start, part in zip(starts, rows, strict=True)
        ]
        at, seconds = np.concatenate(times), audio.size / self.rate
        inside = max(1, int(np.searchsorted(at, seconds)))
        return in_pieces(np.concatenate(rows)[:inside], at[:inside], seconds)

    def _run(self, samples: Float32) -> Float32:
        """(frames, width) of one stretch."""
        try:
            found = self._session.run(None, {self._input: samples[None]})[0]
        except Exception as error:  # of the model's own making
            raise UserError(f"{self.name} does not run on {samples.size} samples ({str(error)[:120]})") from None
        return np.asarray(found, np.float32).reshape(-1, found.shape[-1])

    def _rate(self, path: Path) -> int:
        said = self._session.get_modelmeta().custom_metadata_map.get("sample_rate", "")
        if not said.isdigit() or int(said) == 0:
            raise UserError(
                f"{str(path)!r} does not say its sample rate (metadata 'sample_rate'); give it as in onnx:{path}@16000"
            )
        return int(said)

    def _fits(self, path: Path) -> tuple[str, object, int]:
        """Name of the input, its samples (a number where they are fixed), and the dimensions of the output."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or inputs[0].type != "tensor(float)":
            raise UserError(f"{str(path)!r} must take one float32 input of shape (1, samples)")
        dims = len(outputs[0].shape)
        if dims not in (2, 3) or outputs[0].type != "tensor(float)":
            raise UserError(f"{str(path)!r} must give float32 of shape (1, frames, width) or (1, width)")
        return inputs[0].name, inputs[0].shape[1], dims
