"""Published checkpoints as engines: the network's numbers, live, at the time that is stated."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch import nn

from engines.__main__ import main
from engines.build import as_both, build
from engines.network import Network
from engines.published import LOOKAHEAD, divided, from_published, from_published_as, window_network
from engines.verify import check_frames, compare, verified
from rtchord import Recognizer
from rtchord.chords import N_CLASSES, N, class_index, pitch_classes
from rtchord.cqt import DEFINITIONS, WindowStream
from rtchord.engine import MANIFEST, Manifest, load, read_manifest
from rtchord.engine.cuda import CudaEngine
from rtchord.errors import UserError
from rtchord.recognizer import transcribe
from train.published import LAYOUTS, Published, TwoEncoders

Float32 = NDArray[np.float32]

RATE = 32_000
CHORDS = ("C:maj", "A:min", "F:maj", "G:maj")
SECONDS = 2.0  # of each
CHANGES = [SECONDS * i for i in range(len(CHORDS))]
HOP = DEFINITIONS["librosa-0.11"].hop / 22_050


def strummed() -> Float32:
    """CHORDS one after the other: decaying notes with four partials, over a little noise; then a second of noise."""
    t = np.arange(int(SECONDS * RATE)) / RATE
    parts = []
    for label in CHORDS:
        root, quality = label.split(":")
        index = class_index({"C": 0, "F": 5, "G": 7, "A": 9}[root], quality)
        notes = [48 + pitch for pitch in pitch_classes(index)] + [60 + pitch for pitch in pitch_classes(index)]
        tones = [np.sin(2 * np.pi * k * 440 * 2 ** ((n - 69) / 12) * t) / k for n in notes for k in (1, 2, 3, 4)]
        parts.append(0.05 * np.sum(tones, axis=0) * np.exp(-t))
    sound = np.concatenate([*parts, np.zeros(RATE)])
    return (sound + 1e-3 * np.random.default_rng(0).standard_normal(sound.size)).astype(np.float32)


def spread(network: Published) -> Published:
    """Random weights in every tensor, and a normalisation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    network.mean.fill_(-3.25)
    network.std.fill_(1.5)
    return network.eval()


def templates() -> nn.Module:
    """A 2E1D made by hand: no branch adds anything, and the head compares a frame with the tones of each triad."""
    network = TwoEncoders()
    parts, weights = network.transformer, torch.zeros(N_CLASSES, 144)
    for root, quality in itertools.product(range(12), ("maj", "min")):
        index = class_index(root, quality)
        for bin_ in range(48, 144, 2):
            weights[index, bin_] = 1.0 if bin_ // 2 % 12 in pitch_classes(index) else 0.0
    triads = weights.any(dim=1)
    weights[triads] -= weights[triads].mean(dim=1, keepdim=True)
    with torch.no_grad():
        parts.encoder_f[0].norm_layer.weight.zero_()
        parts.encoder_t[0].fc.weight.copy_(torch.eye(144))
        parts.encoder_t[0].fc.bias.zero_()
        network.fc.weight.copy_(0.5 * weights)
        network.fc.bias.fill_(-30.0)
        network.fc.bias[triads] = 0.0
        network.fc.bias[N] = 6.0
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    """A published layout, whole, that the handmade network fills."""
    path = folder / "handmade.pt"
    torch.save({"model_state_dict": templates().state_dict(), "normalization": {"mean": -5.0, "std": 3.0}}, path)
    return path


@pytest.fixture(scope="module")
def engine(checkpoint: Path, folder: Path) -> Path:
    """That checkpoint, imported from the command line."""
    assert main(["import-published", str(checkpoint), str(folder / "engine"), "--seconds", "2"]) == 0
    return folder / "engine"


@pytest.fixture(scope="module")
def sound() -> Float32:
    return strummed()


@pytest.fixture(scope="module")
def recognizer(engine: Path) -> Recognizer:
    return Recognizer(RATE, engine)


@pytest.fixture(scope="module")
def random(folder: Path) -> dict[str, tuple[Network, Path]]:
    """Both layouts with random weights, fewer layers than published, each with a lookahead of its own."""
    made = {}
    for (layout, facts), lookahead in zip(LAYOUTS.items(), (LOOKAHEAD, 0.04), strict=True):
        network = window_network(spread(facts.network(layers=1)), layout, lookahead)
        made[layout] = network, build(network, "onnx", folder / layout, seconds=2.0, write=as_both)[0]
    return made


