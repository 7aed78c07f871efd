"""Engines: a compiled network and the manifest that says everything about it.

An engine is loaded once, for any number of streams; what it remembers of a stream is in the stepper of that stream.

An engine is a folder with `manifest.json` and its files. It is loaded only if the manifest is valid and sealed, every
file has the hash that is written down, it passed the check against the network it came from, and, for a GPU, this is
the machine it was verified on. Nothing is guessed from weights, and no pickle is read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from rtchord.engine.base import Engine, Stepper
from rtchord.engine.manifest import (
    BACKENDS,
    MANIFEST,
    Manifest,
    check_files,
    read_manifest,
    sealed,
    sha256,
    write_manifest,
)
from rtchord.errors import UserError
from rtchord.settings import base_folder

__all__ = [
    "AUTO", "BACKENDS", "MANIFEST", "Engine", "Manifest", "Stepper", "backend_class", "choose", "folders",
    "installed_engines", "load", "own_folder", "read_manifest", "sealed", "sha256", "shipped", "write_manifest",
]  # fmt: skip

AUTO = "auto"

# Each class is made of (folder, manifest) and has SUFFIX, of the file it runs, and `probe()`: UserError in a sentence
# where it cannot run here, else the Target that this machine is, None for a backend to which that does not matter.
_CLASSES = {
    "onnx": ("onnx", "OnnxEngine"),
    "openvino": ("openvino", "OpenVinoEngine"),
    "cuda": ("cuda", "CudaEngine"),
    "tensorrt": ("tensorrt", "TensorRtEngine"),
    "tensorrt-rtx": ("tensorrt", "TensorRtRtxEngine"),
}
PREFERENCE = ("tensorrt", "tensorrt-rtx", "cuda", "openvino", "onnx")  # what `auto` takes first


def backend_class(backend: str) -> Any:
    """The class of a backend; imports nothing of what the backend itself needs."""
    module, name = _CLASSES[backend]
    return getattr(import_module(f"rtchord.engine.{module}"), name)


def shipped() -> Path:
    """Folder of the engine that comes with the package."""
    return _shelf() / "default"


def _shelf() -> Path:
    return Path(str(files("rtchord"))) / "engines"


def own_folder() -> Path:
    """Where `python -m engines build` puts engines: $RTCHORD_ENGINES, or the platform's place for a user's data."""
    if os.environ.get("RTCHORD_ENGINES"):
        return Path(os.path.expanduser(os.environ["RTCHORD_ENGINES"]))
    if sys.platform == "win32":
        base = base_folder("LOCALAPPDATA", "AppData/Local")
    elif sys.platform == "darwin":
        base = base_folder(None, "Library/Application Support")
    else:
        base = base_folder("XDG_DATA_HOME", ".local/share")
    return base / "rtchord" / "engines"


def folders() -> Iterator[Path]:
    """Folders with a manifest: the user's own, then those of the package."""
    for shelf in (own_folder(), _shelf()):
        if os.path.isdir(shelf):  # and it may be looked into
            yield from sorted(
                path.parent for path in shelf.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")
            )


def installed_engines() -> list[tuple[str, Path]]:
    """(name, folder) of every engine that has a valid manifest and was verified."""
    return [(manifest.name, folder) for folder, manifest in _valid() if manifest.check is not None]


def _valid() -> Iterator[tuple[Path, Manifest]]:
    for folder in folders():
        try:
            yield folder, read_manifest(folder)
        except UserError:
            continue


def load(folder: Path | None = None, verified: bool = True) -> Engine:
    """Engine of a folder, or the shipped one.

    Raises UserError where it is missing, damaged, tampered with, was never verified (unless `verified` is False: for
    whoever verifies it), was verified on another machine, or needs what this machine lacks.
    """
    folder = folder or shipped()
    manifest = read_manifest(folder)
    if verified and manifest.check is None:
        raise UserError(f"engine {str(folder)!r} was never verified; run `python -m engines verify {folder}`")
    check_files(folder, manifest)
    made_for = backend_class(manifest.backend)
    here = made_for.probe()
    if verified and manifest.target != here:
        raise UserError(
            f"engine {str(folder)!r} was verified on {manifest.target or 'another kind of machine'}, this is {here}; "
            f"build it again with `python -m engines build --backend {manifest.backend}`"
        )
    engine: Engine = made_for(folder, manifest)
    return engine


def choose(query: str | Path = AUTO) -> tuple[Engine, str]:
    """Engine for streams one by one, and one line that says which it is and why.

    `query`: a folder; the name of a backend, of which the user's first engine is taken; or `auto`: the shipped student
    in the first backend of PREFERENCE that is present and verified on this machine, with the shipped folder as the
    last resort. Raises UserError where a folder or backend that was asked for cannot be used.
    """
    if query == AUTO:
        return _best()
    if query not in BACKENDS:
        return _asked(Path(query), "as asked")
    student = read_manifest(shipped()).name
    found = [(folder, manifest) for folder, manifest in _valid() if manifest.backend == query and manifest.streams == 1]
    found.sort(key=lambda pair: (pair[1].name != student, pair[1].form != "step"))
    if not found:
        backend_class(str(query)).probe()  # what is missing comes first
        raise UserError(
            f"no engine for {query} is built here; run `python -m engines build CHECKPOINT --backend {query}`, "
            "or use --engine onnx"
        )
    return _asked(found[0][0], "as asked")


def _asked(folder: Path, why: str) -> tuple[Engine, str]:
    engine = load(folder)
    if engine.manifest.streams != 1:
        raise UserError(f"engine {str(folder)!r} is for {engine.manifest.streams} streams at once; use one for 1")
    return engine, f"{_described(engine.manifest)}, {why}"


def _described(manifest: Manifest) -> str:
    where = f" on {manifest.target.gpu}" if manifest.target else ""
    return f"engine {manifest.name}, {manifest.backend} {manifest.precision}{where}"


def _best() -> tuple[Engine, str]:
    student = read_manifest(shipped()).name
    found = [
        (PREFERENCE.index(manifest.backend), folder)
        for folder, manifest in _valid()
        if folder != shipped() and (manifest.name, manifest.streams, manifest.form) == (student, 1, "step")
    ]
    passed_over = []
    for _, folder in sorted(found):
        try:
            return _asked(folder, "the best that is verified on this machine")
        except UserError as error:
            passed_over.append(str(error))
    why = "as the better one cannot be used: " + passed_over[0] if passed_over else "as no other is built here"
    return _asked(shipped(), why)
