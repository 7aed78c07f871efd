"""OpenVINO on one thread: an optional engine for CPUs, from the same ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rtchord.engine.base import HostEngine, reason_of
from rtchord.engine.manifest import Manifest
from rtchord.errors import UserError


class OpenVinoEngine(HostEngine):
    """One request for each direction of a stream, whose tensors are our arrays; the compiled model is shared."""

    SUFFIX = ".onnx"

    @staticmethod
    def probe() -> None:
        """UserError in a sentence where OpenVINO is missing; its engines are bound to no machine."""
        if find_spec("openvino") is None:
            raise UserError(
                "OpenVINO engine: OpenVINO is not installed; `pip install 'rtchord[openvino]'` or use --engine onnx"
            )

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        # It would tell its maker that it was imported; without this package it has nothing to do so with.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        self._openvino = openvino
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # else it may compute in bfloat16
        }
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(folder / manifest.file(self.SUFFIX)), "CPU", options)
        except UserError:
            raise
        except Exception as error:  # openvino raises RuntimeError and others
            raise UserError(
                f"engine {str(folder)!r} cannot be run by OpenVINO {openvino.__version__}: {reason_of(error)}"
            ) from None
        super().__init__(folder, manifest)

    def _bind(self, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Callable[[], object]:
        request = self._model.create_infer_request()
        for name, array in (inputs | outputs).items():
            request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
        return request.infer  # type: ignore[no-any-return]
