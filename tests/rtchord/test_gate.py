"""The gate: silence, the hum of the mains, and what is neither. What the whole chain makes of it: test_recognizer."""

import numpy as np
import pytest

from rtchord.cqt import DEFINITIONS, Features, FrameStream
from rtchord.gate import Gate

RATE = 22_050
FLOOR = -90.0
BOTH = DEFINITIONS["live-both"]
SILENCE = float(np.log(Features().log_offset))
C_MAJOR = [130.81, 164.81, 196.0, 261.63, 329.63]
G_MAJOR = [98.0, 123.47, 146.83, 196.0, 246.94, 392.0]


def sinusoid(number: int, dbfs: float, features: Features = BOTH) -> np.ndarray:
    """A frame in which one bin holds a sinusoid of so many dBFS, and nothing else sounds."""
    frame = np.full(features.bins, SILENCE, np.float32)
    frame[number] = np.log(np.sqrt(features.lengths[number]) / 2 * 10 ** (dbfs / 20) + features.log_offset)
    return frame


def sines(frequencies: list[float], dbfs: float, seconds: float = 2.0) -> np.ndarray:
    """Sines of `dbfs` each."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (10 ** (dbfs / 20) * sum(np.sin(2 * np.pi * f * t + f) for f in frequencies)).astype(np.float32)


def notes(pitches: list[float], dbfs: float, cents: float = 0.0) -> np.ndarray:
    """Notes with six harmonics that fall off, `cents` sharp."""
    return sum(sines([p * k * 2 ** (cents / 1200) for p in pitches], dbfs - 20 * np.log10(k)) for k in range(1, 7))


def hum(mains: float, dbfs: float, harmonics: range = range(1, 31)) -> np.ndarray:
    return sines([mains * k for k in harmonics], dbfs)


def silent(sound: np.ndarray, features: Features = BOTH, floor: float = FLOOR) -> list[bool]:
    """What the gate says of each frame of a sound."""
    gate = Gate(features, floor)
    return [gate.silent(frame) for frame in FrameStream(RATE, features).push(sound)]


def share(found: list[bool], after: float) -> float:
    """Share of the frames after `after` s."""
    return float(np.mean(found[round(after * BOTH.frame_rate) :]))


@pytest.mark.parametrize("number", [0, 70, 143])
def test_a_sinusoid_below_the_floor_is_silence_and_one_above_it_is_not(number: int) -> None:
    gate = Gate(BOTH, FLOOR)
    assert gate.silent(sinusoid(number, FLOOR - 0.5))
    assert not gate.silent(sinusoid(number, FLOOR + 0.5))


def test_the_first_set_of_bins_decides_what_is_below_the_floor() -> None:
    """The wide bins of the second set hold more noise."""
    assert Gate(BOTH, FLOOR).silent(sinusoid(200, 0.0))


@pytest.mark.parametrize("mains", [50.0, 60.0])
@pytest.mark.parametrize("off", [0.998, 1.0, 1.002])
@pytest.mark.parametrize("dbfs", [-30.0, -75.0])
def test_hum_of_the_mains_is_silence_from_a_tenth_of_a_second_on(mains: float, off: float, dbfs: float) -> None:
    assert share(silent(hum(mains * off, dbfs)), 0.15) == 1.0


@pytest.mark.parametrize("harmonics", [range(1, 2), range(1, 30, 2), range(2, 30, 2), range(3, 20)])
def test_hum_has_many_shapes(harmonics: range) -> None:
    assert share(silent(hum(50.0, -40.0, harmonics)), 1.2) == 1.0


def test_hum_is_known_by_constant_q_bins_alone() -> None:
    assert share(silent(hum(60.0, -40.0), Features()), 1.2) == 1.0


def test_hum_is_known_beside_hiss() -> None:
    hiss = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * np.float32(10 ** (-55 / 20))
    assert share(silent(hum(50.0, -40.0) + hiss), 1.2) > 0.9


@pytest.mark.parametrize("chord", [C_MAJOR, G_MAJOR, [196.0, 246.94, 293.66]], ids=["C", "G", "G, close"])
@pytest.mark.parametrize("cents", range(-50, 51, 10))
def test_a_chord_is_no_hum_however_long_it_is_held_and_however_it_is_tuned(chord: list[float], cents: int) -> None:
    assert share(silent(notes(chord, -40.0, cents)), 0.1) == 0.0


def test_one_note_in_tune_is_no_hum() -> None:
    for midi in range(31, 80):  # G1 and F4 lie next to multiples of 50 Hz
        assert share(silent(notes([440 * 2 ** ((midi - 69) / 12)], -30.0)), 1.2) == 0.0, midi


def test_a_chord_over_hum_is_heard_until_it_is_20_db_below_it() -> None:
    assert share(silent(hum(50.0, -40.0) + notes(C_MAJOR, -48.0)), 1.2) == 0.0
    assert share(silent(hum(50.0, -40.0) + notes(C_MAJOR, -75.0)), 1.2) == 1.0


def test_what_is_high_above_hum_is_heard() -> None:
    assert share(silent(hum(50.0, -60.0) + notes([1046.5, 1318.5, 1568.0], -30.0)), 1.2) == 0.0
