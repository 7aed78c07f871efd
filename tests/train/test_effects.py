from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from train import effects
from train.effects import EFFECTS, Codec, Effects, Float32

RATE = 22_050
SEEDS = range(20)


def music(seconds: float = 4.0) -> Float32:
    """Decaying chords with sharp attacks, one a second, some noise in each attack."""
    rng, t = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 329.6, 660.0, 1320.0, 2640.0))
    attacks = rng.standard_normal(t.size) * (t % 1 < 0.01)
    return ((0.1 * tones + 0.3 * attacks) * np.exp(-3 * (t % 1))).astype(np.float32)


def lag(before: Float32, after: Float32) -> int:
    """Samples by which `after` follows `before`, of either sign, by cross-correlation."""
    size = 2 * before.size
    found = np.fft.irfft(np.conj(np.fft.rfft(before, size)) * np.fft.rfft(after, size))
    best = int(np.argmax(found))
    return best if best < before.size else best - size


def fixed(**spans: float) -> Effects:
    """Ranges that hold one value."""
    return EFFECTS.model_copy(update={name: (value, value) for name, value in spans.items()})


def decay_of(response: Float32, low: float, high: float) -> float:
    """s in which the band falls by 60 dB, from the slope of its backward integral (Schroeder 1965) at -5..-25 dB."""
    band = sosfilt(butter(4, (low, high), "bandpass", fs=RATE, output="sos"), response)
    left = 10 * np.log10(np.cumsum(np.square(band)[::-1])[::-1] + 1e-30)
    left -= left[round(0.1 * RATE)]  # behind the early reflections
    first, last = np.argmax(left < -5), np.argmax(left < -25)
    slope = np.polyfit(np.arange(first, last) / RATE, left[first:last], 1)[0]
    return float(-60 / slope)


@pytest.mark.parametrize("effect", [effects.add_room, effects.add_noise, effects.add_codec])
def test_an_effect_is_a_function_of_its_seed(effect: Callable[..., Float32]) -> None:
    first, again, other = (effect(music(), np.random.default_rng(seed), RATE) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("effect", [effects.add_room, effects.add_noise, effects.add_codec])
@pytest.mark.parametrize("audio", [music(), np.zeros(30_000, np.float32)], ids=["music", "silence"])
def test_an_effect_keeps_the_length_and_stays_finite(effect: Callable[..., Float32], audio: Float32) -> None:
    for seed in SEEDS:
        changed = effect(audio, np.random.default_rng(seed), RATE)
        assert (changed.dtype, changed.shape) == (np.float32, audio.shape)
        assert np.isfinite(changed).all()


def test_a_room_answers_at_once_and_loudest_with_the_direct_sound() -> None:
    for seed in SEEDS:
        response = effects.impulse_response(np.random.default_rng(seed), RATE)
        assert int(np.argmax(np.abs(response))) == 0


def test_a_room_does_not_move_an_attack() -> None:
    click = np.zeros(RATE, np.float32)
    click[5_000] = 1.0
    for seed in SEEDS:
        heard = effects.add_room(click, np.random.default_rng(seed), RATE)
        assert np.abs(heard[:5_000]).max() < 1e-6
        assert int(np.argmax(np.abs(heard))) == 5_000


@pytest.mark.parametrize("decay", [0.2, 0.6, 1.2])
def test_a_room_decays_in_the_time_that_was_drawn(decay: float) -> None:
    rooms = fixed(room_decay=decay, room_treble=1.0)
    found = [decay_of(effects.impulse_response(np.random.default_rng(seed), RATE, rooms), 500, 4000) for seed in SEEDS]
    assert np.median(found) == pytest.approx(decay, rel=0.1)


def test_the_treble_of_a_room_decays_sooner() -> None:
    rooms = fixed(room_decay=1.0, room_treble=0.4)
    responses = [effects.impulse_response(np.random.default_rng(seed), RATE, rooms) for seed in SEEDS]
    assert np.median([decay_of(r, 200, 900) for r in responses]) == pytest.approx(1.0, rel=0.1)
    assert np.median([decay_of(r, 7500, 10_000) for r in responses]) == pytest.approx(0.4, rel=0.15)


@pytest.mark.parametrize("direct", EFFECTS.room_direct)
def test_direct_and_reflected_sound_are_in_the_ratio_that_was_drawn(direct: float) -> None:
    response = effects.impulse_response(np.random.default_rng(1), RATE, fixed(room_direct=direct))
    response[0] -= 1.0
    assert -10 * np.log10(np.sum(np.square(response))) == pytest.approx(direct, abs=0.1)


@pytest.mark.parametrize(
    ("codec", "level"), [(codec, level) for codec in effects.CODECS for level in codec.levels],
    ids=lambda value: value.subtype if isinstance(value, Codec) else str(value),
)  # fmt: skip
def test_a_codec_changes_the_sound_and_moves_nothing(codec: Codec, level: float) -> None:
    clean = music()
    coded = effects.through(clean, RATE, codec, level)
    assert abs(lag(clean, coded)) <= 2  # 0.1 ms: the modes of Opus differ by a sample
    left = np.sum(np.square(clean - coded)) / np.sum(np.square(clean))
    assert 1e-5 < left < 0.8


@pytest.mark.parametrize("codec", effects.CODECS, ids=lambda codec: codec.subtype)
def test_a_codec_of_low_rate_is_small(codec: Codec) -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(10 * codec.rate)).astype(np.float32)
    kbits = [len(effects.encoded(noise, codec, level)) * 8 / 10_000 for level in codec.levels]
    assert kbits[-1] < 40 < kbits[0] < 100


