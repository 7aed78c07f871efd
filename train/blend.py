"""Blending two students' weights: what fine-tuning gained, without all that it forgot.

w = (1 - share) * first + share * second, for a student and one fine-tuned from it (WiSE-FT, Wortsman et al., CVPR
2022).
"""

from __future__ import annotations

from pathlib import Path

from rtchord.errors import UserError
from train.files import check_place
from train.students import config_of, kind_of, load_student, load_tensors, save_student, tensors_of, widened


def blend(first: Path, second: Path, share: float, target: Path) -> None:
    """Write the blend of two students of one kind and size to `target`; `share` 0..1 is the second's.

    The second may hear more sets of bins than the first, which then says nothing of those.
    """
    if not 0 <= share <= 1:
        raise UserError(f"--share {share} is not between 0 and 1")
    check_place(target)
    one, features, first_provenance = load_student(first)
    two, second_features, second_provenance = load_student(second)
    one, features = widened(one, features, second_features)
    if (kind_of(one), config_of(one), features) != (kind_of(two), config_of(two), second_features):
        raise UserError(
            f"{str(first)!r} and {str(second)!r} differ in kind, size or features; blend a student with its child"
        )
    weights = tensors_of(one)
    load_tensors(two, {name: (1 - share) * weights[name] + share * t for name, t in tensors_of(two).items()})
    provenance = {"blend": share, "first": first_provenance, "second": second_provenance}
    save_student(target, two, features, provenance)
