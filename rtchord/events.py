"""What every output is given: chord events as they come, and the state of the session once in a while."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rtchord.chords import COMMON, Chord, lead_sheet


@dataclass(frozen=True, slots=True)
class ChordEvent:
    """A change of chord.

    `onset`: s, when the chord began (back-dated). `time`: s of the stream consumed when the event was emitted.
    Both count from the first sample; `onset <= time`. `symbol`: class and bass. `confidence`: 0..1.
    `sharps`: spelling of the names, see `rtchord.chords`. `shape`: name of the shape under a capo, empty without one.
    """

    onset: float
    time: float
    symbol: Chord
    confidence: float
    sharps: int = COMMON
    shape: str = ""

    @property
    def chord(self) -> str:
        """Harte label, e.g. ``A:min7``, ``C:maj/3``, ``N``."""
        return self.symbol.spelt(self.sharps)

    @property
    def name(self) -> str:
        """What a musician reads: ``Am7``, ``C/E``, under a capo the shape that is played; empty for N."""
        return self.shape or lead_sheet(self.symbol, self.sharps)

    def json(self) -> str:
        """One line of the JSON lines format: exactly the keys onset, time, chord, confidence."""
        return json.dumps(
            {
                "onset": round(self.onset, 6),
                "time": round(self.time, 6),
                "chord": self.chord,
                "confidence": round(self.confidence, 4),
            }
        )


@dataclass(frozen=True, slots=True)
class Status:
    """How a session is doing.

    `time`: s of the stream heard so far. `level`, `peak`: dBFS, root mean square and largest sample since the last
    status, -inf for digital silence. `clipped`: samples at full scale since the last status. `overflows`: how often
    the audio driver reported one, `dropped`: s of audio lost on our side, both since the start. `connected`: whether
    the input is there. `delay`: s that the machine needed from a block's arrival until the outputs have its
    events, median since the last status. `source`, `engine`: what is listened to and which engine names it, for people.
    """

    time: float
    level: float
    peak: float
    clipped: int
    overflows: int
    dropped: float
    connected: bool
    delay: float
    source: str = ""
    engine: str = ""
