from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

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


RATE = 8_000
Float32 = NDArray[np.float32]


def noise(seconds: float, seed: int = 0) -> Float32:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def mixed(block: Float32, cuts: tuple[int, ...] = (), **options: object) -> tuple[Float32, list[str]]:
    """All channels of (n, channels) as they are heard, and what was said."""
    said: list[str] = []
    mix = MonoMix(tuple(range(block.shape[1])), len(block), RATE, said.append, **options)
    parts = [mix.mix(part).copy() for part in np.split(block, cuts)]
    return np.concatenate(parts), said


@pytest.mark.parametrize(("right", "heard"), [(-1.0, 0), (-0.7, 0), (-1.4, 1)])
@pytest.mark.parametrize("silence", [0.0, 0.35, 0.7])
def test_of_channels_that_cancel_the_louder_is_heard_within_2_s(right: float, heard: int, silence: float) -> None:
    sound = np.concatenate((np.zeros(round(silence * RATE), np.float32), noise(6)))
    block = np.stack((sound, np.float32(right) * sound), axis=1)
    out, said = mixed(block)
    late = round((silence + 2) * RATE)
    np.testing.assert_array_equal(out[late:], block[late:, heard])
    assert len(said) == 1
    assert f"channel {heard + 1} alone" in said[0]


def test_channels_are_told_by_the_numbers_that_the_user_knows() -> None:
    sound = noise(3)
    _, said = mixed(np.stack((sound, -sound), axis=1), numbers=(5, 6))
    assert "channel 5 alone" in said[0]


def test_a_pair_that_cancels_beside_others_loses_its_quieter_channel_only() -> None:
    sound, other = noise(4), noise(4, seed=1)
    block = np.stack((np.float32(-0.8) * sound, other, sound), axis=1)
    out, said = mixed(block)
    assert out[2 * RATE :] == pytest.approx((sound + other)[2 * RATE :] / 2, abs=1e-6)
    assert "channels 2, 3 alone" in said[0]


def test_once_the_cable_is_mended_all_channels_are_heard_again() -> None:
    sound = noise(12)
    right = np.where(np.arange(sound.size) < 4 * RATE, -sound, sound)
    out, said = mixed(np.stack((sound, right), axis=1))
    assert out[8 * RATE :] == pytest.approx(sound[8 * RATE :])
    assert len(said) == 2
    assert "no longer" in said[1]


def test_a_rest_changes_nothing_of_what_is_known() -> None:
    sound = noise(8)
    sound[3 * RATE : 6 * RATE] = 0
    out, said = mixed(np.stack((sound, -sound), axis=1))
    np.testing.assert_array_equal(out[6 * RATE :], sound[6 * RATE :])
    assert len(said) == 1


def wide() -> dict[str, Float32]:
    """Stereo as it is made: of each kind that lowers the correlation of its channels."""
    a, b = noise(10), noise(10, seed=1)
    middle, side = a, np.float32(1.5) * b
    late = np.concatenate((np.zeros(round(0.012 * RATE), np.float32), a))[: a.size]
    return {
        "two players": np.stack((a, b), axis=1),
        "one side silent": np.stack((a, np.zeros_like(a)), axis=1),
        "widened": np.stack((middle + side, middle - side), axis=1),
        "one side late": np.stack((a, late), axis=1),
        "a short moment": np.stack((a, np.where(np.arange(a.size) % (4 * RATE) < RATE // 2, -a, a)), axis=1),
    }


@pytest.mark.parametrize("name", list(wide()))
def test_wide_stereo_is_no_fault(name: str) -> None:
    block = wide()[name]
    out, said = mixed(block)
    assert said == []
    assert out == pytest.approx(block.mean(axis=1), abs=1e-6)


def test_noise_of_an_idle_input_is_not_judged() -> None:
    hum = noise(6) * np.float32(10 ** (-50 / 20))  # -70 dBFS
    assert mixed(np.stack((hum, -hum), axis=1))[1] == []


@pytest.mark.parametrize("size", [1, 7, 480, 3200, 3201])
def test_cancelling_channels_give_the_same_sound_for_every_cutting(size: int) -> None:
    sound = noise(6)
    right = np.where(np.arange(sound.size) < 2.5 * RATE, np.float32(-0.9) * sound, sound)
    block = np.stack((sound, right), axis=1)[: 4 * RATE if size == 1 else None]
    whole, told = mixed(block)
    pieces, said = mixed(block, tuple(range(size, len(block), size)))
    np.testing.assert_array_equal(pieces, whole)
    assert said == told
    assert told


def test_what_is_no_number_does_not_hide_channels_that_cancel() -> None:
    sound = noise(6)
    sound[RATE] = np.nan
    _, said = mixed(np.stack((sound, -sound), axis=1))
    assert len(said) == 1
