"""The stage half with real components: JACK carries the audio and the MIDI, UDP the OSC, other programs listen."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from benchmarks import rig
from benchmarks.rig import MIDI_RECEIVER, PLAYER, RTCHORD, JackServer, Program, held_notes, midi_messages, osc_receiver
from rtchord.chords import N_BASS, Chord, X, chord_with_bass
from rtchord.outputs.messages import voicing
from rtchord.recognizer import Recognizer
from rtchord.session import LAST_RESORT_SECONDS

pytestmark = pytest.mark.skipif(rig.missing() is not None, reason=str(rig.missing()))

DATA = Path(__file__).parents[1] / "data"
SECONDS = 17.2  # of the demo that are played; then an A minor is sounding
LATE = 0.4  # s after a true change in which either chord is right
PATIENCE = 1.0  # s that a busy machine may add to what is promised
FLOOR = 0.75  # share of the time with the right root and third

BY_NOTES = {voicing(chord): chord for chord in (chord_with_bass(i, b) for i in range(X) for b in range(N_BASS))}
OSC_LINE = re.compile(r'^\S+ /rtchord/chord (\w+) (-?\d+) "(\S+)" (-?\d+) "(\S+)" (\S+) (\S+) (\S+)$')


class Performance(NamedTuple):
    """What everybody heard of one session that SIGTERM ended while a chord was sounding."""

    exit_code: int
    out: list[str]
    err: list[str]
    osc: list[str]
    midi: list[tuple[int, bytes]]
    first_frame: int  # JACK frame of the first sample
    last_frame: int  # of the last note-on before the signal
    rate: int


@pytest.fixture(scope="module")
def excerpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, rate = soundfile.read(DATA / "demo.ogg", dtype="float32")
    path = tmp_path_factory.mktemp("stage") / "excerpt.wav"
    soundfile.write(path, samples[: round((SECONDS + 2) * rate)], rate, subtype="FLOAT")
    return path


@pytest.fixture
def server(excerpt: Path) -> Iterator[JackServer]:
    with JackServer(soundfile.info(excerpt).samplerate) as running:
        yield running


def start_player(server: JackServer, excerpt: Path) -> Program:
    """PortAudio looks for devices once, so the player must be there before anybody listens."""
    player = server.program(*PLAYER, excerpt)
    player.wait_said("ready")
    return player


@pytest.fixture(scope="module")
def performance(excerpt: Path) -> Performance:
    rate = soundfile.info(excerpt).samplerate
    with JackServer(rate) as server:
        port = rig.free_udp_port()
        osc = server.program(*osc_receiver(port))
        player = start_player(server, excerpt)
        receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
        listen = ("listen", "--device", "player", "--format", "jsonl", "--osc", f"127.0.0.1:{port}")
        session = server.program(*RTCHORD, *listen)
        session.wait_said("listening")
        receiver.wait_said("connected")
        player.go()
        player.wait_said("started")
        first_frame = json.loads(player.out[1])["frame"]
        time.sleep(SECONDS)
        last_frame = midi_messages(receiver)[-1][0] if midi_messages(receiver) else 0
        exit_code = session.stop(signal.SIGTERM, seconds=5)
        time.sleep(0.3)  # for the receivers to print what they have
        receiver.stop()
        osc.stop()
        heard = midi_messages(receiver)
        return Performance(exit_code, session.out, session.err, osc.out, heard, first_frame, last_frame, rate)


def test_sigterm_ends_it_with_0(performance: Performance) -> None:
    assert performance.exit_code == 0


def test_stderr_holds_only_our_own_lines(performance: Performance) -> None:
    assert [line for line in performance.err if not line.startswith("rtchord: ")] == []


def test_stderr_says_what_is_heard_and_where_it_goes(performance: Performance) -> None:
    (line,) = (line for line in performance.err if "listening" in line)
    assert "'player'" in line
    assert f"{performance.rate} Hz" in line
    assert "'rtchord:chords' (JACK)" in line


def test_osc_carries_every_event(performance: Performance) -> None:
    events = [json.loads(line) for line in performance.out]
    *messages, last = [OSC_LINE.match(line) for line in performance.osc if "/rtchord/chord" in line]
    assert last is not None
    assert last.group(2, 3) == ("-1", "N")  # said at the end, so that no chord stays on show
    assert len(events) == len(messages) >= 2
    for event, message in zip(events, messages, strict=True):
        assert message is not None
        types, root, quality, bass, label, confidence, onset, at = message.groups()
        assert types == "isisfdd"
        assert label == event["chord"]
        assert (int(root), quality) == ((-1, "N") if label == "N" else (int(root), label.split(":")[1].split("/")[0]))
        assert (int(bass) == int(root)) == ("/" not in label)
        assert float(confidence) == pytest.approx(event["confidence"], abs=1e-3)
        assert (float(onset), float(at)) == pytest.approx((event["onset"], event["time"]), abs=1e-5)


def test_midi_carries_every_chord(performance: Performance) -> None:
    played = [BY_NOTES[notes].label if notes else "N" for _, notes in held_notes(performance.midi)]
    events = [json.loads(line)["chord"] for line in performance.out]
    # The opening N has no notes to end, and the last silence is the release.
    assert played == [*itertools.dropwhile(lambda label: label == "N", events), "N"]


def test_the_messages_of_a_change_go_out_together(performance: Performance) -> None:
    """Within one frame no chord is left half sounding: whoever looks at the held notes never sees another chord."""
    for _, notes in held_notes(performance.midi):
        assert notes == () or notes in BY_NOTES


def test_a_chord_was_sounding_and_sigterm_left_no_note_on(performance: Performance) -> None:
    changes = held_notes(performance.midi)
    before = [notes for frame, notes in changes if frame <= performance.last_frame]
    assert before[-1] != ()
    assert changes[-1][1] == ()
    assert performance.midi[-1][1] == b"\xb0\x7b\x00"


def test_the_notes_are_those_of_the_music(performance: Performance) -> None:
    """Root and third of what sounds against the known chords, over time, on JACK's own clock."""
    timeline = [
        ((frame - performance.first_frame) / performance.rate, family(BY_NOTES.get(notes)))
        for frame, notes in [(performance.first_frame, ()), *held_notes(performance.midi)]
    ]
    rows = [line.split() for line in (DATA / "demo.lab").read_text().splitlines()]
    truth = [(float(start), float(stop), labelled(label)) for start, stop, label in rows]
    verdicts = []
    for t in np.arange(0, SECONDS, 0.01):
        (began, expected) = next((start, chord) for start, stop, chord in truth if start <= t < stop)
        if t - began >= LATE:
            sounding = [chord for at, chord in timeline if at <= t][-1]
            verdicts.append(sounding == expected)
    assert np.mean(verdicts) >= FLOOR, [(round(at, 2), chord) for at, chord in timeline]


