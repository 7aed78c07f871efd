"""The command `rtchord`.

    rtchord devices                        what can be listened to, and where chords can be sent
    rtchord panic --midi-port NAME         silence an instrument, whoever left it sounding
    rtchord listen [--device NAME|INDEX]   name chords as they sound
    rtchord listen FILE                    the same for a sound file
    rtchord config --show                  the settings in force, as TOML
    rtchord doctor                         whether this machine is ready, and what to do if not
    rtchord transcribe FILE -o OUT.lab     name the chords of a recording afterwards; .mid, .jsonl and .csv too

Whatever goes wrong is one sentence on stderr. EXIT_CODES says how programs are told.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel

from rtchord import __version__
from rtchord.errors import UserError, named_path, ordinary
from rtchord.outputs.text import check_stdout, printable, say
from rtchord.outputs.transcript import FORMATS, Target, encoded
from rtchord.settings import Settings, as_toml, config_path, find_config, read_config, settings_from

MISSING = object()
EXIT_CODES = """\
exit codes:
  0  done: the file has ended, or Ctrl-C, SIGTERM or SIGHUP came while listening
  1  a fault of rtchord
  2  bad input, or a part of the machine that is missing; the sentence on stderr says which
  3  the audio input was lost, and --no-reconnect was said
"""
STDOUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT)
INTERRUPTED = 130  # as shells count it


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        say(f"{message}; see `{self.prog} --help`")
        sys.exit(2)


class _Help(argparse.HelpFormatter):
    """Leaves the lines of what follows the options as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("exit codes") else super()._fill_text(text, width, indent)


# (section, field) of rtchord.settings -> flag, placeholder. Everything else about an option is said there.
LISTEN = {
    ("input", "device"): ("--device", "NAME|INDEX"),
    ("input", "file"): ("--input", "FILE"),
    ("input", "realtime"): ("--realtime", None),
    ("input", "channels"): ("--channels", "LIST"),
    ("input", "gate"): ("--gate", "DBFS"),
    ("input", "reconnect"): ("--reconnect", None),
    ("recognise", "latency"): ("--latency", None),
    ("recognise", "hold"): ("--hold", "MS"),
    ("recognise", "engine"): ("--engine", "auto|BACKEND|FOLDER"),
    ("names", "vocabulary"): ("--vocabulary", None),
    ("names", "bass"): ("--bass", None),
    ("names", "spelling"): ("--spelling", None),
    ("names", "transpose"): ("--transpose", "SEMITONES"),
    ("names", "capo"): ("--capo", "FRET"),
    ("midi", "send"): ("--midi", None),
    ("midi", "port"): ("--midi-port", "NAME"),
    ("midi", "channel"): ("--midi-channel", "N"),
    ("midi", "voicing"): ("--voicing", None),
    ("midi", "octave"): ("--octave", "N"),
    ("midi", "velocity"): ("--velocity", "N"),
    ("midi", "tie"): ("--tie", None),
    ("midi", "yamaha"): ("--yamaha", None),
    ("midi", "helicon"): ("--helicon", None),
    ("osc", "targets"): ("--osc", "HOST:PORT"),
    ("screen", "format"): ("--format", None),
    ("files", "record"): ("--record", "FILE"),
    ("files", "text"): ("--text", "FILE"),
}
FLAGS = {key: flag for key, (flag, _) in LISTEN.items()}
TRANSCRIBE = (
    ("input", "channels"),
    ("input", "gate"),
    ("recognise", "engine"),
    ("names", "vocabulary"),
    ("names", "bass"),
    ("names", "spelling"),
    ("names", "transpose"),
)


def _name(text: str) -> str:
    """As `named_path`, but as it was written: ./- is a file, - is not."""
    named_path(text)
    return text


def _add_options(parser: argparse.ArgumentParser, wanted: Collection[tuple[str, str]] = LISTEN) -> None:
    """An option for every setting that is wanted: help, default and choices are the model's own."""
    for name, section in Settings.model_fields.items():
        model: type[BaseModel] = section.annotation  # type: ignore[assignment]
        group = parser.add_argument_group((model.__doc__ or name).rstrip("."))
        for field_name, field in model.model_fields.items():
            if (name, field_name) not in wanted:
                continue
            flag, placeholder = LISTEN[name, field_name]
            default = field.default
            shown = "no" if default is False else "yes" if default is True else str(default)
            text = (field.description or "").replace("%", "%%")
            text += "" if default in (None, ()) else f" (default: {shown})"
            more: dict[str, Any] = {"dest": f"{name}.{field_name}", "default": argparse.SUPPRESS, "help": text}
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            if placeholder is None and not choices:
                more["action"] = argparse.BooleanOptionalAction
            elif default == ():
                more |= {"action": "append", "metavar": placeholder}
            else:
                more |= {"choices": choices} if choices else {"metavar": placeholder}
            group.add_argument(flag, **more)
        if name == "screen" and ("screen", "format") in wanted:
            group.add_argument(
                "--plain", dest="screen.format", action="store_const", const="plain", default=argparse.SUPPRESS,
                help="the same as --format plain: for logs and screen readers",
            )  # fmt: skip


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
    listen.formatter_class = _Help
    listen.epilog = EXIT_CODES
    listen.add_argument("song", metavar="FILE", nargs="?", help="a sound file, as with --input")
    _add_options(listen)
    _add_config(listen)

    config = command("config", _config, "Show the settings that are in force, as a configuration file.")
    config.add_argument("--show", action="store_true", required=True, help="print all settings as TOML")
    _add_options(config)
    _add_config(config)

    doctor = command("doctor", _doctor, "Check devices, MIDI, engine and timing; say what to do.")
    _add_config(doctor)
    doctor.formatter_class = _Help
    doctor.epilog = "exit codes: 0 ready, perhaps with warnings; 2 there is a problem"

    transcribe = command("transcribe", _transcribe, "Write down the chords of a recording, with all of it at hand.")
    transcribe.add_argument(
        "file", metavar="FILE", type=named_path, help="sound file or pipe; - for the standard input"
    )
    transcribe.add_argument(
        "-o", "--output", metavar="OUT", type=_name, default="-",
        help=f"a file that ends in .{', .'.join(FORMATS)}, a pipe, or - for the standard output (default: -)",
    )  # fmt: skip
    transcribe.add_argument(
        "--format", choices=tuple(FORMATS), help="format of OUT (default: what its name ends in, or else lab)"
    )
    transcribe.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    _add_options(transcribe, TRANSCRIBE)

    panic = command("panic", _panic, "Silence whatever listens to a MIDI port: every note of every channel.")
    panic.add_argument("--midi-port", metavar="NAME", required=True, help="name of the port, or any part of it")
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


