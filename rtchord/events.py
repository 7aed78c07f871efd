"""The chord event: what the recognizer says, and what every output is given."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rtchord.chords import Chord


@dataclass(frozen=True, slots=True)
class ChordEvent:
    """A change of chord.

    `onset`: s, when the chord began (back-dated). `time`: s of the stream consumed when the event was emitted.
    Both count from the first sample; `onset <= time`. `symbol`: class and bass. `confidence`: 0..1.
    """

    onset: float
    time: float
    symbol: Chord
    confidence: float

    @property
    def chord(self) -> str:
        """Harte label, e.g. ``A:min7``, ``C:maj/3``, ``N``."""
        return self.symbol.label

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
