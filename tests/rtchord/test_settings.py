from __future__ import annotations

import os
import re
import threading
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtchord.cli import FLAGS, LISTEN
from rtchord.errors import UserError
from rtchord.settings import LARGEST_CONFIG, Settings, as_toml, config_path, find_config, read_config, settings_from

PATH = Path("config.toml")


def of(config: str, **options: object) -> Settings:
    """Settings of a configuration's text; options are written `section__field`."""
    given = {tuple(key.split("__")): value for key, value in options.items()}
    return settings_from(tomllib.loads(config), given, PATH, FLAGS)  # type: ignore[arg-type]


def test_without_anything_every_setting_has_its_default() -> None:
    assert of("") == Settings()


def test_every_setting_is_an_option_and_every_option_a_setting() -> None:
    fields = {(name, field) for name, section in Settings() for field in type(section).model_fields}
    assert set(LISTEN) == fields


def test_every_setting_is_explained() -> None:
    for _, section in Settings():
        assert all(field.description for field in type(section).model_fields.values())


def test_a_configuration_is_read() -> None:
    settings = of('[midi]\nchannel = 3\ntie = true\n[osc]\ntargets = ["127.0.0.1:9000"]\n[input]\nchannels = [1, 2]\n')
    assert (settings.midi.channel, settings.midi.tie) == (3, True)
    assert [str(target) for target in settings.osc.targets] == ["127.0.0.1:9000"]
    assert settings.input.channels == (1, 2)


def test_options_come_before_the_configuration() -> None:
    settings = of("[midi]\nchannel = 3\noctave = 4\n", midi__channel="7")
    assert (settings.midi.channel, settings.midi.octave) == (7, 4)


# Of every setting a value in the configuration, and another as an option.
VALUES: dict[tuple[str, str], tuple[object, object]] = {
    ("input", "device"): ("USB", "3"),
    ("input", "file"): ("a.wav", "b.wav"),
    ("input", "realtime"): (False, True),
    ("input", "channels"): ([3], "1,2"),
    ("input", "gate"): (-50.0, "-45"),
    ("input", "reconnect"): (False, True),
    ("recognise", "latency"): ("fast", "steady"),
    ("recognise", "hold"): (100, "200"),
    ("recognise", "engine"): ("onnx", "openvino"),
    ("names", "vocabulary"): ("triads", "majmin"),
    ("names", "bass"): (False, True),
    ("names", "spelling"): ("flats", "sharps"),
    ("names", "transpose"): (1, "2"),
    ("names", "capo"): (1, "2"),
    ("midi", "send"): (False, False),
    ("midi", "port"): ("synth", "other"),
    ("midi", "channel"): (2, "3"),
    ("midi", "voicing"): ("root", "triad"),
    ("midi", "octave"): (4, "5"),
    ("midi", "velocity"): (90, "80"),
    ("midi", "tie"): (True, True),
    ("midi", "yamaha"): (True, True),
    ("midi", "helicon"): (True, True),
    ("osc", "targets"): (["a:1"], ["b:2"]),
    ("screen", "format"): ("plain", "jsonl"),
    ("files", "record"): (["a.lab"], ["b.jsonl"]),
    ("files", "text"): ("a.txt", "b.txt"),
}
# An option, and what of the configuration it overrules beside its own key. No other two settings concern each other.
GIVES_WAY = {
    *((("input", one), ("input", other)) for one, other in (("device", "file"), ("file", "device"))),
    (("midi", "send"), ("midi", "port")),
    *((("midi", field), ("midi", "send")) for field in ("port", "channel", "voicing", "octave", "velocity")),
    *((("midi", field), ("midi", "send")) for field in ("tie", "yamaha", "helicon")),
}


def in_force(settings: Settings, key: tuple[str, str]) -> object:
    return getattr(getattr(settings, key[0]), key[1])


def laid(config: dict[tuple[str, str], object], options: dict[tuple[str, str], object]) -> Settings:
    tables: dict[str, dict[str, object]] = {}
    for (section, field), value in config.items():
        tables.setdefault(section, {})[field] = value
    return settings_from(tables, options, PATH, FLAGS)


def test_every_setting_is_tried_below() -> None:
    assert set(VALUES) == set(LISTEN)


