"""Augmentation of constant-Q crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, N, X
from rtchord.cqt import Features
from train import augment
from train.labels import parse

FEATURES = Features()
SILENCE = float(np.log(FEATURES.log_offset))
STEP = FEATURES.bins_per_octave // 12  # bins of a semitone


def crop(label: str) -> tuple[Tensor, Tensor, Tensor]:
    """Three frames with energy in the bins of the chord's tones of one octave, and its targets."""
    chord = parse(label)
    x = torch.full((3, FEATURES.bins), SILENCE)
    root = 3 * FEATURES.bins_per_octave + chord.root * STEP
    for tone in (0, 4, 7):
        x[:, root + tone * STEP] = 1.0
    classes = functional.one_hot(torch.full((3,), chord.index), N_CLASSES).float()
    bass = functional.one_hot(torch.full((3,), chord.bass), N_BASS).float()
    return x, classes, bass


@pytest.mark.parametrize(("semitones", "label"), [(2, "D:maj"), (-1, "B:maj"), (0, "C:maj"), (6, "F#:maj")])
def test_a_shifted_crop_equals_the_crop_of_the_shifted_chord(semitones: int, label: str) -> None:
    moved = augment.shift(*crop("C:maj"), semitones, FEATURES)
    x, classes, bass = crop(label)
    if label == "B:maj":  # down from C: an octave below the B above
        x = x.roll(-FEATURES.bins_per_octave, 1)
    assert all(torch.equal(a, b) for a, b in zip(moved, (x, classes, bass), strict=True))


def test_an_inversion_stays_one_when_shifted() -> None:
    _, classes, bass = augment.shift(*crop("C:maj/3"), 5, FEATURES)
    assert int(classes[0].argmax()) == parse("F:maj/3").index
    assert int(bass[0].argmax()) == parse("F:maj/3").bass


def test_rootless_targets_do_not_shift() -> None:
    x, classes, bass = torch.zeros(1, FEATURES.bins), torch.zeros(1, N_CLASSES), torch.zeros(1, N_BASS)
    classes[0, N], classes[0, X], bass[0, NO_BASS] = 0.7, 0.3, 1.0
    _, moved, moved_bass = augment.shift(x, classes, bass, -4, FEATURES)
    assert torch.equal(moved, classes)
    assert torch.equal(moved_bass, bass)


@pytest.mark.parametrize("semitones", [-5, -1, 1, 6])
def test_bins_from_outside_hold_silence(semitones: int) -> None:
    x = torch.ones(2, FEATURES.bins)
    moved, _, _ = augment.shift(x, torch.zeros(2, N_CLASSES), torch.zeros(2, N_BASS), semitones, FEATURES)
    silent = (moved[0] == SILENCE).nonzero().flatten().tolist()
    bins = abs(semitones) * STEP
    assert silent == list(range(bins) if semitones > 0 else range(FEATURES.bins - bins, FEATURES.bins))


def test_a_disturbed_crop_keeps_its_shape_and_stays_finite() -> None:
    x = torch.cat((torch.full((2, 50, FEATURES.bins), SILENCE), torch.full((2, 50, FEATURES.bins), 3.0)), 1)
    for seed in range(20):
        disturbed = augment.disturb(x, np.random.default_rng(seed), FEATURES)
        assert disturbed.shape == x.shape
        assert disturbed.isfinite().all()
        assert disturbed.min() >= SILENCE - 1e-4


