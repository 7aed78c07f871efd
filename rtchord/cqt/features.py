"""What a feature frame is: the one definition from which kernels, latencies and state are built.

Right-aligned (``alignment="right"``, the live mode): 6 octaves of 24 bins from C1. Every bin's window ends at the
newest sample, so nothing waits for the future and nothing of the past window is cut. Octave `o` (0 = highest) is
computed at ``sample_rate / 2 ** (o + 1)``, reached by a chain of half-band decimators (Schoerkhuber & Klapuri, SMC
2010).

    C[k] = sqrt(L_k) * |sum_n w_k[n] x[now - n] exp(-2 pi i f_k n / fs)| / sum_n w_k[n]
    L_k = Q * sample_rate / (f_k + gamma * Q)
    feature[k] = log(C[k] + log_offset)

with w_k a Hann window of length L_k and Q = (r^2 + 1) / (r^2 - 1), r = 2 ** (1 / 24): librosa 0.11's Q and scale.
``gamma`` (Hz) widens every bin by as much: 0 is constant-Q, more makes the low windows shorter (variable-Q). With a
``companion`` a frame holds two sets of bins side by side: these, which tell neighbouring low notes apart, then the same
with that gamma and minimum-phase decimators, which hear sooner that something changed.

Centred (``alignment="centred"``): frame t is centred on sample t * hop and equals librosa's cqt, of the version that
``definition`` names, with its sparsified basis, its scale and its edges (zeros, or reflection for 0.6.3). Frames that
lack some of their future are computed as if the stream ended now.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

HANN_BANDWIDTH = 1.50018310546875  # equivalent noise bandwidth in bins, as librosa tabulates it


class Features(BaseModel):
    """What a feature frame is. Travels in every engine's manifest; nothing else defines it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cqt"] = "cqt"
    alignment: Literal["right", "centred"] = "right"
    version: Literal[1] = 1
    sample_rate: int = Field(22_050, gt=0, le=384_000, description="Hz")
    hop: int = Field(512, gt=0, le=65_536, description="samples between frames")
    octaves: int = Field(6, ge=1, le=8)
    bins_per_octave: int = Field(24, ge=12, le=96)
    fmin: float = Field(32.70319566257483, ge=8, description="Hz; C1")
    log_offset: float = Field(1e-3, gt=0)
    definition: Literal["rtchord", "librosa-0.11", "librosa-0.6.3"] = Field(
        "rtchord", description="whose numbers the frames equal; centred frames are librosa's"
    )
    gamma: float = Field(0.0, ge=0, le=1000, description="Hz added to every bin's bandwidth; 0 is constant-Q")
    decimator: Literal["linear", "minimum"] = Field("linear", description="phase of the half-band filters")
    companion: float = Field(0.0, ge=0, le=1000, description="gamma of a second set of bins in a frame; 0 is none")

    @model_validator(mode="after")
    def _consistent(self) -> Features:
        if self.hop % 2**self.octaves:
            raise ValueError(f"hop={self.hop} must be a multiple of {2**self.octaves} (2 ** octaves)")
        if self.frequencies[-1] > self.sample_rate / 5:
            raise ValueError(f"the highest bin ({self.frequencies[-1]:.0f} Hz) must be below sample_rate / 5")
        if (self.alignment == "centred") != (self.definition != "rtchord"):
            raise ValueError(f"alignment={self.alignment!r} does not go with definition={self.definition!r}")
        if self.alignment == "centred":
            if self.gamma or self.companion or self.decimator != "linear":
                raise ValueError("gamma, companion and decimator are choices of right-aligned features only")
            # librosa halves the rate before the first octave once, and only then has our chain of rates.
            cutoff = self.frequencies[-1] * (1 + 0.5 * HANN_BANDWIDTH / self.q)
            if not self.sample_rate / 16 < cutoff <= self.sample_rate / 8:
                raise ValueError(
                    f"sample_rate={self.sample_rate}: librosa computes a top bin of {self.frequencies[-1]:.0f} Hz at "
                    f"another rate than {self.sample_rate / 2:.0f} Hz"
                )
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a companion there is no word of one: engines sealed before there was such a thing stay valid."""
        fields: dict[str, Any] = write(self)
        if not self.companion:
            fields.pop("companion", None)
        return fields

    @classmethod
    def variable_q(cls, longest_ms: float, hop: int = 512) -> Features:
        """Right-aligned variable-Q features whose longest window lasts `longest_ms`, with decimators of least delay."""
        return cls(hop=hop, gamma=cls(hop=hop)._gamma_for(longest_ms), decimator="minimum")

    @classmethod
    def accompanied(cls, longest_ms: float, hop: int = 512) -> Features:
        """Constant-Q bins, and beside them the variable-Q bins of `variable_q`."""
        return cls(hop=hop, companion=cls(hop=hop)._gamma_for(longest_ms))

    def _gamma_for(self, longest_ms: float) -> float:
        """Hz by which to widen these constant-Q bins so that the longest window lasts `longest_ms`."""
        gamma = 1000 / longest_ms - self.fmin / self.q
        if gamma < 0:
            raise ValueError(f"longest_ms={longest_ms} is more than the constant-Q window of {self.longest_ms:.0f}")
        return gamma

    @property
    def sets(self) -> tuple[Features, ...]:
        """The sets of bins that lie side by side in a frame, each a definition of its own."""
        if not self.companion:
            return (self,)
        first = self.model_copy(update={"companion": 0.0})
        return first, first.model_copy(update={"gamma": self.companion, "decimator": "minimum"})

    @property
    def bins(self) -> int:
        """Of a frame, those of all sets."""
        return self.octaves * self.bins_per_octave * (2 if self.companion else 1)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(bins,) centre frequencies in Hz, ascending in each set."""
        steps: NDArray[np.float64] = np.arange(self.octaves * self.bins_per_octave) / self.bins_per_octave
        return np.tile(self.fmin * 2.0**steps, len(self.sets))

    @property
    def q(self) -> float:
        """Quality factor: centre frequency over bandwidth (where gamma is 0)."""
        if self.definition == "librosa-0.6.3":
            return float(1 / (2.0 ** (1 / self.bins_per_octave) - 1))
        r2 = 2.0 ** (2 / self.bins_per_octave)
        return float((r2 + 1) / (r2 - 1))

    @property
    def lengths(self) -> NDArray[np.float64]:
        """(bins,) window lengths in samples at `sample_rate`."""
        gamma = np.repeat([each.gamma for each in self.sets], self.octaves * self.bins_per_octave)
        return self.q * self.sample_rate / (self.frequencies + gamma * self.q)

    @property
    def longest_ms(self) -> float:
        """Length of the longest window in ms."""
        return float(1000 * self.lengths.max() / self.sample_rate)


def _librosa(version: Literal["librosa-0.11", "librosa-0.6.3"], hop: int) -> Features:
    return Features(alignment="centred", definition=version, hop=hop, log_offset=1e-6)


STAGE = "live-both"  # what a student for the stage hears, and what is written where no definition is named
DEFINITIONS: dict[str, Features] = {
    "live": Features(),
    "live-vq": Features.variable_q(longest_ms=168.0),
    "live-both": Features.accompanied(longest_ms=168.0),
    "live-hop256": Features(hop=256),
    "live-hop1024": Features(hop=1024),
    "librosa-0.11": _librosa("librosa-0.11", 2048),
    "librosa-0.11-hop512": _librosa("librosa-0.11", 512),
    "librosa-0.6.3": _librosa("librosa-0.6.3", 2048),
}
