"""The whole chain as a library call: samples in, chord events out. No thread, no clock, no device.

>>> recognizer = Recognizer(48_000)              # doctest: +SKIP
>>> events = recognizer.push(block)              # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtchord import engine as engines
from rtchord.audio.source import FileSource
from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, NO_CHORD, Chord, N
from rtchord.cqt import FrameStream, WindowStream
from rtchord.decoder import PRESETS, TUNED_HOP, Decision, Decoder, DecoderSettings, Segment, Smoother
from rtchord.engine import Engine
from rtchord.errors import UserError
from rtchord.events import ChordEvent
from rtchord.gate import Gate
from rtchord.settings import GATE_DBFS

Float32 = NDArray[np.float32]

OFFLINE_PENALTY = 20.0  # nats for a change in the offline decode


class Answers:
    """The first half of the chain over one stream: samples in, posteriors out, a pair for each frame.

    A frame is answered when the engine has heard enough of what follows it: `lookahead` frames, and the `future` of
    the last one, if its manifest says so.
    """

    def __init__(self, rate: int, engine: Engine, gate: float = GATE_DBFS) -> None:
        manifest = engine.manifest
        features = manifest.features
        self.features = features
        self._stepper = engine.stepper()
        self._lookahead = manifest.lookahead
        self._stream: FrameStream | WindowStream
        if manifest.window is not None and manifest.future is not None:
            self._stream = WindowStream(rate, features, manifest.window, manifest.future)
        else:
            self._stream = FrameStream(rate, features)
        # s of sound after a frame that its answer waits for
        self.wait = (manifest.lookahead * features.hop + (manifest.future or 0)) / features.sample_rate
        self._gate = Gate(features, gate)
        self._silent: deque[bool] = deque(maxlen=manifest.lookahead + 1)
        self._n_classes, self._n_bass = _one_hot_silence()

    def reset(self) -> None:
        """Begin a new stream."""
        self._stream.reset()
        self._stepper.reset()
        self._silent.clear()

    def time_of(self, frame: int) -> float:
        """Seconds of input that must have been heard before `frame` (from 0) is answered."""
        return self._stream.time_of(frame + self._lookahead)

    def onset_of(self, frame: int) -> float:
        """Seconds of input at which the sound begins that `frame` stands for."""
        return max(0.0, self._stream.time_of(frame) - self._stream.lag)

    def push(self, samples: Float32) -> Iterator[tuple[int, Float32, Float32]]:
        """(frame, classes (170,), bass (13,)) of each frame that can now be answered; valid until the next."""
        first = self._stream.frames
        for number, heard in enumerate(self._stream.push(samples), first):
            whole = heard.ndim == 2  # a window and not a frame
            answer = self._stepper.look(heard) if whole else self._stepper.step(heard)
            answered = heard[-1 - self._lookahead] if whole else heard
            self._silent.append(self._gate.silent(answered))
            if number >= self._lookahead:
                silent = self._silent[-1 if whole else 0]
                classes, bass = (self._n_classes, self._n_bass) if silent else answer
                yield number - self._lookahead, classes, bass


class Recognizer:
    """Streaming chord recognizer for one mono stream at `rate` Hz.

    `engine`: folder of an engine, None for the shipped one, or a loaded one, as `rtchord.engine.choose` gives, which
    recognizers may share: each has a state of its own.
    `latency`: a preset of `rtchord.decoder.PRESETS`, or decoder settings. `gate`: dBFS, see `Gate`. `hold`: s for which
    a chord is shown at least. Raises UserError for a bad engine or an unknown preset, ValueError for a rate or a hold
    out of range.
    """

    def __init__(
        self,
        rate: int,
        engine: Path | str | Engine | None = None,
        latency: str | DecoderSettings = "balanced",
        *,
        gate: float = GATE_DBFS,
        hold: float = 0.0,
    ) -> None:
        if not math.isfinite(rate) or rate != int(rate):
            raise ValueError(f"the sample rate must be a whole number of Hz, not {rate}")
        rate = int(rate)
        if not 0.0 <= hold < math.inf:
            raise ValueError(f"the hold must be a time in s, not {hold}")
        if isinstance(latency, str):
            if latency not in PRESETS:
                raise UserError(f"unknown latency preset {latency!r}; use one of {', '.join(PRESETS)}")
            latency = PRESETS[latency]
        self.engine = _loaded(engine)
        self._answers = Answers(rate, self.engine, gate)
        self._rate = rate
        frame_rate = self.engine.manifest.features.frame_rate
        self._decoder = Decoder(latency, hold=math.ceil(hold * frame_rate), hop=1 / frame_rate)
        self._emitted = False

    def reset(self) -> None:
        """Begin a new stream at time 0."""
        self._answers.reset()
        self._decoder.reset()
        self._emitted = False

    def warm_up(self) -> None:
        """Compile what is compiled at first use, then begin a new stream. Call before a device is opened."""
        self.push(np.zeros(round((0.2 + self._answers.wait) * self._rate), np.float32))
        self.reset()

    def push(self, samples: Float32) -> list[ChordEvent]:
        """Events of a block of samples: (n,) float32, any n. NaN and infinities count as silence.

        The events are the same for every way of cutting the stream into blocks.
        """
        events = []
        for number, classes, bass in self._answers.push(samples):
            decision = self._decoder.push(number, classes, bass)
            if decision is None and not self._emitted:
                # The stream begins with N, said once, so that whoever listens has a state to start from.
                sure = float(classes[N])
                decision = Decision(0, number, self._decoder.current, sure if math.isfinite(sure) else 0.0)
            if decision is not None:
                events.append(self._event(decision))
        return events

    def flush(self) -> list[ChordEvent]:
        """Events still owed at the end of the stream: none, as nothing is delayed beyond its decision."""
        return []

    def _event(self, decision: Decision) -> ChordEvent:
        onset = self._answers.onset_of(decision.onset) if self._emitted else 0.0
        self._emitted = True
        return ChordEvent(onset, self._answers.time_of(decision.frame), decision.chord, decision.confidence)


def _one_hot_silence() -> tuple[Float32, Float32]:
    """Posteriors that are sure of N and of no bass."""
    return np.eye(N_CLASSES, dtype=np.float32)[N], np.eye(N_BASS, dtype=np.float32)[NO_BASS]


def _loaded(engine: Path | str | Engine | None) -> Engine:
    if engine is None or isinstance(engine, Path | str):
        engine = engines.load(None if engine is None else Path(engine))
    if engine.manifest.streams != 1:
        raise UserError(f"this engine is for {engine.manifest.streams} streams at once; use one for 1 stream")
    return engine


def posteriors(samples: Float32, rate: int, engine: Engine) -> tuple[Float32, Float32, NDArray[np.float64]]:
    """Posteriors of a whole recording: classes (frames, 170), bass (frames, 13), and each frame's time in s.

    What an engine waits for at the end is silence.
    """
    answers = Answers(rate, engine)
    rest = np.zeros(round(answers.wait * rate), np.float32)
    found = [(classes.copy(), bass.copy()) for part in (samples, rest) for _, classes, bass in answers.push(part)]
    classes, bass = np.zeros((len(found), N_CLASSES), np.float32), np.zeros((len(found), N_BASS), np.float32)
    for i, (row, low) in enumerate(found):
        classes[i], bass[i] = row, low
    return classes, bass, np.array([answers.time_of(i) for i in range(len(found))])


def segment(
    classes: Float32, bass: Float32, times: NDArray[np.float64], end: float, delay: float, hop: float = TUNED_HOP
) -> list[tuple[float, float, Chord]]:
    """Chords of a whole recording from its posteriors: (start s, end s, chord) from 0 to `end` without gaps.

    `times` (frames,): s at which each frame was known; `delay`: s by which posteriors follow the sound, which an
    offline decode takes off again; `hop`: s between frames.
    """
    smoother = Smoother(OFFLINE_PENALTY, hop)
    for row, low in zip(classes, bass, strict=True):
        smoother.push(row, low)
    spans = _spans(smoother, lambda frame: float(times[frame]) - delay, end)
    return [(start, stop, chord) for start, stop, chord, _ in spans]


class Span(NamedTuple):
    """A chord of a recording from `start` to `end`, s; `confidence`: mean posterior of its class, 0..1."""

    start: float
    end: float
    chord: Chord
    confidence: float


def _spans(smoother: Smoother, start_of: Callable[[int], float], end: float) -> list[Span]:
    """What was found, from 0 to `end` without gaps; `start_of`: s at which the sound of a frame begins."""
    found = smoother.segments() or [Segment(0, 0, NO_CHORD, 1.0)]
    edges = [0.0, *(max(0.0, start_of(segment.first)) for segment in found[1:]), end]
    return [
        Span(start, stop, segment.chord, segment.confidence)
        for (start, stop), segment in zip(pairwise(edges), found, strict=True)
        if stop > start
    ]


def transcribe(
    path: Path,
    engine: Path | Engine | None = None,
    *,
    channels: tuple[int, ...] | None = None,
    gate: float = GATE_DBFS,
    report: Callable[[str], None] = lambda _: None,
) -> list[Span]:
    """Chords of a sound file, decoded with the whole recording at hand: from 0 to its end without gaps.

    `channels`: those that are mixed, from 1; all by default. `gate`: dBFS, see `Gate`. `report` is told what is wrong
    with the file and does not keep it from being heard. UserError where it cannot be. The file is read block by block:
    an hour costs 11 MB.
    """
    source = FileSource(path, channels, False, report)
    try:
        loaded = _loaded(engine)
        manifest = loaded.manifest
        answers = Answers(source.rate, loaded, gate)
        smoother = Smoother(OFFLINE_PENALTY, 1 / manifest.features.frame_rate)
        heard = 0

        def push(samples: Float32) -> None:
            for _, classes, bass in answers.push(samples):
                smoother.push(classes, bass)

        for block in source.blocks():
            heard += block.size
            push(block)
    finally:
        source.close()
    push(np.zeros(round(answers.wait * source.rate), np.float32))  # what an engine waits for at the end is silence
    answers.reset()
    return _spans(smoother, lambda frame: answers.time_of(frame) - manifest.delay, heard / source.rate)
