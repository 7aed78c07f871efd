"""The gate: silence, the noise of the stage, and what is neither. What the student makes of noise: test_recognizer."""

import numpy as np
import pytest

from rtchord.cqt import DEFINITIONS, Features
from rtchord.gate import MARGIN_DB, STEADY_SECONDS, Gate

FEATURES = Features()
FLOOR = -90.0
STRETCH = round(STEADY_SECONDS * FEATURES.frame_rate) + 1
SILENCE = np.full(FEATURES.bins, np.log(FEATURES.log_offset), np.float32)


def sinusoids(levels: dict[int, float]) -> np.ndarray:
    """A frame in which the bins of `levels` hold sinusoids of so many dBFS, and nothing else sounds."""
    frame = SILENCE.copy()
    for number, dbfs in levels.items():
        magnitude = np.sqrt(FEATURES.lengths[number]) / 2 * 10 ** (dbfs / 20)
        frame[number] = np.log(magnitude + FEATURES.log_offset)
    return frame


HUM = sinusoids({14: -50.0, 38: -55.0, 52: -60.0})


def known(gate: Gate, noise: np.ndarray, frames: int = STRETCH) -> None:
    """`noise` for some frames, which the student calls N."""
    for _ in range(frames):
        gate.silent(noise, True)


@pytest.mark.parametrize("number", [0, 70, 143])
def test_a_sinusoid_below_the_floor_is_silence_and_one_above_it_is_not(number: int) -> None:
    gate = Gate(FEATURES, FLOOR)
    assert gate.silent(sinusoids({number: FLOOR - 0.5}), False)
    assert not gate.silent(sinusoids({number: FLOOR + 0.5}), False)


def test_the_first_frame_of_a_stream_may_be_music_however_quiet() -> None:
    assert not Gate(FEATURES, FLOOR).silent(sinusoids({40: FLOOR + 1}), False)


def test_what_the_student_calls_no_chord_for_a_while_is_the_noise_of_the_stage() -> None:
    gate = Gate(FEATURES, FLOOR)
    known(gate, HUM, STRETCH - 2)
    assert not gate.silent(HUM, False)
    known(gate, HUM)
    assert gate.silent(HUM, False)


def test_a_chord_is_heard_over_noise_by_one_bin_that_stands_out() -> None:
    gate = Gate(FEATURES, FLOOR)
    known(gate, HUM)
    assert gate.silent(sinusoids({14: -50.0 + MARGIN_DB - 1, 38: -55.0}), False)
    assert not gate.silent(sinusoids({14: -50.0 + MARGIN_DB + 1, 38: -55.0}), False)
    assert not gate.silent(sinusoids({14: -50.0, 38: -55.0, 60: -80.0}), False)


def test_a_held_chord_never_becomes_noise() -> None:
    gate = Gate(FEATURES, FLOOR)
    assert not any(gate.silent(HUM, False) for _ in range(20 * STRETCH))


def test_a_name_in_between_begins_the_wait_for_noise_anew() -> None:
    gate = Gate(FEATURES, FLOOR)
    for _ in range(6):
        known(gate, HUM, STRETCH - 2)
        assert not gate.silent(HUM, False)


def test_what_changes_its_level_is_no_noise_of_the_stage() -> None:
    gate = Gate(FEATURES, FLOOR)
    for level in np.linspace(-40.0, -70.0, 2 * STRETCH):  # as a drum dies away, or a voice
        gate.silent(sinusoids({40: level}), True)
    assert not gate.silent(sinusoids({40: -60.0}), False)


def test_noise_that_is_over_is_forgotten() -> None:
    gate = Gate(FEATURES, FLOOR)
    known(gate, HUM)
    known(gate, SILENCE, STRETCH // 2)
    assert not gate.silent(HUM, False)


def test_noise_that_comes_later_is_learnt_then() -> None:
    gate = Gate(FEATURES, FLOOR)
    known(gate, SILENCE, 3 * STRETCH)
    known(gate, HUM, 2 * STRETCH)
    assert gate.silent(HUM, False)


def test_a_reset_forgets_the_noise() -> None:
    gate = Gate(FEATURES, FLOOR)
    known(gate, HUM)
    gate.reset()
    assert not gate.silent(HUM, False)


def test_the_first_set_of_bins_alone_is_heard() -> None:
    pair = DEFINITIONS["live-both"]
    both, first = Gate(pair, -65.0), Gate(pair.sets[0], -65.0)
    frames = np.random.default_rng(0).normal(-5, 1.5, (300, pair.bins)).astype(np.float32)
    frames[100:200, : pair.bins // 2] = np.log(pair.log_offset)
    found = [both.silent(frame, False) for frame in frames]
    assert found == [first.silent(frame[: pair.bins // 2], False) for frame in frames]
    assert set(found) == {True, False}
