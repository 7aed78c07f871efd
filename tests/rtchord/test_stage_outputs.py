"""What goes out, at real receivers: a synthesizer that is listened to, ports that come and go, files after kill -9."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mido
import mir_eval
import numpy as np
import pytest
import soundfile

from benchmarks import rig
from benchmarks.rig import MIDI_RECEIVER, PLAYER, PYTHON, RTCHORD, JackServer, Program, held_notes, midi_messages
from rtchord.chords import N_BASS, X, chord_with_bass
from rtchord.outputs.messages import voicing

pytestmark = pytest.mark.skipif(rig.missing() is not None, reason=str(rig.missing()))

DATA = Path(__file__).parents[1] / "data"
DEMO = DATA / "demo.ogg"
SECONDS = 12.0  # of the demo that the synthesizer follows
SOUNDS = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
SYNTHESIZER = ("fluidsynth", "jack_rec", "jack_connect")
TRIADS = {voicing(chord_with_bass(i, b), "triad", 4): None for i in range(X) for b in range(N_BASS)}
LONG = 0.6  # s that a chord must sound for its spectrum to be looked at


def no_synthesizer() -> str | None:
    absent = [name for name in SYNTHESIZER if shutil.which(name) is None]
    absent += [] if SOUNDS.exists() else [str(SOUNDS)]
    return f"needs {', '.join(absent)}" if absent else None


@pytest.fixture
def server() -> Iterator[JackServer]:
    with JackServer(soundfile.info(DEMO).samplerate) as running:
        yield running


class Concert(NamedTuple):
    """What everybody had of one session that SIGTERM ended."""

    folder: Path
    out: list[str]
    err: list[str]
    osc: list[str]
    midi: list[tuple[int, bytes]]
    first_frame: int
    rate: int
    played: Any  # (frames,) what the player played, as it was recorded
    synthesized: Any  # (frames,) what the synthesizer made of it, recorded beside
    texts: set[str]  # that were seen in the text file
    text_at_the_end: bytes


@pytest.fixture(scope="module")
def concert(tmp_path_factory: pytest.TempPathFactory) -> Concert:
    if reason := no_synthesizer():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("concert")
    samples, rate = soundfile.read(DEMO, dtype="float32")
    soundfile.write(folder / "song.wav", samples[: round((SECONDS + 3) * rate)], rate, subtype="FLOAT")
    with JackServer(rate) as server:
        port = rig.free_udp_port()
        osc = server.program(*rig.osc_receiver(port))
        player = server.program(*PLAYER, folder / "song.wav")
        player.wait_said("ready")
        receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
        synthesizer = server.program(
            "fluidsynth", "-is", "-a", "jack", "-m", "jack", "-R", "0", "-C", "0", "-g", "1",
            "-o", "audio.jack.autoconnect=0", "-o", "audio.jack.id=synth", "-o", "midi.jack.id=synth",
            "-o", f"synth.sample-rate={rate}", "-o", f"shell.port={port}", SOUNDS,
        )  # fmt: skip
        files = [part for kind in ("mid", "lab", "jsonl") for part in ("--record", folder / f"set.{kind}")]
        session = server.program(
            *RTCHORD, "listen", "--device", "player", "--format", "jsonl", "--osc", f"127.0.0.1:{port}", *files,
            "--text", folder / "chord.txt", "--voicing", "triad", "--octave", "4", "--tie",
        )  # fmt: skip
        session.wait_said("listening")
        receiver.wait_said("connected")

        def patched(_: Program) -> bool:
            command = ["jack_connect", "rtchord:chords", "synth:midi_00"]
            said = subprocess.run(command, env=server.env, capture_output=True, text=True, check=False)
            return said.returncode == 0

        synthesizer.wait_for(patched)
        recorder = server.program(
            "jack_rec", "-f", folder / "synth.wav", "-b", "32", "-B", "1048576", "-d", str(SECONDS + 2),
            "player:out_1", "synth:left",
        )  # fmt: skip
        time.sleep(1.0)
        player.go()
        player.wait_said("started")
        texts = set()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            texts.add((folder / "chord.txt").read_text(encoding="utf-8"))
            time.sleep(0.05)
        assert session.stop(signal.SIGTERM, seconds=10) == 0
        text_at_the_end = (folder / "chord.txt").read_bytes()
        recorder.wait(60)
        receiver.stop()
        osc.stop()
        synthesizer.stop()
        both, _ = soundfile.read(folder / "synth.wav", dtype="float32")
        first_frame = json.loads(player.out[1])["frame"]
        heard = midi_messages(receiver)
        return Concert(
            folder, session.out, session.err, osc.out, heard, first_frame, rate, both[:, 0], both[:, 1], texts,
            text_at_the_end,
        )  # fmt: skip


def test_the_synthesizer_sounds_the_chords_that_were_recognised(concert: Concert) -> None:
    """Closed loop: sound -> JACK -> rtchord -> MIDI -> fluidsynth -> JACK -> the three strongest semitones."""
    song, rate = soundfile.read(concert.folder / "song.wav", dtype="float32", always_2d=True)
    # Where the song begins in the recording: JACK hands samples on unchanged, so its first ones are found as they are.
    loud = int(np.argmax(np.abs(song[:, 0]) > 0.01))
    pattern = song[loud : loud + 2 * rate, 0]
    length = 1 << int(np.ceil(np.log2(len(concert.played) + len(pattern))))
    spectrum = np.fft.rfft(concert.played, length) * np.conj(np.fft.rfft(pattern, length))
    begin = int(np.argmax(np.fft.irfft(spectrum, length))) - loud
    assert np.abs(concert.played[begin + loud :][: len(pattern)] - pattern).max() < 1e-4
    changes = held_notes(concert.midi)
    judged = []
    for (frame, notes), (until, _) in itertools.pairwise(changes):
        assert notes == () or notes in TRIADS
        if not notes or (until - frame) / rate < LONG:
            continue
        start = begin + frame - concert.first_frame + round(0.1 * rate)
        sound = concert.synthesized[start : start + round((LONG - 0.1) * rate)]
        levels = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 17))
        frequencies = np.fft.rfftfreq(1 << 17, 1 / rate)
        octave = range(notes[0], notes[0] + 12)  # above it lie the overtones of the root
        strength = {
            note: levels[np.abs(frequencies / (440 * 2 ** ((note - 69) / 12)) - 1) < 0.012].max() for note in octave
        }
        judged.append(tuple(sorted(sorted(octave, key=lambda note: strength[note])[-3:])) == notes)
    assert judged, "on a busy machine few chords last long enough, but some do"
    assert all(judged), judged


def test_every_osc_message_has_its_types(concert: Concert) -> None:
    rows = [line.split()[1:3] for line in concert.osc]
    types = {address: {found for other, found in rows if other == address} for address, _ in rows}
    assert types == {"/rtchord/chord": {"isisfdd"}, "/rtchord/state": {"ffifid"}}
    beats = sum(address == "/rtchord/state" for address, _ in rows)
    assert beats >= 3
    assert re.search(r'/rtchord/chord isisfdd -1 "N" -1 "N" ', [x for x in concert.osc if "/chord" in x][-1])


def test_the_events_are_recorded(concert: Concert) -> None:
    assert (concert.folder / "set.jsonl").read_text().splitlines() == concert.out
    assert len(concert.out) >= 4


def test_the_lab_recording_tells_the_same_story(concert: Concert) -> None:
    intervals, labels = mir_eval.io.load_labeled_intervals(str(concert.folder / "set.lab"))
    assert intervals[0, 0] == 0.0
    assert (intervals[1:, 0] == intervals[:-1, 1]).all()
    events = [json.loads(line) for line in concert.out]
    assert labels[-1] == events[-1]["chord"]
    assert set(labels) <= {event["chord"] for event in events}
    assert intervals[-1, 1] >= events[-1]["time"]


def test_the_midi_recording_holds_the_notes_that_were_sent(concert: Concert) -> None:
    sent = [notes for _, notes in held_notes(concert.midi)]
    held: set[int] = set()
    recorded = []
    for message in mido.MidiFile(concert.folder / "set.mid").tracks[0]:
        if message.type == "note_on":
            held.add(message.note)
        elif message.type == "note_off":
            held.remove(message.note)
        elif message.type in ("text", "end_of_track"):  # a text follows each change
            recorded.append(tuple(sorted(held)))
    assert held == set()
    distinct = [notes for i, notes in enumerate(recorded) if i == 0 or notes != recorded[i - 1]]
    assert set(distinct) <= {(), *sent}
    # Those that were renamed at once are not among the recorded.
    assert len(distinct) >= len(sent) // 2


def test_the_text_file_showed_chords_and_is_empty_at_the_end(concert: Concert) -> None:
    names = {line for line in concert.texts if line}
    assert names
    assert all(re.fullmatch(r"[A-G][b#]?(m|dim|aug|m6|6|m7|m\(maj7\)|maj7|7|dim7|m7b5|sus2|sus4)?(/[A-G][b#]?)?", name)
               for name in names)  # fmt: skip
    assert concert.text_at_the_end == b""


def test_stderr_says_where_it_goes(concert: Concert) -> None:
    (line,) = (line for line in concert.err if "sending to" in line)
    for part in ("rtchord:chords", "OSC at 127.0.0.1", "chord.txt", "set.mid", "set.lab", "set.jsonl"):
        assert part in line


def sounding(receiver: Program) -> tuple[int, ...]:
    changes = held_notes(midi_messages(receiver))
    return changes[-1][1] if changes else ()


def test_a_receiver_that_vanishes_and_returns_is_played_on(server: JackServer) -> None:
    first = server.program(*MIDI_RECEIVER, "nothing")
    first.wait_said("ready")
    session = server.program(*RTCHORD, "listen", "--input", DEMO, "--midi-port", "receiver", "--format", "jsonl")
    first.wait_for(sounding)
    first.stop()
    session.wait_said("'receiver:in' (JACK) has gone", 10)
    second = server.program(*MIDI_RECEIVER, "nothing")
    session.wait_said("'receiver:in' (JACK) is back", 10)
    second.wait_for(sounding, 120)
    assert session.stop(signal.SIGTERM, seconds=10) == 0
    second.wait_for(lambda program: midi_messages(program)[-1][1] == b"\xb0\x7b\x00")
    assert sounding(second) == ()
    assert len([line for line in session.err if "receiver:in" in line]) == 3  # with the one of the beginning


def test_a_second_session_is_called_what_others_see(server: JackServer) -> None:
    sessions = []
    for name in ("rtchord:chords", "rtchord-01:chords"):
        sessions.append(server.program(*RTCHORD, "listen", "--input", DEMO, "--format", "jsonl"))
        sessions[-1].wait_said(f"MIDI port '{name}' (JACK)")
    receiver = server.program(*MIDI_RECEIVER, "rtchord-01:chords")
    receiver.wait_for(sounding, 120)
    assert [session.stop(signal.SIGTERM, seconds=10) for session in sessions] == [0, 0]
    receiver.wait_for(lambda program: not sounding(program))


def test_a_stopped_terminal_stops_neither_notes_nor_messages_and_no_note_is_left_on(server: JackServer) -> None:
    """Ctrl-S in the terminal that has both stdout and stderr: whatever is written there blocks."""
    receiver = server.program(*MIDI_RECEIVER, "nothing")
    receiver.wait_said("ready")
    port = rig.free_udp_port()
    osc = server.program(*rig.osc_receiver(port))
    master, slave = pty.openpty()
    options = ("--plain", "--midi-port", "receiver", "--osc", f"127.0.0.1:{port}")
    command = [*RTCHORD, "listen", "--input", str(DEMO), *options]
    session = Program(command, server.env, stdout=slave, stderr=slave)
    try:
        shown = b""
        while b"sending to" not in shown:
            shown += os.read(master, 4096)
        termios.tcflow(slave, termios.TCOOFF)
        receiver.stop()  # which is told on stderr
        second = server.program(*MIDI_RECEIVER, "nothing")
        osc.wait_for(lambda program: sum("/rtchord/chord" in line for line in program.out) >= 3, 120)
        second.wait_for(sounding, 120)
        assert session.stop(signal.SIGTERM, seconds=10) == 0
        second.wait_for(lambda program: not sounding(program))
        osc.wait_for(lambda program: '"N"' in [line for line in program.out if "/chord" in line][-1])
    finally:
        session.stop()
        os.close(slave)
        os.close(master)


REOPENED = """
import sys, time
from rtchord.chords import chord_with_bass
from rtchord.events import ChordEvent
from rtchord.outputs.midi import MidiOutput
output = MidiOutput(prefer="JACK", report=lambda sentence: print(sentence, flush=True))
output.send(ChordEvent(0.0, 0.0, chord_with_bass(1, 0), 1.0))
print("sent", flush=True)
sys.stdin.readline()
for _ in range(400):  # more than fit into the queue of a client
    output.send(ChordEvent(0.0, 0.0, chord_with_bass(2, 0), 1.0))
    output.send(ChordEvent(0.0, 0.0, chord_with_bass(1, 0), 1.0))
