from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.rig import environment
from rtchord.audio.device import (
    InputDevice,
    bounded,
    choose,
    default_channels,
    find_again,
    pick_channels,
)
from rtchord.errors import UserError

INPUTS = [
    InputDevice(0, "Built-in Microphone", "Core Audio", 1, 44_100),
    InputDevice(2, "Scarlett 18i20 USB", "ALSA", 20, 48_000),
    InputDevice(3, "Scarlett 2i2 USB", "ALSA", 2, 48_000),
    InputDevice(5, "Mic", "MME", 2, 44_100),
    InputDevice(6, "Mic", "Windows WASAPI", 2, 48_000),
    InputDevice(7, "pulse", "ALSA", 32, 44_100),
]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("Scarlett 2i2 USB", 3),
        ("scarlett 2i2 usb", 3),
        ("2i2", 3),
        ("18i20", 2),
        ("mic, windows", 6),
        ("PULSE", 7),
        ("built-in", 0),
    ],
)
def test_choose(query: str, index: int) -> None:
    assert choose(query, INPUTS).index == index


@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        ("scarlett", ["2 'Scarlett 18i20 USB' (ALSA)", "3 'Scarlett 2i2 USB' (ALSA)"], "pulse"),
        ("Mic", ["5 'Mic' (MME)", "6 'Mic' (Windows WASAPI)"], "Scarlett"),
        ("pulze", ["7 'pulse' (ALSA)"], "Scarlett"),
        ("18", ["0 'Built-in Microphone'", "7 'pulse'"], "and more"),
        ("", ["0 'Built-in Microphone'", "7 'pulse'"], "and more"),
    ],
)
def test_an_unclear_choice_lists_those_that_come_near(query: str, near: list[str], far: str) -> None:
    with pytest.raises(UserError) as caught:
        choose(query, INPUTS)
    message = str(caught.value)
    assert repr(query) in message
    assert all(name in message for name in near)
    assert far not in message
    assert "rtchord devices" in message


def test_without_any_input_that_is_said() -> None:
    with pytest.raises(UserError, match="nor any other"):
        choose("x", [])


def test_a_lost_input_is_found_by_name_and_host_api_whatever_its_index() -> None:
    assert find_again(InputDevice(9, "Mic", "MME", 2, 44_100), INPUTS).index == 5
    assert find_again(InputDevice(5, "Scarlett 2i2 USB", "ALSA", 2, 48_000), INPUTS).index == 3


def test_of_two_inputs_of_one_name_the_one_with_its_index_is_found_again() -> None:
    twins = [InputDevice(index, "Mic", "MME", 2, 44_100) for index in (1, 4)]
    assert find_again(twins[1], twins).index == 4


def test_a_lost_input_is_not_replaced_by_another() -> None:
    with pytest.raises(UserError, match="any more"):
        find_again(InputDevice(5, "Mic", "ALSA", 2, 44_100), INPUTS)


def test_default_channels_are_all_but_of_a_mixing_desk() -> None:
    assert [default_channels(device) for device in INPUTS] == [1, 2, 2, 2, 2, 2]


def test_picked_channels_count_from_one_and_must_be_there() -> None:
    assert pick_channels(None, 4, 4, "it") == (0, 1, 2, 3)
    assert pick_channels((4, 1), 4, 4, "it") == (3, 0)
    with pytest.raises(UserError, match=r"channel 5 of it: it has 4 channels"):
        pick_channels((1, 5), 4, 4, "it")


def test_bounded_does_not_wait_for_what_hangs() -> None:
    import threading
    import time

    release, done = threading.Event(), []
    started = time.monotonic()
    assert not bounded([release.wait, lambda: done.append(1)], 0.2)
    assert time.monotonic() - started < 2.0
    assert done == [1]
    release.set()


def test_bounded_swallows_errors() -> None:
    def broken() -> None:
        raise OSError

    assert bounded([broken], 5.0)


@pytest.mark.parametrize(("variable", "chatter"), [({}, ""), ({"RTCHORD_TRACEBACK": "1"}, "chatter\n")])
def test_only_python_reaches_stderr_inside_quiet(variable: dict[str, str], chatter: str) -> None:
    code = """
import os, sys
from rtchord.audio.device import quiet_stderr
with quiet_stderr():
    with quiet_stderr():
        os.write(2, b"chatter\\n")
        print("ours", file=sys.stderr)
os.write(2, b"after\\n")
"""
    env = {key: value for key, value in environment().items() if key != "RTCHORD_TRACEBACK"} | variable
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == f"{chatter}ours{os.linesep}after\n"
