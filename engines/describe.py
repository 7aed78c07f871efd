"""What is measured after an engine was built goes into its manifest."""

from __future__ import annotations

import json
from pathlib import Path

from rtchord.engine import Manifest, read_manifest, write_manifest
from rtchord.errors import UserError


def describe(folder: Path, delay: float | None, results: list[Path]) -> Manifest:
    """Write a measured delay and scores (files of `python -m benchmarks online --output`) into an engine's manifest."""
    manifest = read_manifest(folder)
    scores = dict(manifest.scores)
    for path in results:
        try:
            result = json.loads(path.read_text())
            scores[f"{result['set']}, {result['latency']}"] = {
                # A score is null where a set has nothing to score, such as rare qualities or inversions.
                name: float(value)
                for name, value in result["scores"].items()
                if value is not None
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{str(path)!r} is no result of `python -m benchmarks online` ({error})") from None
    changes = {"scores": scores} | ({} if delay is None else {"delay": delay})
    return write_manifest(folder, manifest.model_copy(update=changes))
