"""Evaluation: the fixed offline decoding, the online one that equals the live path, and what is written."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from engines.bench import SHIPPED
from rtchord.audio.files import AudioFile
from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, N, X, class_index
from rtchord.cqt import DEFINITIONS
from rtchord.errors import UserError
from rtchord.recognizer import Recognizer
from train import evaluate as ev
from train.__main__ import main
from train.evaluate import Heard, Judged, Song, StudentSystem, TeacherSystem
from train.published import BTC, TwoEncoders
from train.students import load_student

DEMO = Path(__file__).parents[1] / "data"
HOP = 2048 / 22_050
C, G, A_MINOR = class_index(0, "maj"), class_index(7, "maj"), class_index(9, "min")


def certain(path: list[int], hop: float = HOP) -> Heard:
    """Posteriors of 0.9 for the class of each frame."""
    classes = np.full((len(path), N_CLASSES), 0.1 / (N_CLASSES - 1), np.float32)
    classes[np.arange(len(path)), path] = 0.9
    return Heard(classes, ev.no_bass(len(path)), np.arange(len(path)) * hop)


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [BTC, TwoEncoders])
def test_the_papers_networks_read_windows(network: type[torch.nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a recording as long as one window that is the network itself; over a longer one every row sums to 1."""
    torch.manual_seed(0)
    model, features = network(layers=1).eval(), DEFINITIONS["librosa-0.11"]
    monkeypatch.setattr("train.students.load_student", lambda _: (model, features, {}))
    system = StudentSystem(Path("run/student.safetensors"))
    assert (system.name, system.features) == ("run", None)
    song = Song(DEMO / "demo.ogg", DEMO / "demo.lab")
    frames, times = song.frames(features)
    assert len(frames) > ev.WINDOW
    heard = system.hear(song)
    assert heard.classes.shape == (len(times), N_CLASSES)
    assert np.allclose(heard.classes.sum(axis=1), 1, atol=1e-5)
    assert (heard.bass.argmax(axis=1) == NO_BASS).all()
    song._frames[features] = frames[: ev.WINDOW], times[: ev.WINDOW]
    with torch.inference_mode():
        whole = torch.softmax(model(torch.from_numpy(frames[None, : ev.WINDOW])), -1)[0].numpy()
    assert np.allclose(system.hear(song).classes, whole, atol=1e-6)


def test_a_transform_is_computed_once() -> None:
    song = Song(DEMO / "demo.ogg", DEMO / "demo.lab")
    first = song.frames(DEFINITIONS["live"])
    assert song.frames(DEFINITIONS["live"]) is first
    assert song.frames(DEFINITIONS["librosa-0.11"]) is not first


def test_centred_frames_stand_for_their_centre() -> None:
    frames, times = Song(DEMO / "demo.ogg", DEMO / "demo.lab").frames(DEFINITIONS["librosa-0.11"])
    seconds = AudioFile(DEMO / "demo.ogg").duration
    assert times[0] == 0
    assert np.allclose(np.diff(times), HOP)
    assert len(frames) == int(seconds / HOP) + 1


