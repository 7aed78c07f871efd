"""Whether anybody plays.

What is struck and rings is music at any level down to the noise; what was there before anybody played is not.

The student knows hum, hiss, fans and talk, and says N of them. So the gate has two things left to do:

* A frame in which no bin holds a sinusoid of `floor` dBFS is silence, whatever the student makes of its numbers.
* What the student calls N for a while, and keeps its level meanwhile, is the noise of this stage. From then on a frame
  in which no bin is MARGIN_DB above that noise is N too: a student that errs in a frame of hum names nothing, and a
  chord that dies away into the hum ends there.

Nothing is known of the noise when a stream begins, so the first chord of a set is heard however quiet it is. A chord
that is held cannot become noise, since the student says what it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtchord.cqt import Features

Float32 = NDArray[np.float32]

MARGIN_DB = 8.0
STEADY_SECONDS = 2.0  # for which noise was N, and the mean of each of its bins within MARGIN_DB
MEAN_SECONDS = 0.23
_NATS_PER_DB = np.log(10) / 20


class Gate:
    """State of the gate over one stream. Of a frame's sets of bins the first is heard, whose narrow bins hold the least
    noise.

    `features`: what a frame is; `floor`: dBFS of a sinusoid below which there is silence.
    """

    def __init__(self, features: Features, floor: float) -> None:
        features = features.sets[0]
        self._bins = features.bins
        full_scale = np.log(np.sqrt(features.lengths) / 2)  # log magnitude of a sinusoid of 0 dBFS
        self._floor = np.log(np.exp(full_scale + floor * _NATS_PER_DB) + features.log_offset).astype(np.float32)
        self._margin = np.float32(MARGIN_DB * _NATS_PER_DB)
        self._stretch = max(1, round(STEADY_SECONDS * features.frame_rate))
        self._share = np.float32(1 / (MEAN_SECONDS * features.frame_rate))
        self._mean, self._lowest, self._highest, self._noise, self._limit = np.empty((5, features.bins), np.float32)
        self._yes = np.empty(features.bins, np.bool_)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream, of whose noise nothing is known."""
        self._noise.fill(-np.inf)
        self._first = True
        self._begin()

    def _begin(self) -> None:
        """Begin a stretch of noise."""
        self._quiet = 0  # frames of it
        self._lowest.fill(np.inf)
        self._highest.fill(-np.inf)

    def silent(self, frame: Float32, no_chord: bool) -> bool:
        """Whether nobody plays in this frame (bins,), of which the student says N or not; to be given every frame of
        the stream, in order."""
        if frame.size > self._bins:
            frame = frame[: self._bins]
        limit, yes = self._limit, self._yes
        if self._first:
            self._first = False
            np.copyto(self._mean, frame)
        np.subtract(frame, self._mean, out=limit)
        np.multiply(limit, self._share, out=limit)
        np.add(self._mean, limit, out=self._mean)
        np.minimum(self._noise, self._mean, out=self._noise)  # what has become quieter was not the noise, or it is over
        if no_chord:
            np.minimum(self._lowest, self._mean, out=self._lowest)
            np.maximum(self._highest, self._mean, out=self._highest)
            self._quiet += 1
            if self._quiet == self._stretch:
                np.subtract(self._highest, self._lowest, out=limit)
                np.less(limit, self._margin, out=yes)
                np.copyto(self._noise, self._lowest, where=yes)
                self._begin()
        elif self._quiet:
            self._begin()
        np.add(self._noise, self._margin, out=limit)
        np.maximum(limit, self._floor, out=limit)
        np.less(frame, limit, out=yes)
        return bool(yes.all())
