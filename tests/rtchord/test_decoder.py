"""The decoder: when it speaks, what it says, how far it dates back."""

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, NO_CHORD, N, X, class_index
from rtchord.decoder import PRESETS, TUNED_HOP, Decoder, DecoderSettings, smooth

SETTINGS = DecoderSettings(change=6.0, start=6.0, refine=8.0, bass=8.0)
C, C7, F, AM = class_index(0, "maj"), class_index(0, "7"), class_index(5, "maj"), class_index(9, "min")


def classes(*pairs: tuple[int, float]) -> np.ndarray:
    """A posterior with the given (class, probability) pairs, the rest spread evenly."""
    out = np.full(N_CLASSES, (1 - sum(p for _, p in pairs)) / (N_CLASSES - len(pairs)), np.float32)
    for index, p in pairs:
        out[index] = p
    return out


def bass(pitch: int = NO_BASS, p: float = 0.9) -> np.ndarray:
    out = np.full(N_BASS, (1 - p) / (N_BASS - 1), np.float32)
    out[pitch] = p
    return out


def run(
    frames: list[tuple[np.ndarray, np.ndarray]], settings: DecoderSettings = SETTINGS, hop: float = TUNED_HOP
) -> list:
    decoder = Decoder(settings, hop=hop)
    decisions = (decoder.push(i, c, b) for i, (c, b) in enumerate(frames))
    return [decision for decision in decisions if decision]


def test_a_clear_chord_is_named_within_a_few_frames_and_dated_back_to_its_first() -> None:
    frames = [(classes((N, 0.95)), bass())] * 10 + [(classes((C, 0.95)), bass(0))] * 10
    (decision,) = run(frames)
    assert decision.chord.label == "C:maj"
    assert decision.onset == 10
    assert 11 <= decision.frame <= 13


def test_one_odd_frame_changes_nothing() -> None:
    steady = [(classes((C, 0.95)), bass(0))] * 10
    decisions = run([*steady, (classes((AM, 0.99)), bass(9)), *steady])
    assert [d.chord.label for d in decisions] == ["C:maj"]


