"""The GPU engines on a machine without a GPU: every sentence, and the buffers with ONNX Runtime as the accelerator.

The stand-ins have the names and signatures of NVIDIA's bindings (TensorRT-RTX 1.7, cuda-bindings 13) as far as our code
uses them; "device" memory is host memory, so what is proved is which tensor is read and written when.
"""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

import rtchord
from rtchord import engine
from rtchord.engine.base import state_shapes
from rtchord.engine.gpu import Gpu, Queue
from rtchord.engine.manifest import Manifest
from rtchord.engine.tensorrt import TensorRtEngine, TensorRtRtxEngine, TensorRtStepper
from rtchord.errors import UserError

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class FakeGpu:
    name = "NVIDIA Fake"

    def __init__(self) -> None:
        self.queues: list[FakeQueue] = []

    def queue(self) -> "FakeQueue":
        self.queues.append(FakeQueue(7 + len(self.queues)))
        return self.queues[-1]


class FakeQueue:
    """Host memory in place of a GPU's; counts what is launched."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.kept: list[np.ndarray] = []
        self.captures = 0

    def host_array(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.zeros(shape, dtype)

    def allocate(self, size: int) -> int:
        self.kept.append(np.zeros(size, np.uint8))
        return self.kept[-1].ctypes.data

    def clear(self, address: int, size: int) -> None:
        ctypes.memset(address, 0, size)

    def send(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def fetch(self, address: int, array: np.ndarray) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def wait(self) -> None:
        """Nothing runs beside us."""

    def captured(self, work: Callable[[], None]) -> Callable[[], object]:
        self.captures += 1
        return work


class FakeContext:
    def __init__(self, of: "FakeEngine") -> None:
        self.of, self.addresses = of, {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.of.tensors

    def execute_async_v3(self, stream: int) -> bool:
        assert stream >= 7, "a stream of ours"
        binding = self.of.session.io_binding()
        for name, (shape, dtype, original, is_input) in self.of.tensors.items():
            bind = binding.bind_input if is_input else binding.bind_output
            bind(original, "cpu", 0, dtype, shape, self.addresses[name])
        self.of.session.run_with_iobinding(binding)
        return True


class FakeCache:
    def __init__(self) -> None:
        self.had = b""

    def deserialize(self, blob: bytes) -> bool:
        self.had = blob
        return True

    def serialize(self) -> bytes:
        return b"kernels"


class FakeEngine:
    """An ONNX file that answers like a TensorRT engine. `numbered`: outputs named as torch-tensorrt names them."""

    def __init__(self, blob: bytes, numbered: bool) -> None:
        self.session = ort.InferenceSession(blob, providers=["CPUExecutionProvider"])
        self.tensors = {t.name: (tuple(t.shape), DTYPES[t.type], t.name, True) for t in self.session.get_inputs()}
        for i, t in enumerate(self.session.get_outputs()):
            name = f"output{i}" if numbered else t.name
            self.tensors[name] = (tuple(t.shape), DTYPES[t.type], t.name, False)
        self.num_io_tensors = len(self.tensors)
        self.config: SimpleNamespace | None = None

    def get_tensor_name(self, i: int) -> str:
        return list(self.tensors)[i]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> type:
        return self.tensors[name][1]

    def create_runtime_config(self) -> SimpleNamespace:
        self.config = SimpleNamespace(create_runtime_cache=FakeCache, cache=None)
        self.config.set_runtime_cache = lambda cache: setattr(self.config, "cache", cache)
        return self.config

    def create_execution_context(self, _config: object = None) -> FakeContext:
        return FakeContext(self)


class FakeLogger:
    ERROR = 1

    def __init__(self, _level: int) -> None: ...


def library(numbered: bool) -> SimpleNamespace:
    def runtime(_logger: object) -> SimpleNamespace:
        return SimpleNamespace(deserialize_cuda_engine=lambda blob: FakeEngine(blob, numbered) if blob else None)

    return SimpleNamespace(
        Logger=FakeLogger, Runtime=runtime, nptype=lambda dtype: dtype, __version__="1.0",
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTCHORD_ENGINES", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def as_backend(tmp_path: Path, backend: str, suffix: str = ".engine", **changes: object) -> tuple[Path, Manifest]:
    """The shipped engine, sealed as one of another backend."""
    folder = Path(shutil.copytree(engine.shipped(), tmp_path / backend))
    (folder / "model.onnx").rename(folder / f"model{suffix}")
    files = {f"model{suffix}": engine.sha256(folder / f"model{suffix}")}
    old = engine.read_manifest(folder)
    return folder, engine.write_manifest(folder, old.model_copy(update={"backend": backend, "files": files, **changes}))


@pytest.mark.parametrize(
    ("backend", "kind", "numbered"),
    [("tensorrt", TensorRtEngine, True), ("tensorrt-rtx", TensorRtRtxEngine, False)],
)
def test_the_buffers_and_resets_of_tensorrt(tmp_path: Path, backend: str, kind: type, numbered: bool) -> None:
    folder, manifest = as_backend(tmp_path, backend)
    gpu = FakeGpu()
    loaded = kind(folder, manifest, gpu, library(numbered))
    made, other = loaded.stepper(), loaded.stepper()
    portable = engine.load().stepper()
    frames = np.random.default_rng(0).normal(-1, 2, (90, manifest.features.bins)).astype(np.float32)
    for i, frame in enumerate([*frames, *frames]):
        if i == len(frames) - 1:
            made.reset()
            portable.reset()
        other.step(frames[-1 - i % len(frames)])  # of another stream, of which this one knows nothing
        for mine, theirs in zip(made.step(frame), portable.step(frame), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    made.reset(0)
    portable.reset(0)
    np.testing.assert_array_equal(made.step(frames[0])[0], portable.step(frames[0])[0])
    captures = 2 if backend == "tensorrt" else 0
    assert [queue.captures for queue in gpu.queues] == 2 * [captures], "one graph for each direction; RTX has its own"


def test_a_reset_of_one_of_several_streams_leaves_the_others() -> None:
    layers, streams = 2, 3
    portable = engine.load().manifest
    manifest = portable.model_copy(update={"streams": streams, "cache": (layers, streams, 1, 2, 2)})

    class Ones:
        """Fills the next state with ones, whatever it is given."""

        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, _stream: int) -> bool:
            for name, (shape, dtype) in state_shapes(manifest).items():
                array(self.addresses[f"next_{name}"], shape, dtype)[...] = 1
            return True

    def array(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        size = int(np.prod(shape) * np.dtype(dtype).itemsize)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)

    loaded = SimpleNamespace(manifest=manifest, context=Ones, output_name=str, NAME="x", CAPTURED=False)
    stepper = TensorRtStepper(loaded, FakeQueue(7))
    for _ in range(2):  # in either direction
        stepper.step(np.zeros((streams, manifest.features.bins), np.float32))
    stepper.reset(1)
    for state in stepper._states:
        for name, (shape, dtype) in state_shapes(manifest).items():
            found = np.moveaxis(array(state[name], shape, dtype), 0 if name == "filled" else 1, 0)
            assert [part.any() for part in found] == [True, False, True]
            assert found[[0, 2]].all()


def test_tensorrt_rtx_keeps_what_it_compiled(tmp_path: Path) -> None:
    folder, manifest = as_backend(tmp_path, "tensorrt-rtx")
    first = TensorRtRtxEngine(folder, manifest, FakeGpu(), library(False))
    first.stepper()
    assert first._kernels.had == b""
    assert first._engine.config.cuda_graph_strategy == "whole graph"
    [kept] = (tmp_path / "cache" / "rtchord" / "tensorrt-rtx").iterdir()
    assert kept.read_bytes() == b"kernels"
    second = TensorRtRtxEngine(folder, manifest, FakeGpu(), library(False))
    second.stepper()
    assert second._kernels.had == b"kernels"
    assert second._engine.config.cache is second._kernels


def test_a_cache_that_cannot_be_kept_stops_nothing(tmp_path: Path) -> None:
    folder, manifest = as_backend(tmp_path, "tensorrt-rtx")
    (tmp_path / "cache").write_text("a file where the folder should be")
    stepper = TensorRtRtxEngine(folder, manifest, FakeGpu(), library(False)).stepper()
    assert stepper.step(np.zeros(manifest.features.bins, np.float32))


def test_an_engine_whose_tensors_are_others_is_refused(tmp_path: Path) -> None:
    folder, manifest = as_backend(tmp_path, "tensorrt-rtx", cache=(7, 1, 5, 31, 32))
    with pytest.raises(UserError, match="does not fit its manifest: keys, next_keys, next_values, values; build"):
        TensorRtRtxEngine(folder, manifest, FakeGpu(), library(False))


def test_an_engine_that_the_gpu_refuses_is_one_sentence(tmp_path: Path) -> None:
    folder, manifest = as_backend(tmp_path, "tensorrt")
    (folder / "model.engine").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be run by TensorRT 1\.0 on this GPU; build it again"):
        TensorRtEngine(folder, manifest, FakeGpu(), library(True))


def runtime(**calls: object) -> ModuleType:
    """cuda.bindings.runtime, in which a call answers (error, *results)."""
    success, failure = SimpleNamespace(name="cudaSuccess"), SimpleNamespace(name="cudaErrorNoDevice")
    made = ModuleType("cuda.bindings.runtime")
    made.cudaError_t = SimpleNamespace(cudaSuccess=success)  # type: ignore[attr-defined]
    for name, result in calls.items():
        setattr(made, name, lambda *_, result=result: (failure,) if result is None else (success, result))
    return made


def use(monkeypatch: pytest.MonkeyPatch, made: ModuleType) -> None:
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr("rtchord.engine.gpu.find_spec", lambda _name: True)


def test_the_gpu_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name=b"NVIDIA A", major=8, minor=6)
    use(
        monkeypatch,
        runtime(cudaGetDeviceCount=1, cudaGetDeviceProperties=properties, cudaDriverGetVersion=13010),
    )
    gpu = Gpu("x")
    assert (gpu.name, gpu.capability, gpu.cuda) == ("NVIDIA A", "8.6", "13.1")


def test_what_a_stream_took_of_the_gpu_is_given_back_when_it_is_over() -> None:
    taken: dict[tuple[str, int], np.ndarray] = {}

    def take(kind: str) -> Callable[..., int]:
        def make(*arguments: object) -> int:
            memory = np.ones(arguments[0] if kind in ("Memory", "Host") else 1, np.uint8)
            taken[kind, memory.ctypes.data] = memory
            return memory.ctypes.data

        return make

    def give(kind: str) -> Callable[[int], None]:
        return lambda what: taken.pop((kind, what))

    made = runtime()
    calls = {
        "cudaStreamCreateWithFlags": take("Stream"), "cudaStreamDestroy": give("Stream"),
        "cudaMalloc": take("Memory"), "cudaFree": give("Memory"),
        "cudaMallocHost": take("Host"), "cudaFreeHost": give("Host"),
        "cudaStreamEndCapture": take("Graph"), "cudaGraphDestroy": give("Graph"),
        "cudaGraphInstantiate": take("Exec"), "cudaGraphExecDestroy": give("Exec"),
        "cudaMemsetAsync": lambda address, value, size, _stream: ctypes.memset(address, value, size),
        **dict.fromkeys(("cudaStreamBeginCapture", "cudaStreamSynchronize", "cudaGraphLaunch"), lambda *_: None),
    }  # fmt: skip
    for name, call in calls.items():
        setattr(made, name, lambda *arguments, call=call: (made.cudaError_t.cudaSuccess, call(*arguments)))
    made.cudaStreamNonBlocking, made.cudaStreamCaptureMode = 1, SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    queue = Queue(made)
    queue.allocate(16)
    launch, answers = queue.captured(lambda: None), queue.host_array((2, 3), np.float32)
    launch()
    assert sorted(kind for kind, _ in taken) == ["Exec", "Host", "Memory", "Stream"]
    assert not answers.any()
    part = answers[0]
    del queue, answers, launch
    assert [kind for kind, _ in taken] == ["Host"], "what somebody still looks at is kept"
    del part
    assert not taken


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (None, r"^x: this machine has no NVIDIA driver that works \(cudaGetDeviceCount: cudaErrorNoDevice\); install"),
        (0, "^x: this machine has no NVIDIA GPU; use --engine onnx$"),
    ],
)
def test_no_driver_and_no_gpu(monkeypatch: pytest.MonkeyPatch, count: int | None, sentence: str) -> None:
    use(monkeypatch, runtime(cudaGetDeviceCount=count))
    with pytest.raises(UserError, match=sentence):
        Gpu("x")


def test_missing_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtchord.engine.gpu.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"^x: the package cuda-bindings is not installed; `pip install cuda-bindings`"):
        Gpu("x")


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtchord.engine.tensorrt.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"TensorRT is not installed; `pip install 'rtchord\[tensorrt\]'` or use"):
        TensorRtEngine.probe()


def test_a_broken_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the package that fetches TensorRT while it installs leaves it where it could not."""
    (tmp_path / "tensorrt.py").write_text("raise Exception('import error when try to import libnvinfer.so')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"installed but broken \(import error when try.*\); reinstall it or use"):
        TensorRtEngine.probe()


WITHOUT = {  # what stands in for a package -> backend, beginning of its sentence
    "torch": ("cuda", "CUDA engine: PyTorch is not installed; install a CUDA build of it or use --engine onnx"),
    "openvino": ("openvino", "OpenVINO engine: OpenVINO is not installed; `pip install 'rtchord[openvino]'`"),
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_a_missing_package(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, sentence = WITHOUT[missing]
    monkeypatch.setattr(f"rtchord.engine.{backend}.find_spec", lambda _name: None)
    with pytest.raises(UserError) as error:
        engine.choose(backend)
    assert str(error.value).startswith(sentence)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtchord.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def listen(query: object) -> subprocess.CompletedProcess[str]:
    demo = Path(rtchord.__file__).parents[1] / "tests" / "data" / "demo.ogg"
    return command("listen", "--input", demo, "--no-realtime", "--engine", query)


def has_gpu() -> bool:
    try:
        Gpu("x")
    except UserError:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
@pytest.mark.parametrize("backend", ["cuda", "tensorrt", "tensorrt-rtx"])
def test_the_program_refuses_what_this_machine_lacks_and_auto_does_without(tmp_path: Path, backend: str) -> None:
    target = {"gpu": "NVIDIA A", "capability": "8.6", "library": "x 1.0", "cuda": "13.0"}
    suffix = ".pt2" if backend == "cuda" else ".engine"
    (tmp_path / "own").mkdir()
    folder, _ = as_backend(tmp_path / "own", backend, suffix, target=target)
    for query in (backend, folder):
        done = listen(query)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "use --engine onnx" in done.stderr
    done = listen("auto")
    assert done.returncode == 0
    assert done.stdout
    [said] = [line for line in done.stderr.splitlines() if "listening" in line]
    assert "onnx fp32, as the better one cannot be used" in said


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_a_cpu_build_of_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        UserError, match=r"CUDA engine: this PyTorch \(.*\) is a CPU build; install a CUDA build or use"
    ):
        engine.choose("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"CUDA engine: PyTorch .* finds no NVIDIA GPU with a driver"):
        engine.choose("cuda")
