from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import mir_eval
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rig import ROOT, RTCHORD, Program, environment, rtchord
from rtchord.chords import COMMON
from rtchord.cli import main
from rtchord.decoder import PRESETS
from rtchord.events import ChordEvent
from rtchord.names import Naming
from rtchord.settings import Latency, NameSettings, Settings, Target
from tests.paths import PATHS, at_most, contents, unprivileged
from train.labels import parse

DEMO = ROOT / "tests" / "data" / "demo.ogg"
EVENT_KEYS = ["onset", "time", "chord", "confidence"]


def only_sentence(stderr: str) -> str:
    """The one line of stderr that an error is; AssertionError where it is more or carries control characters."""
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert stderr.startswith("rtchord: ")
    assert stderr[:-1].isprintable()
    assert "Traceback" not in stderr
    return stderr


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of C major, stereo, 22 050 Hz."""
    t = np.arange(2 * 22_050) / 22_050
    tones = [np.sin(2 * np.pi * f * k * t) / k for f in (130.8, 261.6, 329.6, 392.0) for k in (1, 2, 3)]
    path = tmp_path_factory.mktemp("sound") / "c.wav"
    soundfile.write(path, np.stack([0.05 * np.sum(tones, axis=0)] * 2, axis=1), 22_050)
    return path


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "COMMAND"),
        (("dance",), "'dance'"),
        (("listen", "--loud"), "--loud"),
        (("listen", "--dev", "1"), "--dev"),
        (("listen", "x.wav"), "x.wav"),
        (("listen", "--format", "xml"), "'xml'"),
        (("listen", "--latency", "none"), "'none'"),
        (("listen", "--midi-channel", "0"), "'0'"),
        (("listen", "--midi-channel", "17"), "'17'"),
        (("listen", "--midi-channel", "one"), "'one'"),
        (("listen", "--channels", "0"), "'0'"),
        (("listen", "--channels", "1,,2"), "'1,,2'"),
        (("listen", "--channels", "-1"), "--channels"),
        (("listen", "--device", "1", "--input", "x.wav"), "--device and --input contradict each other"),
        (("listen", "x.wav", "--device", "1"), "--device and FILE contradict each other"),
        (("listen", "x.wav", "--input", "y.wav"), "FILE 'x.wav' and --input 'y.wav' contradict each other"),
        (("listen", "x.wav", "y.wav"), "y.wav"),
        (("listen", ""), "FILE ''"),
        (("listen", "--no-realtime"), "--no-realtime needs --input"),
        (("listen", "--no-midi", "--midi-port", "x"), "--no-midi and --midi-port contradict each other"),
        (("listen", "--config", ""), "--config"),
        (("listen", "--osc", "nowhere"), "'nowhere'"),
        (("listen", "--osc", "localhost:99999"), "'99999'"),
        (("listen", "--device", "no such input"), "'no such input'"),
        (("listen", "--device", "4711"), "'4711'"),
        (("listen", "--device", ""), "''"),
        (("listen", "--device", "\x1b[31mred\n"), r"'\x1b[31mred\n'"),
        (("listen", "--input", "missing.wav"), "'missing.wav'"),
        (("listen", "--input", "."), "'.'"),
        (("listen", "--input", "\x1b[2J.wav"), r"'\x1b[2J.wav'"),
        (("listen", "--input", __file__), "test_cli.py"),
        (("listen", "--\x1b[31m"), r"\x1b[31m"),
        (("transcribe", "missing.wav", "-o", "x.lab"), "'missing.wav'"),
        (("transcribe", "missing.wav"), "'missing.wav'"),
        (("transcribe", str(DEMO), "-o", "x.txt"), ".lab, .mid, .jsonl, .csv"),
        (("transcribe", str(DEMO), "-o", "x.lab", "--format", "xml"), "'xml'"),
        (("transcribe", str(DEMO), "--vocabulary", "none"), "'none'"),
        (("transcribe", str(DEMO), "--transpose", "12"), "'12'"),
        (("transcribe", str(DEMO), "--gate", "loud"), "'loud'"),
        (("transcribe", str(DEMO), "--channels", "9"), "channel 9"),
        (("transcribe", str(DEMO), "-o", "no/such/folder/x.lab"), "no/such/folder"),
        (("transcribe", str(DEMO), "-o", "."), "'.'"),
    ],
    ids=lambda value: " ".join(value).encode("unicode_escape").decode() if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_sentence_and_exit_2(args: tuple[str, ...], named: str, tmp_path: Path) -> None:
    done = rtchord(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert named in only_sentence(done.stderr)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--channels", "3"), "channel 3"),
        (("--osc", "no.such.host.invalid:9000"), "'no.such.host.invalid'"),
        (("--midi-port", "no such port"), "'no such port'"),
        (("--engine", "no-such-engine"), "no-such-engine"),
    ],
)
def test_bad_settings_for_a_good_file(args: tuple[str, ...], named: str, sound: Path) -> None:
    done = rtchord("listen", "--input", sound, "--no-realtime", *args)
    assert done.returncode == 2
    assert named in only_sentence(done.stderr)
    assert done.stdout == ""


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros((0, 1)), 44_100)
    done = rtchord("listen", "--input", path, "--no-realtime")
    assert done.returncode == 2
    assert "empty.wav" in only_sentence(done.stderr)


def test_a_damaged_engine_is_named(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    done = rtchord("listen", "--input", sound, "--no-realtime", "--engine", tmp_path)
    assert done.returncode == 2
    assert repr(str(tmp_path)) in only_sentence(done.stderr)


# Each option of the help text: what is written, and what is then in force.
OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, str], object]] = {
    "--device": (("--device", "USB"), ("input", "device"), "USB"),
    "--input": (("--input", "a.wav"), ("input", "file"), Path("a.wav")),
    "--realtime": (("--input", "a.wav", "--realtime"), ("input", "realtime"), True),
    "--no-realtime": (("--input", "a.wav", "--no-realtime"), ("input", "realtime"), False),
    "--channels": (("--channels", "1,2"), ("input", "channels"), (1, 2)),
    "--gate": (("--gate", "-45.5"), ("input", "gate"), -45.5),
    "--reconnect": (("--reconnect",), ("input", "reconnect"), True),
    "--no-reconnect": (("--no-reconnect",), ("input", "reconnect"), False),
    "--latency": (("--latency", "fast"), ("recognise", "latency"), "fast"),
    "--hold": (("--hold", "250"), ("recognise", "hold"), 250.0),
    "--engine": (("--engine", "mine"), ("recognise", "engine"), "mine"),
    "--vocabulary": (("--vocabulary", "triads"), ("names", "vocabulary"), "triads"),
    "--bass": (("--bass",), ("names", "bass"), True),
    "--no-bass": (("--no-bass",), ("names", "bass"), False),
    "--spelling": (("--spelling", "flats"), ("names", "spelling"), "flats"),
    "--transpose": (("--transpose", "-2"), ("names", "transpose"), -2),
    "--capo": (("--capo", "3"), ("names", "capo"), 3),
    "--midi": (("--midi",), ("midi", "send"), True),
    "--no-midi": (("--no-midi",), ("midi", "send"), False),
    "--midi-port": (("--midi-port", "synth"), ("midi", "port"), "synth"),
    "--midi-channel": (("--midi-channel", "16"), ("midi", "channel"), 16),
    "--voicing": (("--voicing", "bass+triad"), ("midi", "voicing"), "bass+triad"),
    "--octave": (("--octave", "4"), ("midi", "octave"), 4),
    "--velocity": (("--velocity", "100"), ("midi", "velocity"), 100),
    "--tie": (("--tie",), ("midi", "tie"), True),
    "--no-tie": (("--no-tie",), ("midi", "tie"), False),
    "--yamaha": (("--yamaha",), ("midi", "yamaha"), True),
    "--no-yamaha": (("--no-yamaha",), ("midi", "yamaha"), False),
    "--helicon": (("--helicon",), ("midi", "helicon"), True),
    "--no-helicon": (("--no-helicon",), ("midi", "helicon"), False),
    "--osc": (("--osc", "a:1", "--osc", "[::1]:2"), ("osc", "targets"), (Target("a", 1), Target("::1", 2))),
    "--format": (("--format", "jsonl"), ("screen", "format"), "jsonl"),
    "--plain": (("--plain",), ("screen", "format"), "plain"),
    "--record": (("--record", "a.mid", "--record", "b.lab"), ("files", "record"), (Path("a.mid"), Path("b.lab"))),
    "--text": (("--text", "now.txt"), ("files", "text"), Path("now.txt")),
}


def test_every_option_of_the_help_text_is_tried_below(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["listen", "--help"])
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"\([^()]*\)", "", capsys.readouterr().out)))
    assert told - {"--help", "--config"} == set(OPTIONS)


def test_the_stage_manual_names_options_that_there_are() -> None:
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "docs" / "stage.md").read_text()))
    assert told <= {*OPTIONS, "--config", "--show"}


@pytest.mark.parametrize("flag", OPTIONS)
def test_an_option_is_in_force(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    args, (section, field), value = OPTIONS[flag]
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert main(["config", "--show", "--config", str(empty), *args]) == 0
    shown = Settings.model_validate(tomllib.loads(capsys.readouterr().out))
    assert getattr(getattr(shown, section), field) == value


def test_the_configuration_is_in_force_where_no_option_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rtchord").mkdir()
    (tmp_path / "rtchord" / "config.toml").write_text("[names]\ncapo = 3\ntranspose = 1\n")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["config", "--show", "--capo", "5"]) == 0
    names = tomllib.loads(capsys.readouterr().out)["names"]
    assert (names["capo"], names["transpose"]) == (5, 1)


@pytest.mark.parametrize("command", ["listen", "config", "doctor"])
def test_a_bad_configuration_ends_listening_with_a_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtchord.doctor.CHECKS", ())
    path = tmp_path / "c.toml"
    path.write_text("[names]\ncapo = 40\n")
    assert main([command, *(["--show"] if command == "config" else []), "--config", str(path)]) == 2
    told = capsys.readouterr()
    assert "names.capo = 40" in (told.out if command == "doctor" else only_sentence(told.err))


def test_hostile_folders_do_not_reach_the_help_text(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x/100%s\x1b[31m\udcff")
    with pytest.raises(SystemExit):
        main(["listen", "--help"])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "options", "named"),
    [
        ('[input]\nfile = "a.wav"\n', ("--device", "4711"), "'4711'"),
        ('[input]\ndevice = "4711"\n', ("--input", "b.wav"), "'b.wav'"),
        ('[input]\ndevice = "4711"\n', ("b.wav",), "'b.wav'"),
        (
            '[midi]\nsend = false\n[input]\nfile = "a.wav"\n',
            ("--input", str(DEMO), "--midi-port", "no such"),
            "'no such'",
        ),
        ('[input]\ndevice = "4711"\nfile = "a.wav"\n', (), "input.device = '4711' and input.file = 'a.wav' in the"),
    ],
)
def test_what_an_option_says_is_done_whatever_the_configuration_says(
    config: str, options: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(config)
    assert main(["listen", "--config", str(path), *options]) == 2
    assert named in only_sentence(capsys.readouterr().err)


def test_toml_is_utf_8_whatever_the_terminal_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["config", "--show", "--config", os.devnull, "--input", "ü.wav"]) == 0
    assert Settings.model_validate(tomllib.loads(written.getvalue().decode())).input.file == Path("ü.wav")


def test_a_terminal_that_cannot_show_a_name_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/ü")
    with pytest.raises(SystemExit) as end:
        main(["listen", "--help"])
    assert end.value.code == 0
    sys.stdout.flush()
    assert rb"/\xfc/rtchord" in written.getvalue()


HOSTILE = st.text(st.characters(exclude_characters="\0"), max_size=30)


@given(st.lists(st.one_of(st.sampled_from(sorted(OPTIONS)), HOSTILE, st.integers().map(str)), max_size=5))
def test_whatever_is_typed_is_settings_or_one_sentence(words: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["config", "--show", "--config", os.devnull, *words])
        except SystemExit as end:
            code = int(end.code or 0)
    assert code in (0, 2)
    if code:
        only_sentence(err.getvalue())
    else:
        assert all(line.isprintable() for line in out.getvalue().split("\n"))


@pytest.mark.parametrize("args", [("--help",), ("listen", "--help"), ("--version",)])
def test_help_needs_no_heavy_import(args: tuple[str, ...]) -> None:
    code = f"""
