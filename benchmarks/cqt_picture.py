"""A picture of what latency buys: the same onset in centred, right-aligned and variable-Q frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtchord.audio.files import read_mono
from rtchord.cqt import DEFINITIONS, Features, FrameStream
from train.files import check_place, replaced

Float32 = NDArray[np.float32]

HOP = 128  # fine, so that the picture shows the transform and not its hop
BEFORE, AFTER = 0.4, 0.9  # s shown
PANELS = (
    ("librosa-0.11", "centred, final: as if the future were known"),
    ("live", "right-aligned: what is known at each moment"),
    ("live-vq", "variable-Q, right-aligned: longest window 168 ms"),
)


def strongest_onset(samples: Float32, rate: int) -> float:
    """s of the sharpest rise of energy that has room around it."""
    size = rate // 100
    energy = np.square(samples[: samples.size // size * size]).reshape(-1, size).sum(axis=1)
    level = np.log(energy + 1e-4 * energy.max())
    rise = level[5:] - np.convolve(level, np.full(5, 0.2), "valid")[: level.size - 5]
    first, last = int(100 * BEFORE), rise.size - int(100 * AFTER)
    if last <= first:
        first, last = 0, rise.size
    return (first + int(np.argmax(rise[first:last])) + 5) / 100


def frames_of(samples: Float32, rate: int, features: Features) -> tuple[Float32, NDArray[np.float64]]:
    """Frames and the time (s) each speaks of: the newest sample (right-aligned) or its centre."""
    stream = FrameStream(rate, features)
    frames = np.concatenate((stream.push(samples), stream.finish()))
    numbers = np.arange(len(frames)) + (1 if features.alignment == "right" else 0)
    return frames, numbers * features.hop / features.sample_rate


def picture(path: Path, png: Path) -> float:
    """Draw the strongest onset of a file into `png`; its time in s."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    check_place(png)
    samples, rate = read_mono(path)
    onset = strongest_onset(samples, rate)
    figure, panels = plt.subplots(len(PANELS), 1, figsize=(9, 11), sharex=True, constrained_layout=True)
    for axes, (name, title) in zip(panels, PANELS, strict=True):
        features = DEFINITIONS[name].model_copy(update={"hop": HOP, "log_offset": 1e-3})
        frames, times = frames_of(samples, rate, features)
        shown = (times >= onset - BEFORE) & (times <= onset + AFTER)
        db = 20 / np.log(10) * frames[shown]
        mesh = axes.pcolormesh(
            times[shown] - onset, features.frequencies, db.T, shading="nearest", cmap="magma",
            vmin=db.max() - 60, vmax=db.max(),
        )  # fmt: skip
        axes.set_yscale("log", base=2)
        axes.set_yticks([32.7 * 2**octave for octave in range(6)], [f"C{octave + 1}" for octave in range(6)])
        axes.axvline(0, color="white", linewidth=0.8, linestyle="--")
        axes.set_title(title, loc="left")
        figure.colorbar(mesh, ax=axes, label="dB")
    panels[-1].set_xlabel("s after the onset")
    with replaced(png) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    return onset
