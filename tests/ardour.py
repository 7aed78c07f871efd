"""A real DAW records the chords: `make ardour`. Not among the tests that always run, for Ardour is large."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
from pathlib import Path

import mido
import pytest
import soundfile

from benchmarks.rig import MIDI_RECEIVER, PLAYER, RTCHORD, JackServer, held_notes, midi_messages

HERE = Path(__file__).parent
SECONDS = 14


@pytest.mark.skipif(shutil.which("ardour7-lua") is None, reason="needs Ardour 7 (ardour)")
def test_ardour_records_every_chord(tmp_path: Path) -> None:
    samples, rate = soundfile.read(HERE / "data" / "demo.ogg", dtype="float32")
    soundfile.write(tmp_path / "song.wav", samples[: 10 * rate], rate, subtype="FLOAT")
    with JackServer(rate) as server:
        player = server.program(*PLAYER, tmp_path / "song.wav")
        player.wait_said("ready")
        receiver = server.program(*MIDI_RECEIVER, "rtchord:chords")
        session = server.program(*RTCHORD, "listen", "--device", "player", "--format", "jsonl")
        session.wait_said("listening")
        receiver.wait_said("connected")
        home = tmp_path / "home"
        home.mkdir()
        server.env |= {"HOME": str(home), "SESSION": str(tmp_path / "session"), "SECONDS": str(SECONDS)}
        ardour = server.program("ardour7-lua", HERE / "ardour.lua", stdin=subprocess.DEVNULL)
        ardour.wait_said("rolling")
        player.go()
        player.wait_said("ended")
        assert session.stop(signal.SIGTERM) == 0
        ardour.wait_said("done", 60)
        receiver.stop()
    (path,) = (tmp_path / "session").rglob("*.mid")
    held: set[int] = set()
    recorded = []
    for message in mido.MidiFile(path).tracks[0]:
        if message.time:  # all messages of a change have one time
            recorded.append(tuple(sorted(held)))
        if message.type == "note_on" and message.velocity:
            held.add(message.note)
        elif message.type in ("note_on", "note_off"):
            held.discard(message.note)
    sent = [notes for _, notes in held_notes(midi_messages(receiver)) if notes]
    assert len(sent) >= 3
    assert held == set()
    assert [notes for notes, _ in itertools.groupby(filter(None, recorded))] == sent
