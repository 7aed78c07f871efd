"""Where chords go. Each output is a port that is given events and, once in a while, the state of the session."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from rtchord.events import ChordEvent, Status
from rtchord.outputs.display import Display, chosen_format
from rtchord.outputs.files import ChordText, Recording, encoder
from rtchord.outputs.midi import MidiOutput, NoMidiError
from rtchord.outputs.osc import OscOutput
from rtchord.outputs.text import TextOutput
from rtchord.settings import Settings


class Output(Protocol):
    """Somewhere events go, until it is no longer `open`; `name` says where, for people."""

    open: bool
    name: str

    def send(self, event: ChordEvent) -> None:
        """Say the change now."""

    def status(self, status: Status) -> None:
        """How the session is doing, ten times a second while it runs."""

    def release(self) -> None:
        """End what sounds; never waits."""

    def close(self) -> None:
        """Go away."""


def open_outputs(
    settings: Settings, outputs: list[Output], prefer_midi: str | None, report: Callable[[str], None]
) -> None:
    """Append the outputs that `settings` ask for to `outputs`: those that a performer hears come first.

    The standard output comes last, since writing to it may wait for its reader.

    `prefer_midi`: a MIDI system to be tried first. `report` is given sentences for the user. UserError where one cannot
    be opened; those before it are in `outputs` then, to be closed.
    """
    style = chosen_format(settings, sys.stdout)
    if settings.wants_midi:
        try:
            outputs.append(MidiOutput(settings.midi, prefer_midi, report))
        except NoMidiError as error:
            report(str(error))
    outputs.extend(OscOutput(target, report) for target in settings.osc.targets)
    if settings.files.text is not None:
        outputs.append(ChordText(settings.files.text, settings.input.file, report))
    for path in settings.files.record:
        outputs.append(Recording(path, encoder(path, settings.midi), report))
    if style == "display":
        outputs.append(Display(sys.stdout, settings.recognise.latency, report))
    else:
        outputs.append(TextOutput(sys.stdout, style, report))
