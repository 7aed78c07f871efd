"""Frame posteriors to chord events.

The decoder is a sequential change detector (CUSUM, Page 1954): every challenger gathers the sum of its log posterior
ratios against the current chord, floored at zero, and may take over when that sum passes a threshold. So a clear
change is named within a few frames and an unclear one waits for more evidence. The onset is dated back to the frame at
which the winner's evidence last left zero.

That the old chord is over is often clear before it is clear which one follows. So a challenger must also be the most
likely one now, by a factor of `lead` over the next challenger: that spares the player a wrong name for an instant. More
than a small lead is paid for elsewhere: an inverted chord shares two notes with one of another root, and is then waited
for (docs/training.md has what was measured).

Four thresholds, because four mistakes cost differently:
* `change`: to another chord *family* (root and third, or N). Posteriors are summed over the family, so that doubt
  between C, C7 and Cmaj7 does not delay C;
* `start`: the same, out of N or into it: what breaks a silence is a chord within a frame or two, or noise that should
  stay one; what seems to end may only die away (measured on real guitars: 0.3 points of the mean of seven);
* `refine`: to another quality of the same family (C -> C7);
* `bass`: to another bass under the same chord.

Which family follows is heard before its quality and its bass are. So for `settle` s after a change of family a part
`fresh` of `refine` and `bass` is enough: a chord just shown is soon put right, one that has stood is left alone
(docs/architecture.md has what was measured).

A player may ask that every chord be shown for a least time. Until it is over nothing is decided and the evidence
gathers no further than its threshold, so that then the challenger that still stands takes over and no earlier one. What
leaves a silence need not wait: N is no chord.

Thresholds are for frames of 23 ms. A longer frame weighs as much more: neighbouring frames share most of their sound,
so what counts is for how long a challenger was ahead and not in how many frames (measured at 93 ms: as many events as
at 23 ms; unweighted, the presets were later and less accurate).

Music repeats its chords. So a part `repeat` of the prior of each chord is its share of what was shown lately (an
exponential mean over `memory` s), the rest what the student has learnt; the posterior is weighted with the new prior
over the old (Saerens et al., Neural Computation 14, 2002), within RECALL, as if the student thought all chords equally
likely before it hears anything. Nothing is known at the beginning of a stream, so nothing is weighted there, and
nothing is remembered of N.

X (unknown) holds the last chord: a frame whose most likely class is X changes nothing but that the chord was shown for
longer. So does a frame whose numbers are no posteriors. The decoder owns no clock; frames are numbered by whoever calls
it.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rtchord.chords import (
    N_BASS,
    N_CLASSES,
    N_QUALITIES,
    NO_BASS,
    NO_CHORD,
    QUALITIES,
    Chord,
    N,
    X,
    chord_with_bass,
    pitch_classes,
)

Float32 = NDArray[np.float32]


class DecoderSettings(BaseModel):
    """Thresholds in nats of evidence; larger is steadier and later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    change: float = Field(gt=0)
    start: float = Field(gt=0)
    refine: float = Field(gt=0)
    bass: float = Field(gt=0)
    inversion: float = Field(0.3, gt=0, le=1, description="bass posterior that makes a new chord start inverted")
    settle: float = Field(0.46, ge=0, description="s after a change of family in which quality and bass are open")
    fresh: float = Field(1 / 3, gt=0, le=1, description="part of `refine` and `bass` that is enough until then")
    repeat: float = Field(0.3, ge=0, lt=1, description="part of a chord's prior that is its share of what was shown")
    memory: float = Field(120.0, gt=0, description="s over which that share is a mean")
    lead: float = Field(1.3, ge=1, description="posterior of a new family over that of the next challenger")
    step_limit: float = Field(5.0, gt=0, description="most evidence that one frame may add or take away")


PRESETS: dict[str, DecoderSettings] = {
    "fast": DecoderSettings(change=2.0, start=6.0, refine=16.0, bass=24.0),
    "balanced": DecoderSettings(change=7.0, start=16.0, refine=44.0, bass=50.0),
    "steady": DecoderSettings(change=12.0, start=24.0, refine=48.0, bass=80.0),
}