@pytest.mark.parametrize("option", VALUES, ids=".".join)
def test_an_option_overrules_what_contradicts_it_in_the_configuration_and_nothing_else(option: tuple[str, str]) -> None:
    said = VALUES[option][1]
    song = {("input", "file"): "a.wav"} if option == ("input", "realtime") else {}
    alone = in_force(laid(song, {option: said}), option)
    assert alone != in_force(Settings(), option) or said is True
    for key, (value, _) in VALUES.items():
        if song and key == ("input", "device"):  # refused, see below
            continue
        settings = laid({**song, key: value}, {option: said})
        assert in_force(settings, option) == alone
        gone = (option, key) in GIVES_WAY
        if key != option:
            assert in_force(settings, key) == in_force(Settings() if gone else laid({**song, key: value}, {}), key), key
        assert of(as_toml(settings)) == settings
        if gone and key == ("midi", "send"):
            assert settings.wants_midi


def test_what_was_said_about_an_input_goes_with_it() -> None:
    song = '[input]\nfile = "a.wav"\nrealtime = false\nchannels = [2]\n'
    assert of(song, input__device="USB").input == Settings.model_validate({"input": {"device": "USB"}}).input
    assert of(song, input__file="b.wav").input.channels == (2,)
    assert of('[input]\ndevice = "USB"\nchannels = [3]\n', input__file="a.wav").input.channels is None
    assert of("[input]\nchannels = [3]\n", input__device="USB").input.channels == (3,)


@pytest.mark.parametrize("config", ['[files]\nrecord = "a.mid"\n', ""])
def test_notes_of_a_recording_need_no_midi_port(config: str) -> None:
    options: dict[str, object] = {} if config else {"files__record": ["b.lab", "a.MID"]}
    settings = of(f"{config}[midi]\nsend = false\n", midi__voicing="triad", **options)
    assert not settings.wants_midi
    assert settings.midi.voicing == "triad"


@pytest.mark.parametrize("option", ["tie", "yamaha", "helicon"])
def test_who_leaves_something_out_does_not_want_midi_for_it(option: str) -> None:
    assert not of("[midi]\nsend = false\n", **{f"midi__{option}": False}).wants_midi


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"input__device": "1", "input__file": "x"}, "--device and --input contradict each other: leave one out"),
        ({"midi__send": False, "midi__port": "x"}, "--no-midi and --midi-port contradict each other"),
        ({"input__realtime": True}, "--realtime needs --input"),
        ({"input__realtime": False}, "--no-realtime needs --input"),
        ({"input__realtime": False, "input__device": "1"}, "--no-realtime needs --input"),
    ],
)
def test_options_that_contradict_each_other_are_named_as_they_were_said(options: dict[str, object], named: str) -> None:
    for config in ("", '[input]\nfile = "a.wav"\n') if "input__device" in options else ("",):
        with pytest.raises(UserError) as told:
            of(config, **options)
        assert named in str(told.value)


@pytest.mark.parametrize("written", ["3", "3,3", 3, [3]])
def test_channels_may_be_written_in_several_ways(written: object) -> None:
    assert of("", input__channels=written).input.channels == (3,)


def test_one_value_may_stand_for_a_list() -> None:
    settings = of('[files]\nrecord = "x.mid"\n[osc]\ntargets = "a:1"\n[input]\nchannels = 2\n')
    assert settings == of('[files]\nrecord = ["x.mid"]\n[osc]\ntargets = ["a:1"]\n[input]\nchannels = [2]\n')
    assert settings.files.record == (Path("x.mid"),)


def test_a_device_index_needs_no_quotes() -> None:
    assert of("[input]\ndevice = 2\n").input.device == "2"


