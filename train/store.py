"""One training track on disk: a safetensors file with its features and targets.

Tensors: `features` (frames, bins) float16, and either
* soft targets (pseudo-labels): `classes` (frames, 170) float16, `bass` (frames, 13) float16, or
* hard targets (true labels): `class_index` (frames,) int16, `bass_index` (frames,) int8, both -1 where unknown.
The file's metadata holds the feature definition; `load` refuses a file made with another one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rtchord.cqt import Features
from rtchord.errors import UserError

EMBEDDING_SECONDS = 0.5  # of sound that a row of an embedding is the mean over

Track = dict[str, NDArray[np.generic]]


def save(path: Path, track: Track, features: Features) -> None:
    """Write a track under a temporary name and rename it, so that a killed run leaves whole files only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(
        {name: np.ascontiguousarray(array) for name, array in track.items()},
        temporary,
        metadata={"features": features.model_dump_json()},
    )
    temporary.replace(path)


def load(path: Path, features: Features) -> Track:
    """Tensors of one track."""
    try:
        with safe_open(path, framework="np") as file:
            made_with = Features.model_validate_json(file.metadata()["features"])
            track = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{str(path)!r} is no training track ({error}); remove it or make it again") from None
    if made_with != features:
        raise UserError(f"{str(path)!r} was made with another feature definition; make it again")
    return track


def tracks(folder: Path) -> list[Path]:
    """Track files under `folder`, sorted; an empty or missing folder is an error."""
    found = sorted(folder.rglob("*.safetensors"))
    if not found:
        raise UserError(f"no training tracks under {str(folder)!r}; make some with `python -m train label` or `render`")
    return found
