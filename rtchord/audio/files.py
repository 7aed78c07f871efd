"""Reading sound: files, those too that were never finished or are cut off, and pipes.

A recorder that loses power leaves a header that tells no length, or a wrong one. What is there is heard then, and
whoever reads is told. A pipe is heard as it comes if it brings WAV, RF64, W64 or AIFF, and any other format when all of
it has come.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from rtchord.audio.resample import MAX_RATE, MIN_RATE
from rtchord.errors import UserError

Float32 = NDArray[np.float32]

FORMATS = "use WAV, FLAC, Ogg, Opus, MP3 or AIFF"
MAGIC = (b"RIFF", b"RF64", b"BW64", b"riff", b"FORM", b"fLaC", b"OggS", b"ID3", b"\xff", b"caff", b".snd")
PIECE = 4096  # frames read at a time: of what is damaged no more is lost
HEAD, LONGEST_HEAD = 1 << 12, 1 << 20  # bytes of a pipe in which its header is looked for
MOST_CHUNKS = 1000  # before the samples
STREAMED = 0x7FFF_0000  # bytes; who writes a WAV into a pipe claims at least so many
ENDLESS = 1 << 62  # bytes
TOLERANCE = 0.1  # s by which a length may be wrong, as that of an MP3 may
LAST_PAGE = 1 << 16  # bytes; no page of an Ogg file is longer

# Bytes of a sample, of the kinds that can be read without a header.
WIDTHS = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1,
}  # fmt: skip


class _Form(NamedTuple):
    """How a file is made of chunks, each with a name and a size.

    `first`: where the first one stands; `name`, `size`: bytes of these fields; `own`: of the header, where the size
    includes it; `align`: chunks begin at multiples of it; `samples`: the name of the one with the samples, after `skip`
    bytes.
    """

    order: Literal["little", "big"]
    first: int
    name: int
    size: int
    own: int
    align: int
    samples: bytes
    skip: int


_RIFF = _Form("little", 12, 4, 4, 0, 2, b"data", 0)
FORMS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"riff": _Form("little", 40, 16, 8, 24, 8, b"data", 0),  # Sony Wave64
    b"FORM": _Form("big", 12, 4, 4, 0, 2, b"SSND", 8),  # AIFF
}


class _Samples(NamedTuple):
    """Where the samples begin and how many bytes they have, if the header is right."""

    form: _Form
    start: int
    length: int

    @property
    def known(self) -> bool:
        """Whether the length is more than what stands there until a file is finished."""
        return 0 < self.length < (STREAMED if self.form.size == 4 else ENDLESS)

    def empty(self, file: IO[bytes], size: int) -> bool:
        """Whether there are none: the file (of `size` bytes) ends where they would begin, or another chunk follows."""
        chunk = _chunk(self.form, file, self.start)
        if self.length or chunk is None:
            return self.start >= size
        name, start, length = chunk
        return name.isascii() and name.decode("ascii").isprintable() and 0 < length <= size - start


def _chunk(form: _Form, file: IO[bytes], at: int) -> tuple[bytes, int, int] | None:
    """Name, first byte and size of the chunk at `at`; None where there is none."""
    file.seek(at)
    header = file.read(form.name + form.size)
    if len(header) < form.name + form.size:
        return None
    return header[:4], at + len(header), max(0, int.from_bytes(header[form.name :], form.order) - form.own)


def _find_samples(file: IO[bytes]) -> _Samples | None:
    """The samples of a file that is made of chunks; None for any other, and where `file` ends before them."""
    file.seek(0)
    form = FORMS.get(file.read(4))
    if form is None:
        return None
    at, long = form.first, None
    for _ in range(MOST_CHUNKS):
        chunk = _chunk(form, file, at)
        if chunk is None:
            return None
        name, start, size = chunk
        if name == b"ds64":  # the sizes of an RF64 file that do not fit in their places
            file.seek(start + 8)
            long = int.from_bytes(file.read(8), "little")
        if name == form.samples:
            if long and size == 0xFFFF_FFFF:
                form, size = form._replace(size=8), long
            return _Samples(form, start + form.skip, max(0, size - form.skip))
        at = start + size + -size % form.align
    return None


class _Sound(soundfile.SoundFile):  # type: ignore[misc]
    """libsndfile knows where it is. soundfile seeks there after each read as well, which fails where a file ends early
    or its length is unknown, and what was read is lost."""

    def seekable(self) -> bool:
        return False


class _Bare:
    """What libsndfile asks of a file that it reads, over samples without a header: `head`, then the rest of `stream`,
    `length` bytes in all.

    What is raised while it waits, as by a signal, cannot go through C: it is kept in `error`, and the stream is over.
    """

    def __init__(self, stream: IO[bytes], length: int, head: bytes = b"") -> None:
        self.error: BaseException | None = None
        self.once = not stream.seekable()  # whether it cannot be read again
        self._stream, self._length, self._head = stream, length, head
        self._start = 0 if self.once else stream.tell()
        self._left = length
        self._at = 0  # where libsndfile believes to be; it asks for the length by going to the end

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer`, or as much of it as there is until the end; how many bytes that is."""
        wanted = min(len(buffer), self._left)
        filled = 0
        try:
            while filled < wanted and self.error is None:
                more = self._head[: wanted - filled] or self._stream.read(wanted - filled)
                self._head = self._head[len(more) :]
                if not more:
                    break
                buffer[filled : filled + len(more)] = more
                filled += len(more)
        except BaseException as error:
            self.error = error
        self._left -= filled
        return filled

    def read(self, count: int) -> bytes:
        """The same as new bytes; soundfile looks whether there is such a method."""
        buffer = memoryview(bytearray(count))
        return bytes(buffer[: self.readinto(buffer)])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        if self._at == 0 and not self.once:
            self._stream.seek(self._start)
            self._left = self._length
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._stream.close()