def test_a_larger_threshold_is_later() -> None:
    frames = [(classes((N, 0.9)), bass())] * 5 + [(classes((C, 0.6), (N, 0.2)), bass(0))] * 40
    fast, steady = (run(frames, PRESETS[name])[0].frame for name in ("fast", "steady"))
    assert fast < steady


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_long_frame_weighs_as_much_as_the_short_ones_in_its_place(preset: str) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for index in (N, C, AM, C7):
        for _ in range(40):
            p = rng.dirichlet([9, 1, 1, 1])
            frames.append((classes((index, p[0]), *zip({N, C, AM, C7} - {index}, p[1:] * 0.99, strict=True)), bass()))
    short = run([frame for frame in frames for _ in range(4)], PRESETS[preset])
    long = run(frames, PRESETS[preset], hop=4 * TUNED_HOP)
    assert [d.chord for d in long] == [d.chord for d in short]
    assert len(long) >= 3
    assert [(d.onset, d.frame) for d in long] == [(d.onset // 4, d.frame // 4) for d in short]


def test_doubt_between_qualities_of_a_family_does_not_delay_the_family() -> None:
    sure = run([(classes((N, 0.95)), bass())] * 5 + [(classes((C, 0.9)), bass(0))] * 10)[0]
    torn = run([(classes((N, 0.95)), bass())] * 5 + [(classes((C, 0.5), (C7, 0.4)), bass(0))] * 10)[0]
    assert torn.frame == sure.frame
    assert torn.chord.label == "C:maj"


def test_silence_is_harder_to_break_than_a_chord() -> None:
    settings = DecoderSettings(change=2.0, start=20.0, refine=8.0, bass=8.0)
    blip = [(classes((AM, 0.9)), bass(9))] * 2
    silence, chord = [(classes((N, 0.9)), bass())] * 9, [(classes((C, 0.9)), bass(0))] * 9
    assert run([*silence, *blip, *silence], settings) == []
    assert [d.chord.label for d in run([*chord, *blip, *chord], settings)] == ["C:maj", "A:min", "C:maj"]


def test_a_chord_that_dies_away_is_held_longer_than_one_that_is_replaced() -> None:
    settings = DecoderSettings(change=2.0, start=20.0, refine=8.0, bass=8.0)
    sounding = [(classes((C, 0.95)), bass(0))] * 10
    ended, replaced = (run([*sounding, *[(end, bass())] * 10], settings)[1] for end in map(single, (N, AM)))
    assert (ended.chord, replaced.chord.label) == (NO_CHORD, "A:min")
    assert replaced.frame + 3 <= ended.frame <= 15


def single(index: int) -> np.ndarray:
    return classes((index, 0.95))


def test_two_challengers_abreast_are_waited_for() -> None:
    before, torn = (classes((N, 0.95)), bass()), (classes((C, 0.48), (AM, 0.48)), bass(0))
    (decision,) = run([before] * 5 + [torn] * 20 + [(classes((C, 0.9)), bass(0))] * 5)
    assert decision.chord.label == "C:maj"
    assert decision.frame == 25
    assert decision.onset == 5


DOUBT = (classes((AM, 0.7), (C, 0.1)), bass())


def change_after(*before: int, settings: DecoderSettings = SETTINGS) -> int:
    """Frames that A:min needs against doubt, after two seconds of each of `before` and then C."""
    played = [(single(index), bass()) for index in (*before, C) for _ in range(86)]
    return next(d.frame for d in run([*played, *[DOUBT] * 60], settings) if d.frame >= len(played)) - len(played)


def test_a_chord_that_comes_again_is_named_sooner_than_a_new_one() -> None:
    assert change_after(AM, C, AM, C, AM) < change_after(F, C, F, C, F)


def test_what_was_shown_for_long_weighs_at_most_four_times() -> None:
    shown = [(single(C), bass(0))] * 3000 + [(single(AM), bass(9))] * 300
    *_, last = run([*shown, *[(classes((C, 0.5), (F, 0.45)), bass(0))] * 40])
    assert last.chord.index == C
    others = 0.7 + 0.3 * np.exp(-last.frame * TUNED_HOP / SETTINGS.memory)  # a part of their share is still remembered
    assert last.confidence == pytest.approx(4 * 0.5 / (4 * 0.5 + others * 0.5), abs=0.002)


def test_without_repeat_nothing_is_remembered() -> None:
    plain = SETTINGS.model_copy(update={"repeat": 0.0})
    assert change_after(AM, C, AM, C, AM, settings=plain) == change_after(F, C, F, C, F, settings=plain)


def test_nothing_is_known_at_the_beginning() -> None:
    start = [(classes((N, 0.95)), bass())] * 20 + [(classes((AM, 0.6), (N, 0.2)), bass())] * 20
    assert run(start)[0].frame == run(start, SETTINGS.model_copy(update={"repeat": 0.0}))[0].frame


def test_a_reset_forgets_what_was_shown() -> None:
    decoder = Decoder(SETTINGS)
    for _ in range(2):
        decoder.reset()
        frames = [(single(index), bass()) for index in (AM, C, AM, C) for _ in range(86)] + [DOUBT] * 60
        decisions = [decoder.push(i, *frame) for i, frame in enumerate(frames)]
        found = [(i, d.chord, d.confidence) for i, d in enumerate(decisions) if d]
        assert found == [(d.frame, d.chord, d.confidence) for d in run(frames)]


def test_quality_is_refined_later_and_dated_back() -> None:
    frames = [(classes((C, 0.9)), bass(0))] * 10 + [(classes((C7, 0.8), (C, 0.1)), bass(0))] * 20
    decisions = run(frames)
    assert [(d.chord.label, d.onset) for d in decisions] == [("C:maj", 0), ("C:7", 10)]
    assert decisions[1].frame > 11


def test_the_newest_frame_says_most_of_the_quality() -> None:
    settings = DecoderSettings(change=18.0, start=18.0, refine=90.0, bass=90.0)  # so that four frames are needed
    older, newer = classes((C7, 0.7), (C, 0.25)), classes((C, 0.6), (C7, 0.35))
    silence = [(single(N), bass())] * 5
    for first, last, label in ((older, newer, "C:maj"), (newer, older, "C:7")):
        (decision,) = run([*silence, *[(first, bass(0))] * 2, *[(last, bass(0))] * 2], settings)
        assert (decision.chord.label, decision.frame) == (label, 8)


def test_the_confidence_is_the_posterior_of_the_chord_when_it_is_named() -> None:
    plain = SETTINGS.model_copy(update={"repeat": 0.0})
    shares = np.linspace(0.95, 0.5, 60)
    parts = ((N, NO_BASS, 5), (C, 0, 10), (C7, 0, 15), (C7, 7, 15), (AM, 9, 15))
    indices = [(index, low) for index, low, frames in parts for _ in range(frames)]
    frames = [(classes((index, p)), bass(low)) for (index, low), p in zip(indices, shares, strict=True)]
    decisions = run(frames, plain)
    assert [d.chord.label for d in decisions] == ["C:maj", "C:7", "C:7/5", "A:min"]
    for decision in decisions:
        assert decision.confidence == pytest.approx(shares[decision.frame], abs=1e-6)


def test_the_confidence_is_of_posteriors_that_sum_to_one() -> None:
    """However what was shown weighs on them."""
    frames = [(single(index), bass()) for index in (AM, C, AM, C) for _ in range(86)] + [DOUBT] * 60
    *_, last = run(frames)
    assert 0.7 < last.confidence < 0.95


def settling(first: int, late: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """How many frames each decision waited that contradicts a C which began `first` frames ago."""
    settings = DecoderSettings(change=6.0, start=6.0, refine=24.0, bass=24.0, settle=20 * TUNED_HOP, fresh=0.25)
    frames = [(classes((N, 0.95)), bass())] * 5 + [(classes((C, 0.95)), bass(0))] * first + late * 20
    return [d.frame - (first + 5) for d in run(frames, settings)[1:]]


@pytest.mark.parametrize("late", [(classes((C7, 0.9), (C, 0.09)), bass(0)), (classes((C, 0.95)), bass(4))])
def test_a_chord_just_shown_is_put_right_sooner_than_one_that_has_stood(late: tuple[np.ndarray, np.ndarray]) -> None:
    (soon,), (later,) = settling(5, [late]), settling(60, [late])
    assert soon <= 3
    assert later >= 2 * soon + 2


def test_x_holds_the_last_chord() -> None:
    """Whatever comes second."""
    for second in (classes((X, 0.5), (AM, 0.45)), classes((X, 0.5), (C7, 0.45)), classes((X, 0.5), (N, 0.45))):
        frames = [(classes((C, 0.95)), bass(0))] * 10 + [(second, bass(7))] * 50
        assert [d.chord.label for d in run(frames)] == ["C:maj"]
        frames += [(single(AM), bass(9))] * 10
        assert [(d.chord.label, d.onset) for d in run(frames)][1:] == [("A:min", 60)], "nothing was gathered"


def test_a_clear_bass_makes_an_inversion() -> None:
    assert [d.chord.label for d in run([(classes((C, 0.95)), bass(4))] * 20)] == ["C:maj/3"]


def test_a_bass_that_moves_under_the_chord_is_an_event() -> None:
    frames = [(classes((C, 0.95)), bass(0))] * 10 + [(classes((C, 0.95)), bass(7))] * 20
    assert [(d.chord.label, d.onset) for d in run(frames)] == [("C:maj", 0), ("C:maj/5", 10)]


def test_a_silence_has_no_bass() -> None:
    assert run([(single(N), bass(4))] * 100) == []


def test_the_bass_of_the_next_chord_is_not_told_before_the_chord() -> None:
    """Not even in a chord that was just shown, whose bass is open."""
    settings = DecoderSettings(change=6.0, start=6.0, refine=8.0, bass=8.0, fresh=0.01)
    frames = [(single(C), bass(0))] * 5 + [(single(C), bass(7))] + [(single(F), bass(0))] * 9
    assert [d.chord.label for d in run(frames, settings)] == ["C:maj", "F:maj/5"]


def test_a_bass_outside_the_chord_is_not_shown() -> None:
    assert [d.chord.label for d in run([(classes((C, 0.95)), bass(2))] * 60)] == ["C:maj"]


def test_decisions_never_precede_their_onset() -> None:
    rng = np.random.default_rng(0)
    frames = [
        (rng.dirichlet(np.full(N_CLASSES, 0.01)).astype(np.float32), rng.dirichlet(np.full(N_BASS, 0.1)).astype("f4"))
        for _ in range(2000)
    ]
    decisions = run(frames, PRESETS["fast"])
    assert len(decisions) > 10
    assert all(d.onset <= d.frame for d in decisions)


def test_reset_equals_new() -> None:
    frames = [(classes((C, 0.9)), bass(4))] * 20 + [(classes((AM, 0.7)), bass(9))] * 20
    decoder = Decoder(SETTINGS)
    for i, (c, b) in enumerate(frames):
        decoder.push(i, c, b)
    decoder.reset()
    assert decoder.current == NO_CHORD
    again = [d for i, (c, b) in enumerate(frames) if (d := decoder.push(i, c, b))]
    assert again == run(frames)


def test_what_was_heard_before_unknown_frames_and_a_reset_does_not_name_a_chord() -> None:
    unsure = (classes((C, 0.45), (C7, 0.35), (N, 0.2)), bass(0))
    frames = [unsure] * 2 + [(classes((X, 0.95)), bass())] * 20 + [unsure] * 10
    fresh = run(frames, PRESETS["fast"])
    assert [d.chord.label for d in fresh] == ["C:maj"]
    decoder = Decoder(PRESETS["fast"])
    for i in range(40):
        decoder.push(i, classes((C7, 0.95)), bass(0))
    decoder.reset()
    assert [d for i, frame in enumerate(frames) if (d := decoder.push(i, *frame))] == fresh


def test_a_memory_shorter_than_a_frame_is_of_the_chord_that_is_shown() -> None:
    plain = SETTINGS.model_copy(update={"repeat": 0.0})
    short = plain.model_copy(update={"repeat": SETTINGS.repeat, "memory": TUNED_HOP / 10})
    assert change_after(AM, settings=short) > change_after(AM, settings=plain) + 1


def spoiled(frame: tuple[np.ndarray, np.ndarray], which: int, value: float, at: object) -> tuple:
    changed = tuple(part.copy() for part in frame)
    changed[which][at] = value
    return changed


ALL = slice(None)
NO_POSTERIORS = [
    spoiled((single(AM), bass(9)), *how)
    for how in [
        (0, np.nan, ALL), (0, np.nan, 3), (0, np.inf, AM), (0, -np.inf, C), (0, -1.0, F), (0, 0.0, ALL),
        (1, np.nan, 4), (1, np.inf, 4), (1, -np.inf, 4),
    ]
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nothing", NO_POSTERIORS)
def test_a_frame_that_is_no_posterior_speaks_for_nothing_and_leaves_no_trace(nothing: tuple) -> None:
    """As a frame of X does."""
    silence, c, seventh, am = ((single(index), bass(0)) for index in (N, C, C7, AM))
    torn = (classes((C, 0.45), (C7, 0.35), (N, 0.2)), bass(0))

    def heard(frame: tuple[np.ndarray, np.ndarray]) -> list:
        parts = ((frame, 2), (silence, 3), (c, 1), (torn, 2), (frame, 1), (torn, 9), (frame, 40), (seventh, 20))
        return run([what for what, count in (*parts, (frame, 2), (am, 9)) for _ in range(count)], PRESETS["fast"])

    decisions = heard(nothing)
    assert [d.chord.label for d in decisions] == ["C:maj", "C:7", "A:min/b3"]
    assert decisions == heard((single(X), bass()))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nothing", NO_POSTERIORS)
def test_smooth_gives_a_frame_that_is_no_posterior_to_the_chord_around_it(nothing: tuple) -> None:
    frames = [(single(C), bass(0))] * 20 + [nothing] * 30 + [(single(C), bass(0))] * 20 + [(single(F), bass(9))] * 30
    posterior, low = (np.stack(part) for part in zip(*frames, strict=True))
    found = [(a, b, c.label) for a, b, c in smooth(posterior, low, penalty=12.0)]
    assert found == [(0, 70, "C:maj"), (70, 100, "F:maj/3")]
    assert smooth(*(np.stack(part) for part in zip(*[nothing] * 20, strict=True)), penalty=12.0) == []


def test_smooth_never_says_unknown() -> None:
    for second in (C, N):
        posterior = np.stack([classes((X, 0.7), (second, 0.25))] * 30)
        ((start, end, chord),) = smooth(posterior, np.stack([bass(0)] * 30), penalty=12.0)
        assert (start, end, chord.index) == (0, 30, second)


@pytest.mark.parametrize(
    "bad",
    [{"change": 0, "start": 1, "refine": 1, "bass": 1}, {"change": 1, "start": 1, "refine": 1, "bass": 1, "hold": 2}],
)
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValidationError):
        DecoderSettings(**bad)


def test_smooth_follows_a_lasting_change_and_ignores_a_blip() -> None:
    posterior = np.stack(
        [classes((C, 0.9))] * 30 + [classes((AM, 0.9))] + [classes((C, 0.9))] * 30 + [classes((AM, 0.9))] * 30
    )
    segments = smooth(posterior, np.stack([bass(0)] * 61 + [bass(0)] * 30), penalty=12.0)
    assert [(a, b, c.label) for a, b, c in segments] == [(0, 61, "C:maj"), (61, 91, "A:min/b3")]


def test_smooth_splits_a_chord_where_its_bass_moves() -> None:
    posterior = np.stack([classes((C, 0.9))] * 60)
    segments = smooth(posterior, np.stack([bass(0)] * 30 + [bass(4)] * 30), penalty=12.0)
    assert [(a, b, c.label) for a, b, c in segments] == [(0, 30, "C:maj"), (30, 60, "C:maj/3")]


def test_smooth_counts_seconds_and_not_frames() -> None:
    posterior = np.stack([classes((C, 0.6), (AM, 0.3))] * 20 + [classes((AM, 0.6), (C, 0.3))] * 5)
    heard = np.stack([bass(0)] * 25)
    assert len(smooth(posterior, heard, penalty=12.0)) == 1
    assert len(smooth(posterior, heard, penalty=12.0, hop=4 * TUNED_HOP)) == 2


def test_smooth_of_nothing_is_nothing() -> None:
    assert smooth(np.zeros((0, N_CLASSES), np.float32), np.zeros((0, N_BASS), np.float32), 12.0) == []


def held(frames: list[tuple[np.ndarray, np.ndarray]], hold: int) -> list:
    decoder = Decoder(SETTINGS, hold=hold)
    return [decision for i, (c, b) in enumerate(frames) if (decision := decoder.push(i, c, b))]


SILENCE, ON_C, ON_AM = (classes((N, 0.95)), bass()), (classes((C, 0.95)), bass(0)), (classes((AM, 0.95)), bass(9))


def test_a_held_chord_is_shown_that_long() -> None:
    first, second = held([SILENCE] * 5 + [ON_C] * 6 + [ON_AM] * 40, hold=30)
    assert (first.chord.label, second.chord.label) == ("C:maj", "A:min")
    assert second.frame == first.frame + 30
    assert second.onset == 11


def test_a_challenger_that_has_gone_when_the_hold_is_over_is_not_told() -> None:
    frames = [SILENCE] * 5 + [ON_C] * 6 + [ON_AM] * 20 + [ON_C] * 30
    assert [d.chord.label for d in held(frames, hold=30)] == ["C:maj"]
    assert [d.chord.label for d in held(frames, hold=0)] == ["C:maj", "A:min", "C:maj"]


def test_a_quality_or_bass_that_has_gone_when_the_hold_is_over_is_not_told() -> None:
    for passing in ((classes((C7, 0.9)), bass(0)), (classes((C, 0.95)), bass(7))):
        frames = [SILENCE] * 5 + [ON_C] * 6 + [passing] * 20 + [ON_C] * 30
        assert [d.chord.label for d in held(frames, hold=30)] == ["C:maj"]
        assert len(held(frames, hold=0)) > 1


def test_what_breaks_a_silence_need_not_wait() -> None:
    frames = [ON_C] * 10 + [SILENCE] * 60 + [ON_AM] * 40
    slow, fast = held(frames, hold=30), held(frames, hold=0)
    assert [d.chord.label for d in slow] == ["C:maj", "N", "A:min"]
    assert slow[2].frame == fast[2].frame


def test_a_hold_of_nothing_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    frames = [
        (rng.dirichlet(np.full(N_CLASSES, 0.01)).astype(np.float32), rng.dirichlet(np.full(N_BASS, 0.1)).astype("f4"))
        for _ in range(500)
    ]
    assert held(frames, hold=0) == run(frames)
    told = held(frames, hold=12)
    chords = [(a, b) for a, b in pairwise(told) if a.chord.index != N]
    assert chords
    assert all(b.frame - a.frame >= 12 for a, b in chords)