def _add_config(parser: argparse.ArgumentParser) -> None:
    default = printable(str(config_path())).replace("%", "%%")
    parser.add_argument(
        "--config", metavar="FILE", type=named_path,
        help=f"TOML file with settings; options come before it (default: {default}, if it is there)",
    )  # fmt: skip


def _given(options: argparse.Namespace) -> dict[tuple[str, str], Any]:
    """What was said on the command line: (section, field) -> value."""
    return {key: value for key in LISTEN if (value := vars(options).get(".".join(key), MISSING)) is not MISSING}


def _settings(options: argparse.Namespace, path: Path | None) -> Settings:
    """The configuration file with the options laid over it."""
    given = _given(options)
    flags = FLAGS
    if (song := vars(options).get("song")) is not None:
        if ("input", "file") in given:
            raise UserError(
                f"FILE {song!r} and --input {given['input', 'file']!r} contradict each other: leave one out"
            )
        given["input", "file"], flags = song, {**FLAGS, ("input", "file"): "FILE"}
    return settings_from(read_config(path) if path else {}, given, path, flags)


def _listen(options: argparse.Namespace) -> int:
    settings = _settings(options, find_config(options.config))

    try:
        from rtchord.session import listen

        return listen(settings)
    except KeyboardInterrupt:  # before the session is there to take it
        return 0


def _config(options: argparse.Namespace) -> int:
    check_stdout()
    shown = as_toml(_settings(options, find_config(options.config)))
    if isinstance(sys.stdout, io.TextIOWrapper):  # TOML is UTF-8, whatever this terminal shows
        sys.stdout.reconfigure(encoding="utf-8")
    print(shown, end="")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from rtchord.doctor import Finding, examine

    states = set()

    def tell(finding: Finding) -> None:
        states.add(finding.state)
        print(f"{finding.state:<8} {printable(finding.text)}", flush=True)

    path, settings = find_config(options.config), Settings()
    try:
        settings = _settings(options, path)
        there = f"the configuration {str(path)!r} is valid" if path else f"no configuration at {str(config_path())!r}"
        tell(Finding("ok", there))
    except UserError as error:
        tell(Finding("problem", str(error)))
    for finding in examine(settings):
        tell(finding)
    return UserError.exit_code if "problem" in states else 0


def _transcribe(options: argparse.Namespace) -> int:
    settings = settings_from({}, _given(options), None, FLAGS)
    path = Path("/dev/stdin") if str(options.file) == "-" else options.file
    target = Target(options.output, options.format, path, options.overwrite)  # told now, not after minutes of work

    from rtchord.audio.device import quiet_stderr
    from rtchord.engine import choose
    from rtchord.events import ChordEvent
    from rtchord.names import Naming
    from rtchord.recognizer import transcribe

    engine, why = choose(settings.recognise.engine)
    with quiet_stderr():  # of an MP3 libsndfile's decoder has much to say
        spans = transcribe(path, engine, channels=settings.input.channels, gate=settings.input.gate, report=say)
    naming = Naming(settings.names)
    named = (naming.push(ChordEvent(start, start, chord, confidence)) for start, _, chord, confidence in spans)
    say(why)
    target.write(encoded(target.form, filter(None, named), spans[-1].end))
    return 0


def _panic(options: argparse.Namespace) -> int:
    from rtchord.outputs.midi import silence

    print(printable(f"silenced {silence(options.midi_port)}"))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. argparse itself raises SystemExit."""
    _open_standard_streams()
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
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in STDOUT_ERRORS:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            say(f"cannot write to the standard output: {error.strerror}")
        elif (sentence := ordinary(error)) is not None:
            say(sentence)
        else:
            return _fault(error)
        return UserError.exit_code


def _open_standard_streams() -> None:
    """Open to nowhere what we were started without, as a service may be; and let no name be one that cannot be shown.

    Else the next file that is opened, perhaps a recording, would get the number of the closed stream, and with it what
    a library prints there.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(nowhere, True)
    os.close(nowhere)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for the life of the process)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fault(error: Exception) -> int:
    """Say that it is ours; exit code 1."""
    if "RTCHORD_TRACEBACK" in os.environ:
        raise error
    say(f"this is a fault of rtchord, please report it ({type(error).__name__}: {error})")
    return 1


if __name__ == "__main__":
    sys.exit(main())