def family(chord: Chord | None) -> tuple[int, int] | None:
    """Root and third (0 suspended) of a chord; None for none."""
    if chord is None:
        return None
    return chord.root, THIRDS[chord.quality]


THIRDS = {
    "min": 3, "maj": 4, "dim": 3, "aug": 4, "min6": 3, "maj6": 4, "min7": 3, "minmaj7": 3, "maj7": 4, "7": 4,
    "dim7": 3, "hdim7": 3, "sus2": 0, "sus4": 0,
}  # fmt: skip
ROOTS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def labelled(label: str) -> tuple[int, int] | None:
    """Root and third of a label of the demo, which has natural roots only."""
    if label == "N":
        return None
    root, quality = label.split("/")[0].split(":")
    return ROOTS[root], THIRDS[quality]


def listening(server: JackServer, excerpt: Path, *options: str) -> tuple[Program, Program]:
    """A player that plays and a session that hears it."""
    player = start_player(server, excerpt)
    session = server.program(*RTCHORD, "listen", "--device", "player", "--format", "jsonl", *options)
    session.wait_said("listening")
    player.go()
    player.wait_said("started")
    return player, session


def events(session: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in session.out]


def a_chord_sounds(session: Program) -> bool:
    return bool(session.out) and events(session)[-1]["chord"] != "N"


