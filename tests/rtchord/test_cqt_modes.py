"""What holds in every mode of the transform: right-aligned or centred, constant-Q or variable-Q."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from rtchord.cqt import DEFINITIONS, CentredCQT, Features, FrameStream, SlidingCQT, WindowStream, latency
from rtchord.cqt.kernels import half_band, kernels, minimum_phase

RATE = 22_050
MODES = {
    "live": DEFINITIONS["live"],
    "live-vq": DEFINITIONS["live-vq"],
    "live-both": DEFINITIONS["live-both"],
    "minimum": Features(decimator="minimum"),
    "centred": DEFINITIONS["librosa-0.11-hop512"],
    "centred-2048": DEFINITIONS["librosa-0.11"],
    "reflected": DEFINITIONS["librosa-0.6.3"].model_copy(update={"hop": 512}),
}
CENTRED = {name: features for name, features in MODES.items() if features.alignment == "centred"}
RIGHT = {name: features for name, features in MODES.items() if features.alignment == "right"}
NOISE = np.random.default_rng(3).standard_normal(100_000).astype(np.float32)
RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)

every_mode = pytest.mark.parametrize("features", MODES.values(), ids=MODES)
every_centred = pytest.mark.parametrize("features", CENTRED.values(), ids=CENTRED)

Float32 = NDArray[np.float32]


def whole(samples: Float32, features: Features, rate: int = RATE) -> Float32:
    """All frames of a recording."""
    stream = FrameStream(rate, features)
    return np.concatenate((stream.push(samples), stream.finish()))


def tone(frequency: float, seconds: float, rate: int = RATE) -> Float32:
    return np.sin(2 * np.pi * frequency / rate * np.arange(round(rate * seconds))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(sorted(MODES)),
    rate=st.sampled_from([8_000, 22_050, 48_000]),
    size=st.integers(0, NOISE.size),
    cuts=st.lists(st.integers(0, NOISE.size), max_size=12),
    looks=st.sets(st.integers(0, 12), max_size=2),
)
def test_frames_do_not_depend_on_the_cutting(mode: str, rate: int, size: int, cuts: list[int], looks: set[int]) -> None:
    features, samples = MODES[mode], NOISE[:size]
    stream, pieces = FrameStream(rate, features), []
    for i, piece in enumerate(np.split(samples, sorted(min(cut, size) for cut in cuts))):
        pieces.append(stream.push(piece))
        if features.alignment == "centred" and i in looks:
            stream.window(50)  # looking changes nothing
    pieces.append(stream.finish())
    assert np.array_equal(np.concatenate(pieces), whole(samples, features, rate))


@every_mode
def test_single_samples_give_the_same_frames(features: Features) -> None:
    samples = NOISE[: 2 * features.hop + 70]
    stream = FrameStream(48_000, features)
    pieces = [stream.push(samples[i : i + 1]) for i in range(samples.size)]
    assert np.array_equal(np.concatenate([*pieces, stream.finish()]), whole(samples, features, 48_000))


@every_mode
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_reset_equals_new(features: Features, rate: int) -> None:
    used = FrameStream(rate, features)
    used.push(NOISE[:77_777])
    used.reset()
    assert used.frames == 0
    assert np.array_equal(used.push(NOISE), FrameStream(rate, features).push(NOISE))


@every_mode
def test_a_stream_that_finished_is_new(features: Features) -> None:
    used = FrameStream(48_000, features)
    used.push(NOISE[:77_777])
    used.finish()
    assert np.array_equal(used.push(NOISE), FrameStream(48_000, features).push(NOISE))


@every_mode
def test_a_delay_of_one_hop_shifts_the_frames_by_one(features: Features) -> None:
    # Centred levels begin with the stream, so only frames out of reach of its beginning are the very same.
    settled = 0 if features.alignment == "right" else 2 * RATE // features.hop
    delayed = np.concatenate((np.zeros(features.hop, np.float32), NOISE))
    late, early = FrameStream(RATE, features).push(delayed), FrameStream(RATE, features).push(NOISE)
    count = len(late) - 1 - settled
    assert count > 5
    assert np.array_equal(late[1 + settled :], early[settled : settled + count])


@every_mode
@pytest.mark.parametrize("rate", [RATE, 8_000, 44_100, 48_000])
def test_time_of_tells_exactly_when_a_frame_is_pushed_out(features: Features, rate: int) -> None:
    stream, heard = FrameStream(rate, features), 0
    silence = np.zeros(2 * rate, np.float32)
    for frame in range(3):
        needed = round(stream.time_of(frame) * rate)
        assert len(stream.push(silence[: max(needed - 1 - heard, 0)])) == 0
        assert len(stream.push(silence[:1])) == 1
        heard = needed


@every_mode
def test_two_minutes_leave_nothing_behind(features: Features) -> None:
    """Frames after a long stream are those of a fresh state, and the state has not grown."""
    stream, fresh = FrameStream(RATE, features), FrameStream(RATE, features)
    whole_hops = NOISE[: NOISE.size // features.hop * features.hop]
    sizes = {name: value.nbytes for name, value in vars(stream._cqt).items() if isinstance(value, np.ndarray)}
    for _ in range(120 * RATE // whole_hops.size):
        stream.push(whole_hops)
    assert sizes == {name: value.nbytes for name, value in vars(stream._cqt).items() if isinstance(value, np.ndarray)}
    settled = 60_000 // features.hop  # frames that still hear what was before
    ours, theirs = stream.push(whole_hops), fresh.push(whole_hops)
    count = len(theirs) - settled
    assert count > 5
    assert np.array_equal(ours[-count:], theirs[-count:])


@every_mode
@pytest.mark.parametrize("rate", RATES)
def test_a_tone_peaks_in_its_bin_at_every_rate(features: Features, rate: int) -> None:
    k = 77
    stream = FrameStream(rate, features)
    frames = stream.push(tone(features.frequencies[k], 2.5, rate))
    assert np.argmax(frames[-1]) == k


@every_mode
@pytest.mark.parametrize("k", range(5, 144, 23))
def test_a_full_scale_tone_has_half_the_root_of_its_window_length(features: Features, k: int) -> None:
    frames = FrameStream(RATE, features).push(tone(features.frequencies[k], 3.0))
    magnitude = np.exp(frames[-1, k]) - features.log_offset
    assert magnitude == pytest.approx(np.sqrt(features.lengths[k]) / 2, rel=0.02)


@pytest.mark.parametrize(("bins_per_octave", "octaves"), [(12, 6), (36, 6), (48, 5), (60, 3), (24, 7)])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_other_divisions_of_the_octave_find_tones_too(bins_per_octave: int, octaves: int, gamma: float) -> None:
    features = Features(bins_per_octave=bins_per_octave, octaves=octaves, gamma=gamma)
    for k in range(bins_per_octave // 2, features.bins, bins_per_octave):
        frames = FrameStream(RATE, features).push(tone(features.frequencies[k], 3.0))
        assert np.argmax(frames[-1]) == k
        magnitude = np.exp(frames[-1, k]) - features.log_offset
        assert magnitude == pytest.approx(np.sqrt(features.lengths[k]) / 2, rel=0.02)


@every_mode
@pytest.mark.parametrize("channels", range(1, 9))
def test_the_mean_of_many_channels_is_as_good_as_one(features: Features, channels: int) -> None:
    recording = np.repeat(NOISE[:40_000, None], channels, axis=1)
    assert whole(recording.mean(axis=1), features) == pytest.approx(whole(NOISE[:40_000], features), abs=0.01)


@every_mode
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_sound_is_silence_and_is_counted(features: Features, bad: float) -> None:
    broken, mended = NOISE[:60_000].copy(), NOISE[:60_000].copy()
    broken[5_000:5_100] = bad
    mended[5_000:5_100] = 0.0
    stream = FrameStream(48_000, features)
    frames = stream.push(broken)
    assert stream.replaced == 100
    assert np.array_equal(frames, FrameStream(48_000, features).push(mended))
    stream.reset()
    assert stream.replaced == 0


@every_mode
def test_samples_are_left_as_they_are(features: Features) -> None:
    broken = NOISE[:1_000].copy()
    broken[10] = np.nan
    broken.flags.writeable = False
    FrameStream(RATE, features).push(broken)
    assert np.isnan(broken[10])


@every_mode
def test_denormal_numbers_are_silence_and_cost_no_more_than_noise(features: Features) -> None:
    tiny = 1e-40 * NOISE
    keen = features.model_copy(update={"log_offset": 1e-30})
    assert np.array_equal(whole(1e-22 * NOISE, keen), whole(0 * NOISE, keen))

    def cost(samples: Float32) -> float:
        spent = []
        for _ in range(7):
            stream = FrameStream(RATE, features)
            start = time.perf_counter()
            stream.push(samples)
            spent.append(time.perf_counter() - start)
        return min(spent)

    assert cost(tiny) < 3 * cost(NOISE)


@every_mode
def test_a_clipped_tone_keeps_its_bin(features: Features) -> None:
    clipped = np.clip(30 * tone(features.frequencies[50], 3.0), -1, 1)
    frames = FrameStream(RATE, features).push(clipped)
    assert np.isfinite(frames).all()
    assert np.argmax(frames[-1]) == 50


@every_mode
def test_silence_is_the_offset_in_every_bin(features: Features) -> None:
    frames = whole(np.zeros(50_000, np.float32), features)
    assert frames == pytest.approx(np.full(frames.shape, np.log(features.log_offset)))


# Centred frames: final and provisional.


@every_centred
@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 60_000))
def test_a_window_is_what_a_recording_that_ends_now_gives(features: Features, size: int) -> None:
    stream = FrameStream(RATE, features)
    for start in range(0, size, 9_999):
        stream.push(NOISE[start : min(start + 9_999, size)])
        stream.window(3)
    found = stream.window(108)
    expected = whole(NOISE[:size], features)[-108:]
    assert np.array_equal(found[108 - len(expected) :], expected)
    assert (found[: 108 - len(expected)] == np.log(np.float32(features.log_offset))).all()


@every_centred
def test_each_octave_is_final_when_it_is_said_to_be(features: Features) -> None:
    """What comes later cannot change a final octave, and does change one that still waits for a third of its future."""
    transform, frame = CentredCQT(features), 40_960 // features.hop
    assert transform.needed(frame) == frame * features.hop + transform.wait(features.octaves - 1)
    for octave in range(features.octaves):
        bins = slice((features.octaves - 1 - octave) * 24, (features.octaves - octave) * 24)
        changed = {}
        for share in (1.0, 0.3):
            now = frame * features.hop + round(share * transform.wait(octave))
            other = NOISE.copy()
            other[now:] = 10.0 * NOISE[: NOISE.size - now]
            a, b = whole(NOISE, features), whole(other, features)
            changed[share] = not np.array_equal(a[frame, bins], b[frame, bins])
        assert changed == {1.0: False, 0.3: True}


@every_centred
def test_finish_adds_the_frames_that_librosa_counts(features: Features) -> None:
    for size in (1, 2, features.hop - 2, features.hop - 1, features.hop, 70_001):
        assert len(whole(NOISE[:size], features)) == 1 + (size + 1) // 2 // (features.hop // 2)


def test_a_window_longer_than_what_is_kept_is_refused_by_value() -> None:
    stream = FrameStream(RATE, MODES["centred"], keep=10)
    with pytest.raises(ValueError, match="11"):
        stream.window(11)


def test_right_aligned_frames_have_no_window() -> None:
    with pytest.raises(ValueError, match="final"):
        FrameStream(RATE, Features()).window(1)


def test_each_transform_refuses_the_other_alignment() -> None:
    with pytest.raises(ValueError, match="centred"):
        SlidingCQT(MODES["centred"])
    with pytest.raises(ValueError, match="right"):
        CentredCQT(Features())


def test_too_little_room_for_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="frames"):
        CentredCQT(MODES["centred"]).push(NOISE, np.empty((3, 144), np.float32))


# Windows, one a hop.


def windows(samples: Float32, stream: WindowStream) -> list[Float32]:
    return [window.copy() for window in stream.push(samples)]


@every_centred
@pytest.mark.parametrize("future", [1, 1364, 4096])
def test_each_window_is_what_a_recording_gives_that_ends_so_long_after_its_last_frame(
    features: Features, future: int
) -> None:
    found = windows(NOISE, WindowStream(RATE, features, 20, future))
    assert len(found) == (NOISE.size - future) // features.hop + 1
    for number in (0, 3, 21, len(found) - 1):
        expected = whole(NOISE[: number * features.hop + future], features)[: number + 1][-20:]
        assert np.array_equal(found[number][20 - len(expected) :], expected)
        assert (found[number][: 20 - len(expected)] == np.log(np.float32(features.log_offset))).all()


@every_centred
def test_with_all_of_their_future_windows_hold_final_frames(features: Features) -> None:
    longest = CentredCQT(features).wait(features.octaves - 1)
    found = windows(NOISE, WindowStream(RATE, features, 5, longest))
    final = FrameStream(RATE, features).push(NOISE)
    assert all(np.array_equal(window, final[n - 4 : n + 1]) for n, window in enumerate(found) if n >= 4)
    with pytest.raises(ValueError, match=str(longest)):
        WindowStream(RATE, features, 5, longest + 1)


@settings(max_examples=20, deadline=None)
@given(
    mode=st.sampled_from(sorted(CENTRED)),
    rate=st.sampled_from([8_000, 22_050, 48_000]),
    cuts=st.lists(st.integers(0, NOISE.size), max_size=12),
)
def test_windows_do_not_depend_on_the_cutting(mode: str, rate: int, cuts: list[int]) -> None:
    stream = WindowStream(rate, CENTRED[mode], 12, 3000)
    expected = windows(NOISE, stream)
    assert stream.frames == len(expected)
    stream.reset()
    found = [window for piece in np.split(NOISE, sorted(cuts)) for window in windows(piece, stream)]
    assert np.array_equal(found, expected)


@every_centred
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_a_window_comes_with_the_sample_that_its_time_names(features: Features, rate: int) -> None:
    stream = WindowStream(rate, features, 3, 4096)
    for number in (0, 1, 4):
        needed = round(stream.time_of(number) * rate)
        stream.reset()
        assert len(windows(NOISE[: needed - 1], stream)) == number
        assert len(windows(NOISE[needed - 1 : needed], stream)) == 1


# Definitions.


def test_a_manifest_written_before_there_were_other_modes_is_the_live_definition() -> None:
    before = (
        '{"kind": "cqt", "alignment": "right", "version": 1, "sample_rate": 22050, "hop": 512, "octaves": 6, '
        '"bins_per_octave": 24, "fmin": 32.70319566257483, "log_offset": 0.001}'
    )
    assert Features.model_validate_json(before) == Features() == DEFINITIONS["live"]


@every_mode
def test_a_definition_survives_json(features: Features) -> None:
    assert Features.model_validate_json(features.model_dump_json()) == features


@pytest.mark.parametrize(
    "wrong",
    [
        {"alignment": "centred"},
        {"definition": "librosa-0.11"},
        {"alignment": "centred", "definition": "librosa-0.11", "gamma": 5.0},
        {"alignment": "centred", "definition": "librosa-0.11", "decimator": "minimum"},
        {"alignment": "centred", "definition": "librosa-0.11", "sample_rate": 44_100},
        {"gamma": -1.0},
    ],
)
def test_definitions_that_contradict_themselves_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Features.model_validate(wrong)


@pytest.mark.parametrize("longest", [40.0, 91.0, 168.0, 1_000.0])
def test_variable_q_has_the_longest_window_that_was_asked_for(longest: float) -> None:
    features = Features.variable_q(longest)
    assert features.longest_ms == pytest.approx(longest)
    window = latency(features).window
    assert window.argmax() == 0
    assert np.all(np.diff(window) < 0)


def test_each_set_of_bins_has_kernels_of_its_own() -> None:
    with pytest.raises(ValueError, match="two sets"):
        kernels(DEFINITIONS["live-both"])


def test_variable_q_cannot_be_longer_than_constant_q() -> None:
    with pytest.raises(ValueError, match="1059"):
        Features.variable_q(2_000.0)


# Latency.


@pytest.mark.parametrize(
    ("features", "k"),
    [
        pytest.param(features, k, id=f"{name}-{k}")
        for name, features in RIGHT.items()
        for k in range(12, features.bins, 24)
    ],
)
def test_a_tone_shows_half_of_itself_after_the_latency_that_is_computed(features: Features, k: int) -> None:
    fine = features.model_copy(update={"hop": 64})
    computed = latency(fine)
    samples = np.concatenate((np.zeros(RATE, np.float32), tone(fine.frequencies[k], 2.0)))
    magnitude = np.exp(FrameStream(RATE, fine).push(samples)[:, k]) - fine.log_offset
    reached = (np.flatnonzero(magnitude > 0.5 * magnitude[-100:].mean())[0] + 1) * 64 - RATE
    assert 1000 * reached / RATE == pytest.approx(computed.total[k], abs=3.0 + 0.05 * computed.window[k])


def test_the_resampler_is_part_of_the_latency() -> None:
    stream = FrameStream(48_000, Features())
    assert stream.resampler.delay > 0
    assert stream.latency().resampler == pytest.approx(1000 * stream.resampler.delay)
    assert stream.latency().total == pytest.approx(latency(Features()).total + stream.latency().resampler)


def test_minimum_phase_keeps_the_magnitudes_and_sheds_most_of_the_delay() -> None:
    linear, minimum = half_band(), minimum_phase(half_band())
    spectra = [np.abs(np.fft.rfft(taps, 1024)) for taps in (linear, minimum)]
    assert spectra[1] == pytest.approx(spectra[0], abs=1e-5)
    delays = [latency(features).decimators for features in (Features(), Features(decimator="minimum"))]
    assert np.all(delays[1] < 0.35 * delays[0])


def test_the_first_frame_after_warming_up_is_the_first_of_a_stream() -> None:
    for features in MODES.values():
        stream = FrameStream(RATE, features)
        assert stream.warm_up() > 0
        assert np.array_equal(stream.push(NOISE), FrameStream(RATE, features).push(NOISE))
