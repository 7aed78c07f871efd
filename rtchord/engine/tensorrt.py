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
from rtchord.chords import N_BASS, N_CLASSES
from rtchord.engine.base import Stepper, input_name, reason_of, state_shapes, stream_axis
from rtchord.engine.gpu import INSTEAD, Gpu
from rtchord.engine.manifest import Manifest, Target
from rtchord.errors import UserError


class TensorRtEngine:
    """An engine of TensorRT. `gpu` and `library` are for tests; otherwise the machine's own."""

    SUFFIX = ".engine"
    NAME, MODULE, EXTRA = "TensorRT", "tensorrt", "tensorrt"
    CAPTURED = True  # whether a step is captured as a CUDA graph by us

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
        self.manifest = manifest
        self._gpu = gpu or Gpu(f"{self.NAME} engine")
        self._library = library or self.library()
        name = manifest.file(self.SUFFIX)
        self._key = manifest.files[name]
        runtime = self._runtime = self._library.Runtime(self._library.Logger(self._library.Logger.ERROR))
        self._engine = runtime.deserialize_cuda_engine((folder / name).read_bytes())
        if self._engine is None:
            by = f"{self.NAME} {self._library.__version__}"
            raise UserError(f"engine {str(folder)!r} cannot be run by {by} on this GPU; build it again")
        self._check_tensors(folder)

    def _check_tensors(self, folder: Path) -> None:
        """UserError where the tensors are not those of which the manifest speaks."""
        manifest, engine = self.manifest, self._engine
        streams, bins, states = manifest.streams, manifest.features.bins, state_shapes(manifest)
        window = () if manifest.window is None else (manifest.window,)
        wanted: dict[str, tuple[tuple[int, ...], Any]] = {
            input_name(manifest): ((streams, *window, bins), np.float32),
            **states,
            self.output_name("classes"): ((streams, N_CLASSES), np.float32),
            self.output_name("bass"): ((streams, N_BASS), np.float32),
            **{self.output_name(f"next_{state}"): shape for state, shape in states.items()},
        }
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        there = {
            n: (tuple(engine.get_tensor_shape(n)), self._library.nptype(engine.get_tensor_dtype(n))) for n in names
        }
        if there != wanted:
            odd = sorted(n for n in there.keys() | wanted.keys() if there.get(n) != wanted.get(n))
            raise UserError(f"engine {str(folder)!r} does not fit its manifest: {', '.join(odd)}; build it again")

    def stepper(self) -> TensorRtStepper:
        return TensorRtStepper(self, self._gpu.queue())

    def output_name(self, name: str) -> str:
        """torch-tensorrt names outputs by their place, whatever the program calls them."""
        return f"output{('classes', 'bass', 'next_keys', 'next_values', 'next_filled').index(name)}"

    def context(self) -> Any:
        """What one direction of a stream is executed in."""
        return self._engine.create_execution_context()


class TensorRtStepper(Stepper):
    """Memory on the GPU for every tensor, two sets of the state, and a context for each direction."""

    def __init__(self, engine: TensorRtEngine, queue: Any) -> None:
        manifest = self._manifest = engine.manifest
        self._queue = queue
        super().__init__(manifest, queue.host_array)
        self._state_bytes = {
            name: int(np.prod(shape) * np.dtype(dtype).itemsize)
            for name, (shape, dtype) in state_shapes(manifest).items()
        }
        self._states = [
            {name: queue.allocate(size) for name, size in self._state_bytes.items()}
            for _ in range(2 if self._state_bytes else 1)
        ]
        self._sent = queue.allocate(self._input.nbytes)
        self._found = (queue.allocate(self._classes.nbytes), queue.allocate(self._bass.nbytes))
        self._contexts: list[Any] = []  # kept: a captured graph works in its context's memory
        self._begin([
            self._direction(engine, source, target)
            for source, target in zip(self._states, reversed(self._states), strict=True)
        ])  # fmt: skip

    def _direction(
        self, engine: TensorRtEngine, source: dict[str, int], target: dict[str, int]
    ) -> Callable[[], object]:
        """Reads one set of the state and writes the other."""
        context, queue = engine.context(), self._queue
        self._contexts.append(context)
        addresses = {input_name(self._manifest): self._sent, **source}
        outputs = dict(zip(("classes", "bass"), self._found, strict=True)) | {f"next_{k}": v for k, v in target.items()}
        addresses |= {engine.output_name(name): address for name, address in outputs.items()}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise RuntimeError(f"{engine.NAME} refused the address of {name}")
        refusal = f"{engine.NAME} did not execute"

        def execute() -> None:
            if not context.execute_async_v3(queue.stream):
                raise RuntimeError(refusal)

        launch = queue.captured(execute) if engine.CAPTURED else execute
        there, back = (self._input, self._sent), tuple(zip(self._found, (self._classes, self._bass), strict=True))

        # Nothing here refers to the stepper, so that its memory is free at once when its stream is over.
        def run() -> None:
            queue.send(*there)
            launch()
            for address, array in back:
                queue.fetch(address, array)
            queue.wait()

        return run

    def _clear(self, stream: int | None) -> None:
        streams = self._manifest.streams
        for state in self._states:
            for name, address in state.items():
                size = self._state_bytes[name]
                if stream is None:
                    self._queue.clear(address, size)
                    continue
                layers = state_shapes(self._manifest)[name][0][0] if stream_axis(name) else 1
                part = size // (layers * streams)
                for layer in range(layers):
                    self._queue.clear(address + (layer * streams + stream) * part, part)
        self._queue.wait()


class TensorRtRtxEngine(TensorRtEngine):
    """An engine of TensorRT-RTX, for GeForce and RTX cards. It is built without a GPU, compiled at its first start."""

    NAME, MODULE, EXTRA = "TensorRT-RTX", "tensorrt_rtx_bindings", "tensorrt-rtx"
    CAPTURED = False

    def __init__(self, folder: Path, manifest: Manifest, gpu: Any = None, library: Any = None) -> None:
        super().__init__(folder, manifest, gpu, library)
        self._kernels = self._engine.create_runtime_config().create_runtime_cache()  # shared by all contexts
        path = self._cache_file
        if path and path.is_file():
            self._kernels.deserialize(path.read_bytes())  # False where it is of no use: compiles anew

    @property
    def _cache_file(self) -> Path | None:
        kept = place("tensorrt-rtx")
        key = f"{self._key[:16]}-{self._gpu.name}-{self._library.__version__}"
        return kept and kept.folder / "".join(c if c.isalnum() or c in ".-" else "_" for c in key)

    def stepper(self) -> TensorRtStepper:
        made = super().stepper()
        self._keep_kernels()  # what its first steps compiled
        return made

    def context(self) -> Any:
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(config)

    def output_name(self, name: str) -> str:
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
