"""Every setting of a session, once: its name, type, default, limits and explanation.

The command line and the configuration file are both made from these models: `rtchord.cli` turns each field into an
option, `rtchord config --show` prints all of them as TOML. An unknown key is an error. They are validated once, at the
edge; inner code takes plain values.
"""

from __future__ import annotations

import json
import os
import sys
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
    field_validator,
    model_validator,
)

from rtchord.errors import UserError

LONGEST_SHOWN = 200  # characters of a bad value in a message

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


@dataclass(frozen=True, slots=True)
class Target:
    """Where messages go: `host` as the user wrote it, UDP `port`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(text: str) -> Target:
    """`HOST:PORT`, with IPv6 addresses in brackets. UserError for anything else; nothing is looked up."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host and not bracketed):
        raise UserError(f"cannot send OSC to {text!r}: write HOST:PORT, such as 127.0.0.1:57120")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise UserError(f"cannot send OSC to {text!r}: {port!r} is not a port between 1 and 65535")
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


def _targets(value: object) -> object:
    rows = [value] if isinstance(value, str) else value
    return [parse_target(row) if isinstance(row, str) else row for row in rows] if isinstance(rows, list) else rows


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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        """What the operating system cannot be given is refused here, once."""
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, str | Path) and "\0" in str(part):
                raise ValueError("it holds a NUL character")
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

    targets: Annotated[tuple[Target, ...], BeforeValidator(_targets)] = Field(
        (), description="HOST:PORT to send OSC messages to; may be repeated"
    )


class ScreenSettings(_Section):
    """What is shown on the standard output."""

    format: Format = Field("auto", description="display: large names; plain: lines; jsonl: one JSON object an event")


class FileSettings(_Section):
    """What is written to files."""

    record: Annotated[tuple[Annotated[Path, AfterValidator(_recording)], ...], AfterValidator(_different)] = Field(
        (), description="record to FILE.mid, .lab or .jsonl; may be repeated"
    )
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

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.midi.port is not None and self.midi.send is False:
            raise UserError("--no-midi and --midi-port contradict each other: leave one out")
        return self


def config_path() -> Path:
    """Where the user's configuration lies on this platform; it need not exist."""
    if sys.platform == "win32":
        home = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    else:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "rtchord" / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, not yet validated. UserError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"cannot read the configuration {str(path)!r}: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the configuration {str(path)!r} is no TOML: {error}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise UserError(f"cannot read the configuration {str(path)!r}: {error}") from None


def settings_from(
    config: Mapping[str, Any], options: Mapping[tuple[str, str], Any], path: Path | None, flags: Mapping[Any, str]
) -> Settings:
    """Settings of a configuration (from `path`) with command-line `options` laid over it: (section, field) -> value.

    `flags`: (section, field) -> what the option is called. UserError, in one sentence, for what does not fit.
    """
    tables: dict[str, Any] = {
        name: dict(table) if isinstance(table, Mapping) else table for name, table in config.items()
    }
    for (section, field), value in options.items():
        table = tables.setdefault(section, {})
        if isinstance(table, dict):  # else it is refused below
            table[field] = value
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        problem = error.errors()[0]
        section, field, *_ = (*map(str, problem["loc"]), "", "")
        reason = str(problem["msg"]).removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        given = repr(problem["input"])
        given = given if len(given) <= LONGEST_SHOWN else f"{given[:LONGEST_SHOWN]}.."
        if (section, field) in options:
            raise UserError(f"cannot use {flags[section, field]} {given}: {reason}") from None
        key = f"{section}.{field}" if field else section
        where = f"the configuration {str(path)!r}"
        if problem["type"] == "extra_forbidden":
            known = [".".join(row) for row in flags] if field else list(Settings.model_fields)
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see `rtchord config --show`"
            raise UserError(f"{where} has an unknown key {key!r}{hint}") from None
        raise UserError(f"cannot use {key} = {given} in {where}: {reason}") from None


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
    # A JSON string is a TOML string; what a terminal would act on is escaped as well.
    text = json.dumps(str(value), ensure_ascii=False)
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in text
    )
