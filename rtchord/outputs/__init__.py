"""Where chords go. Each output is a port that is given events and, once in a while, the state of the session, by a
thread of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from rtchord.events import ChordEvent
from rtchord.outputs.display import Display, chosen_format
from rtchord.outputs.files import ChordText, NoRoomError, Recording, encoder
from rtchord.outputs.midi import MidiOutput, NoMidiError
from rtchord.outputs.osc import OscOutput
from rtchord.outputs.text import TextOutput
from rtchord.outputs.worker import Port, Worker
from rtchord.settings import Settings

Output = Worker[ChordEvent]


def open_outputs(
    settings: Settings, outputs: list[Output], prefer_midi: str | None, report: Callable[[str], None]
) -> None:
    """Append the outputs that `settings` ask for to `outputs`: MIDI, OSC, files, and the standard output last.

    `prefer_midi`: a MIDI system to be tried first. `report` is given sentences for the user, also for an output that
    the session can do without. UserError where one cannot be opened; those before it are in `outputs` then, to be
    closed.
    """
    style, heard = chosen_format(settings, sys.stdout), settings.input.file
    ports: list[Callable[[], Port[ChordEvent]]] = []
    if settings.wants_midi:
        ports.append(partial(MidiOutput, settings.midi, prefer_midi, report))
    ports += [partial(OscOutput, target, report) for target in settings.osc.targets]
    if settings.files.text is not None:
        ports.append(partial(ChordText, settings.files.text, heard, report))
    ports += [partial(Recording, path, encoder(path, settings.midi), report) for path in settings.files.record]
    if style == "display":
        ports.append(partial(Display, sys.stdout, settings.recognise.latency, report))
    else:
        ports.append(partial(TextOutput, sys.stdout, style, report))
    # At full speed nothing is live: the session waits for the slowest, and loses nothing.
    patient = heard is not None and not settings.input.realtime
    for port in ports:
        try:
            outputs.append(Worker(port(), report, patient, first=heard is None))
        except (NoMidiError, NoRoomError) as error:
            report(str(error))
