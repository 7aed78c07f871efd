"""Every setting of a session, once: its name, type, default, limits and explanation.

The command line and the configuration file are both made from these models: `rtchord.cli` turns each field into an
option, `rtchord config --show` prints all of them as TOML. An unknown key is an error. They are validated once, at the
edge; inner code takes plain values. Which settings exclude each other is said once too, in OVERRULES.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import select
import stat
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from rtchord.errors import UserError

LONGEST_SHOWN = 200  # characters of a bad value in a message
LONGEST_INTEGER = 64  # bits
DEEPEST_SHOWN = 4  # levels of one
LARGEST_CONFIG = 1 << 14  # bytes; all settings with their explanations are 4 000, and tomllib is slow with long keys
PIPE_SECONDS = 5.0  # for which a pipe is waited for

Latency = Literal["fast", "balanced", "steady"]


class Measured(NamedTuple):
    """What a preset gives: ms within which half of all changes are named, names for each change; on strummed chords and
    on songs (`benchmarks/results/online-strum-*.json`, `online-pop-*.json`; a test holds them equal)."""

    strums_ms: int
    songs_ms: int
    strums_names: float
    songs_names: float


LATENCIES: dict[Latency, Measured] = {
    "fast": Measured(74, 86, 2.01, 1.69),
    "balanced": Measured(96, 113, 1.39, 1.23),
    "steady": Measured(121, 138, 1.27, 1.14),
}
_LATENCIES_TOLD = "; ".join(
    f"{name} {row.strums_ms} to {row.songs_ms} ms, {row.strums_names} to {row.songs_names} names a change"
    for name, row in LATENCIES.items()
)
Vocabulary = Literal["full", "sevenths", "triads", "majmin"]
Spelling = Literal["sharps", "flats", "auto"]
Voicing = Literal["full", "bass+triad", "triad", "root"]
Format = Literal["auto", "display", "plain", "jsonl"]
RECORDINGS = (".mid", ".lab", ".jsonl")

GATE_DBFS = -90.0
TARGET_HINT = "write HOST:PORT, such as 127.0.0.1:57120"


@dataclass(frozen=True, slots=True)
class Target:
    """Where messages go: `host` as the user wrote it, UDP `port`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(text: str) -> Target:
    """`HOST:PORT`, with IPv6 addresses in brackets. ValueError for anything else; nothing is looked up."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(TARGET_HINT)
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port between 1 and 65535")
    return Target(host, int(port))


def _numbers(value: object) -> object:
    """``3``, ``"1,2"`` and ``[1, 2]`` as a list without repetitions."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        return value
    numbers = [str(part).strip() for part in value]
    if not numbers or not all(number.isascii() and number.isdecimal() and int(number) > 0 for number in numbers):
        raise ValueError("write 3 or 1,2, counting from 1")
    return list(dict.fromkeys(int(number) for number in numbers))


def _listed(value: object) -> object:
    """One value may be written without brackets."""
    return [value] if isinstance(value, str | Path) else value


def _target(value: object) -> object:
    if isinstance(value, str):
        return parse_target(value)
    if not isinstance(value, Target):  # a table, of which pydantic would make one unseen
        raise ValueError(TARGET_HINT)
    return value


