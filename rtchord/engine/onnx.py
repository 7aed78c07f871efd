"""ONNX Runtime on one thread: the engine that runs everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rtchord import NO_REPORTS
from rtchord.engine.base import HostEngine, reason_of
from rtchord.engine.manifest import Manifest
from rtchord.errors import UserError


class OnnxEngine(HostEngine):
    """Each stream has two sets of cache buffers that swap roles at each step, bound once; the session is shared."""

    SUFFIX = ".onnx"

    @staticmethod
    def probe() -> None:
        """ONNX Runtime is a dependency, and its engines are bound to no machine."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import onnxruntime as ort

        # What the variable does not reach: a program that had imported it before us, and versions that log on Windows.
        if os.environ.get(NO_REPORTS) != "0":
            ort.disable_telemetry_events()
        options = ort.SessionOptions()
        # One thread that does not spin: a laptop on stage also runs a synth (measured: 2 spinning threads triple p99).
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                folder / manifest.file(self.SUFFIX), options, providers=["CPUExecutionProvider"]
            )
        except UserError:
            raise
        except Exception as error:  # onnxruntime raises many types, none public
            raise UserError(
                f"engine {str(folder)!r} cannot be run by ONNX Runtime {ort.__version__}: {reason_of(error)}"
            ) from None
        super().__init__(folder, manifest)

    def _bind(self, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Callable[[], object]:
        binding = self._session.io_binding()
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return partial(self._session.run_with_iobinding, binding)
