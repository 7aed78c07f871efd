"""The whole chain as a library call: samples in, chord events out. No thread, no clock, no device.

>>> recognizer = Recognizer(48_000)              # doctest: +SKIP
>>> events = recognizer.push(block)              # doctest: +SKIP
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtchord import engine as engines
from rtchord.audio.files import read_mono
from rtchord.chords import N_BASS, N_CLASSES, NO_BASS, NO_CHORD, Chord, N
from rtchord.cqt import Features, FrameStream
from rtchord.decoder import PRESETS, Decision, Decoder, DecoderSettings, smooth
from rtchord.engine import Engine
from rtchord.errors import UserError
from rtchord.events import ChordEvent

Float32 = NDArray[np.float32]

GATE_DBFS = -70.0  # a frame in which no sinusoid is louder than this is silence, whatever the model thinks of it
OFFLINE_PENALTY = 20.0  # nats for a change in the offline decode


def silence_threshold(features: Features) -> Float32:
    """(bins,) log magnitude of a sinusoid of GATE_DBFS at each bin."""
    amplitude = 10 ** (GATE_DBFS / 20)
    return np.log(amplitude / 2 * np.sqrt(features.lengths) + features.log_offset).astype(np.float32)


class Recognizer:
    """Streaming chord recognizer for one mono stream at `rate` Hz.

    `engine`: folder of an engine, None for the shipped one, or a loaded one, as `rtchord.engine.choose` gives.
    `latency`: a preset of `rtchord.decoder.PRESETS`, or decoder settings. Raises UserError for a bad engine or an
    unknown preset, ValueError for a rate out of range.
    """

    def __init__(
        self, rate: int, engine: Path | str | Engine | None = None, latency: str | DecoderSettings = "balanced"
    ) -> None:
        if rate != int(rate):
            raise ValueError(f"the sample rate must be a whole number of Hz, not {rate}")
        rate = int(rate)
        if isinstance(latency, str):
            if latency not in PRESETS:
                raise UserError(f"unknown latency preset {latency!r}; use one of {', '.join(PRESETS)}")
            latency = PRESETS[latency]
        self.engine = _loaded(engine)
        self._stream = FrameStream(rate, self.engine.manifest.features)
        self._decoder = Decoder(latency)
        self._silence = silence_threshold(self.engine.manifest.features)
        self._n_classes, self._n_bass = _one_hot_silence()
        self._emitted = False

    def reset(self) -> None:
        """Begin a new stream at time 0."""
        self._stream.reset()
        self.engine.reset()
        self._decoder.reset()
        self._emitted = False

    def warm_up(self) -> None:
        """Compile what is compiled at first use, then begin a new stream. Call before a device is opened."""
        self.push(np.zeros(self._stream.resampler.rate_in // 5, np.float32))
        self.reset()

    def push(self, samples: Float32) -> list[ChordEvent]:
        """Events of a block of samples: (n,) float32, any n. NaN and infinities count as silence.

        The events are the same for every way of cutting the stream into blocks.
        """
        first = self._stream.frames
        events = []
        for number, frame in enumerate(self._stream.push(samples), first):
            classes, bass = self._posteriors(frame)
            decision = self._decoder.push(number, classes, bass)
            if decision is None and not self._emitted:
                # The stream begins with N, said once, so that whoever listens has a state to start from.
                decision = Decision(0, number, self._decoder.current, float(classes[N]))
            if decision is not None:
                events.append(self._event(decision))
        return events

    def flush(self) -> list[ChordEvent]:
        """Events still owed at the end of the stream: none, as nothing is delayed beyond its decision."""
        return []

    def _posteriors(self, frame: Float32) -> tuple[Float32, Float32]:
        classes, bass = self.engine.step(frame)
        if (frame < self._silence).all():
            return self._n_classes, self._n_bass
        return classes, bass

    def _event(self, decision: Decision) -> ChordEvent:
        hop = self._stream.features.hop / self._stream.features.sample_rate
        onset = 0.0 if not self._emitted else max(0.0, self._stream.time_of(decision.onset) - hop)
        self._emitted = True
        return ChordEvent(onset, self._stream.time_of(decision.frame), decision.chord, decision.confidence)


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
    """Posteriors of a whole recording: classes (frames, 170), bass (frames, 13), and each frame's time in s."""
    stream = FrameStream(rate, engine.manifest.features)
    frames = stream.push(samples)
    silent = np.all(frames < silence_threshold(engine.manifest.features), axis=1)
    no_classes, no_bass = _one_hot_silence()
    classes = np.empty((len(frames), no_classes.size), np.float32)
    bass = np.empty((len(frames), no_bass.size), np.float32)
    engine.reset()
    for i, frame in enumerate(frames):
        heard = engine.step(frame)
        classes[i], bass[i] = (no_classes, no_bass) if silent[i] else heard
    engine.reset()
    return classes, bass, np.array([stream.time_of(i) for i in range(len(frames))])


def segment(
    classes: Float32, bass: Float32, times: NDArray[np.float64], end: float, delay: float
) -> list[tuple[float, float, Chord]]:
    """Chords of a whole recording from its posteriors: (start s, end s, chord) from 0 to `end` without gaps.

    `times` (frames,): s at which each frame was known; `delay`: s by which posteriors follow the sound, which an
    offline decode takes off again.
    """
    starts = np.maximum(times - delay, 0.0)
    found = smooth(classes, bass, OFFLINE_PENALTY) or [(0, 0, NO_CHORD)]
    edges = [0.0, *(float(starts[first]) for first, _, _ in found[1:]), end]
    return [(a, b, chord) for (a, b), (_, _, chord) in zip(pairwise(edges), found, strict=True) if b > a]


def transcribe(path: Path, engine: Path | Engine | None = None) -> list[tuple[float, float, Chord]]:
    """Chords of a sound file as (start s, end s, chord), decoded with the whole recording at hand.

    The segments cover the file from 0 to its end without gaps.
    """
    samples, rate = read_mono(path)
    loaded = _loaded(engine)
    classes, bass, times = posteriors(samples, rate, loaded)
    return segment(classes, bass, times, samples.size / rate, loaded.manifest.delay)
