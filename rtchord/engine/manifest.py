"""What an engine folder says about itself, and the proof that nobody changed it since.

`files` carries the SHA-256 of every file of the folder; `seal` is the SHA-256 of all other fields. Neither is a
signature: they tell damage and edits, not who made an engine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rtchord.cqt import Features
from rtchord.errors import UserError, first_problem

MANIFEST = "manifest.json"
FORMAT = 2

Backend = Literal["onnx", "openvino", "cuda", "tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[str, ...] = get_args(Backend)

_Size = Annotated[int, Field(gt=0, le=4096)]
_Share = Annotated[float, Field(ge=0, le=1)]
_FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(_Strict):
    """How the engine compared with its network over one stream. Only a check that was passed is ever written."""

    against: str = Field(description="what ran beside it")
    frames: int = Field(gt=0)
    seconds: float = Field(gt=0, description="of stream")
    max_error: float = Field(ge=0, description="largest difference of a posterior")
    mean_error: float = Field(ge=0)
    agree: _Share = Field(description="share of frames with the same likeliest class")
    chords: _Share = Field(description="share of frames with the same decoded chord")


class Target(_Strict):
    """The one machine that an engine was verified on; only engines for a GPU have it."""

    gpu: str
    capability: str = Field(pattern=r"^\d+\.\d+$", description="compute capability")
    library: str = Field(description="what runs it, with its version")
    cuda: str = Field(description="CUDA version")

    def __str__(self) -> str:
        return f"{self.gpu} (compute capability {self.capability}) with {self.library}, CUDA {self.cuda}"


class Manifest(_Strict):
    """Everything a program must know about an engine."""

    format: Literal[2] = 2
    name: str = Field(min_length=1, description="of the network; the same in every backend")
    backend: Backend
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    form: Literal["step", "window"] = Field(
        "step", description="step: newest frame and cached keys and values; window: all of the last `window` frames"
    )
    streams: int = Field(1, ge=1, le=4096, description="streams that one step advances together")
    files: dict[_FileName, _Sha256] = Field(min_length=1, description="file name inside the folder -> SHA-256")
    features: Features
    vocabulary: Literal["btc170+bass13"] = Field("btc170+bass13", description="order of outputs: rtchord.chords")
    lookahead: int = Field(0, ge=0, le=4096, description="frames: an answer is about the frame this long ago")
    cache: tuple[_Size, _Size, _Size, _Size, _Size] | None = Field(
        None, description="step: shape of the keys and of the values: layers, streams, heads, frames, width per head"
    )
    window: _Size | None = Field(None, description="window: frames that one step reads")
    future: int | None = Field(
        None, gt=0, le=65_536, description="centred features: samples after its centre that a window's last frame has"
    )
    delay: float = Field(0.0, ge=0, description="s from a true change to its frame posteriors, median; for offline use")
    check: Check | None = Field(None, description="what it passed; an engine without is not loaded")
    target: Target | None = None
    source: str = Field("", description="SHA-256 of the checkpoint that it was made from")
    provenance: dict[str, Any] = Field(description="how the network was trained, on what")
    scores: dict[str, dict[str, float]] = Field(default_factory=dict, description="set -> metric -> value")
    seal: str = Field("", description="SHA-256 of all the other fields; see `sealed`")

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.form == "step" and (self.cache is None or self.window is not None):
            raise ValueError("a step has a cache and no window")
        if self.form == "window" and (self.window is None or self.cache is not None):
            raise ValueError("a window form has a window and no cache")
        if self.cache is not None and self.cache[1] != self.streams:
            raise ValueError(f"cache={self.cache} is not for streams={self.streams}")
        if (self.future is not None) != (self.features.alignment == "centred"):
            raise ValueError("centred features, and only they, have a future")
        if self.future is not None and self.window is None:
            raise ValueError("centred features go with a window")
        if self.window is not None and self.lookahead >= self.window:
            raise ValueError(f"lookahead={self.lookahead} must be shorter than window={self.window}")
        return self

    def file(self, suffix: str) -> str:
        """Name of the one file that ends so."""
        found = [name for name in self.files if name.endswith(suffix)]
        if len(found) != 1:
            raise UserError(f"an engine for {self.backend} has one {suffix} file, not {len(found)}; build it again")
        return found[0]


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.model_dump_json(exclude={"seal"}).encode()).hexdigest()


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with the seal of its present contents: whoever writes one seals it."""
    return manifest.model_copy(update={"seal": _seal(manifest)})


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Seal and write it, under a temporary name first; returns the sealed one."""
    manifest = sealed(Manifest.model_validate(manifest.model_dump()))
    temporary = folder / f".{MANIFEST}.tmp"
    temporary.write_text(manifest.model_dump_json(indent=1) + "\n")
    temporary.replace(folder / MANIFEST)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Validated manifest of an engine folder."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (OSError, ValueError):
        raise UserError(f"no engine at {str(folder)!r}: it has no readable {MANIFEST}") from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        version = _format_of(text)
        if version not in (None, FORMAT):
            raise UserError(
                f"engine {str(folder)!r} has manifest version {version}, this rtchord reads version {FORMAT}; "
                "build it again"
            ) from None
        problem = first_problem(error.errors())
        raise UserError(f"engine {str(folder)!r} has an invalid {MANIFEST} ({problem}); build it again") from None
    if manifest.seal != _seal(manifest):
        raise UserError(f"engine {str(folder)!r} was changed after it was built (its {MANIFEST}); build it again")
    return manifest


def _format_of(text: bytes) -> object:
    try:
        return json.loads(text).get("format")
    except (ValueError, AttributeError):
        return None


def check_files(folder: Path, manifest: Manifest) -> None:
    """Every file is there and has its hash; UserError otherwise."""
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"engine {str(folder)!r} lacks its file {name!r}; build it again")
        if sha256(path) != digest:
            raise UserError(f"engine {str(folder)!r} was changed after it was built ({name!r} has another hash)")