def test_what_is_shown_reads_back_to_the_same() -> None:
    settings = of(
        "",
        input__device='a "quoted" \\ name \x7f\n',
        input__channels="1,2",
        osc__targets=["[::1]:9000", "a.b:1"],
        files__record=["x.mid", "ü.lab"],
        midi__send=False,
        recognise__hold="120",
    )
    assert of(as_toml(settings)) == settings


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("[midi]\nchanel = 3\n", "'midi.chanel'; did you mean 'midi.channel'?"),
        ("[mdi]\nchannel = 3\n", "'mdi'; did you mean 'midi'?"),
        ("loud = true\n", "'loud'"),
        ("midi = 3\n", "midi = 3"),
        ("[midi]\nchannel = 17\n", "midi.channel = 17"),
        ('[recognise]\nlatency = "slow"\n', "recognise.latency = 'slow'"),
        ("[input]\ngate = nan\n", "input.gate = nan"),
        ("[input]\ngate = 0.5\n", "input.gate = 0.5"),
        ("[input]\ngate = -121\n", "input.gate = -121"),
        ("[names]\ntranspose = -12\n", "names.transpose = -12"),
        ("[names]\ntranspose = 12\n", "names.transpose = 12"),
        ('[osc]\ntargets = ["a:0"]\n', "'0'"),
        ('[osc]\ntargets = ["a:65536"]\n', "'65536'"),
        ('[input]\nfile = "a\\u0000b"\n', "NUL"),
        ('[files]\nrecord = ["a\\u0000.mid"]\n', "NUL"),
        ("[names]\ncapo = 12\n", "names.capo = 12"),
        ("[names]\ntranspose = 0.5\n", "names.transpose = 0.5"),
        ('[names]\nvocabulary = "jazz"\n', "'full', 'sevenths', 'triads' or 'majmin'"),
        ("[recognise]\nhold = 5001\n", "recognise.hold = 5001"),
        ("[recognise]\nhold = -1\n", "recognise.hold = -1"),
        ("[screen]\nformat = 1979-05-27\n", "screen.format = "),
        ('[osc]\ntargets = ["nowhere"]\n', "'nowhere'"),
        (
            '[midi]\nsend = false\nport = "x"\n',
            "midi.send = false and midi.port = 'x' in the configuration 'config.toml'",
        ),
        ('[input]\ndevice = "x"\nfile = "y"\n', "input.device = 'x' and input.file = 'y' in the configuration"),
        ('[files]\nrecord = ""\n', "files.record = '' in the configuration 'config.toml': it is empty"),
        ('[osc]\ntargets = [{host = "a", port = 99999}]\n', "write HOST:PORT"),
        ("[midi]\nchannel = 0x" + "f" * 9000 + "\n", "midi.channel = 0xfff"),
        ("[midi]\nchannel" + ".a" * 99 + " = 1\n", "midi.channel = {a = {a = "),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_configuration_is_told_with_its_place(config: str, named: str) -> None:
    with pytest.raises(UserError) as told:
        of(config)
    assert named in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_shown_names_the_choices() -> None:
    assert "(one of full, sevenths, triads, majmin)" in as_toml(Settings())


def test_a_long_value_is_cut() -> None:
    with pytest.raises(UserError) as told:
        of(f'[recognise]\nlatency = "{"x" * 100_000}"\n')
    assert len(str(told.value)) < 500


TOML_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
KEYS = st.sampled_from([*(row for row in LISTEN), ("input", "x"), ("x", "y")])


@given(st.dictionaries(KEYS, TOML_VALUES, max_size=4))
def test_whatever_a_configuration_holds_it_is_settings_or_one_sentence(values: dict[tuple[str, str], object]) -> None:
    tables: dict[str, dict[str, object]] = {}
    for (section, field), value in values.items():
        tables.setdefault(section, {})[field] = value
    try:
        settings = settings_from(tables, {}, PATH, FLAGS)
    except UserError:
        return
    shown = as_toml(settings)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert of(shown) == settings


TOML_TYPES = {
    "boolean": "true", "integer": "3", "negative": "-1", "huge": "0x" + "f" * 9000, "float": "1.5", "nan": "nan",
    "text": '"x"', "empty": '""', "nul": '"a\\u0000"', "date": "1979-05-27", "time": "07:32:00",
    "moment": "1979-05-27T07:32:00Z", "list": "[1.5, true]", "none": "[]", "table": "{a = 1}", "deep": "[[[[[[1]]]]]]",
}  # fmt: skip
SWITCHES = {key for key, (value, _) in VALUES.items() if isinstance(value, bool)}
NUMBERS = {key for key, (value, _) in VALUES.items() if isinstance(value, int | float)} - SWITCHES
# What of these each kind of setting takes; all else is refused.
TAKEN = {
    key: {"boolean"} if key in SWITCHES else {"integer", "negative", "float", "huge"} for key in SWITCHES | NUMBERS
}
TAKEN |= {
    ("input", "device"): {"integer", "negative", "text"},
    ("input", "channels"): {"integer"},
    ("osc", "targets"): {"none"},
    ("files", "record"): {"none"},
    **{key: {"text"} for key in [("input", "file"), ("recognise", "engine"), ("midi", "port"), ("files", "text")]},
}


@pytest.mark.parametrize("kind", TOML_TYPES)
def test_a_value_of_the_wrong_type_is_one_sentence_with_key_value_and_remedy(kind: str) -> None:
    for key in LISTEN:
        name = ".".join(key)
        try:
            settings = of(f"{name} = {TOML_TYPES[kind]}\n")
        except UserError as error:
            told = str(error)
            assert kind not in TAKEN.get(key, ()) or key in NUMBERS, told  # a number may be out of bounds
            assert re.match(rf"cannot use {name} = .* in the configuration 'config.toml': (write|it) ", told), told
            assert not re.search("dictionary|instance|tuple|Input|Value error", told), told
            assert told.isprintable()
            assert len(told) < 500
        else:
            assert kind in TAKEN.get(key, ()), name
            assert of(as_toml(settings)) == settings


