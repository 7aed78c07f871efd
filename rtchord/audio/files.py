"""Reading audio files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtchord.audio.resample import MAX_RATE, MIN_RATE
from rtchord.errors import UserError

Float32 = NDArray[np.float32]


def _reason(error: Exception) -> str:
    """What libsndfile says, without its prefixes and full stop."""
    return str(error).rsplit(": ", 1)[-1].rstrip(".")


class AudioFile:
    """A readable sound file: `rate` (Hz), `channels`, `frames`; `blocks()` yields (n, channels) float32."""

    def __init__(self, path: Path) -> None:
        if os.path.isdir(path):
            raise UserError(f"cannot read {str(path)!r}: it is a folder")
        if not os.path.isfile(path):
            raise UserError(f"cannot read {str(path)!r}: there is no such file")
        try:
            # soundfile knows no names that are not UTF-8; as bytes it passes them on.
            self._file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise UserError(
                f"cannot read {str(path)!r}: {_reason(error)}; use WAV, FLAC, Ogg, Opus, MP3 or AIFF"
            ) from None
        self.path = path
        self.rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.frames = int(self._file.frames)
        if self.frames == 0:
            raise UserError(f"cannot use {str(path)!r}: it holds no audio")
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise UserError(
                f"cannot use {str(path)!r}: its rate of {self.rate} Hz is outside {MIN_RATE}..{MAX_RATE} Hz; convert it"
            )

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate

    def blocks(self, size: int) -> Iterator[Float32]:
        """Blocks of `size` frames (the last may be shorter), from the start."""
        self._file.seek(0)
        try:
            while True:
                block = self._file.read(size, dtype="float32", always_2d=True)
                if not block.size:
                    return
                yield block
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise UserError(f"cannot go on reading {str(self.path)!r}: {_reason(error)}") from None

    def close(self) -> None:
        self._file.close()


def read_mono(path: Path) -> tuple[Float32, int]:
    """Whole file as ((n,) float32, rate in Hz), the mean of its channels."""
    audio = AudioFile(path)
    try:
        blocks = [block.mean(axis=1, dtype=np.float32) for block in audio.blocks(1 << 20)]
        return np.concatenate(blocks), audio.rate
    finally:
        audio.close()