# The engine beside the network.


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("sizes", [(1_000_000,), (1, 700, 33), (4096,), (20_011, 5)])
def test_posteriors_of_a_stream_are_the_networks_for_the_same_windows(
    layout: str, sizes: tuple[int, ...], random: dict[str, tuple[Network, Path]], sound: Float32
) -> None:
    network, folder = random[layout]
    stepper, draft = load(folder).stepper(), network.draft
    assert draft.window is not None
    assert draft.future is not None
    sound = sound[: 4 * RATE]

    def windows() -> WindowStream:
        return WindowStream(RATE, draft.features, draft.window, draft.future)

    whole = np.stack([window.copy() for window in windows().push(sound)])
    with torch.no_grad():
        expected = [part.numpy() for part in network.module(torch.from_numpy(whole))]
    stream, found, position = windows(), [], 0
    for size in itertools.cycle(sizes):
        for window in stream.push(sound[position : position + size]):
            found.append([part.copy() for part in stepper.look(window)])
        position += size
        if position >= sound.size:
            break
    classes, bass = (np.stack(part) for part in zip(*found, strict=True))
    np.testing.assert_allclose(classes, expected[0], atol=1e-4, rtol=0)
    assert np.abs(expected[0] - expected[0].mean(axis=0)).max() > 1e-3, "the windows matter"
    np.testing.assert_array_equal(bass, np.tile(np.eye(13)[12], (len(bass), 1)))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_exported_program_gives_the_same_numbers(layout: str, random: dict[str, tuple[Network, Path]]) -> None:
    network, folder = random[layout]
    engine = CudaEngine(folder, read_manifest(folder), device="cpu")
    assert compare(engine, network, check_frames(network.draft.features, 12)).max_error < 1e-5


