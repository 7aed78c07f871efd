from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

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
        ('[osc]\ntargets = ["nowhere"]\n', "'nowhere'"),
        ('[midi]\nsend = false\nport = "x"\n', "contradict"),
    ],
)
def test_a_bad_configuration_is_told_with_its_place(config: str, named: str) -> None:
    with pytest.raises(UserError) as told:
        of(config)
    assert named in str(told.value)
    assert "\n" not in str(told.value)


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
