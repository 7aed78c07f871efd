from __future__ import annotations

import math

import numpy as np
import pytest

from rtchord.audio.mix import MonoMix


def test_mix_is_the_mean_of_the_chosen_channels() -> None:
    block = np.array([[1, 2, 6], [0, 4, -2]], np.float32)
    assert MonoMix((0, 1, 2), 8).mix(block).tolist() == pytest.approx([3, 2 / 3])
    assert MonoMix((2,), 8).mix(block).tolist() == [6, -2]
    assert MonoMix((2, 0), 8).mix(block).tolist() == [3.5, -1]


def test_mixing_allocates_no_sample_memory() -> None:
    import tracemalloc

    mix, block = MonoMix((0, 1, 2, 3), 1 << 14), np.full((1 << 14, 4), 0.5, np.float32)
    mix.mix(block)
    tracemalloc.start()
    mix.mix(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < block.nbytes // 16


def test_mix_needs_a_channel() -> None:
    with pytest.raises(ValueError, match="channel"):
        MonoMix((), 8)


def test_a_sine_has_its_level_3_db_below_its_peak() -> None:
    mix = MonoMix((0,), 48_000)
    mix.mix((0.1 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)).astype(np.float32)[:, None])
    level = mix.take()
    assert level.peak == pytest.approx(-20, abs=0.01)
    assert level.rms == pytest.approx(-23.01, abs=0.01)
    assert level.clipped == 0


def test_clipping_of_one_channel_is_counted_though_the_mix_is_quiet() -> None:
    mix = MonoMix((0, 1), 8)
    mix.mix(np.array([[32_767 / 32_768, 0], [-1, 0], [0.99, 0], [0, 2]], np.float32))
    level = mix.take()
    assert level.clipped == 3
    assert level.peak == pytest.approx(6.02, abs=0.01)
    assert level.rms < 0


def test_what_is_below_zero_is_as_loud_as_what_is_above() -> None:
    mix = MonoMix((0,), 8)
    mix.mix(np.array([[0.1], [-1], [0]], np.float32))
    level = mix.take()
    assert (level.peak, level.clipped) == (0, 1)


def test_a_channel_that_was_not_chosen_is_not_measured() -> None:
    mix = MonoMix((1,), 8)
    mix.mix(np.array([[1, 0.5]], np.float32))
    assert mix.take() == pytest.approx((-6.02, -6.02, 0), abs=0.01)


def test_a_level_is_of_all_blocks_since_it_was_asked_for() -> None:
    mix = MonoMix((0,), 8)
    mix.mix(np.full((4, 1), 0.1, np.float32))
    mix.mix(np.zeros((4, 1), np.float32))
    assert mix.take() == pytest.approx((-23.01, -20, 0), abs=0.01)
    assert mix.take() == (-math.inf, -math.inf, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_does_not_spoil_the_level_that_follows(bad: float) -> None:
    mix = MonoMix((0,), 8)
    mix.mix(np.array([[bad]], np.float32))
    mix.take()
    mix.mix(np.full((4, 1), 0.1, np.float32))
    assert mix.take() == pytest.approx((-20, -20, 0), abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_no_number_counts_for_nothing_in_the_level(bad: float) -> None:
    mix = MonoMix((0,), 8)
    mix.mix(np.full((4, 1), 0.1, np.float32))
    mix.mix(np.array([[bad]], np.float32))
    level = mix.take()
    assert (level.rms, level.peak) == pytest.approx((-20, -20), abs=0.01)


def test_an_empty_block_is_nothing() -> None:
    mix = MonoMix((0,), 8)
    assert mix.mix(np.zeros((0, 1), np.float32)).size == 0
    assert mix.take().peak == -math.inf
