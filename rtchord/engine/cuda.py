"""PyTorch on an NVIDIA GPU: the exported program, captured as one CUDA graph."""

from __future__ import annotations

import io
import json
import zipfile
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


class CudaEngine(Stepper):
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
        import torch

        self._torch = torch
        self._pinned: list[torch.Tensor] = []
        pin = device != "cpu"

        def host_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
            tensor = torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, pin_memory=pin)
            self._pinned.append(tensor)  # in order: input, classes, bass
            return tensor.numpy()

        super().__init__(manifest, host_array)
        program = read_program(folder / manifest.file(self.SUFFIX))
        if pin:
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        self._program = program.module()
        self._state = {
            name: torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, device=device)
            for name, (shape, dtype) in state_shapes(manifest).items()
        }
        self._sent = torch.zeros_like(self._pinned[0], device=device)
        self._found = [torch.zeros_like(host, device=device) for host in self._pinned[1:]]
        try:
            with torch.no_grad():
                launch = self._captured() if pin else self._advance
        except Exception as error:  # torch raises many types
            raise unfit(folder, error) from None

        def run() -> None:
            with torch.no_grad():
                self._sent.copy_(self._pinned[0], non_blocking=True)
                launch()
                for host, found in zip(self._pinned[1:], self._found, strict=True):
                    host.copy_(found, non_blocking=True)
                if pin:
                    torch.cuda.current_stream().synchronize()

        self._runs = [run]
        run()
        self.reset()

    def _advance(self) -> None:
        """Input and state to answers and the next state, all in the same tensors."""
        classes, bass, *following = self._program(self._sent, *self._state.values())
        for tensor, new in zip((*self._found, *self._state.values()), (classes, bass, *following), strict=True):
            tensor.copy_(new)

    def _captured(self) -> Any:
        """`_advance` as one CUDA graph, after three runs beside it, as torch's documentation asks."""
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._advance()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        return graph.replay

    def _clear(self, stream: int | None) -> None:
        for name, tensor in self._state.items():
            tensor[rows(name, stream)] = 0