@pytest.mark.parametrize("codec", effects.CODECS, ids=lambda codec: codec.subtype)
def test_a_codec_does_not_clip(codec: Codec) -> None:
    loud = 5 * music()
    coded = effects.through(loud, RATE, codec, codec.levels[0])
    assert float(np.abs(coded).max()) == pytest.approx(float(np.abs(loud).max()), rel=0.3)


def test_a_codec_takes_minutes_of_sound() -> None:
    long, vorbis = np.tile(music(), 75), effects.CODECS[-1]
    coded = effects.through(long, RATE, vorbis, vorbis.levels[-1])
    assert abs(lag(long[-8 * RATE :], coded[-8 * RATE :])) <= 2


def test_tunings_keep_to_their_shares_and_ranges() -> None:
    rng = np.random.default_rng(0)
    cents = np.array([effects.draw_cents(rng) for _ in range(5_000)])
    assert np.abs(cents).max() <= 50
    assert np.mean(cents == 0) == pytest.approx(1 - EFFECTS.tuned_near - EFFECTS.tuned_far, abs=0.03)
    assert np.mean(np.abs(cents) > 20) == pytest.approx(0.6 * EFFECTS.tuned_far, abs=0.03)
    assert np.mean(np.abs(cents) <= 10) > 0.5


def spectrum(sound: np.ndarray) -> np.ndarray:
    """Power at each whole Hz of a sound of whole seconds, from its first second on, as shares of all."""
    power = np.abs(np.fft.rfft(sound.reshape(-1, RATE), axis=1)) ** 2
    return power.mean(0) / power.mean(0).sum()


def test_hum_lies_on_the_harmonics_of_the_mains() -> None:
    found = set()
    for seed in range(40):
        power = spectrum(effects.hum(np.random.default_rng(seed), 4 * RATE, RATE))
        near = {
            mains: sum(power[max(0, k - 6) : k + 7].sum() for k in range(mains, 40 * mains, mains))
            for mains in (50, 60)
        }
        mains = max(near, key=near.get)
        assert near[mains] > 0.9
        found.add(mains)
    assert found == {50, 60}


def test_hum_has_many_shapes() -> None:
    shapes = [spectrum(effects.hum(np.random.default_rng(seed), RATE, RATE)) for seed in range(200)]
    strongest = [int(shape.argmax()) for shape in shapes]
    assert {round(f / 10) for f in strongest} >= {5, 6, 10, 12, 15}  # also at twice the frequency, and above
    assert min(shape.max() for shape in shapes) < 0.3  # a comb
    assert max(shape.max() for shape in shapes) > 0.7  # a sine


def test_an_idle_stage_sounds_at_any_level_alike_or_in_stretches() -> None:
    tracks = [effects.noise_alone(np.random.default_rng(seed), 8 * RATE, RATE) for seed in range(60)]
    levels = [20 * np.log10(np.sqrt(np.mean(track**2)) + 1e-9) for track in tracks]
    assert min(levels) < -60
    assert max(levels) > -12
    silent = [bool((track.reshape(-1, RATE // 5) == 0).all(1).any()) for track in tracks]
    assert 0.1 < np.mean(silent) < 0.7


def test_silence_becomes_the_noise_of_an_idle_stage_as_loud_as_it_is() -> None:
    found = effects.add_noise(np.zeros(RATE, np.float32), np.random.default_rng(5), RATE)
    assert np.array_equal(found, effects.noise_alone(np.random.default_rng(5), RATE, RATE).astype(np.float32))


def test_hum_is_laid_over_music_as_far_below_it_as_is_asked() -> None:
    only = EFFECTS.model_copy(update={"idle": 1.0, "fan": 0.0, "clipping": 0.0, "noise_below": (200.0, 200.0)})
    levels = {}
    for below in (15.0, 40.0):
        with_hum = only.model_copy(update={"idle_below": (below, below), "level_below": (0.0, 0.0)})
        sound = effects.add_noise(music(), np.random.default_rng(0), RATE, with_hum)
        clean = music() / np.abs(music()).max()
        levels[below] = 20 * np.log10(np.sqrt(np.mean((sound - clean) ** 2)) / np.sqrt(np.mean(clean**2)))
    assert levels[15.0] == pytest.approx(-15, abs=0.1)
    assert levels[40.0] == pytest.approx(-40, abs=0.1)


def test_noise_on_silence_is_heard() -> None:
    noise = effects.add_noise(np.zeros(RATE, np.float32), np.random.default_rng(0), RATE)
    assert noise.std() > 1e-4


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_speech_is_laid_over_music_and_alone() -> None:
    rng = np.random.default_rng(0)
    assert not np.array_equal(effects.add_speech(music(), rng, RATE), music())
    assert effects.add_speech(np.zeros(RATE * 4, np.float32), rng, RATE).std() > 1e-3