def test_several_streams_are_looked_at_together() -> None:
    network = window_network(spread(TwoEncoders(layers=1)), "2e1d", streams=3)
    frames = network.inputs["frames"]
    assert frames.shape == (3, 108, 144)
    frames = frames + torch.randn(frames.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        classes, bass = network.module(frames)
        assert (classes.shape, bass.shape) == ((3, 170), (3, 13))
        assert torch.allclose(classes[1:2], network.module(frames[1:2])[0], atol=1e-6)


def test_the_manifest_says_what_the_engine_waits_for(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert (manifest.form, manifest.window, manifest.lookahead, manifest.future) == ("window", 108, 1, 4096)
    assert manifest.features == DEFINITIONS["librosa-0.11"]
    assert manifest.delay == pytest.approx((2048 + 4096 + 1024) / 22_050, abs=1e-6)
    assert manifest.name == "handmade"
    assert manifest.provenance == {"layout": "2e1d", "checkpoint": "handmade.pt", "mean": -5.0, "std": 3.0}
    assert manifest.check is not None
    assert manifest.check.max_error < 1e-4


def test_an_imported_engine_can_be_verified_again(engine: Path, checkpoint: Path) -> None:
    network = from_published_as(read_manifest(engine), checkpoint)
    assert verified(engine, network, seconds=1.0).check is not None


# Live.


def test_the_live_path_names_chords_and_dates_them(sound: Float32, recognizer: Recognizer) -> None:
    recognizer.reset()
    events = [event for event in recognizer.push(sound) if event.chord != "N"]
    assert [event.chord for event in events] == list(CHORDS)
    for event, change in zip(events, CHANGES, strict=True):
        assert abs(event.onset - change) < 0.6 * HOP
        assert change + 0.18 < event.time < change + 0.8


def test_a_frame_of_93_ms_counts_as_four_of_those_that_presets_are_for(sound: Float32, engine: Path) -> None:
    events = [event for event in Recognizer(RATE, engine, "steady").push(sound[: 4 * RATE]) if event.chord != "N"]
    assert len(events) == 2
    assert all(event.time < change + 0.6 for event, change in zip(events, CHANGES, strict=False))


def test_events_do_not_depend_on_the_cutting(sound: Float32, recognizer: Recognizer) -> None:
    sound = sound[: 5 * RATE]
    recognizer.reset()
    expected = recognizer.push(sound)
    assert len(expected) >= 3
    for sizes in ((1111,), (1, 30_000, 7)):
        recognizer.reset()
        edges = list(itertools.takewhile(lambda x: x < sound.size, itertools.accumulate(itertools.cycle(sizes))))
        assert [event for part in np.split(sound, edges) for event in recognizer.push(part)] == expected


def test_an_event_is_given_out_with_the_sample_that_its_time_names(sound: Float32, recognizer: Recognizer) -> None:
    recognizer.reset()
    seen = 0
    for number, block in enumerate(np.array_split(sound[: 5 * RATE], 5 * RATE // 100), 1):
        for event in recognizer.push(block):
            seen += 1
            assert (number - 1) * 100 < round(event.time * RATE) <= number * 100
    assert seen >= 3


def test_silence_is_no_chord(recognizer: Recognizer) -> None:
    recognizer.reset()
    assert {event.chord for event in recognizer.push(np.zeros(2 * RATE, np.float32))} == {"N"}


def test_rtchord_listens_and_transcribes_with_it(engine: Path, sound: Float32, tmp_path: Path) -> None:
    """From the command line, where nothing of PyTorch is loaded."""
    soundfile.write(tmp_path / "song.wav", sound, RATE)
    listen = ["listen", "--input", str(tmp_path / "song.wav"), "--no-realtime", "--format", "jsonl"]
    code = (
        "import sys; from rtchord.cli import main; "
        f"code = main({[*listen, '--engine', str(engine)]!r}); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    chords = [json.loads(line)["chord"] for line in done.stdout.splitlines()]
    assert [chord for chord in chords if chord != "N"] == list(CHORDS)

    spans = [span for span in transcribe(tmp_path / "song.wav", engine) if span.chord.index != N]
    assert [span.chord.label for span in spans] == list(CHORDS)
    for span, change in zip(spans[1:], CHANGES[1:], strict=True):
        assert abs(span.start - change) < 0.6 * HOP


def test_a_recording_shorter_than_the_lookahead_is_transcribed(engine: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", strummed()[: RATE // 10], RATE)
    segments = transcribe(tmp_path / "short.wav", engine)
    assert (segments[0][0], segments[-1][1]) == (0.0, pytest.approx(0.1))


# Lookahead.


@pytest.mark.parametrize(
    ("layout", "seconds", "expected"),
    [("2e1d", 0.28, (1, 4096)), ("btc", 0.28, (2, 1364)), ("2e1d", 0.1, (0, 2205)), ("2e1d", 1.115, (10, 4096))],
)
def test_a_lookahead_is_the_future_of_training_and_then_frames(
    layout: str, seconds: float, expected: tuple[int, int]
) -> None:
    facts = LAYOUTS[layout]
    assert divided(seconds, DEFINITIONS[facts.definition], facts.future) == expected


@pytest.mark.parametrize("seconds", [0.0, -1.0, 11.0])
def test_a_lookahead_that_cannot_be_had_is_refused_by_value(seconds: float, checkpoint: Path) -> None:
    with pytest.raises(UserError, match=rf"{seconds} s cannot be had; .* at most 10\.1 s"):
        from_published(checkpoint, lookahead=seconds)


def test_the_transform_can_be_chosen(checkpoint: Path) -> None:
    assert from_published(checkpoint).draft.features == DEFINITIONS["librosa-0.11"]
    other = from_published(checkpoint, transform="librosa-0.6.3")
    assert other.draft.features == DEFINITIONS["librosa-0.6.3"]
    assert from_published_as(other.draft, checkpoint).draft == other.draft


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.pt"], "no checkpoint at 'nowhere.pt'"),
        (["CHECKPOINT", "--layout", "btc"], "does not have the layout 'btc': tensor"),
        (["CHECKPOINT", "--lookahead", "0"], "a lookahead of 0.0 s cannot be had"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(checkpoint) if argument == "CHECKPOINT" else argument for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["import-published", given[0], str(tmp_path / "engine"), *given[1:]])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("engines: ")
    assert words in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize(
    "changes",
    [{"future": None}, {"features": DEFINITIONS["live"]}, {"lookahead": 108}, {"future": 0}],
    ids=["no future", "right-aligned", "beyond the window", "none of it"],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, object], engine: Path) -> None:
    manifest = json.loads((engine / MANIFEST).read_text())
    with pytest.raises(ValueError, match=r"future|lookahead"):
        Manifest.model_validate({**manifest, **changes})