def said(session: Program, words: str) -> int:
    return sum(words in line for line in session.err)


def test_a_dead_audio_server_ends_it_with_3_soon(server: JackServer, excerpt: Path) -> None:
    _, session = listening(server, excerpt, "--no-reconnect")
    session.wait_for(a_chord_sounds)
    server.kill()
    died = time.monotonic()
    assert session.wait(seconds=10) == 3
    assert time.monotonic() - died < 4
    assert said(session, "is lost") == 1
    assert said(session, "'player'") == 2
    assert [line for line in session.err if not line.startswith("rtchord: ")] == []


def killed_and_started_again(server: JackServer, player: Program, session: Program, excerpt: Path) -> Program:
    """The player at the new server, when the session has come back to it."""
    session.wait_for(a_chord_sounds)
    server.kill()
    player.process.kill()  # it would hold the next server up
    session.wait_said("is lost")
    session.wait_for(lambda program: not a_chord_sounds(program))
    server.start()
    player = start_player(server, excerpt)
    session.wait_said("is back")
    return player


def test_a_server_that_dies_and_returns_is_heard_again(server: JackServer, excerpt: Path) -> None:
    player, session = listening(server, excerpt, "--no-midi")
    killed_and_started_again(server, player, session, excerpt).go()
    session.wait_for(a_chord_sounds)
    assert session.stop(signal.SIGTERM, seconds=10) == 0
    heard = events(session)
    assert [row["time"] for row in heard] == sorted(row["time"] for row in heard)
    assert [row["chord"] for row in heard].count("N") == 2  # at the start and when it was lost
    assert [line for line in session.err if not line.startswith("rtchord: ")] == []


def test_notes_go_out_again_when_a_server_returns(server: JackServer, excerpt: Path) -> None:
    player, session = listening(server, excerpt)
    player = killed_and_started_again(server, player, session, excerpt)
    receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
    receiver.wait_said("connected")
    player.go()
    receiver.wait_for(lambda program: any(notes for _, notes in held_notes(midi_messages(program))))
    assert session.stop(signal.SIGTERM, seconds=10) == 0
    receiver.wait_for(lambda program: held_notes(midi_messages(program))[-1][1] == ())


def test_a_player_that_leaves_ends_the_chord_and_is_heard_again_when_it_returns(
    server: JackServer, excerpt: Path
) -> None:
    receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
    player, session = listening(server, excerpt)
    receiver.wait_said("connected")
    session.wait_for(a_chord_sounds)
    player.stop()
    session.wait_said("is lost")
    session.wait_for(lambda program: not a_chord_sounds(program))
    receiver.wait_for(lambda program: held_notes(midi_messages(program))[-1][1] == ())
    player = start_player(server, excerpt)
    session.wait_said("is back")
    player.go()
    session.wait_for(a_chord_sounds)
    receiver.wait_for(lambda program: held_notes(midi_messages(program))[-1][1] != ())
    assert session.stop(signal.SIGTERM, seconds=10) == 0
    receiver.wait_for(lambda program: held_notes(midi_messages(program))[-1][1] == ())


PORT_THAT_NOTES = """
import sys, time
API_UNIX_JACK, API_LINUX_ALSA, API_MACOSX_CORE, API_WINDOWS_MM = range(4)
log = open({log!r}, "a", buffering=1)
class MidiOut:
    def __init__(self, *_, **__): pass
    def send_message(self, message): log.write(f"{{time.monotonic()}} {{bytes(message).hex()}}\\n")
    def get_ports(self): return []
    def __getattr__(self, name): return lambda *_, **__: self
def get_compiled_api(): return [API_UNIX_JACK]
"""


