from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from engines.bench import SHIPPED
from rtchord.chords import N_BASS, N_CLASSES
from rtchord.errors import UserError
from train.model import PITCHES, Circular, Harmonic, ModelConfig, RelativeAttention, Student
from train.students import load_student

SMALL = ModelConfig(
    channels=4, registers=3, width=4, feed=6, heads=2, context=8, temporal_layers=2, decoder_layers=2, dropout=0.5
)
FRAMES = 3 * SMALL.context + 5


@pytest.fixture
def student() -> Student:
    """Random weights, larger than at the start of training, so that every path matters."""
    torch.manual_seed(0)
    model = Student(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1 * torch.randn_like(parameter))
        model.mean.fill_(-3.0)
        model.std.fill_(2.0)
    return model


def frames(batch: int = 1, count: int = FRAMES) -> Tensor:
    return torch.randn(batch, count, SMALL.bins, generator=torch.Generator().manual_seed(1)) * 2 - 3


def step_through(model: Student, x: Tensor) -> tuple[Tensor, Tensor]:
    cache = model.empty_cache(x.shape[0])
    classes, bass = [], []
    for i in range(x.shape[1]):
        class_logits, bass_logits, cache = model.step(x[:, i], cache)
        classes.append(class_logits)
        bass.append(bass_logits)
    return torch.stack(classes, 1), torch.stack(bass, 1)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("count", [1, SMALL.context - 1, SMALL.context, SMALL.context + 1, FRAMES])
def test_steps_equal_the_sequence(student: Student, batch: int, count: int) -> None:
    x = frames(batch, count)
    for stepped, whole in zip(step_through(student, x), student(x), strict=True):
        assert torch.allclose(stepped, whole, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("now", [0, SMALL.context - 1, SMALL.context, 2 * SMALL.context + 3])
def test_the_future_does_not_change_the_past(student: Student, now: int) -> None:
    x = frames()
    other = x.clone()
    other[:, now + 1 :] += 5.0
    for first, second in zip(student(x), student(other), strict=True):
        assert torch.allclose(first[:, : now + 1], second[:, : now + 1], atol=1e-5)


@torch.no_grad()
def test_the_newest_frame_changes_the_answer(student: Student) -> None:
    x = frames()
    other = x.clone()
    other[:, -1] += 1.0
    assert (student(x)[0][:, -1] - student(other)[0][:, -1]).abs().max() > 1e-2


@torch.no_grad()
def test_the_first_attention_forgets_what_lies_beyond_its_context(student: Student) -> None:
    attention = student.temporal[0]["self"]["attention"]
    x = torch.randn(1, FRAMES, PITCHES * SMALL.width)
    other = x.clone()
    other[:, 0] += 5.0
    changed = (attention(x, x) - attention(other, other)).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.tolist() == [True] * SMALL.context + [False] * (FRAMES - SMALL.context)


@torch.no_grad()
def test_songs_of_a_batch_do_not_hear_each_other(student: Student) -> None:
    x = frames(2)
    assert torch.allclose(student(x)[0][1:], student(x[1:])[0], atol=1e-5)


@torch.no_grad()
def test_a_frame_gives_logits_of_every_class_and_bass(student: Student) -> None:
    classes, bass = student(frames(2))
    assert (classes.shape, bass.shape) == ((2, FRAMES, N_CLASSES), (2, FRAMES, N_BASS))


@torch.no_grad()
def test_the_frame_before_the_first_leaves_no_trace(student: Student) -> None:
    x = frames()
    cache = student.empty_cache()
    first, _, _ = student.step(x[:, 0], cache)
    cache.keys.fill_(9.0)
    cache.values.fill_(9.0)
    again, _, _ = student.step(x[:, 0], cache)
    assert torch.equal(first, again)


@torch.no_grad()
def test_a_step_leaves_the_given_cache_as_it_was(student: Student) -> None:
    cache = student.empty_cache()
    student.step(frames()[:, 0], cache)
    assert int(cache.filled) == 0
    assert not cache.keys.any()


@torch.no_grad()
def test_the_count_of_filled_rows_stops_at_the_size_of_the_cache(student: Student) -> None:
    x, cache, counts = frames(), student.empty_cache(), []
    for i in range(SMALL.context + 2):
        _, _, cache = student.step(x[:, i], cache)
        counts.append(int(cache.filled))
    assert counts == [*range(1, SMALL.context), SMALL.context - 1, SMALL.context - 1, SMALL.context - 1]


@torch.no_grad()
def test_a_fixed_student_steps_as_it_did(student: Student) -> None:
    x = frames()
    expected = step_through(student, x)
    for found, before in zip(step_through(student.fix(), x), expected, strict=True):
        assert torch.allclose(found, before, atol=1e-5)


@torch.no_grad()
def test_a_layer_answers_music_that_is_moved_by_a_semitone_with_what_it_said_moved() -> None:
    torch.manual_seed(3)
    layer, attention = Circular(4, 6), RelativeAttention(SMALL)
    x, source = torch.randn(2, 1, 9, PITCHES * SMALL.width)

    def moved(y: Tensor) -> Tensor:
        return y.unflatten(-1, (PITCHES, -1)).roll(1, -2).flatten(-2)

    assert torch.allclose(layer(moved(x)), moved(layer(x)), atol=1e-5)
    assert torch.allclose(attention(moved(x), moved(source)), moved(attention(x, source)), atol=1e-5)


@torch.no_grad()
def test_the_heads_name_the_chord_of_the_pitch_classes_that_are_moved(student: Student) -> None:
    encoded = torch.randn(3, PITCHES * SMALL.width)
    classes, bass = student.heads(encoded)
    higher, higher_bass = student.heads(encoded.roll(SMALL.width, -1))
    assert torch.allclose(higher[:, :168], classes[:, :168].roll(14, -1), atol=1e-5)
    assert torch.allclose(higher[:, 168:], classes[:, 168:], atol=1e-5)
    assert torch.allclose(higher_bass[:, :12], bass[:, :12].roll(1, -1), atol=1e-5)


@torch.no_grad()
def test_the_harmonic_layer_hears_each_semitone_with_the_same_weights() -> None:
    torch.manual_seed(4)
    layer = Harmonic(SMALL)
    x = torch.zeros(1, 1, SMALL.bins)
    x[..., 60:70] = torch.randn(10)
    found, higher = (layer(y)[0, 0].unflatten(0, (-1, SMALL.channels)) for y in (x, x.roll(2, -1)))
    assert torch.allclose(higher[1:], found[:-1], atol=1e-6)


@torch.no_grad()
def test_the_harmonic_layer_hears_every_set_of_bins() -> None:
    torch.manual_seed(4)
    layer = Harmonic(SMALL.model_copy(update={"sets": 2}))
    for first in (0, SMALL.bins):
        x = torch.zeros(1, 1, 2 * SMALL.bins)
        x[..., first + 60 : first + 70] = torch.randn(10)
        quiet, found, higher = (
            layer(y)[0, 0].unflatten(0, (-1, SMALL.channels)) for y in (torch.zeros_like(x), x, x.roll(2, -1))
        )
        assert torch.allclose(higher[1:], found[:-1], atol=1e-6)
        assert not torch.allclose(found, quiet)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"bins": 140}, "no whole octaves of 24"), ({"width": 10}, "no multiple of heads=4")]
)
def test_sizes_that_do_not_divide_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**sizes)


