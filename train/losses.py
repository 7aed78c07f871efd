"""What a student is trained to make small: pure functions of logits (.., classes) and targets.

Every target is a distribution over the classes; a true label is one that is 1 at its class. `weight` (..) says how much
each frame counts, 0 where there is no target.

    cross-entropy   -sum_k q_k log p_k                        q smoothed towards the uniform distribution
    focal           -sum_k q_k (1 - p_k)^gamma log p_k        Lin et al., ICCV 2017
    distillation    T^2 KL(softmax(z_t / T) || softmax(z / T))    Hinton et al., 2015

Teachers are stored as posteriors p, not as logits z_t; softmax(z_t / T) is p^(1/T), normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mean_over(loss: Tensor, weight: Tensor) -> Tensor:
    """Mean of `loss` (..) with the frames' weights; 0 where none counts."""
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def focal(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, balance: Tensor | None = None) -> Tensor:
    """Mean focal loss; gamma 0 is the cross-entropy, more leaves more to what is not yet certain.

    `balance` (classes,): weight of each class's term.
    """
    log_p = torch.log_softmax(logits.float(), -1)
    surprise = target * log_p if balance is None else target * balance * log_p
    if gamma:
        surprise = surprise * (1 - log_p.exp()) ** gamma
    return mean_over(-surprise.sum(-1), weight)


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor, smoothing: float = 0.0, balance: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy against the targets, of which `smoothing` is spread evenly over all classes."""
    return focal(logits, target * (1 - smoothing) + smoothing / logits.shape[-1], weight, 0.0, balance)


def soften(posteriors: Tensor, temperature: float) -> Tensor:
    """softmax(z / T) of a teacher whose posteriors are softmax(z); rows of zeros (no teacher) stay zeros."""
    softer = posteriors.float() ** (1 / temperature)
    return softer / softer.sum(-1, keepdim=True).clamp(min=torch.finfo(softer.dtype).tiny)


def distill(logits: Tensor, posteriors: Tensor, temperature: float) -> Tensor:
    """T^2 KL from the student to the teacher, both softened: (..), one number a frame; 0 where there is no teacher."""
    log_p = torch.log_softmax(logits.float() / temperature, -1)
    return temperature**2 * functional.kl_div(log_p, soften(posteriors, temperature), reduction="none").sum(-1)


def selective_weight(
    posteriors: Tensor, temperature: float, low: float = 0.1, high: float = 0.9, floor: float = 0.2
) -> Tensor:
    """How much a frame's teacher counts (..), by its confidence c = max softmax(z / T).

    0 below `low` (it does not know), 1 from there to `high`, then falling linearly to `floor` at c = 1 (the label says
    as much). The thresholds are those of Nguyen et al., arXiv 2602.19778.
    """
    confidence = soften(posteriors, temperature).amax(-1)
    above = ((confidence - high) / max(1 - high, 1e-9)).clamp(0, 1)
    return torch.where(confidence < low, 0.0, 1 - (1 - floor) * above)


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Weight of each class, count^-power, scaled so that the mean over all counted frames is 1.

    `counts` (classes,): frames of each class; what never occurs weighs 1. Power 0 makes all weights 1.
    """
    seen = counts > 0
    raw = torch.where(seen, counts.double().clamp(min=1e-9) ** -power, 0.0)
    scale = counts.sum() / (raw * counts).sum().clamp(min=1e-12)
    return torch.where(seen, raw * scale, 1.0).float()


def piece_means(x: Tensor, piece: Tensor, count: int) -> Tensor:
    """Means over the frames of each piece: x (batch, time, width), piece (batch, time) 0 .. count - 1 or -1 for none;
    (batch, count, width), 0 where a piece has no frame."""
    member = (piece[..., None] == torch.arange(count, device=piece.device)).to(x.dtype)
    return (member.transpose(1, 2) @ x) / member.sum(1).clamp(min=1)[..., None]
