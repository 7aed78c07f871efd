"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from train import losses

ONE = torch.ones(1)
# Logits whose softmax is (0.7, 0.2, 0.1).
LOGITS = torch.tensor([[0.7, 0.2, 0.1]]).log() + 3.0


def hard(index: int, classes: int = 3) -> Tensor:
    return torch.eye(classes)[index][None]


def test_the_cross_entropy_of_a_label_is_the_surprise_at_it() -> None:
    assert losses.cross_entropy(LOGITS, hard(1), ONE).item() == pytest.approx(-math.log(0.2), abs=1e-6)


def test_smoothing_spreads_the_label_evenly() -> None:
    # 0.3 over three classes: (0.1, 0.8, 0.1)
    expected = -(0.1 * math.log(0.7) + 0.8 * math.log(0.2) + 0.1 * math.log(0.1))
    assert losses.cross_entropy(LOGITS, hard(1), ONE, 0.3).item() == pytest.approx(expected, abs=1e-6)


def test_a_soft_target_is_an_average_of_surprises() -> None:
    target = torch.tensor([[0.5, 0.25, 0.25]])
    expected = -(0.5 * math.log(0.7) + 0.25 * math.log(0.2) + 0.25 * math.log(0.1))
    assert losses.cross_entropy(LOGITS, target, ONE).item() == pytest.approx(expected, abs=1e-6)


def test_the_focal_loss_leaves_less_of_what_is_certain() -> None:
    assert losses.focal(LOGITS, hard(0), ONE, 2.0).item() == pytest.approx(-(0.3**2) * math.log(0.7), abs=1e-6)
    assert losses.focal(LOGITS, hard(2), ONE, 2.0).item() == pytest.approx(-(0.9**2) * math.log(0.1), abs=1e-6)


def test_the_focal_loss_has_a_gradient_at_certainty() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    losses.focal(logits, hard(0), ONE, 2.0).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_frames_count_by_their_weight() -> None:
    logits, target = LOGITS.repeat(3, 1), torch.cat((hard(0), hard(1), hard(2)))
    weight = torch.tensor([1.0, 3.0, 0.0])
    expected = -(math.log(0.7) + 3 * math.log(0.2)) / 4
    assert losses.cross_entropy(logits, target, weight).item() == pytest.approx(expected, abs=1e-6)


def test_no_known_frame_is_no_loss() -> None:
    assert losses.cross_entropy(LOGITS, hard(1), torch.zeros(1)).item() == 0.0


def test_a_balanced_class_counts_by_its_weight() -> None:
    balance = torch.tensor([1.0, 2.5, 1.0])
    assert losses.cross_entropy(LOGITS, hard(1), ONE, balance=balance).item() == pytest.approx(
        -2.5 * math.log(0.2), abs=1e-6
    )


def test_softened_posteriors_are_the_softmax_of_smaller_logits() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 9.0, 1.0]])
    softened = losses.soften(torch.softmax(logits, -1), 3.0)
    assert torch.allclose(softened, torch.softmax(logits / 3.0, -1), atol=1e-6)


def test_where_there_is_no_teacher_nothing_is_distilled() -> None:
    assert losses.soften(torch.zeros(1, 3), 3.0).tolist() == [[0.0, 0.0, 0.0]]
    assert losses.distill(LOGITS, torch.zeros(1, 3), 3.0).tolist() == [0.0]
    assert losses.selective_weight(torch.zeros(1, 3), 3.0).tolist() == [0.0]


def test_distillation_by_hand() -> None:
    # T = 2: the teacher (0.64, 0.36) softens to (4/7, 3/7), the student's logits (0, 0) to (1/2, 1/2).
    expected = 4 * (4 / 7 * math.log(8 / 7) + 3 / 7 * math.log(6 / 7))
    found = losses.distill(torch.zeros(1, 2), torch.tensor([[0.64, 0.36]]), 2.0)
    assert found.tolist() == pytest.approx([expected], abs=1e-6)


def test_distillation_of_an_equal_is_nothing() -> None:
    assert losses.distill(LOGITS, torch.softmax(LOGITS, -1), 3.0).abs().max() < 1e-5


def test_a_teacher_that_excludes_a_class_is_finite() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    losses.distill(logits, torch.tensor([[1.0, 0.0, 0.0]]), 3.0).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("confidence", "weight"), [(0.09, 0.0), (0.11, 1.0), (0.5, 1.0), (0.9, 1.0), (0.95, 0.6), (1.0, 0.2)]
)
def test_a_teacher_counts_by_its_confidence(confidence: float, weight: float) -> None:
    rest = (1 - confidence) / 99
    posteriors = torch.tensor([confidence] + [rest] * 99)[None]
    assert losses.selective_weight(posteriors, 1.0).item() == pytest.approx(weight, abs=1e-4)


def test_confidence_is_taken_after_softening() -> None:
    # 0.97 of 170 classes, T = 3: 0.97^(1/3) / (0.97^(1/3) + 169 (0.03 / 169)^(1/3)) = 0.094
    posteriors = torch.full((1, 170), 0.03 / 169)
    posteriors[0, 0] = 0.97
    assert losses.selective_weight(posteriors, 3.0).item() == 0.0
    assert losses.selective_weight(posteriors, 3.0, low=0.05).item() == 1.0


def test_other_thresholds_move_the_weight() -> None:
    posteriors = torch.tensor([[0.8, 0.2]])
    assert losses.selective_weight(posteriors, 1.0, high=0.6, floor=0.0).item() == pytest.approx(0.5, abs=1e-6)


def test_class_weights_by_hand() -> None:
    # counts (1, 4), power 1/2: 1 and 1/2, whose mean over five frames is 3/5.
    found = losses.class_weights(torch.tensor([1.0, 0.0, 4.0]), 0.5)
    assert found.tolist() == pytest.approx([5 / 3, 1.0, 5 / 6], abs=1e-6)


def test_means_over_pieces() -> None:
    x = torch.tensor([[[1.0], [3.0], [10.0], [100.0]], [[2.0], [4.0], [6.0], [8.0]]])
    piece = torch.tensor([[0, 0, 1, -1], [1, 1, 1, 0]])
    assert losses.piece_means(x, piece, 3).tolist() == [[[2.0], [10.0], [0.0]], [[8.0], [4.0], [0.0]]]
