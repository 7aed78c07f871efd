"""Test sets made anew: what is written is what sounds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.testset import LEAD_IN, strums
from rtchord.errors import UserError
from train.labels import read_labels

RATE = 8_000


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips of a constant level each, with silence before the attack."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = ["file,chord,seconds,variant"]
    for i, chord in enumerate(("C:maj", "A:min", "G:maj"), 1):
        samples = np.concatenate((np.zeros(RATE // 4), np.full(2 * RATE, 0.2 * i))).astype(np.float32)
        soundfile.write(folder / f"{i}.wav", samples, RATE)
        rows.append(f"{i}.wav,{chord},2.25,one")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_every_attack_lies_on_its_boundary(clips: Path, tmp_path: Path) -> None:
    strums(clips, tmp_path / "set", ["one"], count=1, chords=6, seed=0)
    audio, rate = soundfile.read(tmp_path / "set" / "one-0.flac")
    segments = read_labels(tmp_path / "set" / "one-0.lab").segments
    level = {"C:maj": 0.2, "A:min": 0.4, "G:maj": 0.6}
    assert segments[0][2].label == "N"
    assert len(segments) == 7
    assert segments[0][1] == LEAD_IN
    assert audio.size == round(segments[-1][1] * rate)
    for start, _, chord in segments[1:]:
        assert audio[round(start * rate) + 2] == pytest.approx(level[chord.label], abs=1e-3)


def test_a_set_is_a_function_of_its_seed(clips: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        strums(clips, tmp_path / name, ["one"], count=1, chords=6, seed=seed)
    a, b, c = ((tmp_path / name / "one-0.lab").read_text() for name in "abc")
    assert a == b != c


def test_an_unknown_variant_is_named(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'two'"):
        strums(clips, tmp_path / "set", ["two"], count=1, chords=6, seed=0)