def test_a_switch_is_no_number_and_a_number_no_switch() -> None:
    for key in NUMBERS:
        with pytest.raises(UserError, match=r"= true in .* write a (whole )?number"):
            of(f"{'.'.join(key)} = true\n")
    for key in SWITCHES:
        for value in ("1", "0", '"true"', "1.0"):
            with pytest.raises(UserError, match="write true or false"):
                of(f"{'.'.join(key)} = {value}\n")


def test_a_section_is_no_value() -> None:
    for section in Settings.model_fields:
        for text in TOML_TYPES.values():
            if not text.startswith("{"):
                with pytest.raises(UserError, match=rf"cannot use {section} = .* it "):
                    of(f"{section} = {text}\n")


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = 1" + "0" * 5000], ids=["nested", "digits"])
def test_absurd_files_are_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "absurd.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"absurd\.toml"):
        read_config(path)


def test_a_bad_option_is_told_by_its_name() -> None:
    with pytest.raises(UserError, match="--midi-channel '17'"):
        of("", midi__channel="17")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"files__record": ["a.mid", "b.wav"]}, "--record 'b.wav': write a name that ends in .mid, .lab, .jsonl"),
        ({"files__record": ["a"]}, "--record 'a'"),
        ({"files__record": ["a.mid", "./a.mid"]}, "name each file once"),
        ({"midi__octave": "8"}, "--octave '8'"),
        ({"midi__velocity": "0"}, "--velocity '0'"),
    ],
)
def test_what_could_not_be_sent_or_recorded_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(UserError) as told:
        of("", **options)
    assert named in str(told.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[midi\n")
    for path in (tmp_path / "none.toml", broken, tmp_path, tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(UserError) as told:
            read_config(path)
        assert repr(str(path)) in str(told.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[midi]\nchannel = 3\nchannel = 4\n", "line 3, column 12): 'channel = 4'"),
        (b"[midi]\nchannel = 3\n[midi]\n", "twice (at line 3, column 6): '[midi]'"),
        (b"[midi]\nport = 'M\xfcller'\n", "save it as UTF-8"),
        ("[midi]\nchannel = 3\n".encode("utf-16"), "save it as UTF-8"),
        (bytes(range(256)), "UTF-8"),
        (bytes(100), "no TOML"),
        (b"#" * (LARGEST_CONFIG + 1), "larger than 16 KiB"),
    ],
    ids=["key twice", "section twice", "Latin-1", "UTF-16", "bytes", "NUL", "large"],
)
def test_what_is_wrong_with_a_file_is_told(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as told:
        read_config(path)
    assert named in str(told.value)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf[midi]\nchannel = 3\n", b"[midi]\r\nchannel = 3\r\n"])
def test_a_file_from_another_editor_is_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    assert read_config(path) == {"midi": {"channel": 3}}


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("#" * LARGEST_CONFIG)
    assert read_config(path) == {}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="POSIX devices")
def test_what_has_no_end_is_not_read_for_ever() -> None:
    with pytest.raises(UserError, match="'/dev/zero': it is larger"):
        read_config(Path("/dev/zero"))
    assert read_config(Path(os.devnull)) == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe_is_read_and_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as pipe:  # opens when somebody reads
            pipe.write(b"[midi]\n")
            pipe.write(b"channel = 3\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert read_config(path) == {"midi": {"channel": 3}}
    writer.join()
    monkeypatch.setattr("rtchord.settings.PIPE_SECONDS", 0.05)
    with pytest.raises(UserError, match="nothing came through this pipe"):
        read_config(path)


def test_a_name_that_toml_cannot_hold_is_told_and_not_shown_wrongly() -> None:
    settings = of("", input__file="M\udcfcller.wav")
    with pytest.raises(UserError, match=r"'M\\udcfcller.wav' as TOML"):
        as_toml(settings)


def test_the_users_file_lies_where_the_platform_keeps_such_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert config_path() == Path("/x/rtchord/config.toml")


@pytest.mark.parametrize("named", ["", "relative", "./x"])
def test_a_folder_that_the_environment_names_badly_counts_for_nothing(
    named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", named)
    assert config_path() == tmp_path / ".config" / "rtchord" / "config.toml"


def test_without_a_home_there_is_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom the system does not know
    assert find_config(None) is None


def test_a_link_of_the_users_to_nowhere_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert find_config(None) is None
    path = tmp_path / "rtchord" / "config.toml"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "nowhere")
    assert find_config(None) == path
    with pytest.raises(UserError, match="No such file"):
        read_config(path)
