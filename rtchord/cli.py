"""The command `rtchord`.

    rtchord devices                        what can be listened to, and where chords can be sent
    rtchord listen [--device NAME|INDEX]   name chords as they sound
    rtchord transcribe FILE -o OUT.lab     name the chords of a recording afterwards

Exit codes: 0 done, also after SIGINT or SIGTERM while listening; 1 a fault of ours; 2 bad input; 3 the audio device
was lost. Whatever goes wrong is one sentence on stderr.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rtchord import __version__
from rtchord.errors import UserError
from rtchord.outputs.text import STYLES, printable, say, write_lab

LATENCIES = ("fast", "balanced", "steady")
STDOUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT)
ENGINE: dict[str, Any] = {
    "metavar": "auto|BACKEND|FOLDER",
    "default": "auto",
    "help": "engine to use; backends: onnx, openvino, cuda, tensorrt, tensorrt-rtx (default: auto, the best that is "
    "verified on this machine)",
}
INTERRUPTED = 130  # as shells count it


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        say(f"{message}; see `{self.prog} --help`")
        sys.exit(2)


def _channels(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.strip().isascii() and number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of channels: write 3 or 1,2, counting from 1")
    return tuple(dict.fromkeys(int(number) for number in numbers))


def _midi_channel(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no MIDI channel: use 1 to 16")
    return int(text)


def get_parser() -> argparse.ArgumentParser:
    """The parser; each command leaves its function in `run`."""
    parser = _Parser(prog="rtchord", description="Name chords while they sound.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"rtchord {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    command("devices", _devices, "List audio inputs, MIDI ports and engines.")

    listen = command("listen", _listen, "Name chords as they sound; send them over MIDI and OSC.")
    source = listen.add_argument_group("what to listen to").add_mutually_exclusive_group()
    source.add_argument("--device", metavar="NAME|INDEX", help="audio input (default: the system's)")
    source.add_argument("--input", metavar="FILE", type=Path, help="a sound file in place of an input")
    listen.add_argument(
        "--realtime",
        action=argparse.BooleanOptionalAction,
        help="play the file at its own speed, or as fast as possible (default: --realtime)",
    )
    listen.add_argument(
        "--channels", metavar="LIST", type=_channels, help="channels to mix, such as 3 or 1,2 (default: all)"
    )
    outputs = listen.add_argument_group("where to send")
    outputs.add_argument("--format", choices=sorted(STYLES), default="text", help="standard output (default: text)")
    outputs.add_argument(
        "--osc", metavar="HOST:PORT", action="append", default=[], help="send OSC messages there; may be repeated"
    )
    outputs.add_argument(
        "--midi",
        action=argparse.BooleanOptionalAction,
        help="send MIDI notes (default: --midi, but --no-midi for a file at full speed)",
    )
    outputs.add_argument(
        "--midi-port", metavar="NAME", help="send to this existing MIDI port (default: make one named rtchord)"
    )
    outputs.add_argument(
        "--midi-channel", metavar="N", type=_midi_channel, default=1, help="1 to 16 (default: %(default)s)"
    )
    how = listen.add_argument_group("how to recognise")
    how.add_argument(
        "--latency", choices=LATENCIES, default="balanced", help="early or steady names (default: %(default)s)"
    )
    how.add_argument("--engine", **ENGINE)

    transcribe = command("transcribe", _transcribe, "Write the chords of a recording as a .lab file.")
    transcribe.add_argument("file", metavar="FILE", type=Path, help="sound file")
    transcribe.add_argument("-o", "--output", metavar="OUT.lab", type=Path, required=True, help="where to write")
    transcribe.add_argument("--engine", **ENGINE)
    return parser


def _devices(_options: argparse.Namespace) -> int:
    from rtchord.audio.device import list_inputs, supported_rates
    from rtchord.engine import installed_engines
    from rtchord.outputs.midi import list_ports

    def section(title: str, rows: Callable[[], list[str]]) -> None:
        try:
            lines = rows() or ["none"]
        except UserError as error:
            lines = [f"none: {error}"]
        print(title, *(f"  {printable(line)}" for line in lines), sep="\n")

    def inputs() -> list[str]:
        rows = []
        for device in list_inputs():
            channels = f"{device.channels} channel{'s' * (device.channels != 1)}"
            rates = ", ".join(map(str, supported_rates(device) or (device.rate,)))
            rows.append(f"{device.index:3d}  {device.name}  [{device.host_api}]  {channels}  {rates} Hz")
        return rows

    section("Audio inputs (listen --device NAME|INDEX)", inputs)
    section("MIDI ports (listen --midi-port NAME)", lambda: [f"{name}  [{api}]" for api, name in list_ports()])
    section(
        "Engines (--engine auto|BACKEND|FOLDER)", lambda: [f"{name}  {folder}" for name, folder in installed_engines()]
    )
    return 0


def _listen(options: argparse.Namespace) -> int:
    from rtchord.outputs.osc import parse_target

    if options.input is None and options.realtime is not None:
        raise UserError("--realtime and --no-realtime are for files: say --input FILE too")
    if options.midi_port is not None and options.midi is False:
        raise UserError("--no-midi and --midi-port contradict each other: leave one out")
    targets = tuple(parse_target(text) for text in options.osc)

    from rtchord.session import ListenSettings, listen

    return listen(
        ListenSettings(
            device=options.device,
            input=options.input,
            realtime=options.realtime is not False,
            channels=options.channels,
            style=options.format,
            osc=targets,
            midi=options.midi,
            midi_port=options.midi_port,
            midi_channel=options.midi_channel,
            engine=options.engine,
            latency=options.latency,
        )
    )


def _transcribe(options: argparse.Namespace) -> int:
    if not options.output.parent.is_dir():  # told now, not after minutes of work
        raise UserError(f"cannot write {str(options.output)!r}: there is no such folder")
    if options.output.is_dir():
        raise UserError(f"cannot write {str(options.output)!r}: it is a folder")

    if options.output.exists() and options.file.exists() and options.output.samefile(options.file):
        raise UserError(f"will not overwrite the recording {str(options.file)!r}: name another output")

    from rtchord.engine import choose
    from rtchord.recognizer import transcribe

    engine, why = choose(options.engine)
    segments = transcribe(options.file, engine)
    say(why)
    write_lab(options.output, segments)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. argparse itself raises SystemExit."""
    if sys.stdout is None:  # started with it closed, as a service may be
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the life of the process)
    options = get_parser().parse_args(argv)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except UserError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `rtchord devices | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if error.errno not in STDOUT_ERRORS:
            return _fault(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        say(f"cannot write to the standard output: {error.strerror}")
        return UserError.exit_code
    except Exception as error:
        return _fault(error)


def _fault(error: Exception) -> int:
    """Say that it is ours; exit code 1."""
    if "RTCHORD_TRACEBACK" in os.environ:
        raise error
    say(f"this is a fault of rtchord, please report it ({type(error).__name__}: {error})")
    return 1


if __name__ == "__main__":
    sys.exit(main())
