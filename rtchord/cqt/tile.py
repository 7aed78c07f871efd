"""The innermost loop: a few windows times 48 columns of a kernel matrix, with all sums in vector registers.

Numba cannot be brought to keep such sums out of memory, and BLAS spends more on small products than they cost
(python -m benchmarks cqt), so this one loop is written as LLVM vectors. Every sum runs over the taps in order, one
fused multiply-add each where the machine has them, so a row is the same number whichever rows are computed beside it.
"""

# ruff: noqa: ARG001 (Numba takes a signature from the names of arguments that only their types are used of)

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from rtchord.compiled import compiled

Float32 = NDArray[np.float32]

LANES = 16  # float32 in a vector; LLVM splits it where the machine's are shorter
COLUMNS = 48  # of the matrix at once
ROWS = 3  # windows at once: 3 * 48 sums fit the registers


def _emit(
    builder: ir.IRBuilder, windows: list[Any], step: Any, matrix: Any, columns: Any, taps: Any, outs: list[Any]
) -> None:
    """LLVM code for `outs[r][j] = sum_t windows[r][t * step] * matrix[t, j]`, j < COLUMNS; pointers are integers."""
    scalar, integer = ir.FloatType(), ir.IntType(64)
    vector = ir.VectorType(scalar, LANES)
    undefined, first = ir.Constant(vector, ir.Undefined), ir.IntType(32)(0)
    every = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    parts = range(COLUMNS // LANES)
    windows = [builder.inttoptr(window, scalar.as_pointer()) for window in windows]
    outs = [builder.inttoptr(out, scalar.as_pointer()) for out in outs]
    matrix = builder.inttoptr(matrix, scalar.as_pointer())

    def at(pointer: Any, part: int) -> Any:
        return builder.bitcast(builder.gep(pointer, [integer(part * LANES)]), vector.as_pointer())

    before, loop, done = builder.block, builder.append_basic_block("taps"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    t = builder.phi(integer)
    sums = [[builder.phi(vector) for _ in parts] for _ in windows]
    row = builder.gep(matrix, [builder.mul(t, columns)])
    kernel = [builder.load(at(row, part), align=4) for part in parts]
    place = builder.mul(t, step)
    grown = []
    for window, old in zip(windows, sums, strict=True):
        sample = builder.insert_element(undefined, builder.load(builder.gep(window, [place])), first)
        sample = builder.shuffle_vector(sample, undefined, every)
        products = [builder.fmul(sample, kernel[part], flags=["contract"]) for part in parts]
        grown.append([builder.fadd(products[part], old[part], flags=["contract"]) for part in parts])
    following = builder.add(t, integer(1))
    t.add_incoming(integer(0), before)
    t.add_incoming(following, loop)
    for old, new in zip(sums, grown, strict=True):
        for part in parts:
            old[part].add_incoming(ir.Constant(vector, [0.0] * LANES), before)
            old[part].add_incoming(new[part], loop)
    builder.cbranch(builder.icmp_signed("<", following, taps), loop, done)
    builder.position_at_end(done)
    for out, new in zip(outs, grown, strict=True):
        for part in parts:
            builder.store(new[part], at(out, part), align=4)


def _emit_three(
    typing: Any, w0: Any, w1: Any, w2: Any, step: Any, matrix: Any, columns: Any, taps: Any, o0: Any, o1: Any, o2: Any
) -> Any:
    """Three windows; every argument is an integer, addresses included."""

    def emit(context: Any, builder: ir.IRBuilder, _: Any, args: list[Any]) -> Any:
        _emit(builder, list(args[:3]), args[3], args[4], args[5], args[6], list(args[7:]))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), emit


def _emit_one(typing: Any, window: Any, step: Any, matrix: Any, columns: Any, taps: Any, out: Any) -> Any:
    """One window."""

    def emit(context: Any, builder: ir.IRBuilder, _: Any, args: list[Any]) -> Any:
        _emit(builder, [args[0]], args[1], args[2], args[3], args[4], [args[5]])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), emit


_three: Any = intrinsic(_emit_three)
_one: Any = intrinsic(_emit_one)


@compiled()
def respond(
    samples: Float32, starts: NDArray[np.int64], step: int, matrix: Float32, first: int, response: Float32
) -> None:
    """`response` (rows, columns) = windows times `matrix` (taps, columns), of which rows before `first` are skipped.

    Window r is `samples[starts[r] + step * t]` for each row t of the matrix; `step` is 1 or -1. Columns must be a
    multiple of COLUMNS; all arrays are C-contiguous.
    """
    rows, columns = response.shape
    taps = matrix.shape[0] - first
    size = 4  # bytes
    wide = size * columns
    for column in range(0, columns, COLUMNS):
        m = matrix.ctypes.data + first * wide + size * column
        out = response.ctypes.data + size * column
        w = samples.ctypes.data + size * first * step
        row = 0
        while row + ROWS <= rows:
            _three(
                w + size * starts[row],
                w + size * starts[row + 1],
                w + size * starts[row + 2],
                step, m, columns, taps,
                out + row * wide, out + (row + 1) * wide, out + (row + 2) * wide,
            )  # fmt: skip
            row += ROWS
        while row < rows:
            _one(w + size * starts[row], step, m, columns, taps, out + row * wide)
            row += 1
