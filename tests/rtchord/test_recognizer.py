"""The whole chain as a library call."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtchord import Recognizer
from rtchord.audio.files import read_mono
from rtchord.chords import class_index
from rtchord.cqt import FrameStream
from rtchord.engine import Stepper, load, shipped
from rtchord.errors import UserError
from rtchord.events import ChordEvent
from rtchord.recognizer import posteriors, segment, transcribe

DEMO = Path(__file__).parents[1] / "data" / "demo.ogg"
RATE = 48_000


def cut(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Blocks of the given sizes, again and again until the samples are used up."""
    blocks, position, i = [], 0, 0
    while position < samples.size:
        blocks.append(samples[position : position + sizes[i % len(sizes)]])
        position, i = position + sizes[i % len(sizes)], i + 1
    return blocks


def events_of(recognizer: Recognizer, blocks: list[np.ndarray]) -> list[ChordEvent]:
    return [event for block in blocks for event in recognizer.push(block)]


@pytest.fixture(scope="module")
def demo() -> tuple[np.ndarray, int]:
    samples, rate = read_mono(DEMO)
    return samples[: 12 * rate], rate


@pytest.fixture(scope="module")
def recognizer(demo: tuple[np.ndarray, int]) -> Recognizer:
    return Recognizer(demo[1])


@pytest.fixture(scope="module")
def whole(demo: tuple[np.ndarray, int], recognizer: Recognizer) -> list[ChordEvent]:
    recognizer.reset()
    return recognizer.push(demo[0])


def test_the_demo_has_chords(whole: list[ChordEvent]) -> None:
    assert len({event.chord for event in whole} - {"N"}) >= 3


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 50))
def test_events_are_the_same_for_every_cutting(
    sizes: list[int], demo: tuple[np.ndarray, int], recognizer: Recognizer, whole: list[ChordEvent]
) -> None:
    recognizer.reset()
    assert events_of(recognizer, cut(demo[0], sizes)) == whole


def test_single_samples_give_the_same_events(demo: tuple[np.ndarray, int], recognizer: Recognizer) -> None:
    samples = demo[0][: 2 * demo[1]]
    recognizer.reset()
    expected = recognizer.push(samples)
    recognizer.reset()
    assert events_of(recognizer, list(samples[:, None])) == expected


def test_an_event_is_given_out_with_the_sample_that_its_time_names(
    demo: tuple[np.ndarray, int], recognizer: Recognizer
) -> None:
    recognizer.reset()
    for number, block in enumerate(cut(demo[0], [100]), 1):
        for event in recognizer.push(block):
            assert (number - 1) * 100 < round(event.time * demo[1]) <= number * 100


class Late:
    """The shipped engine, whose answer comes `lookahead` frames later."""

    def __init__(self, lookahead: int) -> None:
        self._engine, self._lookahead = load(), lookahead
        self.manifest = self._engine.manifest.model_copy(update={"lookahead": lookahead})

    def stepper(self) -> "LateStepper":
        return LateStepper(self._engine.stepper(), self._lookahead)


