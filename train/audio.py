"""Reading recordings of any usual format: libsndfile's, and what FFmpeg must decode (m4a), block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtchord.audio.files import AudioFile, read_mono
from rtchord.errors import UserError

Float32 = NDArray[np.float32]

SNDFILE = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
FFMPEG = {".m4a", ".mp4", ".aac"}
SUFFIXES = SNDFILE | FFMPEG
BLOCK_SECONDS = 10.0


class Recording(NamedTuple):
    """`rate` in Hz, `seconds` as the header states them, `blocks` of (n, channels) float32 from the start, once."""

    rate: int
    seconds: float
    blocks: Iterator[Float32]


@contextmanager
def opened(path: Path) -> Iterator[Recording]:
    """A recording to be read from the start; UserError, while opening or reading, where it cannot be decoded."""
    if path.suffix.lower() in FFMPEG:
        with _opened_by_ffmpeg(path) as recording:
            yield recording
        return
    audio = AudioFile(path)
    try:
        yield Recording(audio.rate, audio.duration, audio.blocks(int(BLOCK_SECONDS * audio.rate)))
    finally:
        audio.close()


@contextmanager
def _opened_by_ffmpeg(path: Path) -> Iterator[Recording]:
    try:
        import av
    except ImportError:
        raise UserError(f"cannot read {str(path)!r}: {path.suffix} needs PyAV; `pip install av`") from None
    from av.error import FFmpegError

    try:
        container = av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from None
    with container:
        if not container.streams.audio:
            raise UserError(f"cannot use {str(path)!r}: it holds no audio")
        stream = container.streams.audio[0]
        yield Recording(stream.rate, float((stream.duration or 0) * (stream.time_base or 0)), _decoded(container, path))


def _decoded(container, path: Path) -> Iterator[Float32]:  # type: ignore[no-untyped-def]
    import av
    from av.error import FFmpegError

    to_float = av.AudioResampler(format="fltp")  # planar float, the rate and channels as they are
    try:
        for frame in container.decode(audio=0):
            for converted in to_float.resample(frame):
                yield np.ascontiguousarray(converted.to_ndarray().T)
    except FFmpegError as error:
        raise UserError(f"cannot go on reading {str(path)!r}: {error}") from None


def read(path: Path) -> tuple[Float32, int]:
    """Whole recording as ((n,) float32, rate in Hz), the mean of its channels."""
    if path.suffix.lower() not in FFMPEG:
        return read_mono(path)
    with opened(path) as recording:
        blocks = [block.mean(axis=1, dtype=np.float32) for block in recording.blocks]
        if not blocks:
            raise UserError(f"cannot use {str(path)!r}: it holds no audio")
        return np.concatenate(blocks), recording.rate


def write(path: Path, audio: Float32, rate: int) -> None:
    """Mono `audio` (n,) to a file in the format of its name, whole or not at all. OSError."""
    file = BytesIO()  # of a disk that is full libsndfile says "System error"
    soundfile.write(file, audio, rate, format=path.suffix[1:])
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(file.getbuffer())
    temporary.replace(path)


def under(folder: Path) -> list[Path]:
    """What is named like a recording under `folder`, without the hidden files that some systems put beside; UserError
    where there is nothing."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}; give one with recordings")
    found = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    found = [path for path in found if not path.is_dir()]
    if not found:
        raise UserError(f"no recordings ({' '.join(sorted(SUFFIXES))}) under {str(folder)!r}")
    return sorted(found)


def tags(path: Path) -> dict[str, str | None]:
    """`title` and `artist` as a readable recording's own tags have them, or None."""
    if path.suffix.lower() in FFMPEG:
        import av

        with av.open(str(path)) as container:
            found = {name.lower(): text for name, text in container.metadata.items()}
    else:
        with soundfile.SoundFile(path) as file:
            found = file.copy_metadata()
    return {name: (found.get(name) or "").strip() or None for name in ("title", "artist")}
