from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtchord.cli import FLAGS, LISTEN
from rtchord.errors import UserError
from rtchord.settings import Settings, as_toml, config_path, read_config, settings_from

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


@pytest.mark.parametrize("written", ["3", "3,3", 3, [3]])
def test_channels_may_be_written_in_several_ways(written: object) -> None:
    assert of("", input__channels=written).input.channels == (3,)


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
        ('[midi]\nsend = false\nport = "x"\n', "contradict"),
    ],
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
    for path in (tmp_path / "none.toml", broken, tmp_path):
        with pytest.raises(UserError, match=path.name):
            read_config(path)


def test_the_users_file_lies_where_the_platform_keeps_such_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert config_path() == Path("/x/rtchord/config.toml")
