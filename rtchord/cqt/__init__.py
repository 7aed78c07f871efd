"""Streaming constant-Q and variable-Q transforms of live audio.

``Features`` defines what a frame is; ``FrameStream`` makes frames of a stream at any rate, cut in any way. Two
alignments: *right* (every window ends at the newest sample, for live use) and *centred* (the frames of librosa's cqt,
as published checkpoints expect them).
"""

from rtchord.cqt.centred import CentredCQT
from rtchord.cqt.features import DEFINITIONS, STAGE, Features
from rtchord.cqt.kernels import centred_kernels, half_band, kernels
from rtchord.cqt.latency import Latency, latency
from rtchord.cqt.sliding import SlidingCQT
from rtchord.cqt.stream import FrameStream, WindowStream

__all__ = [
    "DEFINITIONS",
    "STAGE",
    "CentredCQT",
    "Features",
    "FrameStream",
    "Latency",
    "SlidingCQT",
    "WindowStream",
    "centred_kernels",
    "half_band",
    "kernels",
    "latency",
]