def test_a_disturbance_is_a_function_of_its_generator() -> None:
    x = torch.zeros(2, 5, FEATURES.bins)
    first, same, other = (augment.disturb(x, np.random.default_rng(seed), FEATURES) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_disturbance_keeps_the_loudest_bin_of_a_clear_tone() -> None:
    x, _, _ = crop("C:maj")
    x[:, 3 * FEATURES.bins_per_octave] = 5.0
    for seed in range(20):
        disturbed = augment.disturb(x[None], np.random.default_rng(seed), FEATURES)
        assert (disturbed.argmax(-1) == 3 * FEATURES.bins_per_octave).all()


def ramp() -> Tensor:
    """Two clips whose bins hold their own number."""
    return torch.arange(float(FEATURES.bins)).expand(2, 3, -1).clone()


def test_a_detuned_clip_lies_between_its_bins() -> None:
    found = augment.detune(ramp(), torch.tensor([25.0, -50.0]), FEATURES)  # half a bin up, one bin down
    assert torch.allclose(found[0, :, 1:], ramp()[0, :, 1:] - 0.5)
    assert torch.allclose(found[1, :, :-1], ramp()[1, :, :-1] + 1.0)
    assert (found[0, 0, 0], found[1, 0, -1]) == (0.0, FEATURES.bins - 1.0)  # the edges repeat


def test_a_semitone_of_detuning_is_a_shift() -> None:
    x, classes, bass = crop("C:maj")
    found = augment.detune(x[None], torch.tensor([100.0]), FEATURES)[0]
    assert torch.allclose(found, augment.shift(x, classes, bass, 1, FEATURES)[0])


def test_a_mixture_adds_the_power_of_another_clip() -> None:
    loud, quiet = torch.zeros(1, 100, FEATURES.bins), torch.full((1, 100, FEATURES.bins), -2.0)
    x = torch.cat((loud, quiet))
    found = augment.mix(x, np.random.default_rng(0), 1.0, FEATURES)
    both = float(np.log(np.hypot(1 - 1e-3, np.exp(-2.0) - 1e-3) + 1e-3))
    for clip, alone in ((0, 0.0), (1, -2.0)):
        levels = found[clip].mean(-1)
        assert ((levels - alone).abs() < 1e-5).any()
        assert ((levels - both).abs() < 1e-4).any()
        changed = (levels - alone).abs() > 1e-5
        assert round(0.5 * FEATURES.frame_rate) <= changed.sum() <= 2 * round(FEATURES.frame_rate)


def test_a_mixture_takes_and_adds_at_places_of_their_own() -> None:
    frames = 60
    counted = torch.full((1, frames, FEATURES.bins), -7.0)
    counted += torch.arange(frames)[None, :, None] / 10  # each frame's level tells where it was taken
    silence = torch.full_like(counted, SILENCE)
    moves = set()
    for seed in range(20):
        found = augment.mix(torch.cat((silence, counted)), np.random.default_rng(seed), 1.0, FEATURES)[0, :, 0]
        (places,) = np.nonzero(found.numpy() > SILENCE + 1e-3)
        moves |= {round(float((found[place] + 7.0) * 10)) - int(place) for place in places}
    assert min(moves) < 0 < max(moves)


def test_a_mixture_is_as_frequent_as_asked_and_leaves_its_input() -> None:
    x = torch.zeros(400, 30, FEATURES.bins)
    found = augment.mix(x, np.random.default_rng(0), 0.5, FEATURES)
    assert not x.any()
    assert 160 < int((found != 0).any(-1).any(-1).sum()) < 240
    assert torch.equal(augment.mix(x[:1], np.random.default_rng(0), 1.0, FEATURES), x[:1])  # alone


def test_masks_hold_the_mean_of_their_clip() -> None:
    x = torch.randn(20, 60, FEATURES.bins, generator=torch.Generator().manual_seed(0))
    times = augment.mask(x, np.random.default_rng(0), 1, 0, FEATURES) != x
    bands = augment.mask(x, np.random.default_rng(0), 0, 1, FEATURES) != x
    assert torch.equal(times.any(-1), times.all(-1))  # whole frames
    assert torch.equal(bands.any(1), bands.all(1))  # whole bins
    assert 0 < times[:, :, 0].sum(1).max() <= round(0.5 * FEATURES.frame_rate)
    assert 0 < bands[:, 0].sum(1).max() <= FEATURES.bins_per_octave // 2
    masked = augment.mask(x, np.random.default_rng(0), 1, 0, FEATURES)
    clip = int(times[:, :, 0].sum(1).argmax())
    assert torch.allclose(masked[clip][times[clip]], x[clip].mean())


@pytest.mark.parametrize("option", [{"detune": 30.0}, {"mixture": 1.0}, {"time_masks": 2}, {"frequency_masks": 2}])
def test_every_option_changes_clips_as_a_function_of_the_generator(option: dict[str, float]) -> None:
    x = torch.randn(4, 60, FEATURES.bins, generator=torch.Generator().manual_seed(0))
    settings = augment.Augmentation.model_validate(option)
    first, same, off = (
        augment.augmented(x, np.random.default_rng(1), chosen, FEATURES)
        for chosen in (settings, settings, augment.Augmentation())
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, off)
    assert torch.equal(off, augment.disturb(x, np.random.default_rng(1), FEATURES))
    assert first.isfinite().all()


def test_each_set_of_bins_is_moved_as_if_it_were_alone() -> None:
    two = Features.accompanied(longest_ms=168.0)
    x, classes, bass = crop("C:maj")
    pair = torch.cat((x, x + 1), -1)
    moved = augment.shift(pair, classes, bass, 3, two)[0]
    alone = [augment.shift(each, classes, bass, 3, FEATURES)[0] for each in (x, x + 1)]
    assert torch.equal(moved, torch.cat(alone, -1))
    cents = torch.tensor([30.0])
    detuned = augment.detune(pair[None], cents, two)
    assert torch.equal(detuned, torch.cat([augment.detune(each[None], cents, FEATURES) for each in (x, x + 1)], -1))


def test_both_sets_of_bins_are_masked_and_equalised_alike() -> None:
    two = Features.accompanied(longest_ms=168.0)
    x = torch.full((3, 20, two.bins), 3.0)  # far above the noise
    x[..., 0] = 4.0
    masked = augment.apart(augment.mask(x, np.random.default_rng(1), 1, 2, two), two) != augment.apart(x, two)
    assert masked.any()
    assert torch.equal(masked[:, :, 0], masked[:, :, 1])
    disturbed = augment.disturb(torch.full_like(x, 9.0), np.random.default_rng(0), two)
    first, second = augment.apart(disturbed, two).unbind(2)
    assert torch.allclose(first, second, atol=1e-3)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="reverb"):
        augment.Augmentation.model_validate({"reverb": 1})


def test_what_is_no_music_is_not_out_of_tune() -> None:
    x = torch.full((40, 4, FEATURES.bins), float(np.log(FEATURES.log_offset)))
    x[..., 71] = 5.0  # between two bins a detuned clip is lower
    pitched = np.arange(40) % 2 == 0
    chosen = augment.Augmentation(detune=50.0)
    moved = augment.augmented(x, np.random.default_rng(1), chosen, FEATURES, pitched)
    still = augment.augmented(x, np.random.default_rng(1), chosen, FEATURES, np.zeros(40, bool))
    assert torch.equal(moved[~pitched], still[~pitched])
    assert not torch.isclose(moved[pitched], still[pitched]).all(dim=(1, 2)).any()