def test_notes_are_ended_within_half_a_second_of_the_servers_death(
    server: JackServer, excerpt: Path, tmp_path: Path
) -> None:
    """At a MIDI port that does not die with the audio; CLOCK_MONOTONIC is one for all processes."""
    log = tmp_path / "midi.log"
    (tmp_path / "rtmidi.py").write_text(PORT_THAT_NOTES.format(log=str(log)))
    player = start_player(server, excerpt)
    session = Program(
        [*RTCHORD, "listen", "--device", "player", "--format", "jsonl"],
        {**server.env, "PYTHONPATH": f"{tmp_path}:{rig.ROOT}"},
    )
    try:
        session.wait_said("listening")
        player.go()
        session.wait_for(a_chord_sounds)
        server.kill()
        died = time.monotonic()
        session.wait_said("is lost")
        session.wait_for(lambda program: not a_chord_sounds(program))
        rows = [line.split() for line in log.read_text().splitlines()]
        messages = [(float(at), bytes.fromhex(message)) for at, message in rows]
        changes = held_notes(messages)  # type: ignore[arg-type]
        assert changes[-1][1] == ()
        assert next(notes for at, notes in reversed(changes) if at < died) != ()
        assert changes[-1][0] - died < 0.5 + PATIENCE
    finally:
        session.stop()


def test_sigterm_at_any_moment_leaves_no_note_on(server: JackServer, excerpt: Path) -> None:
    rng = random.Random(0)
    player = server.program(*PLAYER, excerpt, "--loop")
    player.wait_said("ready")
    player.go()
    receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
    sounding = 0
    for _ in range(10):
        session = server.program(*RTCHORD, "listen", "--device", "player", "--format", "jsonl")
        session.wait_said("listening")
        time.sleep(rng.uniform(0, 2))
        asked = time.monotonic()
        code = session.stop(signal.SIGTERM, seconds=10)
        # A JACK that hangs on the way out is left behind by force, which has a code of its own.
        assert code == 0 or time.monotonic() - asked >= LAST_RESORT_SECONDS
        time.sleep(0.3)  # for the receiver to print what it has
        changes = held_notes(midi_messages(receiver))
        sounding += len(changes) > 1 and changes[-2][1] != ()
        assert not changes or changes[-1][1] == ()
    assert sounding >= 3


RECORDING = """
import sys, threading
import numpy as np
from benchmarks.capture import hold_the_interpreter
from rtchord import cli
from rtchord.audio.source import DeviceSource

blocks, parts = DeviceSource.blocks, []
def recorded(self):
    for block in blocks(self):
        parts.append(block.copy())
        yield block
DeviceSource.blocks = recorded
threading.Thread(target=hold_the_interpreter, daemon=True).start()
code = cli.main(sys.argv[2:])
np.save(sys.argv[1], np.concatenate(parts))
sys.stdout.flush()
sys.exit(code)
"""


def test_a_minute_beside_a_busy_thread_and_a_busy_core_loses_nothing(tmp_path: Path) -> None:
    """Every sample of the song is in what was heard, and the events are those of the same audio without a clock."""
    samples, rate = soundfile.read(DATA / "demo.ogg", dtype="float32")
    samples = np.resize(samples, 60 * rate) + np.float32(1e-6)  # no sample is zero
    song, heard = tmp_path / "song.wav", tmp_path / "heard.npy"
    soundfile.write(song, samples, rate, subtype="FLOAT")
    with JackServer(rate, 256) as server:
        player = start_player(server, song)
        hog = server.program(*rig.PYTHON, "-c", "while True: pass")
        command = (*rig.PYTHON, "-c", RECORDING, heard, "listen", "--device", "player", "--format", "jsonl")
        session = server.program(*command)
        session.wait_said("listening")
        player.go()
        player.wait_for(lambda program: any("ended" in line for line in program.out), 240)
        # The song ends in a chord, after which silence comes; then nothing is under way any more.
        session.wait_for(lambda program: events(program)[-1]["chord"] == "N" and events(program)[-1]["time"] > 60, 60)
        hog.stop()
        assert session.stop(signal.SIGTERM, seconds=10) == 0
    assert said(session, "lost") == said(session, "dropped") == 0, session.err
    got = np.load(heard)
    first = int(np.flatnonzero(got)[0])
    np.testing.assert_array_equal(got[first : first + samples.size], samples)
    offline = [json.loads(event.json()) for event in Recognizer(rate).push(got)]
    assert events(session) == offline
    assert len(offline) > 10