def _text(value: object) -> object:
    """An index may be written without quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _recording(path: Path) -> Path:
    if path.suffix.lower() not in RECORDINGS:
        raise ValueError(f"write a name that ends in {', '.join(RECORDINGS)}")
    return path


def _different(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    if len(set(paths)) < len(paths):
        raise ValueError("name each file once")
    return paths


# What to do about a value of the wrong type: the beginning of pydantic's name for the error -> the remedy.
REMEDIES = {
    "bool": "write true or false",
    "int": "write a whole number",
    "float": "write a number",
    "string": "write a text in quotes",
    "path": "write the name of a file in quotes",
    "tuple": "write one in quotes, or a list in brackets",
    "model": "it is a section: write its settings below its name in brackets",
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _sane(cls, value: object, info: ValidationInfo) -> object:
        """What no setting can be is refused here, once: what the operating system cannot be given, nothing at all, and
        a switch in place of a number or the other way round, which pydantic would convert."""
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, str | Path) and "\0" in str(part):
                raise ValueError("it holds a NUL character")
            if part == "":
                raise ValueError("it is empty: write a value, or leave it out")
            if isinstance(part, int) and part.bit_length() > LONGEST_INTEGER:  # Python itself refuses to write some
                raise ValueError("it is far too large")
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        kinds = {annotation, *get_args(annotation)}
        if bool in kinds and not isinstance(value, bool | None):
            raise ValueError(REMEDIES["bool"])
        if isinstance(value, bool) and kinds & {int, float}:
            raise ValueError(REMEDIES["int" if int in kinds else "float"])
        return value


class InputSettings(_Section):
    """What is listened to."""

    device: Annotated[str | None, BeforeValidator(_text)] = Field(
        None, description="audio input: its index, or any part of its name (default: the system's)"
    )
    file: Path | None = Field(None, description="a sound file in place of an input")
    realtime: bool = Field(True, description="play the file at its own speed, not as fast as possible")
    channels: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers)] = Field(
        None, description="channels to mix, such as 3 or 1,2 (default: all)"
    )
    gate: float = Field(
        GATE_DBFS, ge=-120, le=0, description="dBFS of a sinusoid below which the input counts as silence"
    )
    reconnect: bool = Field(True, description="wait for a lost audio input to return, instead of ending with code 3")


class RecogniseSettings(_Section):
    """How chords are recognised."""

    latency: Latency = Field(
        "balanced",
        description="early or steady names. Half of all changes are named within (strummed chords to songs): "
        + _LATENCIES_TOLD,
    )
    hold: float = Field(0.0, ge=0, le=5000, description="ms for which a chord is shown at least")
    engine: str = Field(
        "auto",
        min_length=1,
        description="folder of an engine, a backend (onnx, openvino, cuda, tensorrt, tensorrt-rtx), or auto for the "
        "best that is verified on this machine",
    )


class NameSettings(_Section):
    """Which chords are told, and how they are spelt."""

    vocabulary: Vocabulary = Field(
        "full", description="qualities that are told: all 14; without sixths; six triads; major and minor"
    )
    bass: bool = Field(True, description="tell inversions")
    spelling: Spelling = Field("auto", description="names of the black keys; auto follows the key of the music")
    transpose: int = Field(0, ge=-11, le=11, description="semitones by which everything sent and shown is moved")
    capo: int = Field(0, ge=0, le=11, description="fret of a capo: display and text file name the shapes")


class MidiSettings(_Section):
    """What is sent over MIDI."""

    send: bool | None = Field(None, description="send MIDI (default: yes, but not for a file at full speed)")
    port: str | None = Field(None, description="name of an existing MIDI port (default: make one named rtchord)")
    channel: int = Field(1, ge=1, le=16, description="MIDI channel, 1 to 16")
    voicing: Voicing = Field("full", description="notes of a chord: all and the bass; at most four; three; one")
    octave: int = Field(3, ge=0, le=7, description="octave of the roots, 0 to 7; 3 begins at MIDI note 48")
    velocity: int | None = Field(None, ge=1, le=127, description="1 to 127 (default: follows the confidence)")
    tie: bool = Field(False, description="let notes that two chords share sound on, instead of striking them again")
    yamaha: bool = Field(False, description="send Yamaha Chord Control SysEx too")
    helicon: bool = Field(False, description="send TC-Helicon pitch-class controllers (CC 117, 118) too")


class OscSettings(_Section):
    """What is sent over OSC."""

    targets: Annotated[tuple[Annotated[Target, BeforeValidator(_target)], ...], BeforeValidator(_listed)] = Field(
        (), description="HOST:PORT to send OSC messages to; may be repeated"
    )


class ScreenSettings(_Section):
    """What is shown on the standard output."""

    format: Format = Field("auto", description="display: large names; plain: lines; jsonl: one JSON object an event")


class FileSettings(_Section):
    """What is written to files."""

    record: Annotated[
        tuple[Annotated[Path, AfterValidator(_recording)], ...], BeforeValidator(_listed), AfterValidator(_different)
    ] = Field((), description="record to FILE.mid, .lab or .jsonl; may be repeated")
    text: Path | None = Field(None, description="keep the name of the present chord in this small file")


class Settings(_Section):
    """A session."""

    input: InputSettings = InputSettings()
    recognise: RecogniseSettings = RecogniseSettings()
    names: NameSettings = NameSettings()
    midi: MidiSettings = MidiSettings()
    osc: OscSettings = OscSettings()
    screen: ScreenSettings = ScreenSettings()
    files: FileSettings = FileSettings()

    @property
    def wants_midi(self) -> bool:
        if self.midi.send is None:
            return self.midi.port is not None or self.input.file is None or self.input.realtime
        return self.midi.send


Key = tuple[str, str]  # section, field
ANY = object()
_NO_MIDI = (("midi", "send"), False)


class Overrule(NamedTuple):
    """Who says `said` (a value, or ANY) on the command line, after and nearer than the configuration, does not mean
    what that says of `other`; nor of `with_it`, which was said about the other. `unless_mid`: it may also have been
    said of a .mid that is recorded.

    Two that overrule each other contradict each other: they are refused where both are said in one place.
    """

    said: tuple[Key, object]
    other: tuple[Key, object]
    with_it: tuple[Key, ...] = ()
    unless_mid: bool = False


# All other settings are independent of each other: a hold has every latency, inversions have every vocabulary, a capo
# comes on top of what is transposed.
OVERRULES = (
    Overrule((("input", "device"), ANY), (("input", "file"), ANY), (("input", "realtime"), ("input", "channels"))),
    Overrule((("input", "file"), ANY), (("input", "device"), ANY), (("input", "channels"),)),
    Overrule(_NO_MIDI, (("midi", "port"), ANY)),
    Overrule((("midi", "port"), ANY), _NO_MIDI),
    Overrule((("midi", "yamaha"), True), _NO_MIDI),
    Overrule((("midi", "helicon"), True), _NO_MIDI),
    Overrule((("midi", "channel"), ANY), _NO_MIDI, unless_mid=True),
    Overrule((("midi", "voicing"), ANY), _NO_MIDI, unless_mid=True),
    Overrule((("midi", "octave"), ANY), _NO_MIDI, unless_mid=True),
    Overrule((("midi", "velocity"), ANY), _NO_MIDI, unless_mid=True),
    Overrule((("midi", "tie"), True), _NO_MIDI, unless_mid=True),
)
CONTRADICTIONS = tuple(
    (row.said, row.other) for row in OVERRULES if any((row.other, row.said) == (o.said, o.other) for o in OVERRULES)
)
# What is said on the command line -> what is missing there and in the configuration, without which it means nothing.
NEEDS: dict[Key, Key] = {("input", "realtime"): ("input", "file")}


def config_path() -> Path:
    """Where the user's configuration lies on this platform; it need not exist."""
    if sys.platform == "win32":
        home = base_folder("APPDATA", "AppData/Roaming")
    elif sys.platform == "darwin":
        home = base_folder(None, "Library/Application Support")
    else:
        home = base_folder("XDG_CONFIG_HOME", ".config")
    return home / "rtchord" / "config.toml"