class _Opened(NamedTuple):
    """`frames`: as many as there should be, None where nobody knows; `note`: what is wrong, though it can be heard;
    `bare`: what `sound` reads from, where that is not the file itself."""

    sound: soundfile.SoundFile
    frames: int | None
    note: str = ""
    bare: _Bare | None = None


def _bare(bare: _Bare, like: soundfile.SoundFile, samples: _Samples) -> _Sound:
    """`bare` as a sound in the format of `like`."""
    return _Sound(
        bare, format="RAW", subtype=like.subtype, samplerate=like.samplerate, channels=like.channels,
        endian=samples.form.order.upper() if like.endian == "FILE" else like.endian,
    )  # fmt: skip


def _open(path: Path, report: Callable[[str], None]) -> _Opened:
    """UserError, OSError, or soundfile's errors where it cannot be."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"cannot read {str(path)!r}: it is a folder")
    if stat.S_ISFIFO(mode):
        return _open_pipe(path, report)
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot read {str(path)!r}: it is neither a file nor a pipe")
    with path.open("rb") as file:
        return _open_file(path, file, path if os.name == "nt" else os.fsencode(path))  # a name need not be text


def _open_file(path: Path, file: IO[bytes], source: Path | bytes | int) -> _Opened:
    """`file`: what is to be read, for a look into it; `source`: the same for libsndfile."""
    size = file.seek(0, os.SEEK_END)
    head = _at(file, 0, 10)
    samples = _find_samples(file)
    ends = not head.startswith(b"OggS") or _ogg_ends(_at(file, max(0, size - LAST_PAGE), LAST_PAGE))
    if isinstance(source, int):  # it shares its place with `file`, as the system sees that
        os.lseek(source, 0, os.SEEK_SET)
    try:
        sound = _Sound(source)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {_why(error, head, size)}") from None
    frames = sound.frames if sound.frames < ENDLESS else None
    if samples is None:
        return _Opened(sound, frames, "" if ends else "it was cut off")
    if 0 < samples.length <= size - samples.start or samples.empty(file, size):
        return _Opened(sound, frames)
    bare = None
    if frames == 0:
        sound.close()
        if sound.subtype not in WIDTHS:
            raise UserError(f"cannot use {str(path)!r}: it was not finished; repair its header")
        rest = size - samples.start
        frames = rest // (WIDTHS[sound.subtype] * sound.channels)
        stream = path.open("rb")
        stream.seek(samples.start)
        bare = _Bare(stream, rest)
        sound = _bare(bare, sound, samples)
    there = f"the {(frames or 0) / sound.samplerate:.1f} s that are there"
    told = f"it was cut off: its header tells of more than {there}"
    return _Opened(
        sound, frames, told if samples.known else f"it was not finished: its header does not tell of {there}", bare
    )


def _at(file: IO[bytes], start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _ogg_ends(tail: bytes) -> bool:
    """Whether the last bytes of an Ogg file hold its last page, to the end of it."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return bool(segments) and bool(page[5] & 4) and len(page) >= 27 + len(segments) + sum(segments)


def _open_pipe(path: Path, report: Callable[[str], None]) -> _Opened:
    stream = path.open("rb", buffering=0)
    try:
        head, wanted = b"", HEAD
        while True:
            while len(head) < wanted and (more := stream.read(wanted - len(head))):
                head += more
            samples = _find_samples(BytesIO(head))
            if samples or head[:4] not in FORMS or len(head) < wanted or wanted >= LONGEST_HEAD:
                break
            wanted *= 4
        if not head.startswith(MAGIC):
            why = f"Format not recognised; {FORMATS}" if head else "nothing came"
            raise UserError(f"cannot read {str(path)!r}: {why}")
        like = _header(head)
        if samples and like and like.subtype in WIDTHS:
            frames = samples.length // (WIDTHS[like.subtype] * like.channels) if samples.known else None
            bare = _Bare(stream, samples.length if samples.known else ENDLESS, head[samples.start :])
            return _Opened(_bare(bare, like, samples), frames, "", bare)
    except BaseException:
        stream.close()
        raise
    with stream, tempfile.TemporaryFile() as whole:
        report(f"{str(path)!r} is read to its end first: through a pipe only WAV and AIFF are heard as they come")
        whole.write(head)
        shutil.copyfileobj(stream, whole)
        whole.flush()
        with open(os.dup(whole.fileno()), "rb", buffering=0) as file:
            return _open_file(path, file, os.dup(whole.fileno()))


