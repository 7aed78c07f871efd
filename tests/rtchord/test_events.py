from __future__ import annotations

import dataclasses
import json

import pytest

from rtchord.chords import NO_CHORD, Chord, class_index
from rtchord.events import ChordEvent

EVENT = ChordEvent(1.23456789, 1.34567891, Chord(class_index(0, "maj"), 4), 0.912345)


def test_json_holds_exactly_the_four_keys_in_order() -> None:
    assert list(json.loads(EVENT.json())) == ["onset", "time", "chord", "confidence"]


def test_json_times_keep_microseconds() -> None:
    line = json.loads(EVENT.json())
    assert (line["onset"], line["time"]) == (1.234568, 1.345679)


def test_json_confidences_keep_four_places() -> None:
    assert json.loads(EVENT.json())["confidence"] == 0.9123


def test_json_is_one_line() -> None:
    assert "\n" not in EVENT.json()


def test_chord_is_the_harte_label() -> None:
    assert json.loads(EVENT.json())["chord"] == EVENT.chord == "C:maj/3"


def test_no_chord_is_written_n() -> None:
    assert ChordEvent(0.0, 0.0, NO_CHORD, 1.0).chord == "N"


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVENT.time = 0.0  # type: ignore[misc]