print(output.alive(), output.reopen(), output.reopen(), output.alive(), flush=True)
sys.stdin.readline()
while not output.reopen():
    time.sleep(0.1)
print("again", output.alive(), flush=True)
sys.stdin.readline()
output.release()
output.close()
"""


def test_a_port_survives_the_death_of_its_server(server: JackServer) -> None:
    """kill -9 of jackd, then another one: nothing crashes, hangs or stays sounding."""
    program = Program([*PYTHON, "-c", REOPENED], server.env)
    try:
        program.wait_said("sent")
        server.kill()
        program.go()
        program.wait_said("False False False False")
        driver = ("-d", "dummy", "-r", str(server.rate), "-p", str(server.period))
        server.server = Program(["jackd", "-n", server.name, "-S", "-r", "-t", "5000", *driver], server.env)
        subprocess.run(["jack_wait", "-w", "-t", "20"], env=server.env, capture_output=True, check=True)
        program.go()
        program.wait_said("again True")
        assert any("'rtchord:chords' (JACK) is back" in line for line in program.out)
        assert sum("being lost: its server has died" in line for line in program.out) == 1
        receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
        receiver.wait_said("connected")
        program.go()
        receiver.wait_for(lambda _: len(midi_messages(receiver)) >= 5)
    finally:
        code = program.stop(signal.SIGCONT, seconds=20)  # it ends by itself
    assert code == 0
    assert [message.hex() for _, message in midi_messages(receiver)] == [
        "802400",
        "803000",
        "803400",
        "803700",
        "b07b00",
    ]


def test_every_language_beside_the_notes_arrives(server: JackServer) -> None:
    receiver = server.program(*MIDI_RECEIVER, "nothing")
    receiver.wait_said("ready")
    song = ("listen", "--input", DEMO, "--no-realtime", "--format", "jsonl")
    options = ("--midi-port", "receiver", "--yamaha", "--helicon", "--voicing", "root", "--velocity", "1")
    done = rig.rtchord(*song, *options, env=server.env)
    assert done.returncode == 0, done.stderr
    receiver.wait_for(lambda program: midi_messages(program)[-1][1] == b"\xb0\x7b\x00")
    messages = [message for _, message in midi_messages(receiver)]
    chords = [json.loads(line)["chord"] for line in done.stdout.splitlines()]
    controls = [message for message in messages if message[0] == 0xF0]
    assert len(controls) == len(chords) + 1  # and the cancel at the end
    assert controls[-1].hex() == "f0437e0231227f7ff7"
    for label, control in zip(chords, controls, strict=False):
        assert control[:4].hex() == "f0437e02"
        assert (control[5] == 0x22) == (label == "N")
    for controller in (117, 118):
        values = [message[2] for message in messages if message[:2] == bytes((0xB0, controller))]
        assert len(values) == len(chords) + 1
        assert values[-1] == 0
    assert {message[2] for message in messages if message[0] == 0x90} == {1}


def test_panic_silences_a_port(server: JackServer) -> None:
    receiver = server.program(*MIDI_RECEIVER, "nothing")
    receiver.wait_said("ready")
    done = rig.rtchord("panic", "--midi-port", "receiver", env=server.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'receiver:in'" in done.stdout
    receiver.wait_for(lambda program: len(midi_messages(program)) == 16 * 131)
    assert midi_messages(receiver)[-1][1].hex() == "bf7800"
    assert rig.rtchord("panic", "--midi-port", "nobody", env=server.env).returncode == 2


def test_at_full_speed_a_slow_reader_has_every_line(lines: str) -> None:
    """The pipe holds one line or two, and the reader takes one every now and then."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    os.write(writing, b"\n" * (4096 - 100))
    os.set_blocking(writing, True)
    session = Program([*RTCHORD, *map(str, FAST)], rig.environment(), stdout=writing)
    os.close(writing)
    session.wait_said("listening")
    time.sleep(3.0)  # by then it has heard all of it, elsewhere than on a busy machine
    assert session.process.poll() is None
    got = b""
    while part := os.read(reading, 64):
        got += part
        time.sleep(0.01)
    os.close(reading)
    assert session.wait(20) == 0
    assert got.decode().lstrip("\n") == lines
    assert not any("left out" in line for line in session.err)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_recordings_are_complete_whatever_ends_the_session(tmp_path: Path, number: int) -> None:
    files = [part for kind in ("mid", "lab", "jsonl") for part in ("--record", str(tmp_path / f"set.{kind}"))]
    command = [*RTCHORD, "listen", "--input", str(DEMO), "--no-midi", "--format", "jsonl", *files]
    session = Program(command, rig.environment())
    session.wait_for(lambda program: len(program.out) >= 4)
    time.sleep(0.3)  # each has a thread of its own; by now all of them have written what was said
    session.stop(number, seconds=10)
    events = (tmp_path / "set.jsonl").read_text().splitlines()
    assert events[: len(session.out)] == session.out
    last = json.loads(events[-1])["chord"]
    _, labels = mir_eval.io.load_labeled_intervals(str(tmp_path / "set.lab"))
    assert labels[-1] == last
    track = mido.MidiFile(tmp_path / "set.mid").tracks[0]
    assert [message.text for message in track if message.type == "text"] == labels
    assert sum(message.type == "note_on" for message in track) == sum(message.type == "note_off" for message in track)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.jsonl", "set.lab", "set.mid"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for four small files; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not rig.run_quietly("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk), env=os.environ):
        pytest.skip("may mount nothing here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


FAST = ("listen", "--input", DEMO, "--no-realtime", "--no-midi", "--format", "jsonl")


@pytest.fixture(scope="module")
def lines() -> str:
    """What is told of the demo where nothing is in the way."""
    return rig.rtchord(*FAST).stdout


@pytest.mark.parametrize("room", [0, 8192], ids=["full", "nearly full"])
def test_a_full_disk_is_a_sentence_each_and_the_rest_goes_on(tiny_disk: Path, room: int, lines: str) -> None:
    with open(tiny_disk / "ballast", "wb") as ballast:
        ballast.write(bytes(16384 - room))
    files = [part for kind in ("mid", "lab", "jsonl") for part in ("--record", str(tiny_disk / f"set.{kind}"))]
    done = rig.rtchord(*FAST, *files, "--text", tiny_disk / "chord.txt")
    assert done.returncode == 0
    assert done.stdout == lines
    assert "Traceback" not in done.stderr
    for name in ("set.mid", "set.lab", "set.jsonl", "chord.txt"):
        told = [line for line in done.stderr.splitlines() if name in line and "No space left" in line]
        assert len(told) <= 1
        path = tiny_disk / name
        assert told or (path.exists() and (path.stat().st_size or name == "chord.txt")), name
    assert "No space left" in done.stderr
    if (tiny_disk / "set.mid").exists():
        mido.MidiFile(tiny_disk / "set.mid")
    assert not [path for path in tiny_disk.iterdir() if path.name.startswith(".")]


def family(pid: int) -> set[int]:
    """A process and all that it has started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has just ended
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def internet(pid: int) -> list[str]:
    """The kinds of Internet sockets that a process and its children have."""
    tables = {}
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        table = Path(f"/proc/{pid}/net/{kind}")
        if table.exists():
            tables |= {line.split()[9]: kind for line in table.read_text().splitlines()[1:]}
    inodes = []
    for member in family(pid):
        for link in Path(f"/proc/{member}/fd").iterdir():
            try:
                inodes += re.findall(r"socket:\[(\d+)\]", os.readlink(link))
            except OSError:
                continue
    return sorted(tables[inode] for inode in set(inodes) if inode in tables)


@pytest.mark.skipif(not Path("/proc/self/net/udp").exists(), reason="sees in /proc what is open")
@pytest.mark.parametrize(("options", "sockets"), [((), []), (("--osc", "127.0.0.1:9"), ["udp"])])
def test_nothing_is_open_to_the_network_but_what_was_asked_for(options: tuple[str, ...], sockets: list[str]) -> None:
    session = Program([*RTCHORD, "listen", "--input", str(DEMO), "--format", "jsonl", *options], rig.environment())
    try:
        session.wait_for(lambda program: program.out)
        assert internet(session.process.pid) == sockets
    finally:
        assert session.stop(signal.SIGTERM, seconds=10) == 0
