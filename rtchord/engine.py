"""Engines: a compiled student and the manifest that says everything about it.

An engine is a folder with `manifest.json` and a model file. It is loaded only if the manifest is valid, its format
and vocabulary are ours, and the model file's hash is the one written down. Nothing is guessed from weights, and no
pickle is read.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtchord.chords import N_BASS, N_CLASSES
from rtchord.cqt import Features
from rtchord.errors import UserError, first_problem

Float32 = NDArray[np.float32]

MANIFEST = "manifest.json"


_Size = Annotated[int, Field(gt=0, le=4096)]


class Manifest(BaseModel):
    """Everything a program must know about an engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    backend: Literal["onnx"]
    model: str = Field(pattern=r"^[\w.-]+$", description="file name inside the folder")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the model file")
    features: Features
    vocabulary: Literal["btc170+bass13"] = Field("btc170+bass13", description="order of outputs: rtchord.chords")
    lookahead: Literal[0] = Field(0, description="frames of future the model waits for")
    cache: tuple[_Size, _Size, _Size, _Size, _Size] = Field(
        description="shape of the cached keys and of the values: layers, streams, heads, frames, width per head"
    )
    delay: float = Field(0.0, ge=0, description="s from a true change to its frame posteriors, median; for offline use")
    check: dict[str, float] = Field(description="agreement with the student it came from")
    provenance: dict[str, Any] = Field(description="how the student was trained, on what")
    scores: dict[str, dict[str, float]] = Field(default_factory=dict, description="set -> metric -> value")
    seal: str = Field("", description="SHA-256 of all the other fields; see `sealed`")


class Engine(Protocol):
    """One student on one stream, one frame at a time."""

    manifest: Manifest

    def reset(self) -> None:
        """Forget the stream."""

    def step(self, frame: Float32) -> tuple[Float32, Float32]:
        """Posteriors of a feature frame (bins,): classes (170,) and bass (13,), valid until the next step."""


class OnnxEngine:
    """ONNX Runtime on one thread. Caches live in two sets of buffers that swap roles at each step."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        # One thread that does not spin: a laptop on stage also runs a synth (measured: 2 spinning threads triple p99).
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.manifest = manifest
        try:
            self._session = ort.InferenceSession(folder / manifest.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many types, none public
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"engine {str(folder)!r} cannot be run by ONNX Runtime {ort.__version__}: {reason}"
            ) from None
        self._frame = np.zeros((1, manifest.features.bins), np.float32)
        self._caches: list[dict[str, NDArray[Any]]] = [
            {
                "keys": np.zeros(manifest.cache, np.float32),
                "values": np.zeros(manifest.cache, np.float32),
                "filled": np.zeros(1, np.int64),
            }
            for _ in range(2)
        ]
        self._classes = np.zeros((1, N_CLASSES), np.float32)
        self._bass = np.zeros((1, N_BASS), np.float32)
        self._turn = 0
        try:
            self._bindings = [self._bind(self._caches[i], self._caches[1 - i]) for i in range(2)]
            self._session.run_with_iobinding(self._bindings[0])
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(f"engine {str(folder)!r} does not fit its manifest: {reason}; build it again") from None
        self.reset()

    def _bind(self, source: dict[str, NDArray[Any]], target: dict[str, NDArray[Any]]) -> Any:
        """Binding that reads `source` and writes `target` in place."""
        binding = self._session.io_binding()
        inputs = {"frame": self._frame, **source}
        outputs = {"classes": self._classes, "bass": self._bass, **{f"next_{k}": v for k, v in target.items()}}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding

    def reset(self) -> None:
        for cache in self._caches:
            for array in cache.values():
                array[:] = 0
        self._turn = 0

    def step(self, frame: Float32) -> tuple[Float32, Float32]:
        self._frame[0] = frame
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        return self._classes[0], self._bass[0]


BACKENDS = {"onnx": OnnxEngine}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _seal(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.model_dump_json(exclude={"seal"}).encode()).hexdigest()


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with the seal of its present contents: whoever writes one seals it."""
    return manifest.model_copy(update={"seal": _seal(manifest)})


def read_manifest(folder: Path) -> Manifest:
    """Validated manifest of an engine folder."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError:
        raise UserError(f"no engine at {str(folder)!r}: it has no readable {MANIFEST}") from None
    except ValidationError as error:
        problem = first_problem(error.errors())
        raise UserError(f"engine {str(folder)!r} has an invalid {MANIFEST} ({problem}); build it again") from None
    if manifest.seal != _seal(manifest):
        raise UserError(f"engine {str(folder)!r} was changed after it was built (its {MANIFEST}); build it again")
    return manifest


def load(folder: Path | None = None) -> Engine:
    """Engine of a folder, or the shipped one. Raises UserError where it is missing, damaged or tampered with."""
    folder = folder or shipped()
    manifest = read_manifest(folder)
    model = folder / manifest.model
    if not model.is_file():
        raise UserError(f"engine {str(folder)!r} lacks its model file {manifest.model!r}; build it again")
    if sha256(model) != manifest.sha256:
        raise UserError(f"engine {str(folder)!r} was changed after it was built ({manifest.model!r} has another hash)")
    return BACKENDS[manifest.backend](folder, manifest)


def _shelf() -> Path:
    return Path(str(files("rtchord"))) / "engines"


def shipped() -> Path:
    """Folder of the engine that comes with the package."""
    return _shelf() / "default"


def installed_engines() -> list[tuple[str, Path]]:
    """(name, folder) of every engine that comes with the package, valid manifests only."""
    found = []
    for folder in sorted(_shelf().iterdir()) if _shelf().is_dir() else []:
        try:
            found.append((read_manifest(folder).name, folder))
        except UserError:
            continue
    return found
