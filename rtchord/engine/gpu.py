"""What the TensorRT engines need of CUDA: memory, copies, a stream and graphs, through NVIDIA's own bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtchord.errors import UserError

INSTEAD = "or use --engine onnx"


class Gpu:
    """The first GPU that CUDA shows. `who` begins the sentence of what is missing; UserError where there is none."""

    def __init__(self, who: str) -> None:
        if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
            raise UserError(f"{who}: the package cuda-bindings is not installed; `pip install cuda-bindings` {INSTEAD}")
        from cuda.bindings import runtime

        self._runtime = runtime
        try:
            count = self._call("cudaGetDeviceCount")
        except Exception as error:
            raise UserError(
                f"{who}: this machine has no NVIDIA driver that works ({error}); install one {INSTEAD}"
            ) from None
        if not count:
            raise UserError(f"{who}: this machine has no NVIDIA GPU; use --engine onnx")
        self.properties = self._call("cudaGetDeviceProperties", 0)
        self._stream: Any = None

    def _call(self, name: str, *arguments: object) -> Any:
        """Result of a runtime call; its error as a RuntimeError."""
        error, *results = getattr(self._runtime, name)(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise RuntimeError(f"{name}: {error.name}")
        return results[0] if results else None

    @property
    def name(self) -> str:
        return str(self.properties.name.decode())

    @property
    def capability(self) -> str:
        return f"{self.properties.major}.{self.properties.minor}"

    @property
    def cuda(self) -> str:
        """CUDA version of the driver."""
        version = self._call("cudaDriverGetVersion")
        return f"{version // 1000}.{version % 1000 // 10}"

    @property
    def stream(self) -> int:
        """Our own stream, made at first use: graphs cannot be captured on the default one."""
        if self._stream is None:
            self._stream = self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        return int(self._stream)

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Zeroed array in page-locked memory, which is kept as long as the process."""
        size = int(np.prod(shape) * np.dtype(dtype).itemsize)
        address = int(self._call("cudaMallocHost", size))
        memory: NDArray[Any] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        memory[:] = 0
        array: NDArray[Any] = memory.view(dtype).reshape(shape)
        return array

    def allocate(self, size: int) -> int:
        """Address of `size` zeroed bytes on the GPU, which are kept as long as the process."""
        address = int(self._call("cudaMalloc", size))
        self.clear(address, size)
        return address

    def clear(self, address: int, size: int) -> None:
        self._call("cudaMemsetAsync", address, 0, size, self.stream)

    def send(self, array: NDArray[Any], address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def fetch(self, address: int, array: NDArray[Any]) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def wait(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def captured(self, work: Callable[[], None]) -> Callable[[], object]:
        """The work as a CUDA graph: a call that launches all of it at once. It has run once before, to warm up."""
        work()
        self.wait()
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self.stream)
        ready = self._call("cudaGraphInstantiate", graph, 0)
        return partial(self._call, "cudaGraphLaunch", ready, self.stream)
