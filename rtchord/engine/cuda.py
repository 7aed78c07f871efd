"""PyTorch on an NVIDIA GPU: the exported program, captured as one CUDA graph."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rtchord.engine.base import Stepper, reason_of, rows, state_shapes, unfit
from rtchord.engine.gpu import INSTEAD
from rtchord.engine.manifest import Manifest, Target
from rtchord.errors import UserError


def cuda_torch(who: str) -> Any:
    """PyTorch with a GPU; UserError that begins with `who` and says in a sentence what is missing."""
    if find_spec("torch") is None:
        raise UserError(f"{who}: PyTorch is not installed; install a CUDA build of it {INSTEAD}")
    import torch

    if torch.version.cuda is None:
        raise UserError(f"{who}: this PyTorch ({torch.__version__}) is a CPU build; install a CUDA build {INSTEAD}")
    if not torch.cuda.is_available():
        raise UserError(f"{who}: PyTorch {torch.__version__} finds no NVIDIA GPU with a driver; install it {INSTEAD}")
    return torch


def read_program(path: Path) -> Any:
    """torch.export's program of a .pt2 file. UserError where loading it would unpickle anything but plain tensors."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("_config.json") and '"use_pickle": true' in json.dumps(json.loads(archive.read(name))):
                    raise ValueError(f"{Path(name).name} asks for a pickle")
                if name.endswith(".pt"):
                    # Example inputs. torch.export.load would try these with pickle where this fails.
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                elif "custom_obj" in name or "opaque_obj" in name:
                    raise ValueError(f"{Path(name).name} is a pickle")
        return torch.export.load(path)
    except Exception as error:  # torch raises many types, zipfile its own
        raise UserError(f"{str(path)!r} is no program of ours ({reason_of(error)}); build the engine again") from None


class CudaEngine:
    """The exported program on a GPU. `device` "cpu" runs the same without a graph: tests do."""

    SUFFIX = ".pt2"

    @staticmethod
    def probe() -> Target:
        """This machine; UserError in a sentence where it cannot run such an engine."""
        torch = cuda_torch("CUDA engine")
        capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
        return Target(
            gpu=torch.cuda.get_device_name(0), capability=capability, library=f"PyTorch {torch.__version__}",
            cuda=torch.version.cuda,
        )  # fmt: skip

    def __init__(self, folder: Path, manifest: Manifest, device: str = "cuda") -> None:
        self.manifest = manifest
        self._device = device
        program = read_program(folder / manifest.file(self.SUFFIX))
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        self._program = program.module()
        try:
            self.stepper()  # what does not fit is told now
        except Exception as error:  # torch raises many types
            raise unfit(folder, error) from None

    def stepper(self) -> CudaStepper:
        return CudaStepper(self.manifest, self._program, self._device)


class CudaStepper(Stepper):
    """The program over buffers of one stream's own, as one CUDA graph where `device` is a GPU."""

    def __init__(self, manifest: Manifest, program: Any, device: str) -> None:
        import torch

        pinned: list[torch.Tensor] = []
        on_gpu = device != "cpu"

        def host_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
            tensor = torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, pin_memory=on_gpu)
            pinned.append(tensor)  # in order: input, classes, bass
            return tensor.numpy()

        super().__init__(manifest, host_array)
        state = self._state = {
            name: torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, device=device)
            for name, (shape, dtype) in state_shapes(manifest).items()
        }
        sent = torch.zeros_like(pinned[0], device=device)
        found = [torch.zeros_like(host, device=device) for host in pinned[1:]]

        def advance() -> None:
            """Input and state to answers and the next state, all in the same tensors."""
            for tensor, new in zip((*found, *state.values()), program(sent, *state.values()), strict=True):
                tensor.copy_(new)

        with torch.no_grad():
            launch = captured(advance) if on_gpu else advance

        # Nothing here refers to the stepper, so that its memory is free at once when its stream is over.
        def run() -> None:
            with torch.no_grad():
                sent.copy_(pinned[0], non_blocking=True)
                launch()
                for host, answer in zip(pinned[1:], found, strict=True):
                    host.copy_(answer, non_blocking=True)
                if on_gpu:
                    torch.cuda.current_stream().synchronize()

        self._begin([run])

    def _clear(self, stream: int | None) -> None:
        for name, tensor in self._state.items():
            tensor[rows(name, stream)] = 0


def captured(work: Callable[[], None]) -> Callable[[], object]:
    """The work as one CUDA graph, after three runs beside it, as torch's documentation asks."""
    import torch

    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may be in their own steps meanwhile, which a capture of any other mode would forbid them.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    replay: Callable[[], object] = graph.replay
    return replay