# Family of each class: root * 3 + (0 minor third, 1 major third, 2 suspended); N has its own, X none.
_THIRD = {3: 0, 4: 1}
_FAMILY_OF_QUALITY = [_THIRD.get(quality.tones[1], 2) for quality in QUALITIES]
N_FAMILIES = 37
FAMILY = np.array([i // N_QUALITIES * 3 + _FAMILY_OF_QUALITY[i % N_QUALITIES] for i in range(X)] + [-1, 36])
_MEMBERS = [np.flatnonzero(family == FAMILY) for family in range(N_FAMILIES)]
_TO_FAMILY = np.zeros((N_FAMILIES, N_CLASSES), np.float32)
for _family, _classes in enumerate(_MEMBERS):
    _TO_FAMILY[_family, _classes] = 1.0
_CHORD_TONES = np.zeros((N_CLASSES, N_BASS), np.float32)
for _index in range(X):
    _CHORD_TONES[_index, list(pitch_classes(_index))] = 1.0
_SILENT = int(FAMILY[N])
_FLOOR = np.float32(1e-6)
_ANY_CLASS, _ANY_BASS = np.ones(N_CLASSES, np.float32), np.ones(N_BASS, np.float32)  # speak for nothing
RECALL = (np.float32(0.5), np.float32(4.0))  # least and most weight that memory gives a chord
TUNED_HOP = 512 / 22_050  # s; of the frames that thresholds are for


class Decision(NamedTuple):
    """A change of chord: frame numbers of its onset and of the decision, the chord, and its posterior."""

    onset: int
    frame: int
    chord: Chord
    confidence: float


class _Evidence:
    """CUSUM of several challengers against one champion; `since` holds the frame each sum last left zero.

    `limit`: most evidence a frame may bring; `weight`: what it is multiplied with.
    """

    def __init__(self, size: int, limit: float, weight: float) -> None:
        self.limit, self.weight = limit, np.float32(weight)
        self.sums = np.zeros(size, np.float32)
        self.since = np.zeros(size, np.int64)
        self._ratio = np.zeros(size, np.float32)
        self._idle = np.zeros(size, np.bool_)

    def reset(self) -> None:
        self.sums[:] = 0.0

    def push(self, log_posterior: Float32, champion: int, frame: int) -> None:
        np.subtract(log_posterior, log_posterior[champion], out=self._ratio)
        np.clip(self._ratio, -self.limit, self.limit, out=self._ratio)
        np.multiply(self._ratio, self.weight, out=self._ratio)
        np.equal(self.sums, 0.0, out=self._idle)
        np.copyto(self.since, frame, where=self._idle)
        np.add(self.sums, self._ratio, out=self.sums)
        np.maximum(self.sums, 0.0, out=self.sums)


class Decoder:
    """State of the detector over one stream, whose frames are `hop` s apart.

    `hold`: frames for which a chord is shown at least.
    """

    def __init__(self, settings: DecoderSettings, *, hold: int = 0, hop: float = TUNED_HOP) -> None:
        self.settings = settings
        self._hold = hold
        self._free = 0  # the frame from which the present chord may be replaced
        self._settle = round(settings.settle / hop)
        self._settled = 0  # the frame from which the present chord's quality and bass take more to be replaced
        self._families, self._classes, self._basses = (
            _Evidence(size, settings.step_limit, hop / TUNED_HOP) for size in (N_FAMILIES, N_CLASSES, N_BASS)
        )
        self._forget = np.float32(np.exp(-hop / settings.memory))
        self._shown = np.full(X, 1 / X, np.float32)  # each chord's share of what was shown; sums to 1
        self._weights = np.ones(N_CLASSES, np.float32)  # of posteriors
        self._chord_weights = self._weights[:X]
        self._weighted = np.zeros(N_CLASSES, np.float32)
        self._family = np.zeros(N_FAMILIES, np.float32)
        self._family_log = np.zeros(N_FAMILIES, np.float32)
        self._class_log = np.zeros(N_CLASSES, np.float32)
        self._bass_log = np.zeros(N_BASS, np.float32)
        # Recent log posteriors, so that a new chord's quality and bass are judged on all frames since its onset.
        self._recent = np.zeros((32, N_CLASSES), np.float32)
        self._recent_bass = np.zeros((32, N_BASS), np.float32)
        self.current = NO_CHORD

    def reset(self) -> None:
        """Begin a new stream, in which nothing sounds yet."""
        for evidence in (self._families, self._classes, self._basses):
            evidence.reset()
        self._shown[:] = 1 / X
        self._weights[:] = 1.0
        self._recent[:] = self._recent_bass[:] = 0.0
        self.current = NO_CHORD
        self._free = self._settled = 0

    def push(self, frame: int, classes: Float32, bass: Float32) -> Decision | None:
        """Posteriors of frame number `frame`: `classes` (170,), `bass` (13,). Frames must come in order."""
        self._remember()
        known = _are_posteriors(classes, bass)
        if known:
            np.multiply(classes, self._weights, out=self._weighted)
            classes = np.divide(self._weighted, max(self._weighted.sum(), _FLOOR), out=self._weighted)
        row = frame % len(self._recent)
        if not known or int(classes.argmax()) == X:
            self._recent[row] = self._recent_bass[row] = 0.0  # speaks for nothing
            return None
        np.maximum(classes, _FLOOR, out=self._class_log)
        np.log(self._class_log, out=self._class_log)
        np.maximum(bass, _FLOOR, out=self._bass_log)
        np.log(self._bass_log, out=self._bass_log)
        np.dot(_TO_FAMILY, classes, out=self._family)
        np.maximum(self._family, _FLOOR, out=self._family_log)
        np.log(self._family_log, out=self._family_log)
        self._recent[row] = self._class_log
        self._recent_bass[row] = self._bass_log

        family = int(FAMILY[self.current.index])
        self._families.push(self._family_log, family, frame)
        self._classes.push(self._class_log, self.current.index, frame)
        self._basses.push(self._bass_log, self.current.bass, frame)

        if frame < self._free:
            for evidence, most in (
                (self._families, self.settings.change),
                (self._classes, self.settings.refine),
                (self._basses, self.settings.bass),
            ):
                np.minimum(evidence.sums, most, out=evidence.sums)
            return None
        winner = int(self._family.argmax())
        threshold = self.settings.start if _SILENT in (family, winner) else self.settings.change
        if winner != family and self._families.sums[winner] >= threshold:
            likely = self._family[winner]
            self._family[[winner, family]] = 0.0
            if likely < self.settings.lead * self._family.max():
                return None
            return self._change(frame, winner, classes)
        return self._refine(frame, family, classes) or self._move_bass(frame, classes)

    def _remember(self) -> None:
        """Add a frame of the present chord to what was shown, and weigh the posteriors accordingly."""
        index = self.current.index
        if index >= X or not self.settings.repeat:
            return
        self._shown *= self._forget
        self._shown[index] += 1 - self._forget
        weights = self._chord_weights
        np.multiply(self._shown, np.float32(X * self.settings.repeat), out=weights)
        weights += np.float32(1 - self.settings.repeat)
        np.clip(weights, *RECALL, out=weights)

    def _rows(self, onset: int, frame: int) -> NDArray[np.int64]:
        """Rows of the recent posteriors from `onset` to `frame`, as far back as they reach."""
        count = min(frame - onset + 1, len(self._recent))
        return np.arange(frame - count + 1, frame + 1) % len(self._recent)

    def _change(self, frame: int, family: int, classes: Float32) -> Decision:
        onset = int(self._families.since[family])
        rows = self._rows(onset, frame)
        members = _MEMBERS[family]
        # The newest frame knows most; older ones still carry the chord before.
        weights = np.arange(1, rows.size + 1, dtype=np.float32)
        index = int(members[(weights @ self._recent[np.ix_(rows, members)]).argmax()])
        heard = np.exp(self._recent_bass[rows[-1]]) * _CHORD_TONES[index]
        bass = int(heard.argmax())
        inverted = index < X and heard[bass] >= self.settings.inversion
        self._settled = frame + self._settle
        return self._emit(onset, frame, chord_with_bass(index, bass if inverted else NO_BASS), classes)

    def _enough(self, threshold: float, frame: int) -> float:
        """What is enough of a threshold of quality or bass now; never less than a change of family takes, so that the
        bass of the next chord is not told before the chord."""
        if frame >= self._settled:
            return threshold
        return min(threshold, max(self.settings.change, self.settings.fresh * threshold))

    def _refine(self, frame: int, family: int, classes: Float32) -> Decision | None:
        members = _MEMBERS[family]
        index = int(members[self._classes.sums[members].argmax()])
        if index == self.current.index or self._classes.sums[index] < self._enough(self.settings.refine, frame):
            return None
        onset = int(self._classes.since[index])
        return self._emit(onset, frame, chord_with_bass(index, self.current.bass), classes)

    def _move_bass(self, frame: int, classes: Float32) -> Decision | None:
        if self.current.index >= X:
            return None
        bass = int((self._basses.sums * _CHORD_TONES[self.current.index]).argmax())
        if bass == self.current.bass or self._basses.sums[bass] < self._enough(self.settings.bass, frame):
            return None
        return self._emit(int(self._basses.since[bass]), frame, Chord(self.current.index, bass), classes)

    def _emit(self, onset: int, frame: int, chord: Chord, classes: Float32) -> Decision:
        for evidence in (self._families, self._classes, self._basses):
            evidence.reset()
        self.current = chord
        self._free = frame + self._hold if chord.index < X else 0
        return Decision(onset, frame, chord, float(classes[chord.index]))


def _are_posteriors(classes: Float32, bass: Float32) -> bool:
    """Whether numbers of a frame are finite and not negative, with a class that is possible."""
    finite = classes.max() < np.inf and bass.max() < np.inf
    return bool(finite and classes.max() > 0 and classes.min() >= 0 and bass.min() >= 0)


class _Run(NamedTuple):
    """A stretch in one state: frames from `first` to before `end`, and the sum of that state's shares over them."""

    first: int
    end: int
    state: int
    total: float


class _Path:
    """Viterbi: the path of least cost through `states`, where every change of state costs `penalty` nats.

    Whoever changes state comes from the best one of the frame before. So of each frame that one alone is kept, with the
    beginning of its last run and its total over that: 17 bytes, however many states there are.
    """

    def __init__(self, states: int, penalty: float) -> None:
        self._least = np.float32(-penalty)
        self._score = np.zeros(states, np.float32)  # of the best path to each state, less that of the best one
        self._first = np.zeros(states, np.int64)  # where the last run of that path begins
        self._total = np.zeros(states, np.float64)  # of that run
        self._best, self._best_first, self._best_total = array("B"), array("q"), array("d")  # of each frame

    def push(self, log_posterior: Float32, shares: Float32) -> None:
        """The next frame, (states,) each: what speaks for each state, in nats, and what is summed over a run."""
        score, frame = self._score, len(self._best)
        if frame:
            worse = score < self._least
            score[worse] = self._least
            self._first[worse] = frame
            self._total[worse] = 0.0
        score += log_posterior
        self._total += shares
        best = int(score.argmax())
        score -= score[best]
        self._best.append(best)
        self._best_first.append(int(self._first[best]))
        self._best_total.append(float(self._total[best]))

    def runs(self) -> list[_Run]:
        """The best path through all frames so far."""
        found, end = [], len(self._best)
        while end:
            first = self._best_first[end - 1]
            found.append(_Run(first, end, self._best[end - 1], self._best_total[end - 1]))
            end = first
        return found[::-1]


class Segment(NamedTuple):
    """A chord from frame `first` to before frame `end`; `confidence`: mean posterior of its class."""

    first: int
    end: int
    chord: Chord
    confidence: float


class Smoother:
    """Offline decode of a recording that comes frame by frame: the best path through the classes, then, under each
    chord, through the basses that are chord tones (Viterbi, `penalty` nats for every change at frames of TUNED_HOP).

    `hop`: s between frames. It keeps 69 bytes of each: 11 MB an hour at 23 ms.
    """

    def __init__(self, penalty: float, hop: float = TUNED_HOP) -> None:
        self._penalty = penalty * TUNED_HOP / hop
        self._path = _Path(N_CLASSES, self._penalty)
        self._bass = array("f")
        self._known = False  # whether any frame had posteriors

    def push(self, classes: Float32, bass: Float32) -> None:
        """Posteriors of the next frame: `classes` (170,), `bass` (13,). A frame whose numbers are none belongs to the
        chord around it."""
        if _are_posteriors(classes, bass):
            self._known = True
        else:
            classes, bass = _ANY_CLASS, _ANY_BASS
        log_classes = np.log(np.maximum(classes, _FLOOR))
        log_classes[X] = np.log(_FLOOR)
        self._path.push(log_classes, classes)
        self._bass.frombytes(bass.astype(np.float32, copy=False).tobytes())

    def segments(self) -> list[Segment]:
        """The chords of all frames so far, without gaps; none if no frame had posteriors."""
        if not self._known:
            return []
        heard = np.frombuffer(self._bass.tobytes(), np.float32).reshape(-1, N_BASS)
        segments = []
        for start, end, index, total in self._path.runs():
            tones = np.array(pitch_classes(index) or [NO_BASS])
            path = _Path(tones.size, self._penalty)
            for row in np.log(np.maximum(heard[start:end, tones], _FLOOR)):
                path.push(row, row)
            for first, last, tone, _ in path.runs():
                chord = Chord(index, int(tones[tone]))
                segments.append(Segment(start + first, start + last, chord, total / (end - start)))
        return segments


def smooth(classes: Float32, bass: Float32, penalty: float, hop: float = TUNED_HOP) -> list[tuple[int, int, Chord]]:
    """What a `Smoother` finds in `classes` (frames, 170) and `bass` (frames, 13): (first frame, end frame, chord)."""
    smoother = Smoother(penalty, hop)
    for row, low in zip(classes, bass, strict=True):
        smoother.push(row, low)
    return [(first, end, chord) for first, end, chord, _ in smoother.segments()]