class LateStepper:
    def __init__(self, stepper: Stepper, lookahead: int) -> None:
        self._stepper, self._lookahead = stepper, lookahead
        self._answers: list[tuple[np.ndarray, np.ndarray]] = []

    def reset(self, stream: int | None = None) -> None:
        self._stepper.reset(stream)
        self._answers.clear()

    def step(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, bass = self._stepper.step(frame)
        self._answers.append((classes.copy(), bass.copy()))
        return self._answers[max(0, len(self._answers) - 1 - self._lookahead)]

    def look(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError(f"{window.shape} is not for a step")


def test_an_engine_that_looks_ahead_says_the_same_of_the_same_sound_later(
    demo: tuple[np.ndarray, int], whole: list[ChordEvent]
) -> None:
    samples, rate = demo
    late = Recognizer(rate, Late(3)).push(samples)
    assert len(late) >= len(whole) - 1
    for event, same in zip(late, whole, strict=False):
        assert (event.symbol, event.confidence) == (same.symbol, same.confidence)
        assert event.onset == same.onset
        assert event.time - same.time == pytest.approx(3 * 512 / 22_050, abs=2 / rate)
    a, b = (posteriors(samples, rate, engine) for engine in (Late(3), load()))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_allclose(a[2] - b[2], 3 * 512 / 22_050, atol=2 / rate)


def test_a_new_recognizer_on_a_used_engine_begins_anew(demo: tuple[np.ndarray, int]) -> None:
    samples, rate = demo
    engine = load()
    first = Recognizer(rate, engine).push(samples)
    assert Recognizer(rate, engine).push(samples) == first


def test_recognizers_in_turns_on_one_engine_say_what_each_says_alone(
    demo: tuple[np.ndarray, int], whole: list[ChordEvent]
) -> None:
    samples, rate = demo
    other = samples[::-1].copy()
    alone = Recognizer(rate).push(other)
    engine = load()
    pair, found = (Recognizer(rate, engine), Recognizer(rate, engine)), ([], [])
    for i, blocks in enumerate(zip(cut(samples, [700, 1900]), cut(other, [700, 1900]), strict=True)):
        for recognizer, block, events in zip(pair, blocks, found, strict=True):
            events += recognizer.push(block)
        if i == 50:  # a third one that comes and goes does no harm to the others
            Recognizer(rate, engine).push(other[:rate])
    assert found == (whole, alone)
    assert whole[1:] != alone[1:]


def test_recognizers_that_share_an_engine_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load()

    def again(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr("onnxruntime.InferenceSession", again)
    first, second = Recognizer(RATE, engine), Recognizer(RATE, engine)
    assert first.engine is second.engine is engine


def test_onsets_do_not_follow_times(whole: list[ChordEvent]) -> None:
    assert all(0 <= event.onset <= event.time for event in whole)
    assert all(0 <= event.confidence <= 1 for event in whole)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(RATE * 2, np.float32),
        np.full(RATE * 2, 0.7, np.float32),
        np.full(RATE * 2, np.nan, np.float32),
        np.full(RATE * 2, np.inf, np.float32),
        np.full(RATE * 2, 1e-40, np.float32),
    ],
    ids=["silence", "DC", "NaN", "infinity", "denormals"],
)
def test_nothing_is_no_chord(samples: np.ndarray) -> None:
    assert {event.chord for event in Recognizer(RATE).push(samples)} == {"N"}


def test_bad_samples_do_not_poison_what_follows(demo: tuple[np.ndarray, int], recognizer: Recognizer) -> None:
    samples, rate = demo
    recognizer.reset()
    recognizer.push(np.full(rate, np.nan, np.float32))
    after_nan = [event.chord for event in recognizer.push(samples)]
    recognizer.reset()
    recognizer.push(np.zeros(rate, np.float32))
    assert [event.chord for event in recognizer.push(samples)] == after_nan


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 88_200, 96_000, 192_000])
def test_every_rate_hears_a_held_chord(rate: int) -> None:
    t = np.arange(rate * 2) / rate
    tones = [130.81, 261.63, 329.63, 392.0]
    samples = sum(np.sin(2 * np.pi * f * k * t) / k for f in tones for k in (1, 2, 3)) * 0.05
    chords = [event.chord for event in Recognizer(rate).push(samples.astype(np.float32))]
    assert chords[-1].startswith("C:maj")


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (np.zeros((10, 2), np.float32), ValueError, "mono"),
        (np.zeros(10, np.int16), TypeError, "floating point"),
        ([0.0] * 10, TypeError, "NumPy array, not list"),
    ],
)
def test_blocks_of_another_form_are_refused_and_change_nothing(
    samples: np.ndarray, error: type[Exception], words: str, demo: tuple[np.ndarray, int], recognizer: Recognizer
) -> None:
    recognizer.reset()
    expected = recognizer.push(demo[0][: 2 * demo[1]])
    recognizer.reset()
    with pytest.raises(error, match=words):
        recognizer.push(samples)
    assert recognizer.push(demo[0][: 2 * demo[1]]) == expected


