"""Real components for what tests and benchmarks do on stage: a JACK server, a player, MIDI and OSC receivers.

The player and the receiver are programs of their own (`python -m benchmarks.rig play|receive`), so that nothing they
see has gone through the process under test. They speak in JSON lines.

    with JackServer(rate=44_100) as server:
        player = server.program(*PLAYER, "song.wav")          # an audio input named `player`; starts at a line on stdin
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
PYTHON = (sys.executable, "-u")
RTCHORD = (*PYTHON, "-m", "rtchord")
# The command beside a thread that never lets go of the interpreter by itself.
BESIDE_A_BUSY_THREAD = (
    *PYTHON,
    "-c",
    "import sys, threading; from benchmarks.capture import hold_the_interpreter as busy; "
    "threading.Thread(target=busy, daemon=True).start(); from rtchord.cli import main; sys.exit(main(sys.argv[1:]))",
)
PLAYER = (*PYTHON, "-m", "benchmarks.rig", "play")
MIDI_RECEIVER = (*PYTHON, "-m", "benchmarks.rig", "receive")
NEEDED = ("jackd", "jack_wait", "oscdump", "stdbuf")

LOSSLESS = ("-S", "-r", "-t", "5000")  # synchronous: under load time stretches, nothing is lost
LIVE = ("-R", "-P", "60")  # asynchronous, real-time: what comes late is lost, as with a driver
SLOTS = 4  # of the eight servers that JACK has room for on a machine


def missing() -> str | None:
    """What the rig lacks on this machine, as a reason to skip; None where it is complete."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    for module in ("jack", "sounddevice"):
        try:
            __import__(module)
        except (ImportError, OSError):  # sounddevice raises OSError without PortAudio
            absent.append(f"{module} (Python)")
    return f"the rig needs {', '.join(absent)}" if absent else None


@functools.cache
def _alsa() -> dict[str, str]:
    """ALSA without the plugins of this machine: one makes a device of every JACK server, and hangs with it."""
    system = Path("/usr/share/alsa/alsa.conf")
    if not system.is_file():
        return {}
    text = re.sub(r"^@hooks \[.*?^\]", "", system.read_text(), flags=re.MULTILINE | re.DOTALL)
    ours = Path(tempfile.gettempdir()) / "rtchord-rig-alsa.conf"
    if not ours.is_file() or ours.read_text() != text:
        temporary = ours.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(ours)
    return {"ALSA_CONFIG_PATH": str(ours)}


def environment(**more: str) -> dict[str, str]:
    """The environment of programs under test: this tree, and no audio server but the rig's."""
    quiet = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "JACK_DEFAULT_SERVER": f"rtchord-none-{os.getpid()}",
        "JACK_NO_AUDIO_RESERVATION": "1",
        "JACK_NO_START_SERVER": "1",
        **_alsa(),
    }
    return {**os.environ, **quiet, **more}


def rtchord(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 120, "cwd": ROOT, **options}
    return subprocess.run([*RTCHORD, *map(str, args)], check=False, **options)


def run_quietly(*command: str, env: Mapping[str, str]) -> bool:
    """Whether a command succeeds."""
    return subprocess.run(command, env=dict(env), capture_output=True, check=False, timeout=30).returncode == 0


class Program:
    """A running program whose lines on stdout and stderr are gathered as they come."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], **options: Any) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(
            list(map(str, command)), env=dict(env), text=True, encoding="utf-8", cwd=ROOT, **{**pipes, **options}
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=self._gather, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
            if stream is not None
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _gather(stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))

    def wait_for(self, found: Callable[[Program], object], seconds: float = 30.0) -> None:
        """Wait until `found(self)` is true; AssertionError, with all that was said, if it does not become so."""
        deadline = time.monotonic() + seconds
        while not found(self):
            over = self.process.poll() is not None and not any(thread.is_alive() for thread in self._threads)
            if (over and not found(self)) or time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {self.process.args}: {self.out} {self.err}")
            time.sleep(0.01)

    def wait_said(self, text: str, seconds: float = 60.0) -> None:
        """Wait until a line on either stream holds `text`."""
        self.wait_for(lambda program: any(text in line for line in program.out + program.err), seconds)

    def go(self) -> None:
        """Send an empty line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Send a signal and wait for the exit code; killed where it does not come in time."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Exit code; the process is killed, and TimeoutExpired raised, after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.wait()
            for thread in self._threads:
                thread.join(5)


