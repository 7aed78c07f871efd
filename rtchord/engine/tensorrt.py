"""TensorRT and TensorRT-RTX: one serialised engine that holds the whole network, run without PyTorch.

Nothing can fall back in silence: what is in the file is all there is to run. TensorRT's engine is launched as a CUDA
graph of ours; TensorRT-RTX captures its own, and keeps what it compiled for this GPU in a cache on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rtchord.cache import place
from rtchord.engine.base import Stepper, reason_of, state_shapes, stream_axis
from rtchord.engine.gpu import INSTEAD, Gpu
from rtchord.engine.manifest import Manifest, Target
from rtchord.errors import UserError


class TensorRtEngine(Stepper):
    """An engine of TensorRT. `gpu` and `library` are for tests; otherwise the machine's own."""

    SUFFIX = ".engine"
    NAME, MODULE, EXTRA = "TensorRT", "tensorrt", "tensorrt"

    @classmethod
    def library(cls) -> Any:
        """TensorRT's Python module; UserError in a sentence where it is missing or broken."""
        who = f"{cls.NAME} engine: {cls.NAME}"
        if find_spec(cls.MODULE) is None:
            raise UserError(f"{who} is not installed; `pip install 'rtchord[{cls.EXTRA}]'` {INSTEAD}")
        try:
            return import_module(cls.MODULE)
        except Exception as error:  # ImportError, OSError, or whatever a stub package raises
            raise UserError(f"{who} is installed but broken ({reason_of(error)}); reinstall it {INSTEAD}") from None

    @classmethod
    def probe(cls) -> Target:
        """This machine; UserError in a sentence where it cannot run such an engine."""
        library, gpu = cls.library(), Gpu(f"{cls.NAME} engine")
        version = f"{cls.NAME} {library.__version__}"
        return Target(gpu=gpu.name, capability=gpu.capability, library=version, cuda=gpu.cuda)

    def __init__(self, folder: Path, manifest: Manifest, gpu: Any = None, library: Any = None) -> None:
        self._gpu = gpu or Gpu(f"{self.NAME} engine")
        self._library = library or self.library()
        super().__init__(manifest, self._gpu.host_array)
        name = manifest.file(self.SUFFIX)
        self._key = manifest.files[name]
        runtime = self._runtime = self._library.Runtime(self._library.Logger(self._library.Logger.ERROR))
        self._engine = runtime.deserialize_cuda_engine((folder / name).read_bytes())
        if self._engine is None:
            by = f"{self.NAME} {self._library.__version__}"
            raise UserError(f"engine {str(folder)!r} cannot be run by {by} on this GPU; build it again")
        self._buffers(folder)
        self._runs = [self._run(i) for i in range(2 if self._states else 1)]
        for run in self._runs:
            run()
        self.reset()

    def _buffers(self, folder: Path) -> None:
        """Memory on the GPU for every tensor, two sets of the state."""
        shapes = state_shapes(self.manifest)
        wanted: dict[str, tuple[tuple[int, ...], Any]] = {
            self.input_name: (self._input.shape, np.float32),
            **shapes,
            self._output("classes"): (self._classes.shape, np.float32),
            self._output("bass"): (self._bass.shape, np.float32),
            **{self._output(f"next_{state}"): shape for state, shape in shapes.items()},
        }
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        there = {
            n: (tuple(engine.get_tensor_shape(n)), self._library.nptype(engine.get_tensor_dtype(n))) for n in names
        }
        if there != wanted:
            odd = sorted(n for n in there.keys() | wanted.keys() if there.get(n) != wanted.get(n))
            raise UserError(f"engine {str(folder)!r} does not fit its manifest: {', '.join(odd)}; build it again")

        def size(shape: tuple[int, ...], dtype: Any) -> int:
            return int(np.prod(shape) * np.dtype(dtype).itemsize)

        gpu = self._gpu
        self._state_bytes = {name: size(*shape) for name, shape in shapes.items()}
        self._states = (
            [{name: gpu.allocate(n) for name, n in self._state_bytes.items()} for _ in range(2)] if shapes else []
        )
        self._sent = gpu.allocate(self._input.nbytes)
        self._found = (gpu.allocate(self._classes.nbytes), gpu.allocate(self._bass.nbytes))

    def _output(self, name: str) -> str:
        """torch-tensorrt names outputs by their place, whatever the program calls them."""
        return f"output{('classes', 'bass', 'next_keys', 'next_values', 'next_filled').index(name)}"

    def _run(self, direction: int) -> Callable[[], object]:
        """Reads one set of the state and writes the other."""
        context = self._context()
        addresses = {self.input_name: self._sent}
        addresses |= dict(zip(map(self._output, ("classes", "bass")), self._found, strict=True))
        if self._states:
            addresses |= self._states[direction]
            addresses |= {self._output(f"next_{k}"): v for k, v in self._states[1 - direction].items()}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise RuntimeError(f"{self.NAME} refused the address of {name}")

        def execute() -> None:
            if not context.execute_async_v3(self._gpu.stream):
                raise RuntimeError(f"{self.NAME} did not execute")

        launch = self._launch(execute)

        def run() -> None:
            self._gpu.send(self._input, self._sent)
            launch()
            self._gpu.fetch(self._found[0], self._classes)
            self._gpu.fetch(self._found[1], self._bass)
            self._gpu.wait()

        return run

    def _context(self) -> Any:
        return self._engine.create_execution_context()

    def _launch(self, execute: Callable[[], None]) -> Callable[[], object]:
        launch: Callable[[], object] = self._gpu.captured(execute)
        return launch

    def _clear(self, stream: int | None) -> None:
        for state in self._states:
            for name, address in state.items():
                size, layers = (
                    self._state_bytes[name],
                    state_shapes(self.manifest)[name][0][0] if stream_axis(name) else 1,
                )
                if stream is None:
                    self._gpu.clear(address, size)
                    continue
                part = size // (layers * self.manifest.streams)
                for layer in range(layers):
                    self._gpu.clear(address + (layer * self.manifest.streams + stream) * part, part)
        self._gpu.wait()


class TensorRtRtxEngine(TensorRtEngine):
    """An engine of TensorRT-RTX, for GeForce and RTX cards. It is built without a GPU, compiled at its first start."""

    NAME, MODULE, EXTRA = "TensorRT-RTX", "tensorrt_rtx_bindings", "tensorrt-rtx"

    def __init__(self, folder: Path, manifest: Manifest, gpu: Any = None, library: Any = None) -> None:
        self._kernels: Any = None  # shared by both directions
        super().__init__(folder, manifest, gpu, library)
        self._keep_kernels()

    @property
    def _cache_file(self) -> Path | None:
        kept = place("tensorrt-rtx")
        key = f"{self._key[:16]}-{self._gpu.name}-{self._library.__version__}"
        return kept and kept.folder / "".join(c if c.isalnum() or c in ".-" else "_" for c in key)

    def _context(self) -> Any:
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
            path = self._cache_file
            if path and path.is_file():
                self._kernels.deserialize(path.read_bytes())  # False where it is of no use: compiles anew
        config.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(config)

    def _launch(self, execute: Callable[[], None]) -> Callable[[], object]:
        return execute

    def _output(self, name: str) -> str:
        return name

    def _keep_kernels(self) -> None:
        """Write what was compiled, unless the file holds it; a folder that cannot be written costs only time."""
        blob = bytes(self._kernels.serialize())
        path = self._cache_file
        if path is None:
            return
        try:
            if path.is_file() and path.read_bytes() == blob:
                return
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(blob)
            temporary.replace(path)
        except OSError:
            pass
