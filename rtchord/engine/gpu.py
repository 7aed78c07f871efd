"""What the TensorRT engines need of CUDA: memory, copies, a stream and graphs, through NVIDIA's own bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any
from weakref import finalize

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
            count = called(runtime, "cudaGetDeviceCount")
        except Exception as error:
            raise UserError(
                f"{who}: this machine has no NVIDIA driver that works ({error}); install one {INSTEAD}"
            ) from None
        if not count:
            raise UserError(f"{who}: this machine has no NVIDIA GPU; use --engine onnx")
        self.properties = called(runtime, "cudaGetDeviceProperties", 0)

    @property
    def name(self) -> str:
        return str(self.properties.name.decode())

    @property
    def capability(self) -> str:
        return f"{self.properties.major}.{self.properties.minor}"

    @property
    def cuda(self) -> str:
        """CUDA version of the driver."""
        version = called(self._runtime, "cudaDriverGetVersion")
        return f"{version // 1000}.{version % 1000 // 10}"

    def queue(self) -> Queue:
        """A new queue of work."""
        return Queue(self._runtime)


class Queue:
    """Work that the GPU does in order, a CUDA stream, and the memory and graphs for it.

    It has a CUDA stream of its own: graphs cannot be captured on the default one, nor on one that is in use. What was
    allocated here lasts as long as the queue does, an array on the host as long as anybody refers to it.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.stream = int(self._owned("cudaStreamDestroy", "cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking))

    def _call(self, name: str, *arguments: object) -> Any:
        return called(self._runtime, name, *arguments)

    def _owned(self, release: str, name: str, *arguments: object) -> Any:
        """Result of a runtime call, which `release` takes back when the queue goes."""
        made = self._call(name, *arguments)
        finalize(self, getattr(self._runtime, release), made).atexit = False  # the end of the process takes all
        return made

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Zeroed array in page-locked memory."""
        size = int(np.prod(shape) * np.dtype(dtype).itemsize)
        address = int(self._call("cudaMallocHost", size))
        buffer = (ctypes.c_uint8 * size).from_address(address)
        finalize(buffer, self._runtime.cudaFreeHost, address).atexit = False
        memory: NDArray[Any] = np.ctypeslib.as_array(buffer)
        memory[:] = 0
        array: NDArray[Any] = memory.view(dtype).reshape(shape)
        return array

    def allocate(self, size: int) -> int:
        """Address of `size` zeroed bytes on the GPU."""
        address = int(self._owned("cudaFree", "cudaMalloc", size))
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
        ready = self._owned("cudaGraphExecDestroy", "cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return partial(called, self._runtime, "cudaGraphLaunch", ready, self.stream)


def called(runtime: Any, name: str, *arguments: object) -> Any:
    """Result of a call of CUDA's runtime; its error as a RuntimeError."""
    error, *results = getattr(runtime, name)(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        raise RuntimeError(f"{name}: {error.name}")
    return results[0] if results else None