class JackServer:
    """A private JACK server with the dummy driver.

    Programs started with `program` are ended before the server, which is KILLed where TERM does not suffice.
    Names are few and used again: a server that was killed keeps its place in JACK's registry, which has eight, until
    one of the same name starts. A lock on a file gives each server that runs at the same time a name of its own.
    """

    def __init__(self, rate: int = 44_100, period: int = 512, options: tuple[str, ...] = LOSSLESS) -> None:
        self.rate, self.period, self._options = rate, period, options
        self._programs: list[Program] = []

    def __enter__(self) -> JackServer:
        for name, lock in self._claims():
            self.name, self._lock = name, lock
            try:
                self.start()
                return self
            except AssertionError as error:  # such as an orphan of that name, left by tests that were killed
                self._lock.close()
                failure = error
        raise failure

    def start(self) -> None:
        """Start the server, also again after `kill`."""
        self.env = environment(JACK_DEFAULT_SERVER=self.name)
        driver = ("-d", "dummy", "-r", str(self.rate), "-p", str(self.period))
        if (
            "not running"
            not in subprocess.run(["jack_wait", "-c"], env=self.env, capture_output=True, text=True).stdout
        ):
            raise AssertionError(f"another {self.name} is running, which no test owns any more")
        for _ in range(3):  # a server that was killed leaves shared memory on which the next start may stumble
            self.server = Program(["jackd", "-n", self.name, *self._options, *driver], self.env)
            ready = subprocess.run(["jack_wait", "-w", "-t", "5"], env=self.env, capture_output=True, check=False)
            if ready.returncode == 0 and self.server.process.poll() is None:
                return
            self.kill()
        raise AssertionError(f"jackd does not start: {self.server.out} {self.server.err}")

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._programs):
            if program.process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.stop(seconds=5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.stop(seconds=3)
        self.kill()
        self._lock.close()

    @staticmethod
    def _claims() -> Iterator[tuple[str, IO[str]]]:
        """Names nobody uses now, each with the open file whose lock says so. AssertionError where there is none."""
        import fcntl

        free = 0
        for slot in range(SLOTS):
            name = f"rtchord-rig-{slot}"
            lock = open(Path(tempfile.gettempdir()) / f"{name}.lock", "w")  # noqa: SIM115 (closed by whoever has it)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            free += 1
            yield name, lock
        assert free, f"{SLOTS} rigs are running already"

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.server.process.poll() is None:
            self.server.process.kill()
        self.server.process.wait()

    def program(self, *command: str | Path, **options: Any) -> Program:
        """Start a client of this server."""
        program = Program([str(part) for part in command], self.env, **options)
        self._programs.append(program)
        return program


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def osc_receiver(port: int) -> tuple[str, ...]:
    """Command of an independent OSC receiver that prints each message at once."""
    return ("stdbuf", "-oL", "oscdump", "-L", str(port))


def midi_messages(receiver: Program) -> list[tuple[int, bytes]]:
    """(JACK frame, message) of everything the MIDI receiver has heard."""
    rows = [json.loads(line) for line in receiver.out]
    return [(row["frame"], bytes.fromhex(row["data"])) for row in rows if row["event"] == "midi"]


def held_notes(messages: Sequence[tuple[int, bytes]]) -> list[tuple[int, tuple[int, ...]]]:
    """(frame, notes on, lowest first) after each frame in which something changed."""
    held: set[int] = set()
    changes = []
    for frame, group in itertools.groupby(messages, key=lambda message: message[0]):
        for _, (status, note, velocity) in group:
            if status & 0xF0 == 0x90 and velocity:
                held.add(note)
            elif status & 0xF0 in (0x80, 0x90):
                held.discard(note)
        changes.append((frame, tuple(sorted(held))))
    return changes


# ---- the programs ---------------------------------------------------------------------------------------------------


def _client(name: str) -> Any:
    import jack

    for attempts_left in reversed(range(5)):
        try:
            return jack.Client(name, no_start_server=True, use_exact_name=True)
        except jack.JackOpenError:  # on a busy machine the server may answer too late
            if not attempts_left:
                raise
            time.sleep(0.5)


def _tell(**row: object) -> None:
    print(json.dumps(row), flush=True)


def play(path: str, name: str, loop: bool) -> None:
    """Play a WAV from output ports, once or for ever; says the JACK frame of its first sample when it begins.

    Silence comes before and after. At the end it says `cycles`: (sample, frame) of the first, and of each at which
    JACK's clock had jumped, as it does where the server itself came too late.
    """
    import numpy as np
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    client = _client(name)
    assert client.samplerate == rate, f"server at {client.samplerate} Hz, file at {rate} Hz"
    ports = [client.outports.register(f"out_{i + 1}") for i in range(samples.shape[1])]
    wanted, ended = threading.Event(), threading.Event()
    position, started, cycles = 0, [], []

    @client.set_process_callback  # type: ignore[untyped-decorator]
    def process(frames: int) -> None:
        nonlocal position
        block = samples[:0]
        if wanted.is_set():
            block = samples[position : position + frames]
            if loop and position + frames >= len(samples):
                block = np.concatenate((block, samples[: position + frames - len(samples)]))
                position -= len(samples)
        if len(block):
            frame = client.last_frame_time
            if not started:
                started.append(frame)
            if not loop and (not cycles or frame - position != cycles[-1][1] - cycles[-1][0]):
                cycles.append((position, frame))
        position += len(block)
        for i, port in enumerate(ports):
            array = port.get_array()
            array[: len(block)] = block[:, i]
            array[len(block) :] = 0
        if position >= len(samples) and not loop:
            ended.set()

    with client:
        _tell(event="ready")
        sys.stdin.readline()
        wanted.set()
        while not started:
            time.sleep(0.005)
        _tell(event="started", frame=started[0])
        ended.wait()
        _tell(event="ended", cycles=cycles)
        threading.Event().wait()  # silence until somebody ends us


def receive(source: str, name: str) -> None:
    """Print every MIDI message that leaves the port `source`, with its JACK frame."""
    import jack

    client = _client(name)
    port = client.midi_inports.register("in")
    heard: collections.deque[tuple[int, bytes]] = collections.deque()

    @client.set_process_callback  # type: ignore[untyped-decorator]
    def process(_frames: int) -> None:
        for offset, data in port.incoming_midi_events():
            heard.append((client.last_frame_time + offset, bytes(data)))

    with client:
        _tell(event="ready")
        while True:
            if not client.get_all_connections(port) and source in {
                found.name for found in client.get_ports(is_midi=True, is_output=True)
            }:
                with contextlib.suppress(jack.JackError):
                    client.connect(source, port)
                    _tell(event="connected")
            while heard:
                frame, data = heard.popleft()
                _tell(event="midi", frame=frame, data=data.hex())
            time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, argument, name in ((play, "path", "player"), (receive, "source", "receiver")):
        command = commands.add_parser(run.__name__)
        command.add_argument(argument)
        command.add_argument("--name", default=name)
        if run is play:
            command.add_argument("--loop", action="store_true")
        command.set_defaults(run=run)
    # A client that dies without a word holds a synchronous server up until its timeout.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = vars(parser.parse_args())
    functools.partial(options.pop("run"), **options)()


if __name__ == "__main__":
    main()
