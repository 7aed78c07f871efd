from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from rtchord.cqt import Features, FrameStream, SlidingCQT, latency

FEATURES = Features()
HOP, RATE, BINS = FEATURES.hop, FEATURES.sample_rate, FEATURES.bins
NOISE = np.random.default_rng(2).standard_normal(24 * HOP).astype(np.float32)


def frames_of(samples: NDArray[np.float32], rate: int = RATE) -> NDArray[np.float32]:
    return FrameStream(rate, FEATURES).push(samples)


def tone(frequency: float, seconds: float = 1.5) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * frequency / RATE * np.arange(round(RATE * seconds))).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    rate=st.sampled_from([8_000, 22_050, 44_100, 48_000, 192_000]),
    cuts=st.lists(st.integers(0, NOISE.size), max_size=20),
)
def test_a_stream_in_pieces_equals_the_whole_bit_for_bit(rate: int, cuts: list[int]) -> None:
    stream = FrameStream(rate, FEATURES)
    pieces = [stream.push(piece) for piece in np.split(NOISE, sorted(cuts))]
    assert np.array_equal(np.concatenate(pieces), frames_of(NOISE, rate))


def test_single_samples_give_the_same_frames() -> None:
    samples = NOISE[: 3 * HOP + 5]
    stream = FrameStream(48_000, FEATURES)
    pieces = [stream.push(samples[i : i + 1]) for i in range(samples.size)]
    assert np.array_equal(np.concatenate(pieces), frames_of(samples, 48_000))


@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_reset_equals_new(rate: int) -> None:
    used = FrameStream(rate, FEATURES)
    used.push(NOISE[: 5 * HOP + 77])
    used.reset()
    assert np.array_equal(used.push(NOISE), frames_of(NOISE, rate))
    assert used.frames == NOISE.size * RATE // rate // HOP


@pytest.mark.parametrize("k", range(0, 144, 11))
def test_a_tone_at_a_bin_centre_peaks_in_its_bin(k: int) -> None:
    last = frames_of(tone(FEATURES.frequencies[k]))[-1]
    assert np.argmax(last) == k


@pytest.mark.parametrize("k", range(0, 144, 11))
def test_a_full_scale_tone_has_half_the_root_of_its_window_length(k: int) -> None:
    last = frames_of(tone(FEATURES.frequencies[k]))[-1]
    length = FEATURES.q * RATE / FEATURES.frequencies[k]
    assert np.exp(last[k]) - FEATURES.log_offset == pytest.approx(np.sqrt(length) / 2, rel=0.01)


def test_frames_do_not_depend_on_what_comes_after() -> None:
    other = NOISE.copy()
    other[10 * HOP :] = 0.0
    assert np.array_equal(frames_of(NOISE)[:10], frames_of(other)[:10])


def test_a_frame_hears_its_very_last_hop() -> None:
    samples = np.zeros(10 * HOP, np.float32)
    samples[-HOP:] = tone(1_000.0)[:HOP]
    frames = frames_of(samples)
    assert frames[-2].max() == frames[-2].min() < frames[-1].max() - 3.0


@pytest.mark.parametrize("k", range(0, 144, 11))
def test_a_click_is_heard_for_the_length_of_the_window_then_forgotten(k: int) -> None:
    click = HOP - 100  # sample
    samples = np.zeros(64 * HOP, np.float32)
    samples[click] = 1e6
    heard = frames_of(samples)[:, k] > np.log(FEATURES.log_offset) + 1e-3
    octave = FEATURES.octaves - 1 - k // FEATURES.bins_per_octave
    window = FEATURES.q * RATE / FEATURES.frequencies[k]  # samples
    decimators = 11 * (2 ** (octave + 1) - 1)  # samples their centres lie back
    first, last = (int(i + 1) * HOP - click for i in np.flatnonzero(heard)[[0, -1]])  # samples after the click
    assert first < decimators + 2 * HOP
    assert window - 2 * HOP < last < window + 2 * decimators + HOP


def test_a_delay_of_one_hop_shifts_the_frames_by_one() -> None:
    delayed = np.concatenate((np.zeros(HOP, np.float32), NOISE))
    assert np.array_equal(frames_of(delayed)[1:], frames_of(NOISE))


def test_silence_is_the_offset_in_every_bin() -> None:
    frames = frames_of(np.zeros(8 * HOP, np.float32))
    assert frames == pytest.approx(np.full((8, BINS), np.log(FEATURES.log_offset)))