import sys
from rtchord.cli import main
try:
    main({list(args)!r})
except SystemExit as end:
    assert end.code == 0
heavy = {{"numpy", "numba", "onnxruntime", "sounddevice", "rtmidi"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([RTCHORD[0], "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rtchord" in done.stdout


def test_the_offered_latencies_are_the_decoders() -> None:
    assert set(get_args(Latency)) == set(PRESETS)


def test_jsonl_is_all_there_is_on_stdout(sound: Path) -> None:
    done = rtchord("listen", "--input", sound, "--no-realtime", "--format", "jsonl")
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    for row in rows:
        assert list(row) == EVENT_KEYS
        assert 0 <= row["onset"] <= row["time"] <= 2.0
        mir_eval.chord.validate_chord_label(row["chord"])
    assert all(line.startswith("rtchord: ") for line in done.stderr.splitlines())


def test_names_change_the_labels_and_leave_the_rest(sound: Path) -> None:
    def heard(*args: str) -> list[ChordEvent]:
        done = rtchord("listen", "--input", sound, "--no-realtime", "--format", "jsonl", *args)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [ChordEvent(row["onset"], row["time"], parse(row["chord"]), row["confidence"]) for row in rows]

    naming = Naming(NameSettings(vocabulary="majmin", bass=False, transpose=1))
    expected = [event for event in map(naming.push, heard()) if event]
    moved = heard("--vocabulary", "majmin", "--no-bass", "--transpose", "1", "--capo", "3")
    assert moved == [replace(event, sharps=COMMON) for event in expected]
    assert "Db:maj" in [event.chord for event in moved]


def test_a_hold_keeps_every_chord_for_its_time() -> None:
    done = rtchord("listen", "--input", DEMO, "--no-realtime", "--format", "jsonl", "--hold", "3000")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    lasted = [b["time"] - a["time"] for a, b in itertools.pairwise(rows) if a["chord"] != "N"]
    assert lasted
    assert min(lasted) >= 2.999


def test_pacing_changes_no_event(sound: Path) -> None:
    runs = [
        rtchord("listen", "--input", sound, pace, "--no-midi", "--format", "jsonl").stdout
        for pace in ("--realtime", "--no-realtime")
    ]
    assert runs[0] == runs[1] != ""


def test_one_channel_of_a_file_is_heard_alone(tmp_path: Path, sound: Path) -> None:
    """Channel 2 alone of (silence, music) gives what the music gives, channel 1 alone gives N only."""
    music, rate = soundfile.read(sound, dtype="float32")
    path = tmp_path / "half.wav"
    soundfile.write(path, np.stack([np.zeros(len(music)), music[:, 0]], axis=1), rate, subtype="FLOAT")

    def heard(file: Path, *args: str) -> str:
        return rtchord("listen", "--input", file, "--no-realtime", "--format", "jsonl", *args).stdout

    assert heard(path, "--channels", "2") == heard(sound, "--channels", "1")
    assert [json.loads(line)["chord"] for line in heard(path, "--channels", "1").splitlines()] == ["N"]


def test_text_is_the_default_format(sound: Path) -> None:
    done = rtchord("listen", "--input", sound, "--no-realtime")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split()[:2] == ["0:00.0", "N"]
    assert "\x1b" not in done.stdout


def test_devices_lists_the_shipped_engine() -> None:
    done = rtchord("devices")
    assert done.returncode == 0
    titles = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [title.split(" (")[0] for title in titles] == ["Audio inputs", "MIDI ports", "Engines"]
    assert str(Path("engines") / "default") in done.stdout
    assert done.stderr == ""


@pytest.fixture
def without_portaudio(tmp_path: Path) -> dict[str, str]:
    """An environment in which sounddevice fails as it does where the PortAudio library is missing."""
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    return environment(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))


def test_without_portaudio_listening_is_told_what_to_install(without_portaudio: dict[str, str]) -> None:
    done = rtchord("listen", env=without_portaudio)
    assert done.returncode == 2
    assert "libportaudio2" in only_sentence(done.stderr)


def test_without_portaudio_the_rest_works(without_portaudio: dict[str, str], sound: Path) -> None:
    listed = rtchord("devices", env=without_portaudio)
    assert listed.returncode == 0
    assert "PortAudio" in listed.stdout
    played = rtchord("listen", "--input", sound, "--no-realtime", "--format", "jsonl", env=without_portaudio)
    assert played.returncode == 0
    assert played.stdout


@pytest.mark.skipif(Path("/dev/snd/seq").exists(), reason="this machine has a MIDI system")
def test_without_midi_it_says_so_and_goes_on(sound: Path) -> None:
    done = rtchord("listen", "--input", sound, "--format", "jsonl")
    assert done.returncode == 0
    assert done.stdout
    assert sum("no MIDI is sent" in line for line in done.stderr.splitlines()) == 1
    assert all(line.startswith("rtchord: ") for line in done.stderr.splitlines())


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = rtchord("listen", "--input", DEMO, "--no-realtime", capture_output=False, stdout=writing, stderr=-1)
    finally:
        os.close(writing)
    assert done.returncode == 0
    *waiting, last = done.stderr.splitlines()
    assert "listening" in last
    assert all("getting ready" in line for line in waiting)  # a busy machine says so first


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_cleanly(name: str) -> None:
    program = Program([*RTCHORD, "listen", "--input", str(DEMO), "--format", "jsonl", "--no-midi"], environment())
    program.wait_for(lambda p: p.out)
    assert program.stop(getattr(signal, name), seconds=5) == 0
    assert all(line.startswith("rtchord: ") for line in program.err)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="sees in /proc how far the program has come")
def test_a_signal_while_it_gets_ready_ends_it_too() -> None:
    program = Program([*RTCHORD, "listen", "--input", str(DEMO), "--no-midi"], environment())
    maps = Path(f"/proc/{program.process.pid}/maps")
    program.wait_for(lambda _: "llvmlite" in maps.read_text())  # Numba is being loaded
    assert program.stop(signal.SIGINT, seconds=5) in (0, 130)
    assert not any("Traceback" in line for line in program.err)


@pytest.mark.parametrize("kept", [False, True])
def test_a_signal_that_the_compiler_swallows_ends_it_too(kept: bool, tmp_path: Path) -> None:
    """It comes while Numba compiles, in a function of Python's that LLVM calls: of code that is to be kept or not.

    What is raised there is lost, and leaves the compiler without the code that it would keep.
    """
    code = f"""
import os, signal, sys
from numba.core.codegen import CPUCodeLibrary
from rtchord.cli import main

compiled, times = CPUCodeLibrary._object_compiled_hook.__func__, []

def compiled_and_interrupted(cls, module, code):
    library = getattr(module, "_CPUCodeLibrary__library", None)
    if not times and getattr(library, "_object_caching_enabled", False) is {kept}:
        times.append(1)
        print("interrupted", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGINT)
    return compiled(cls, module, code)

CPUCodeLibrary._object_compiled_hook = classmethod(compiled_and_interrupted)
sys.exit(main(sys.argv[1:]))
"""
    cold = environment(XDG_CACHE_HOME=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path))
    program = Program([*RTCHORD[:2], "-c", code, "listen", "--input", str(DEMO), "--no-midi"], cold)
    program.wait_said("interrupted")
    assert program.process.wait(20) == 0  # a second or so; with the rest of the compilation more than ten
    assert not any("listening" in line or "Traceback" in line or "fault" in line for line in program.err)


def test_a_signal_gets_through_while_stdout_is_stuck() -> None:
    """Nobody reads the pipe and it is full: the write blocks, and must not keep the session from ending."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    command = [*RTCHORD, "listen", "--input", str(DEMO), "--format", "jsonl", "--no-midi"]
    program = Program(command, environment(), stdout=writing)
    os.close(writing)
    try:
        program.wait_said("listening")
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.process.wait(1.0)
        assert program.process.poll() is None
        assert program.stop(signal.SIGTERM, seconds=5) == 0
    finally:
        os.close(reading)


def test_transcribe_writes_the_whole_file_as_lab(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.lab"
    done = rtchord("transcribe", sound, "-o", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "engine 2e1d-live-7, onnx fp32" in only_sentence(done.stderr)
    intervals, labels = mir_eval.io.load_labeled_intervals(str(path))
    assert intervals[0, 0] == 0.0
    assert intervals[-1, 1] == pytest.approx(2.0)
    assert (intervals[1:, 0] == intervals[:-1, 1]).all()
    for label in labels:
        mir_eval.chord.validate_chord_label(label)


def test_a_fault_of_ours_is_one_sentence_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def broken(_options: object) -> int:
        raise ZeroDivisionError("of the test")

    monkeypatch.delenv("RTCHORD_TRACEBACK", raising=False)
    monkeypatch.setattr("rtchord.cli._devices", broken)
    assert main(["devices"]) == 1
    assert "ZeroDivisionError: of the test" in only_sentence(capsys.readouterr().err)


def test_a_recording_is_not_overwritten_by_its_transcript(tmp_path: Path) -> None:
    recording = tmp_path / "a.ogg"
    recording.write_bytes(DEMO.read_bytes())
    done = rtchord("transcribe", recording, "-o", recording)
    assert done.returncode == 2
    assert "will not overwrite" in only_sentence(done.stderr)
    assert recording.read_bytes() == DEMO.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["devices"], ["listen", "--no-realtime", "--input", str(DEMO)]])
def test_a_full_disk_behind_stdout_ends_with_2(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*RTCHORD, *command], stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert done.returncode == 2
    assert "standard output" in done.stderr
    assert "fault of rtchord" not in done.stderr


@pytest.mark.parametrize("words", ["transcribe {demo}", "config --show"])
def test_what_goes_to_a_closed_stdout_is_not_called_done(words: str) -> None:
    command = " ".join([*RTCHORD, words.format(demo=DEMO), ">&-"])
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "rtchord: cannot write to the standard output: it is closed\n"


def test_a_closed_stdout_is_no_fault(tmp_path: Path) -> None:
    target = tmp_path / "out.lab"
    command = " ".join([*RTCHORD, "transcribe", str(DEMO), "-o", str(target), ">&-"])
    assert subprocess.run(command, shell=True, env=environment(), check=False).returncode == 0
    assert target.exists()


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_started_without_standard_streams_a_recording_is_what_it_always_is(sound: Path, tmp_path: Path) -> None:
    """The files that a session opens must not get the numbers of the streams that are closed."""
    for name, streams in (("open", ""), ("closed", "<&- >&- 2>&-")):
        command = [*RTCHORD, "listen", str(sound), "--no-realtime", "--record", str(tmp_path / f"{name}.mid")]
        done = subprocess.run(f"{shlex.join(command)} {streams}", shell=True, env=environment(), check=False)
        assert done.returncode == 0
    assert (tmp_path / "closed.mid").read_bytes() == (tmp_path / "open.mid").read_bytes() != b""


ODD = b"M\xfcller \xc3\xbc"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_names_that_are_not_utf_8_work_in_any_locale(sound: Path, tmp_path: Path) -> None:
    song = os.fsencode(tmp_path) + b"/" + ODD + b".wav"
    Path(os.fsdecode(song)).write_bytes(sound.read_bytes())
    command = [*RTCHORD, "listen", song, "--no-realtime", "--no-midi", "--format", "jsonl", "--text", ODD + b".txt"]
    for ending in (b".mid", b".lab", b".jsonl"):
        command += ["--record", ODD + ending]
    locale = environment(PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    done = subprocess.run(command, cwd=tmp_path, env=locale, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(b"rtchord: ") and line.decode().isprintable() for line in done.stderr.splitlines())
    assert rb"M\udcfcller \udcc3\udcbc.mid" in done.stderr
    assert (tmp_path / os.fsdecode(ODD + b".jsonl")).read_bytes() == done.stdout != b""
    assert all((tmp_path / os.fsdecode(ODD + ending)).stat().st_size for ending in (b".mid", b".lab"))
    assert len(os.listdir(tmp_path)) == 5


LISTENING = ("listen", "--no-realtime", "--no-midi", "--format", "jsonl")
TAKE_PATHS: dict[str, tuple[tuple[str, ...], str]] = {
    "listen FILE": ((*LISTENING, "PATH"), ".wav"),
    "listen --input": ((*LISTENING, "--input", "PATH"), ".wav"),
    "listen --record": ((*LISTENING, "SOUND", "--record", "PATH"), ".mid"),
    "listen --text": ((*LISTENING, "SOUND", "--text", "PATH"), ".txt"),
    "listen --engine": ((*LISTENING, "SOUND", "--engine", "PATH"), ""),
    "listen --config": ((*LISTENING, "SOUND", "--config", "PATH"), ".toml"),
    "config --config": (("config", "--show", "--config", "PATH"), ".toml"),
    "doctor --config": (("doctor", "--config", "PATH"), ".toml"),
    "transcribe FILE": (("transcribe", "PATH", "-o", "out.lab"), ".wav"),
    "transcribe -o": (("transcribe", "SOUND", "-o", "PATH"), ".lab"),
    "transcribe --engine": (("transcribe", "SOUND", "-o", "out.lab", "--engine", "PATH"), ""),
}
WAITS = {("listen FILE", "pipe"), ("listen --input", "pipe"), ("transcribe FILE", "pipe"), ("transcribe -o", "pipe")}


@pytest.fixture
def as_in_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session in this process leaves nothing behind in it."""
    if "scipy.linalg" not in sys.modules:
        monkeypatch.setitem(sys.modules, "scipy.linalg", None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
@pytest.mark.usefixtures("as_in_a_session")
def test_names_that_are_not_utf_8_are_numbered_and_transcribed(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/" + ODD)
    song = Path(f"{name}.wav")
    song.write_bytes(sound.read_bytes())
    for _ in range(2):
        assert main([*LISTENING, str(song), "--record", f"{name}.jsonl"]) == 0
    assert Path(f"{name}-2.jsonl").read_bytes() == Path(f"{name}.jsonl").read_bytes() != b""
    assert main(["transcribe", str(song), "-o", f"{name}.lab"]) == 0
    assert Path(f"{name}.lab").read_bytes()
    assert capsys.readouterr().err.replace("\n", "").isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has all of these")
@pytest.mark.usefixtures("as_in_a_session")
@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("place", TAKE_PATHS)
def test_whatever_a_path_is_it_works_or_is_one_sentence(
    place: str, kind: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (place, kind) in WAITS:
        pytest.skip("a pipe has another end")
    words, ending = TAKE_PATHS[place]
    home = tmp_path / "home"
    home.mkdir()
    path = PATHS[kind](home, ending)
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("rtchord.doctor.CHECKS", ())
    monkeypatch.setattr("rtchord.settings.PIPE_SECONDS", 0.05)
    before = contents(home)
    command = [{"PATH": path, "SOUND": str(sound)}.get(word, word) for word in words]
    with at_most(120), unprivileged() if kind == "unreadable" else contextlib.nullcontext():
        try:
            code = main(command)
        except SystemExit as end:
            code = int(end.code or 0)
    out, err = capsys.readouterr()
    after = contents(home)
    assert code in (0, 2), err
    assert "fault of rtchord" not in err
    assert all(line.startswith("rtchord: ") and line.isprintable() for line in err.splitlines())
    if (place, kind) != ("listen --text", "file"):  # an empty file is there to be filled
        assert {name: after.get(name) for name in before} == before
    if code and place == "doctor --config" and out:
        assert out.startswith("problem ")
        assert out.count("\n") == 1
        assert out[:-1].isprintable()
    elif code and place == "transcribe -o":  # of which one sentence, on the engine, may come before the writing
        assert 1 <= err.count("\n") <= 2
    elif code:
        only_sentence(err)
    if code:
        assert after == before


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has all of these")
@pytest.mark.parametrize("kind", ["not UTF-8", "loop", "300 characters"])
def test_so_it_is_in_a_process_of_its_own(kind: str, tmp_path: Path) -> None:
    done = rtchord("listen", PATHS[kind](tmp_path, ".wav"), cwd=tmp_path)
    assert done.returncode == 2
    only_sentence(done.stderr)