def base_folder(variable: str | None, below_home: str) -> Path:
    """The folder that an environment variable names, or else one below the user's home.

    As the XDG specification has it, an empty or relative name counts for nothing: it would mean another folder wherever
    the program is started.
    """
    named = Path(os.environ.get(variable, "") if variable else "")
    return named if named.is_absolute() else Path(os.path.expanduser("~")) / below_home


def find_config(path: Path | None) -> Path | None:
    """The configuration to read: `path` if the user named one; else the user's own, if there is one."""
    if path is None:
        try:
            os.lstat(path := config_path())
        except (OSError, ValueError):
            return None
    return path


def read_config(path: Path) -> dict[str, Any]:
    """The tables of a TOML file or pipe, not yet validated. UserError where it cannot be read."""
    cannot = f"cannot read the configuration {str(path)!r}"
    text = ""
    try:
        text = _read_bounded(path).decode("utf-8-sig")  # some editors begin a file with a byte order mark
        return tomllib.loads(text)
    except UnicodeDecodeError:
        raise UserError(f"{cannot}: it is no UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{cannot}: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the configuration {str(path)!r} is no TOML: {error}{_line(text, str(error))}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits; a NUL in `path`
        raise UserError(f"{cannot}: {error}") from None


def _line(text: str, complaint: str) -> str:
    """The line that a complaint of tomllib is about, for use behind it."""
    number = re.search(r"at line (\d+)", complaint)
    lines = text.split("\n")
    return f": {_shown(lines[int(number[1]) - 1].strip())}" if number and int(number[1]) <= len(lines) else ""


def _read_bounded(path: Path) -> bytes:
    """What a file holds; never waits for long nor reads without end, whatever it is. OSError where that fails."""
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        is_pipe, until = stat.S_ISFIFO(os.fstat(descriptor).st_mode), time.monotonic() + PIPE_SECONDS
        data = b""
        while len(data) <= LARGEST_CONFIG:
            if is_pipe and not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
                raise OSError(f"nothing came through this pipe for {PIPE_SECONDS:.0f} s")
            piece = os.read(descriptor, LARGEST_CONFIG + 1 - len(data))
            if not piece:
                return data
            data += piece
        raise OSError(f"it is larger than {LARGEST_CONFIG >> 10} KiB, so it is no configuration")
    finally:
        os.close(descriptor)


def settings_from(
    config: Mapping[str, Any], options: Mapping[Key, Any], path: Path | None, flags: Mapping[Key, str]
) -> Settings:
    """Settings of a configuration (from `path`) with command-line `options` laid over it: (section, field) -> value.

    `flags`: (section, field) -> what the option is called. UserError, in one sentence, for what does not fit.
    """
    where = f"the configuration {str(path)!r}"
    tables: dict[str, Any] = {
        name: dict(table) if isinstance(table, Mapping) else table for name, table in config.items()
    }
    _overrule(tables, options)
    for one, other in CONTRADICTIONS:
        if _says(options, *one) and _says(options, *other):
            names = [_as_said(key, options, flags) for key, _ in (one, other)]
            raise UserError(f"{names[0]} and {names[1]} contradict each other: leave one out")
        said = _flat(tables)
        if _says(said, *one) and _says(said, *other):
            names = [f"{section}.{field} = {_shown(said[section, field])}" for section, field in (one[0], other[0])]
            raise UserError(f"{names[0]} and {names[1]} in {where} contradict each other: leave one out")
    for key, needed in NEEDS.items():
        if key in options and needed not in options and needed not in _flat(tables):
            raise UserError(f"{_as_said(key, options, flags)} needs {flags[needed]}: say that too, or leave it out")
    for (section, field), value in options.items():
        table = tables.setdefault(section, {})
        if isinstance(table, dict):  # else it is refused below
            table[field] = value
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        problem = error.errors()[0]
        section, field, *_ = (*map(str, problem["loc"]), "", "")
        reason = REMEDIES.get(problem["type"].split("_")[0]) or str(problem["msg"]).removeprefix("Value error, ")
        reason = reason.replace("Input", "it", 1)
        given = _shown(problem["input"])
        if (section, field) in options:
            raise UserError(f"cannot use {flags[section, field]} {given}: {reason}") from None
        name = f"{section}.{field}" if field else section
        if problem["type"] == "extra_forbidden":
            known = [".".join(row) for row in flags] if field else list(Settings.model_fields)
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see `rtchord config --show`"
            raise UserError(f"{where} has an unknown key {_shown(name)}{hint}") from None
        raise UserError(f"cannot use {name} = {given} in {where}: {reason}") from None


def _flat(tables: Mapping[str, Any]) -> dict[Key, Any]:
    return {
        (section, field): value
        for section, table in tables.items()
        if isinstance(table, Mapping)
        for field, value in table.items()
    }


def _says(said: Mapping[Key, Any], key: Key, value: object) -> bool:
    return key in said and (value is ANY or said[key] is value)


def _overrule(tables: dict[str, Any], options: Mapping[Key, Any]) -> None:
    """Take out of a configuration's `tables` what the options overrule."""
    config = _flat(tables)
    recordings = _listed(options.get(("files", "record"), config.get(("files", "record"))))
    to_mid = any(str(name).lower().endswith(".mid") for name in (recordings if isinstance(recordings, list) else ()))
    for said, other, with_it, unless_mid in OVERRULES:
        if _says(options, *said) and _says(config, *other) and not (unless_mid and to_mid):
            for section, field in (other[0], *with_it):
                tables[section].pop(field, None)


def _as_said(key: Key, options: Mapping[Key, Any], flags: Mapping[Key, str]) -> str:
    """An option as it was written."""
    return flags[key].replace("--", "--no-", 1) if options[key] is False else flags[key]


def _shown(value: object, depth: int = DEEPEST_SHOWN) -> str:
    """A value that the user wrote, much as it was written, for a message."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, datetime.date | datetime.time):
        text = value.isoformat()
    elif isinstance(value, list | tuple | dict) and not depth:
        text = ".."
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(_shown(part, depth - 1) for part in value[:LONGEST_SHOWN])}]"
    elif isinstance(value, dict):
        rows = list(value.items())[:LONGEST_SHOWN]
        text = f"{{{', '.join(f'{name} = {_shown(part, depth - 1)}' for name, part in rows)}}}"
    elif isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        text = f"{value:#x}"
    else:
        text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}.."


def as_toml(settings: Settings) -> str:
    """All settings as a configuration file that reads back to the same; those without a value are comments."""
    lines: list[str] = []
    for name, section in settings:
        lines += [*[""] * bool(lines), f"[{name}]  # {type(section).__doc__}"]
        for key, value in section:
            field = type(section).model_fields[key]
            row = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            lines.append(f"{row}  # {field.description}" + (f" (one of {', '.join(choices)})" if choices else ""))
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError(f"cannot write {text!r} as TOML, which is UTF-8 and that name is not: rename it")
    # A JSON string is a TOML string; what a terminal would act on is escaped as well.
    text = json.dumps(text, ensure_ascii=False)
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in text
    )
