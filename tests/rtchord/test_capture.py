"""Capture by another process: over JACK where there is one, and what the watchdog takes for dead."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import rig
from benchmarks.rig import PLAYER, JackServer
from rtchord.audio.capture import (
    FIRST_CALLBACK_SECONDS,
    LOST,
    STALL_SECONDS,
    VANISHED,
    WATCH_GAP_SECONDS,
    Capture,
    Watchdog,
)
from rtchord.audio.device import JACK
from rtchord.errors import UserError

TICK = 0.1  # s between questions to the watchdog
needs_jack = pytest.mark.skipif(rig.missing() is not None, reason=str(rig.missing()))
RATE = 48_000


def seconds_until_dead(watchdog: Watchdog, callbacks: int, start: float) -> float:
    """How long a counter that stands still is taken for alive, asked every TICK."""
    for i in range(1000):
        if not watchdog.alive(callbacks, start + i * TICK):
            return i * TICK
    raise AssertionError("it never noticed")


def test_callbacks_that_stop_are_noticed_soon() -> None:
    watchdog = Watchdog(0.0)
    assert all(watchdog.alive(i, i * TICK) for i in range(100))
    assert seconds_until_dead(watchdog, 99, 9.9) == pytest.approx(STALL_SECONDS, abs=1.5 * TICK)


def test_a_slow_start_is_waited_for() -> None:
    assert seconds_until_dead(Watchdog(0.0), 0, 0.0) == pytest.approx(FIRST_CALLBACK_SECONDS, abs=1.5 * TICK)
    assert FIRST_CALLBACK_SECONDS > STALL_SECONDS


def test_a_machine_that_slept_has_not_lost_its_device() -> None:
    """Asked again after a pause of its own, the watchdog has seen nothing, so it concludes nothing."""
    watchdog = Watchdog(0.0)
    assert watchdog.alive(5, 1.0)
    assert watchdog.alive(5, 10.0)
    assert seconds_until_dead(watchdog, 5, 10.0) == pytest.approx(STALL_SECONDS, abs=1.5 * TICK)


def test_an_irregular_device_is_alive() -> None:
    """Gaps just short of the limit, which a busy machine makes, raise no alarm."""
    watchdog, callbacks = Watchdog(0.0), 1
    for tick in range(200):
        callbacks += tick % round(STALL_SECONDS / TICK - 1) == 0
        assert watchdog.alive(callbacks, tick * TICK)
    assert TICK < WATCH_GAP_SECONDS < STALL_SECONDS


def test_the_process_that_captures_loads_no_more_than_it_needs() -> None:
    """It imports what the command was started with, then this; each heavy library would be 10 to 60 MB more."""
    heavy = "{'numba', 'pydantic', 'onnxruntime', 'soundfile', 'rtmidi'} & set(sys.modules)"
    code = f"import sys, rtchord.__main__, rtchord.audio.capture; print({heavy} or 'none')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=rig.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "none\n"


def until(found: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Three channels of noise, of which every sample is another."""
    samples = np.random.default_rng(0).uniform(-1, 1, (2 * RATE, 3)).astype(np.float32)
    path = tmp_path / "song.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@pytest.fixture
def captures() -> Iterator[list[Capture]]:
    """Those to be closed before their server ends."""
    opened: list[Capture] = []
    yield opened
    for capture in opened:
        capture.close()


def opened(captures: list[Capture], channels: tuple[int, ...] | None = None, wanted: str | None = "player") -> Capture:
    capture = Capture(wanted, channels)
    captures.append(capture)
    for step in (capture.find, capture.start):
        for _ in step():
            pass
    return capture


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[JackServer]:
    with JackServer(RATE, getattr(request, "param", 256)) as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


@needs_jack
@pytest.mark.parametrize("server", [64, 128, 256, 512], indirect=True)
def test_every_sample_comes_bit_for_bit(server: JackServer, song: Path, captures: list[Capture]) -> None:
    player = server.program(*PLAYER, song)
    player.wait_said("ready")
    capture = opened(captures, (3, 1))
    assert (capture.device.name, capture.device.rate, capture.picked) == ("player", RATE, (2, 0))
    played, _ = soundfile.read(song, dtype="float32")
    player.go()
    out, parts, heard = np.zeros((2, 4096), np.float32), [np.zeros((2, 0), np.float32)], 0

    def complete() -> bool:
        nonlocal heard
        while count := capture.ring.read_into(out):
            parts.append(out[:, :count].copy())
            heard += int(np.count_nonzero(parts[-1][0]))
        return heard >= len(played)

    until(complete, 60)
    got = np.concatenate(parts, axis=1).T
    first = int(np.flatnonzero(got[:, 0])[0])
    np.testing.assert_array_equal(got[first : first + len(played)], played[:, [2, 0]])
    assert capture.ring.dropped == 0