@pytest.mark.skipif(shutil.which("pulseaudio") is None, reason="no PulseAudio here")
@pytest.mark.skipif(shutil.which("paplay") is None, reason="no PulseAudio tools here")
def test_pulseaudio_is_heard_too(excerpt: Path, tmp_path: Path) -> None:
    """The monitor of a null sink, through ALSA's plugin: what a desktop has."""
    socket = tmp_path / "socket"
    rate = soundfile.info(excerpt).samplerate
    system = Path("/usr/share/alsa/alsa.conf")
    env = rig.environment(
        XDG_RUNTIME_DIR=str(tmp_path), HOME=str(tmp_path), PULSE_SERVER=f"unix:{socket}", ALSA_CONFIG_PATH=str(system)
    )
    server = Program(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
            *("-L", f"module-null-sink sink_name=rig rate={rate} channels=2 format=float32le"),
            *("-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1"),
        ],
        env,
    )
    programs = [server]
    try:
        for command in (("set-default-source", "rig.monitor"), ("set-default-sink", "rig")):
            server.wait_for(lambda _, c=command: rig.run_quietly("pactl", *c, env=env))  # type: ignore[misc]
        session = Program([*RTCHORD, "listen", "--device", "pulse", "--no-midi", "--format", "jsonl"], env)
        programs.append(session)
        session.wait_said("listening")
        programs.append(Program(["paplay", "--device=rig", str(excerpt)], env))
        session.wait_for(lambda program: len({row["chord"] for row in events(program)} - {"N"}) >= 2, 60)
        assert session.stop(signal.SIGTERM, seconds=10) == 0
    finally:
        for program in reversed(programs):
            program.stop()


def test_devices_lists_a_jack_client_with_its_rate_and_a_midi_port(server: JackServer, excerpt: Path) -> None:
    start_player(server, excerpt)
    server.program(*MIDI_RECEIVER, "rtchord:chords").wait_said("ready")
    done = rig.rtchord("devices", env=server.env)
    assert done.returncode == 0
    (row,) = (line for line in done.stdout.splitlines() if " player " in line)
    assert row.split()[1:] == ["player", "[JACK", "Audio", "Connection", "Kit]", "2", "channels", "44100", "Hz"]
    assert "receiver:in  [JACK]" in done.stdout
    assert done.stderr == ""


def test_an_existing_midi_port_can_be_named(server: JackServer, excerpt: Path) -> None:
    receiver = server.program(*MIDI_RECEIVER, "nothing")
    receiver.wait_said("ready")
    song = ("listen", "--input", str(excerpt), "--no-realtime", "--format", "jsonl")
    done = rig.rtchord(*song, "--midi-port", "RECEIVER", "--midi-channel", "10", env=server.env)
    assert done.returncode == 0, done.stderr
    time.sleep(0.3)
    receiver.stop()
    messages = midi_messages(receiver)
    assert {message[0] & 0x0F for _, message in messages} == {9}
    chords = [json.loads(line)["chord"] for line in done.stdout.splitlines()]
    assert sum(message[0] == 0x99 for _, message in messages) >= 4 * sum(chord != "N" for chord in chords) > 0
    assert held_notes(messages)[-1][1] == ()


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--device", "JACK Audio"), "names several audio inputs"),
        (("--device", "playr"), "'player'"),
        (("--device", "player", "--channels", "3"), "channel 3"),
        (("--device", "player", "--midi-port", "nobody"), "'nobody'"),
    ],
)
def test_a_bad_choice_lists_what_there_is(server: JackServer, excerpt: Path, args: tuple[str, ...], named: str) -> None:
    start_player(server, excerpt)
    done = rig.rtchord("listen", *args, env=server.env)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