@pytest.mark.parametrize("rate", [22_050, 44_100])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 2e12, -2e12])
def test_samples_that_cannot_be_sound_count_as_silence(rate: int, bad: float) -> None:
    broken, mended = NOISE.copy(), NOISE.copy()
    broken[5 * HOP : 5 * HOP + 100] = bad
    mended[5 * HOP : 5 * HOP + 100] = 0.0
    assert np.array_equal(frames_of(broken, rate), frames_of(mended, rate))


@pytest.mark.parametrize("sample", [3e38, -3e38, 9e11, -32_768.0, 1e-44])
def test_extreme_samples_give_finite_frames(sample: float) -> None:
    assert np.isfinite(frames_of(np.full(8 * HOP, sample, np.float32))).all()


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_time_of_tells_exactly_when_a_frame_appears(rate: int) -> None:
    stream = FrameStream(rate, FEATURES)
    for frame in range(3):
        needed = round(stream.time_of(frame) * rate)
        before = needed - 1 if frame == 0 else needed - 1 - round(stream.time_of(frame - 1) * rate)
        assert stream.push(NOISE[:before]).shape == (0, BINS)
        assert stream.push(NOISE[:1]).shape == (1, BINS)


def test_samples_that_are_not_whole_hops_are_refused_by_value() -> None:
    with pytest.raises(ValueError, match="513"):
        SlidingCQT(FEATURES).push(NOISE[:513], np.empty((1, BINS), np.float32))


@pytest.mark.parametrize("hop", [0, -512, 100, 513])
def test_a_bad_hop_is_refused(hop: int) -> None:
    with pytest.raises(ValidationError):
        Features(hop=hop)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="window"):
        Features.model_validate({"window": "hann"})


def test_a_range_beyond_the_sample_rate_is_refused() -> None:
    with pytest.raises(ValidationError, match="sample_rate"):
        Features(octaves=8)


def test_a_window_longer_than_constant_q_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"longest_ms=5000 is more than the constant-Q window"):
        Features.variable_q(longest_ms=5000)


def test_a_definition_survives_json() -> None:
    features = Features(hop=256, log_offset=1e-4)
    assert Features.model_validate_json(features.model_dump_json()) == features


def test_a_definition_without_a_companion_is_written_as_before_there_were_any() -> None:
    assert "companion" not in Features().model_dump()
    assert Features(companion=5.0).model_dump()["companion"] == 5.0


ACCOMPANIED = Features.accompanied(longest_ms=168.0)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, NOISE.size), max_size=20))
def test_a_frame_holds_its_sets_of_bins_side_by_side(cuts: list[int]) -> None:
    stream = FrameStream(RATE, ACCOMPANIED)
    found = np.concatenate([stream.push(piece) for piece in np.split(NOISE, sorted(cuts))])
    alone = [FrameStream(RATE, each).push(NOISE) for each in (Features(), Features.variable_q(longest_ms=168.0))]
    assert np.array_equal(found, np.concatenate(alone, axis=1))


def test_a_reset_forgets_the_past_in_every_set() -> None:
    used, new = SlidingCQT(ACCOMPANIED), SlidingCQT(ACCOMPANIED)
    first, second = np.empty((2, NOISE.size // HOP, ACCOMPANIED.bins), np.float32)
    used.push(NOISE, first)
    used.reset()
    for transform, out in ((used, first), (new, second)):
        transform.push(NOISE, out)
    assert np.array_equal(first, second)


def test_each_set_has_its_own_latencies() -> None:
    found = latency(ACCOMPANIED)
    first, second = (latency(each) for each in ACCOMPANIED.sets)
    for name in ("frequency", "window", "decimators", "total"):
        together = np.concatenate((getattr(first, name), getattr(second, name)))
        assert np.array_equal(getattr(found, name), together)
    assert second.total.max() < first.total.max() / 5


def test_centred_frames_have_no_companion() -> None:
    with pytest.raises(ValidationError, match="companion"):
        Features(alignment="centred", definition="librosa-0.11", companion=5.0)


def test_half_the_hop_gives_the_same_frames_twice_as_often() -> None:
    fine = FrameStream(RATE, Features(hop=HOP // 2)).push(NOISE)
    assert fine[1::2] == pytest.approx(frames_of(NOISE), abs=1e-4)