def test_rates_as_devices_give_them_and_paths_as_text_are_taken() -> None:
    assert Recognizer(48_000.0, engine=str(shipped())).push(np.zeros(480, np.float64)) == []


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'quick'.*fast, balanced, steady"):
        Recognizer(RATE, latency="quick")


def test_an_offline_decode_takes_the_delay_off_again() -> None:
    """Of where chords change; a recording begins at 0 and ends where it ends."""
    heard = np.full((60, 170), 1e-6, np.float32)
    heard[:30, 1], heard[30:, class_index(5, "maj")] = 1.0, 1.0
    times = 0.1 * (1 + np.arange(60))
    found = segment(heard, np.full((60, 13), 1 / 13, np.float32), times, end=6.5, delay=0.25, hop=0.1)
    assert [chord.label for _, _, chord in found] == ["C:maj", "F:maj"]
    assert [(start, end) for start, end, _ in found] == [(0.0, pytest.approx(2.85)), (pytest.approx(2.85), 6.5)]


def test_an_onset_is_when_the_sound_of_its_frame_began(demo: tuple[np.ndarray, int], recognizer: Recognizer) -> None:
    """A hop of the transform before the frame is there."""
    samples, rate = demo
    recognizer.reset()
    times = [round(rate * event.onset) for event in recognizer.push(samples)][1:]
    assert times
    stream = FrameStream(rate, recognizer.engine.manifest.features)
    possible = [stream.time_of(frame) - 512 / 22_050 for frame in range(600)]
    assert set(times) <= {round(rate * time) for time in possible}


def test_transcribe_covers_the_file_without_gaps() -> None:
    segments = transcribe(DEMO)
    samples, rate = read_mono(DEMO)
    assert segments[0][0] == 0
    assert segments[-1][1] == pytest.approx(samples.size / rate)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(segments))


def test_held_chords_last_and_do_not_depend_on_the_cutting(demo: tuple[np.ndarray, int]) -> None:
    samples, rate = demo
    recognizer = Recognizer(rate, hold=1.5)
    events = recognizer.push(samples)
    recognizer.reset()
    assert events_of(recognizer, cut(samples, [997, 1, 4096])) == events
    chords = [(a, b) for a, b in itertools.pairwise(events) if a.chord != "N"]
    assert chords
    assert all(b.time - a.time > 1.5 - 1 / rate for a, b in chords)


def test_a_hold_out_of_range_is_refused() -> None:
    for hold in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="hold"):
            Recognizer(RATE, hold=hold)


def tones(frequencies: list[float], seconds: float, level: float) -> np.ndarray:
    """Sines of equal strength, together of `level` dBFS (root mean square)."""
    t = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * f * t + f) for f in frequencies)
    return (sound / np.sqrt(np.mean(sound**2)) * 10 ** (level / 20)).astype(np.float32)