# --- offline decoding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hop", "frames"), [(2048, 9), (512, 37)])
def test_smoothing_covers_the_same_time_at_every_hop(hop: int, frames: int) -> None:
    impulse = np.zeros((200, 1), np.float32)
    impulse[100] = 1.0
    found = np.flatnonzero(ev.smoothed(impulse, hop / 22_050))
    assert (found[0], found[-1], found.size) == (100 - frames // 2, 100 + frames // 2, frames)


@pytest.mark.parametrize("hop", [HOP, 512 / 22_050])
def test_a_change_is_where_it_is(hop: float) -> None:
    frames = round(4.0 / hop)
    events = ev.decode_offline(certain([C] * frames + [G] * frames, hop))
    assert [label for _, label in events] == ["C:maj", "G:maj"]
    assert events[0][0] == 0
    assert events[1][0] == pytest.approx((frames - 0.5) * hop, abs=1e-5)


def test_unknown_is_never_named() -> None:
    heard = certain([X] * 40)
    heard.classes[:, C] *= 2
    assert ev.decode_offline(heard) == [(0.0, "C:maj")]


def test_silence_is_named() -> None:
    assert ev.decode_offline(certain([N] * 40)) == [(0.0, "N")]


def test_nothing_heard_is_no_chord() -> None:
    assert ev.decode_offline(certain([])) == [(0.0, "N")]


def absorbed(lengths: list[tuple[int, int]], shortest: int, also: float = 0.0) -> list[tuple[int, int]]:
    """`runs` of (class, frames); `also`: what G has everywhere beside."""
    path = np.array([index for index, length in lengths for _ in range(length)])
    classes = certain(path.tolist()).classes
    classes[:, G] += also
    return ev.runs(path, classes, shortest)


def test_a_short_run_goes_to_its_likelier_neighbour() -> None:
    assert absorbed([(C, 9), (A_MINOR, 2), (G, 9)], 5, also=0.05) == [(0, C), (9, G)]
    assert absorbed([(G, 9), (A_MINOR, 2), (C, 9)], 5, also=0.05) == [(0, G), (11, C)]


def test_neighbours_that_become_one_are_one() -> None:
    assert absorbed([(C, 3), (G, 2), (C, 3)], 5) == [(0, C)]
    assert absorbed([(C, 9), (G, 2), (C, 9), (G, 9)], 5) == [(0, C), (20, G)]


def test_a_run_that_is_long_enough_stays() -> None:
    assert absorbed([(C, 9), (G, 5), (C, 9)], 5) == [(0, C), (9, G), (14, C)]


def test_a_lone_short_run_stays() -> None:
    assert absorbed([(C, 2)], 5) == [(0, C)]


# --- online -----------------------------------------------------------------------------------------------------------


def test_online_events_are_those_of_the_live_path() -> None:
    """The whole-sequence network, the gate and the decoder, against the streaming engine of the same weights."""
    audio = AudioFile(DEMO / "demo.ogg")
    recognizer = Recognizer(audio.rate, None, ev.ONLINE)
    live = [(event.time, event.chord) for b in audio.blocks(4096) for event in recognizer.push(b.mean(axis=1))]
    system = StudentSystem(SHIPPED)
    answers = ev.listen(system, [Song(DEMO / "demo.ogg", DEMO / "demo.lab")])
    found = answers["online"][0]
    assert [label for _, label in found] == [label for _, label in live]
    assert [time for time, _ in found] == pytest.approx([time for time, _ in live], abs=1e-5)


# --- scores -----------------------------------------------------------------------------------------------------------


@dataclass
class Posteriors:
    classes: np.ndarray
    bass: np.ndarray | None
    hop: float


class Knowing:
    """A teacher that always answers the same path of classes."""

    name = "knowing"

    def __init__(self, path: list[int], bass: bool = False) -> None:
        self.path, self.bass = path, bass

    def posteriors(self, audio: np.ndarray, rate: int) -> Posteriors:
        assert audio.ndim == 1
        assert rate == 22_050
        heard = certain(self.path)
        return Posteriors(heard.classes, np.ones((len(self.path), N_BASS), np.float32) if self.bass else None, HOP)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings of 8 s, of C and of G."""
    made = tmp_path / "set"
    made.mkdir()
    for name, label in (("a", "C:maj"), ("b", "G:maj")):
        soundfile.write(made / f"{name}.wav", np.zeros(8 * 22_050), 22_050)
        (made / f"{name}.lab").write_text(f"0.0 8.0 {label}\n")
    return made


@pytest.mark.parametrize("bass", [False, True])
def test_a_teacher_is_scored_as_students_are(folder: Path, bass: bool) -> None:
    songs = ev.songs_of(folder)
    answers = ev.listen(TeacherSystem(Knowing([C] * 87, bass)), songs)
    assert answers.keys() == {"offline"}
    found = Judged("offline", songs, [answers["offline"]]).result()
    assert found["scores"]["mean7"] == pytest.approx(0.5)
    assert found["intervals"]["mean7"] == (0, 1)
    assert found["qualities"] == {"maj": 0.5}
    assert found["per_song"] == {"a": 1, "b": 0}
    assert "latency_by_metric" not in found
    assert not {"lat_med", "bass", "majmin_inv"} & found["scores"].keys()


def test_seeds_are_averaged(folder: Path) -> None:
    songs = ev.songs_of(folder)
    right = [[(0.0, "C:maj")], [(0.0, "G:maj")]]
    wrong = [[(0.0, "D:maj")], [(0.0, "D:maj")]]
    judged = Judged("offline", songs, [right, wrong])
    assert judged.summary["mean7"] == pytest.approx(0.5)
    assert judged.result()["intervals"]["mean7"] == (0.5, 0.5)  # by songs; each is half right
    assert judged.confusion.sum() == pytest.approx(16)


def test_the_command_writes_scores_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, png = tmp_path / "scores.json", tmp_path / "confusion.png"
    assert main(["evaluate", str(SHIPPED), str(DEMO), "--output", str(output), "--confusion", str(png), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    kept = json.loads(output.read_text())
    assert {"commit", "machine", "took_s"} <= kept.pop("conditions").keys()
    assert kept == shown
    assert shown["provenance"] == load_student(SHIPPED)[2]
    assert shown["sizes"]["width"] == 40
    found = shown["sets"]["data"]
    assert found["songs"] == 1
    assert found["offline"]["scores"]["majmin"] > 0.7
    assert found["online"]["scores"]["lat_med"] < 0.3
    assert found["online"]["latency_by_metric"]["majmin"]["n"] == found["online"]["scores"]["changes"]
    assert np.shape(found["confusion"]) == (15, 16)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_songs_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(SHIPPED), str(tmp_path)])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_folders_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "set"
    shutil.copytree(folder, other)
    with pytest.raises(UserError, match="rename one"):
        ev.evaluate(str(SHIPPED), [folder, other])


def test_a_missing_student_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        ev.evaluate("nowhere.safetensors", [folder])


def test_a_student_may_be_asked_as_a_teacher_too() -> None:
    plain, teacher = ev.system_of(str(SHIPPED)), ev.system_of(f"student:{SHIPPED}")
    assert isinstance(plain, StudentSystem)
    assert isinstance(teacher, TeacherSystem)


def test_labels_that_end_after_their_recording_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = next(folder.glob("*.lab"))
    ev.songs_of(folder)
    assert "its labels end" not in capsys.readouterr().err
    lab.write_text("0 900 C:maj\n")
    ev.songs_of(folder)
    assert "its labels end" in capsys.readouterr().err


def test_a_reference_with_faults_is_mended_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.lab").write_text("0.0,4.1,N\n4.0,8.0,c:maj9\n", encoding="utf-16")
    intervals, labels = ev.read_reference(tmp_path / "a.lab")
    assert (intervals.tolist(), labels) == ([[0.0, 4.0], [4.0, 8.0]], ["N", "C:maj9"])
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path / 'a.lab'}: labels mended: byte order mark (1), label in the wrong case (1), ")
    assert told.count("\n") == 1