def test_every_weight_is_learnt(student: Student) -> None:
    classes, bass = student.train()(frames(2))
    (classes.square().mean() + bass.square().mean()).backward()
    idle = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValidationError, match="layers"):
        ModelConfig.model_validate({"layers": 3})


# --- with a future ----------------------------------------------------------------------------------------------------


def ahead(future: int, **changes: object) -> Student:
    torch.manual_seed(0)
    return Student(SMALL.model_copy(update={"future": future, **changes})).eval()


# Logits of frames 0, 70 and 149, classes 0, 100 and 169, and of basses 0, 5 and 12 of frame 149.
RECORDED = [
    -2.88782, -2.71999, 0.67054, -2.13627, -2.24260, 2.80440, -2.04765, -1.70516, -0.00559, -2.21571, 0.73867, -1.22710,
]  # fmt: skip


@torch.no_grad()
def test_the_shipped_weights_give_the_numbers_they_gave() -> None:
    """Recorded when they were shipped: a change of the layout must not change what it computes."""
    model = load_student(SHIPPED)[0]
    n = torch.arange(150 * 288, dtype=torch.float64)
    classes, bass = model((3 * torch.sin(0.37 * n**1.5) - 3).float().view(1, 150, 288))
    found = [*classes[0, [0, 70, 149]][:, [0, 100, 169]].flatten().tolist(), *bass[0, 149, [0, 5, 12]].tolist()]
    assert found == pytest.approx(RECORDED, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("future", [1, 5, SMALL.context, SMALL.context + 3])
def test_an_attention_sees_its_reach_to_both_sides_and_no_more(future: int) -> None:
    attention = RelativeAttention(SMALL.model_copy(update={"future": future}))
    x = torch.randn(1, FRAMES, PITCHES * SMALL.width, generator=torch.Generator().manual_seed(2))
    for now in (0, 1, SMALL.context, FRAMES - 2, FRAMES - 1):
        other = x.clone()
        other[:, now] += 5.0
        changed = (attention(x, x) - attention(other, other)).abs().amax(dim=(0, 2)) > 1e-6
        expected = [now - future <= frame < now + SMALL.context for frame in range(FRAMES)]
        assert changed.tolist() == expected


@torch.no_grad()
@pytest.mark.parametrize("future", [1, 2])
def test_the_first_frame_depends_on_later_ones_within_reach(future: int) -> None:
    model = ahead(future)
    reach = future * (SMALL.temporal_layers + SMALL.decoder_layers)  # cross-attention reads the temporal encoder alone
    x = frames()
    for distance, seen in ((1, True), (reach, True), (reach + 1, False)):
        other = x.clone()
        other[:, distance] += 50.0
        assert bool((model.encode(x)[0, 0] != model.encode(other)[0, 0]).any()) == seen


@torch.no_grad()
def test_a_student_whose_biases_forbid_the_future_is_the_causal_one(student: Student) -> None:
    model = ahead(6)
    weights = student.state_dict()
    for name in weights:
        if name.endswith("attention.bias"):
            weights[name] = torch.cat((torch.full((SMALL.heads, 6), float("-inf")), weights[name]), 1)
    model.load_state_dict(weights)
    for found, expected in zip(model(frames()), student(frames()), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_gradients_with_a_future_are_finite_at_every_length() -> None:
    for count in (1, 3, SMALL.context, SMALL.context + 1, FRAMES):
        model = ahead(3)
        model(frames(1, count))[0].square().mean().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_student_with_a_future_takes_no_steps() -> None:
    model = ahead(2)
    with pytest.raises(UserError, match="2 frames ahead"):
        model.empty_cache()
    with pytest.raises(UserError, match="--future 0"):
        model.step(frames()[:, 0], ahead(0).empty_cache())