def hum(mains: float, seconds: float, level: float) -> np.ndarray:
    """An idle amplifier: harmonics of the mains and some hiss."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    return tones([mains * k for k in range(1, 13)], seconds, level) + np.float32(0.1 * 10 ** (level / 20)) * noise


def strings(notes: list[int], seconds: float, peak: float, decay: float = 6.0) -> np.ndarray:
    """MIDI notes struck at once, with harmonics that fall off and die away by 60 dB in `decay` s, the high ones sooner;
    of `peak` dBFS."""
    t = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros(t.size)
    for note in notes:
        for k in range(1, 9):
            f = k * 440 * 2 ** ((note - 69) / 12)
            sound += np.sin(2 * np.pi * f * t + note + k) / k * 10 ** (-3 * t * (1 + 0.1 * k) / decay)
    sound[:96] *= np.linspace(0, 1, 96)
    return (sound / np.abs(sound).max() * 10 ** (peak / 20)).astype(np.float32)


C_MAJOR = [130.81, 261.63, 329.63, 392.0, 523.25]
SONG = {"C:maj": [48, 52, 55, 60, 64], "G:maj": [43, 47, 50, 55, 59], "F:maj": [41, 48, 53, 57, 60]}


def shown(events: list[ChordEvent], start: float, end: float) -> dict[str, float]:
    """Seconds from `start` to `end` in which each root and quality was on show."""
    found: dict[str, float] = {}
    for event, until in zip(events, [*(e.time for e in events[1:]), end], strict=True):
        name = event.chord.split("/")[0]
        found[name] = found.get(name, 0.0) + max(0.0, min(until, end) - max(event.time, start))
    return {name: seconds for name, seconds in found.items() if seconds > 0}


@pytest.mark.parametrize("mains", [50.0, 60.0])
@pytest.mark.parametrize("level", [-65.0, -57.0, -50.0, -30.0])
def test_an_idle_amplifier_is_no_chord(mains: float, level: float) -> None:
    assert {event.chord for event in Recognizer(RATE).push(hum(mains, 8, level))} == {"N"}


@pytest.mark.parametrize("level", [-45.0, -20.0])
def test_hiss_is_no_chord(level: float) -> None:
    hiss = np.random.default_rng(0).standard_normal(8 * RATE).astype(np.float32)
    assert {event.chord for event in Recognizer(RATE).push(hiss * np.float32(10 ** (level / 20)))} == {"N"}


def test_an_amplifier_that_is_switched_on_is_no_chord() -> None:
    sound = np.concatenate((np.zeros(4 * RATE, np.float32), hum(50.0, 6, -50)))
    assert {event.chord for event in Recognizer(RATE).push(sound)} == {"N"}


@pytest.mark.parametrize("before", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("peak", [-12.0, -36.0])
def test_the_first_chords_of_a_stream_are_heard_however_quiet(peak: float, before: float) -> None:
    song = np.concatenate([strings(notes, 3, peak) for notes in SONG.values()])
    events = Recognizer(RATE).push(np.concatenate((np.zeros(round(before * RATE), np.float32), song)))
    assert "N" not in shown(events, before + 0.5, before + 9)
    for number, name in enumerate(SONG):
        assert shown(events, before + 3 * number + 1, before + 3 * number + 3) == {name: pytest.approx(2.0)}


def test_a_chord_that_dies_away_ends_once() -> None:
    """60 dB in 6 s, from -6 dBFS: it falls below the floor after some 8 s."""
    events = Recognizer(RATE).push(strings(SONG["C:maj"], 16, -6))
    names = [event.chord.split("/")[0] for event in events]
    assert [name for name, _ in itertools.groupby(names)] == ["N", "C:maj", "N"]
    assert events[-1].time > 6


def test_a_chord_that_is_held_for_long_is_no_hum() -> None:
    for level in (-30, -50):
        events = Recognizer(RATE).push(tones(C_MAJOR, 20, level))
        assert set(shown(events, 0.5, 20)) == {"C:maj"}


def test_a_chord_over_hum_is_heard_and_the_hum_after_it_is_not() -> None:
    played = np.zeros(12 * RATE, np.float32)
    played[5 * RATE : 7 * RATE] = tones(C_MAJOR, 2, -25)
    events = Recognizer(RATE).push(played + hum(50.0, 12, -55))
    assert [event.chord.split("/")[0] for event in events][:2] == ["N", "C:maj"]
    assert events[1].time - 5 < 0.3
    assert events[-1].chord == "N"
    assert events[-1].time - 7 < 0.7


def test_the_gate_does_not_depend_on_the_cutting() -> None:
    sound = hum(60.0, 6, -52)
    sound[3 * RATE : 4 * RATE] += tones(C_MAJOR, 1, -30)
    recognizer = Recognizer(RATE)
    whole = recognizer.push(sound)
    recognizer.reset()
    assert events_of(recognizer, cut(sound, [1, 777, 4096, 100])) == whole
    assert len(whole) > 1