@needs_jack
def test_a_device_that_leaves_its_server_is_noticed_and_found_again(
    server: JackServer, song: Path, captures: list[Capture]
) -> None:
    player = server.program(*PLAYER, song)
    player.wait_said("ready")
    capture = opened(captures)
    until(lambda: capture.ring.blocks > 20)
    assert capture.lost() is None
    player.stop()
    until(capture.lost)
    assert capture.lost() == VANISHED
    capture.close()
    with pytest.raises(UserError, match="any more"):
        list(Capture(capture.device).find())
    server.program(*PLAYER, song).wait_said("ready")
    again = Capture(capture.device)
    captures.append(again)
    list(again.find())
    assert again.device.name == "player"


@needs_jack
def test_a_server_that_dies_is_noticed_and_the_capture_ends_soon(
    server: JackServer, song: Path, captures: list[Capture]
) -> None:
    server.program(*PLAYER, song).wait_said("ready")
    capture = opened(captures)
    until(lambda: capture.ring.blocks > 20)
    server.kill()
    until(capture.lost)
    assert capture.lost() == LOST
    before = time.monotonic()
    capture.close()
    assert time.monotonic() - before < 3


@needs_jack
def test_a_capture_that_is_killed_counts_as_lost(server: JackServer, song: Path, captures: list[Capture]) -> None:
    server.program(*PLAYER, song).wait_said("ready")
    capture = opened(captures)
    capture._process.kill()
    until(capture.lost)
    assert capture.lost() == LOST


@needs_jack
def test_a_bad_choice_is_told_in_a_sentence(server: JackServer, song: Path) -> None:
    server.program(*PLAYER, song).wait_said("ready")
    for wanted, channels, words in (("nobody", None, "'nobody'"), ("player", (4,), "channel 4")):
        capture = Capture(wanted, channels)
        with pytest.raises(UserError, match=words):
            list(capture.find())
        capture.close()


PATTERNS = ("Mic (USB)", "a + b", "x [y]", "{z}", "q?", "a|b", "a")  # to PortAudio; names as PipeWire gives them


@needs_jack
def test_a_client_is_listed_and_heard_whatever_its_name(
    server: JackServer, song: Path, captures: list[Capture]
) -> None:
    """Each by its own channels, and only when it plays itself."""
    players = [server.program(*PLAYER, song, "--name", name) for name in PATTERNS]
    for player in players:
        player.wait_said("ready")
    listed = rig.rtchord("devices", env=server.env).stdout
    for name in PATTERNS:
        assert f"  {name}  [JACK Audio Connection Kit]  3 channels  {RATE} Hz\n" in listed
    played, _ = soundfile.read(song, dtype="float32")
    for name, player in zip(PATTERNS, players, strict=True):
        capture = opened(captures, (2,), name)
        while capture.ring.blocks < 8:  # a connection holds from one of the next periods on
            time.sleep(0.01)
        player.go()
        out, heard = np.zeros((1, RATE), np.float32), np.zeros(0, np.float32)
        while np.count_nonzero(heard) < 4000:
            heard = np.concatenate((heard, out[0, : capture.ring.read_into(out)]))
        first = int(np.flatnonzero(heard)[0])
        np.testing.assert_array_equal(heard[first : first + 3000], played[:3000, 1], name)
        capture.close()


@needs_jack
def test_without_a_choice_the_sound_card_of_a_running_jack_is_taken(
    server: JackServer, song: Path, captures: list[Capture]
) -> None:
    """Not ALSA's plug-in `jack`, which this machine may have and PortAudio takes for the default."""
    server.program(*PLAYER, song, "--name", "a player").wait_said("ready")
    capture = opened(captures, None, None)
    assert (capture.device.name, capture.device.host_api) == ("system", JACK)


CONTROL = "\x1bc\x07evil"  # resets a terminal, and rings


@needs_jack
def test_a_device_name_with_control_characters_never_reaches_the_terminal_raw(server: JackServer, song: Path) -> None:
    server.program(*PLAYER, song, "--name", CONTROL).wait_said("ready")
    listed = rig.rtchord("devices", env=server.env)
    assert "evil" in listed.stdout
    session = server.program(*rig.RTCHORD, "listen", "--device", "evil", "--no-midi", "--plain")
    session.wait_said("listening")
    assert session.stop() == 0
    for text in (listed.stdout, listed.stderr, *session.out, *session.err):
        assert "\x1b" not in text
        assert "\x07" not in text
