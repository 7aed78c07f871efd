"""Blending two students' weights: what fine-tuning gained, without all that it forgot.

w = (1 - share) * first + share * second, for a student and one fine-tuned from it (WiSE-FT, Wortsman et al., CVPR
2022).
"""

from __future__ import annotations

from pathlib import Path

from rtchord.errors import UserError
from train.fit import load_student, save_student


def blend(first: Path, second: Path, share: float, target: Path) -> None:
    """Write the blend of two students of one shape to `target`; `share` 0..1 is the second's."""
    if not 0 <= share <= 1:
        raise UserError(f"--share {share} is not between 0 and 1")
    one, features, first_provenance = load_student(first)
    two, second_features, second_provenance = load_student(second)
    if one.config != two.config or features != second_features:
        raise UserError(
            f"{str(first)!r} and {str(second)!r} differ in size or features; blend a student with its child"
        )
    weights = one.state_dict()
    two.load_state_dict({k: (1 - share) * weights[k] + share * v for k, v in two.state_dict().items()})
    provenance = {"blend": share, "first": first_provenance, "second": second_provenance}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_student(target, two, features, provenance)