def _header(head: bytes) -> soundfile.SoundFile | None:
    """The format that the beginning of a file tells; None where libsndfile must see more of it."""
    try:
        return soundfile.SoundFile(BytesIO(head))
    except soundfile.LibsndfileError:
        return None


def _reason(error: Exception) -> str:
    """What libsndfile or the system says, without its prefixes and full stop."""
    return (getattr(error, "strerror", None) or str(error).rsplit(": ", 1)[-1]).rstrip(".")


def _why(error: Exception, head: bytes, size: int) -> str:
    """Why a file cannot be opened, of which `head` are the first 10 bytes. Of an MP3 whose tag has no end libsndfile
    says that it does not exist."""
    if not size:
        return "it is empty"
    if head.startswith(b"ID3") and len(head) == 10:
        tag = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        if tag + len(head) > size:
            return f"its ID3 tag claims {tag} bytes and the file has {size}; write its tags anew, or convert it"
    return f"{_reason(error)}; {FORMATS}"


class AudioFile:
    """A readable sound file or pipe: `rate` (Hz), `channels`; `blocks()` yields (n, channels) float32.

    `frames`: as many as there should be, by the header; 0 where nobody knows. `report` is told, in sentences, of what
    is wrong with it and does not keep it from being heard. What cannot be read at all is a UserError, and without
    `report` so is one that is damaged on the way.
    """

    def __init__(self, path: Path, report: Callable[[str], None] | None = None) -> None:
        self.path, self._report = path, report
        self._tell = report or (lambda _: None)
        try:
            self._opened = _open(path, self._tell)
        except FileNotFoundError:
            raise UserError(f"cannot read {str(path)!r}: there is no such file") from None
        except (soundfile.LibsndfileError, RuntimeError, OSError, ValueError) as error:
            raise UserError(f"cannot read {str(path)!r}: {_reason(error)}") from None
        sound = self._opened.sound
        self.rate, self.channels = int(sound.samplerate), int(sound.channels)
        self.frames = self._opened.frames or 0
        problem = ""
        if self._opened.frames == 0:
            problem = "it holds no audio"
        elif not MIN_RATE <= self.rate <= MAX_RATE:
            problem = f"its rate of {self.rate} Hz is outside {MIN_RATE}..{MAX_RATE} Hz; convert it"
        if problem:
            self.close()
            raise UserError(f"cannot use {str(path)!r}: {problem}")
        if self._opened.note:
            self._tell(f"{str(path)!r} is heard to its end, but {self._opened.note}")

    @property
    def duration(self) -> float:
        """Seconds, by the header; 0 where it does not tell."""
        return self.frames / self.rate

    def blocks(self, size: int) -> Iterator[Float32]:
        """Blocks of `size` frames (the last may be shorter), from the start; a pipe has them once."""
        if not (self._opened.bare and self._opened.bare.once):
            self._opened.sound.seek(0)
        heard, problem = 0, ""
        while not problem:
            block = np.empty((size, self.channels), np.float32)
            filled = 0
            try:
                while filled < size and (count := self._read_into(block[filled : filled + PIECE])):
                    filled += count
            except (soundfile.LibsndfileError, RuntimeError) as error:
                problem = _reason(error)
            if not filled:
                break
            heard += filled
            yield block[:filled]
        if problem and (self._report is None or not heard):
            raise UserError(f"cannot go on reading {str(self.path)!r}: {problem}")
        if not heard:
            raise UserError(f"cannot use {str(self.path)!r}: it holds no audio")
        ends = f"{str(self.path)!r} is heard up to {heard / self.rate:.1f} s"
        if problem:
            self._tell(f"{ends}; the rest is damaged or was cut off: {problem}")
        elif (self.frames - heard) / self.rate > TOLERANCE:
            self._tell(f"{ends}; it was cut off: its header tells of {self.duration:.1f} s")

    def _read_into(self, block: Float32) -> int:
        """The next frames; how many there were."""
        count = len(self._opened.sound.read(out=block))
        if self._opened.bare and self._opened.bare.error:
            raise self._opened.bare.error
        return count

    def close(self) -> None:
        self._opened.sound.close()
        if self._opened.bare:
            self._opened.bare.close()


def read_mono(path: Path) -> tuple[Float32, int]:
    """Whole file as ((n,) float32, rate in Hz), the mean of its channels."""
    audio = AudioFile(path)
    try:
        blocks = [block.mean(axis=1, dtype=np.float32) for block in audio.blocks(1 << 20)]
        return np.concatenate(blocks), audio.rate
    finally:
        audio.close()
