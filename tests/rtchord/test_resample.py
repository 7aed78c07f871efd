from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtchord.audio.resample import MAX_RATE, MIN_RATE, Resampler

OUT = 22_050  # Hz
PASSBAND = 2_135.0  # Hz; 5 % above the highest bin of the features
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
NOISE = np.random.default_rng(1).standard_normal(6_000).astype(np.float32)


def sine(rate: float, frequency: float, seconds: float = 0.5) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * frequency / rate * np.arange(round(rate * seconds))).astype(np.float32)


def in_pieces(resampler: Resampler, samples: NDArray[np.float32], cuts: list[int]) -> NDArray[np.float32]:
    return np.concatenate([resampler.push(piece) for piece in np.split(samples, sorted(cuts))])


@settings(max_examples=40, deadline=None)
@given(rate=st.sampled_from(RATES), cuts=st.lists(st.integers(0, NOISE.size), max_size=30))
def test_any_cutting_gives_the_same_bits(rate: int, cuts: list[int]) -> None:
    whole = Resampler(rate, OUT, PASSBAND).push(NOISE)
    assert np.array_equal(in_pieces(Resampler(rate, OUT, PASSBAND), NOISE, cuts), whole)


@pytest.mark.parametrize("rate", RATES)
def test_single_samples_give_the_same_bits(rate: int) -> None:
    samples = NOISE[:700]
    whole = Resampler(rate, OUT, PASSBAND).push(samples)
    assert np.array_equal(in_pieces(Resampler(rate, OUT, PASSBAND), samples, list(range(1, 700))), whole)


@pytest.mark.parametrize("frequency", [55.0, 440.0, 2_093.0])
@pytest.mark.parametrize("rate", RATES)
def test_a_sine_in_the_passband_keeps_its_samples(rate: int, frequency: float) -> None:
    out = Resampler(rate, OUT, PASSBAND).push(sine(rate, frequency))
    settled = slice(300, None)
    assert out.size > 10_000
    assert np.abs(out - sine(OUT, frequency)[: out.size])[settled].max() < 1e-3


@pytest.mark.parametrize("target", [100.0, 1_000.0, 2_100.0])
@pytest.mark.parametrize("rate", [rate for rate in RATES if rate >= 44_100])
def test_aliases_into_the_passband_are_below_70_db(rate: int, target: float) -> None:
    for mirror in (OUT - target, OUT + target, 2 * OUT - target):
        if mirror < rate / 2:
            out = Resampler(rate, OUT, PASSBAND).push(sine(rate, mirror))[300:]
            assert np.sqrt(2 * np.mean(out**2)) < 10 ** (-70 / 20)


@pytest.mark.parametrize("rate", RATES)
def test_consumed_tells_exactly_when_an_output_appears(rate: int) -> None:
    resampler = Resampler(rate, OUT, PASSBAND)
    counts = np.cumsum([0] + [resampler.push(NOISE[i : i + 1]).size for i in range(1_000)])  # after so many inputs
    for outputs in range(1, int(counts[-1]) + 1):
        assert np.argmax(counts >= outputs) == resampler.consumed(outputs)


@pytest.mark.parametrize("rate", RATES)
def test_delay_is_under_a_millisecond(rate: int) -> None:
    assert Resampler(rate, OUT, PASSBAND).delay < 1e-3


@pytest.mark.parametrize("rate", RATES)
def test_reset_equals_new(rate: int) -> None:
    used = Resampler(rate, OUT, PASSBAND)
    used.push(NOISE[:1_234])
    used.reset()
    assert np.array_equal(used.push(NOISE), Resampler(rate, OUT, PASSBAND).push(NOISE))


def test_the_lowest_rate_keeps_what_it_holds() -> None:
    out = Resampler(MIN_RATE, OUT, PASSBAND).push(sine(MIN_RATE, 1_000.0))
    assert np.abs(out - sine(OUT, 1_000.0)[: out.size])[300:].max() < 1e-3


@pytest.mark.parametrize("rate", RATES)
def test_a_constant_stays_what_it_is(rate: int) -> None:
    out = Resampler(rate, OUT, PASSBAND).push(np.full(rate // 4, 0.5, np.float32))
    assert np.abs(out[300:] - 0.5).max() < 1e-6


@pytest.mark.parametrize("size", range(1_000, 1_010))
@pytest.mark.parametrize("rate", RATES)
def test_the_end_of_a_stream_is_as_if_silence_followed(rate: int, size: int) -> None:
    ended, goes_on = Resampler(rate, OUT, PASSBAND), Resampler(rate, OUT, PASSBAND)
    found = np.concatenate((ended.push(NOISE[:size]), ended.finish()))
    assert found.size == -(-size * OUT // rate), "every instant before the end"
    assert np.array_equal(found, goes_on.push(np.pad(NOISE[:size], (0, 1_000)))[: found.size])


def test_equal_rates_pass_samples_through() -> None:
    resampler = Resampler(OUT, OUT, PASSBAND)
    assert np.array_equal(resampler.push(NOISE), NOISE)
    assert (resampler.delay, resampler.consumed(7)) == (0.0, 7)


def test_an_empty_block_gives_nothing() -> None:
    assert Resampler(48_000, OUT, PASSBAND).push(NOISE[:0]).size == 0


@pytest.mark.parametrize("rate", [0, -44_100, MIN_RATE - 1, MAX_RATE + 1])
def test_a_rate_out_of_range_is_refused_by_value(rate: int) -> None:
    with pytest.raises(ValueError, match=str(rate)):
        Resampler(rate, OUT, PASSBAND)
