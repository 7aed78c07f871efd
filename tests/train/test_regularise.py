"""The regularisers of EAsT: what they measure, and that gradients flow through them safely."""

from __future__ import annotations

import dcor
import numpy as np
import pytest
import torch
from torch import Tensor

from train.regularise import REGULARISERS, cosine_distance_difference, distance_correlation


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def at_one_time(*clips: tuple[float, ...]) -> Tensor:
    """(clips, 1, channels)"""
    return torch.tensor(clips)[:, None]


def test_distance_correlation_of_three_points_by_hand() -> None:
    # Three times the centred distances are [-4 0 4; 0 -2 2; 4 2 -6] and [-2 1 1; 1 -2 1; 1 1 -2]:
    # the sum of their products is 36, of their squares 96 and 18.
    line, triangle = at_one_time((0.0,), (1.0,), (3.0,)), at_one_time((0.0, 0.0), (1.0, 0.0), (0.5, 0.75**0.5))
    assert float(distance_correlation(line, triangle)) == pytest.approx(1 - 36 / (96 * 18) ** 0.5, abs=1e-5)


def test_cosine_distance_difference_of_three_points_by_hand() -> None:
    x = at_one_time((2.0, 0.0), (0.0, 1.0), (3.0, 3.0))  # cosines 0, sqrt 1/2, sqrt 1/2
    y = at_one_time((1.0,), (1.0,), (-2.0,))  # cosines 1, -1, -1
    expected = 2 * (1 + (0.5**0.5 + 1) + (0.5**0.5 + 1)) / 9
    assert float(cosine_distance_difference(x, y)) == pytest.approx(expected, abs=1e-6)


def test_distance_correlation_equals_an_independent_implementation() -> None:
    x, y = drawn(12, 5, 7), drawn(12, 5, 20, seed=1)
    y = y + 0.8 * torch.nn.functional.pad(x, (0, 13))
    r = [dcor.distance_correlation_sqr(x[:, t].double().numpy(), y[:, t].double().numpy()) for t in range(5)]
    assert float(distance_correlation(x, y)) == pytest.approx(1 - np.mean(r), abs=1e-5)


def test_every_time_counts_the_same() -> None:
    x, y = drawn(6, 3, 4), drawn(6, 3, 4, seed=1)
    for regulariser in REGULARISERS.values():
        apart = [float(regulariser(x[:, t : t + 1], y[:, t : t + 1])) for t in range(3)]
        assert float(regulariser(x, y)) == pytest.approx(np.mean(apart), abs=1e-6)


@pytest.mark.parametrize("name", REGULARISERS)
def test_equal_geometry_costs_nothing_however_it_is_turned(name: str) -> None:
    x = drawn(8, 4, 6)
    turned = x @ torch.linalg.qr(drawn(6, 6, seed=1))[0]
    assert float(REGULARISERS[name](x, x)) == pytest.approx(0, abs=1e-5)
    assert float(REGULARISERS[name](x, 3 * turned)) == pytest.approx(0, abs=1e-5)
    assert float(REGULARISERS[name](x, drawn(8, 4, 6, seed=2))) > 0.1


def test_distance_correlation_does_not_mind_a_shift() -> None:
    x, y = drawn(8, 4, 6), drawn(8, 4, 9, seed=1)
    moved = distance_correlation(x, 0.25 * y + 3)
    assert float(moved) == pytest.approx(float(distance_correlation(x, y)), abs=1e-4)


@pytest.mark.parametrize("name", REGULARISERS)
def test_descent_brings_the_geometries_together(name: str) -> None:
    x, y = drawn(6, 2, 5).requires_grad_(), drawn(6, 2, 9, seed=1)
    before = float(REGULARISERS[name](x.detach(), y))
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        REGULARISERS[name](x, y).backward()
        optimizer.step()
    assert float(REGULARISERS[name](x.detach(), y)) < 0.3 * before


@pytest.mark.parametrize("name", REGULARISERS)
@pytest.mark.parametrize("clips", [1, 2, 5])
def test_identical_clips_are_safe(name: str, clips: int) -> None:
    x = drawn(1, 3, 4).expand(clips, -1, -1).clone().requires_grad_()
    loss = REGULARISERS[name](x, drawn(clips, 3, 4, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_two_identical_clips_among_others_are_safe() -> None:
    x = drawn(5, 3, 4)
    x[1] = x[0]
    x.requires_grad_()
    distance_correlation(x, drawn(5, 3, 4, seed=1)).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_close_clips_far_from_the_origin_keep_their_distances() -> None:
    x, y = drawn(8, 1, 4), drawn(8, 1, 4, seed=1)
    far = distance_correlation(x + 1000, y)
    assert float(far) == pytest.approx(float(distance_correlation(x, y)), abs=1e-3)


@pytest.mark.parametrize("name", REGULARISERS)
def test_half_precision_is_computed_in_full(name: str) -> None:
    x, y = drawn(8, 2, 4).bfloat16(), drawn(8, 2, 4, seed=1)
    loss = REGULARISERS[name](x, y)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(REGULARISERS[name](x.float(), y)), abs=1e-6)


@pytest.mark.parametrize("name", REGULARISERS)
@pytest.mark.parametrize("shape", [(8, 1, 4), (1, 2, 4), (8, 4)])
def test_unaligned_features_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not \\(same clips"):
        REGULARISERS[name](drawn(8, 2, 4), drawn(*shape))
