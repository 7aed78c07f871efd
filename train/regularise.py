"""Regularisers that pull a student's features towards a frozen teacher's embedding (EAsT: Ding & Lerch, ISMIR 2023,
arXiv 2306.17424).

Both compare the *geometry of a batch*: how the clips lie to each other in the student's space and in the teacher's, at
every time apart. Widths may differ, and no projection has to be learnt and thrown away; but a batch must hold
different music, and of a single clip nothing is learnt.

Both take x (clips, time, channels) of the student and y (clips, time, channels') of the teacher, time-aligned, any
float type, compute in float32, and return a scalar, 0 where the geometries agree.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def distance_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Mean over time of 1 - r, in [0, 1]; r is the squared distance correlation (Szekely et al. 2007) of the clips.

    With a, b the clips' double-centred Euclidean distances and mean() over all pairs of clips,
    r = mean(a b) / sqrt(mean(a a) mean(b b) + 1e-9). Rotation, shift and scale of either space leave it as it is;
    where all clips are the same in one of them, r is 0 and so is the gradient.
    """
    a, b = (_centred_distances(_clips_last(z)) for z in _aligned(x, y))
    joint, own, other = ((p * q).mean((-2, -1)) for p, q in ((a, b), (a, a), (b, b)))
    return (1 - joint / torch.sqrt(own * other + 1e-9)).mean()


def cosine_distance_difference(x: Tensor, y: Tensor) -> Tensor:
    """Mean over time and pairs of clips of |cos(x_i, x_j) - cos(y_i, y_j)|, in [0, 2]."""
    a, b = (normalize(_clips_last(z), dim=-1) for z in _aligned(x, y))
    return (a @ a.mT - b @ b.mT).abs().mean()


def _aligned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both, if they have the same clips and times: broadcasting would hide that they have not."""
    if x.ndim != 3 or y.ndim != 3 or x.shape[:2] != y.shape[:2]:
        raise ValueError(f"student {tuple(x.shape)} and teacher {tuple(y.shape)} are not (same clips, same time, any)")
    return x, y


def _clips_last(z: Tensor) -> Tensor:
    """(clips, time, channels) -> (time, clips, channels) float32: a batch of geometries."""
    return z.transpose(0, 1).float()


def _centred_distances(z: Tensor) -> Tensor:
    """(time, clips, channels) -> (time, clips, clips): Euclidean distances less the means of their row and column.

    Differences are taken before squares: |p|^2 + |q|^2 - 2 p q would lose the distances of clips much alike. 1e-12
    under the root keeps its gradient finite where two clips are the same.
    """
    distances = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square().add(1e-12).sqrt()
    rows = distances.mean(-1, keepdim=True)
    return distances - rows - rows.mT + rows.mean(-2, keepdim=True)


REGULARISERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "distance-correlation": distance_correlation,
    "cosine-distance-difference": cosine_distance_difference,
}
