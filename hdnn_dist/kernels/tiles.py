"""Products with one agent's blocks on a tile of samples, compiled: the innermost loops of the fused kernel.

A tile is (rows, T): T samples side by side, few enough that the rows at hand stay in cache. Four rows of the result by
four of the operand are worked on at a time, so that each number is used four times for each load. All loops over
samples are innermost and vectorised by the compiler. Fast-math may reorder sums, but has to keep NaN and infinity.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from numba import njit

# LLVM leaves a loop as it is if it takes more than 8 comparisons to know that its rows are apart.
llvmlite.binding.set_option("hdnn_dist", "--runtime-memory-check-threshold=128")

FAST: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,  # called by the passes only
    "no_cfunc_wrapper": True,
}

INLINE = {**FAST, "inline": "always"}


@njit(**INLINE)
def _four_by_four(out, o, x, i0, i1, i2, i3, K, k, down, along, scale):
    """out[o : o + 4] += scale K x[i], K's entries ``down`` apart for the rows and ``along`` apart for the columns."""
    a00, a01, a02, a03 = scale * K[k], scale * K[k + along], scale * K[k + 2 * along], scale * K[k + 3 * along]
    k += down
    a10, a11, a12, a13 = scale * K[k], scale * K[k + along], scale * K[k + 2 * along], scale * K[k + 3 * along]
    k += down
    a20, a21, a22, a23 = scale * K[k], scale * K[k + along], scale * K[k + 2 * along], scale * K[k + 3 * along]
    k += down
    a30, a31, a32, a33 = scale * K[k], scale * K[k + along], scale * K[k + 2 * along], scale * K[k + 3 * along]
    for j in range(out.shape[1]):
        x0, x1, x2, x3 = x[i0, j], x[i1, j], x[i2, j], x[i3, j]
        out[o, j] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
        out[o + 1, j] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
        out[o + 2, j] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
        out[o + 3, j] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3


@njit(**INLINE)
def _one_by_four(out, o, x, i0, i1, i2, i3, K, k, along, scale):
    a0, a1, a2, a3 = scale * K[k], scale * K[k + along], scale * K[k + 2 * along], scale * K[k + 3 * along]
    for j in range(out.shape[1]):
        out[o, j] += a0 * x[i0, j] + a1 * x[i1, j] + a2 * x[i2, j] + a3 * x[i3, j]


@njit(**INLINE)
def _one_by_one(out, o, x, i, a):
    for j in range(out.shape[1]):
        out[o, j] += a * x[i, j]


@njit(**FAST)
def product(out, o, rows, x, index, i, columns, K, k, down, along, scale):
    """out[o : o + rows] += scale B x[index[i : i + columns]].

    B is (rows, columns), its first entry K[k], the next one in its column ``down`` further, in its row ``along``.
    """
    for r in range(0, rows - 3, 4):
        at = k + r * down
        for c in range(0, columns - 3, 4):
            n = i + c
            _four_by_four(out, o + r, x, index[n], index[n + 1], index[n + 2], index[n + 3],
                          K, at + c * along, down, along, scale)  # fmt: skip
        for c in range(columns - columns % 4, columns):
            for row in range(4):
                _one_by_one(out, o + r + row, x, index[i + c], scale * K[at + row * down + c * along])
    for row in range(rows - rows % 4, rows):
        at = k + row * down
        for c in range(0, columns - 3, 4):
            n = i + c
            _one_by_four(out, o + row, x, index[n], index[n + 1], index[n + 2], index[n + 3],
                         K, at + c * along, along, scale)  # fmt: skip
        for c in range(columns - columns % 4, columns):
            _one_by_one(out, o + row, x, index[i + c], scale * K[at + c * along])


@njit(**INLINE)
def _two_by_four(q, p, x, i0, i1, i2, i3):
    g00 = g01 = g02 = g03 = g10 = g11 = g12 = g13 = q.dtype.type(0)
    for j in range(q.shape[1]):
        q0, q1 = q[p, j], q[p + 1, j]
        x0, x1, x2, x3 = x[i0, j], x[i1, j], x[i2, j], x[i3, j]
        g00 += q0 * x0
        g01 += q0 * x1
        g02 += q0 * x2
        g03 += q0 * x3
        g10 += q1 * x0
        g11 += q1 * x1
        g12 += q1 * x2
        g13 += q1 * x3
    return g00, g01, g02, g03, g10, g11, g12, g13


@njit(**INLINE)
def dot(q, p, x, i):
    """The sum over the tile of q[p] x[i]."""
    total = q.dtype.type(0)
    for j in range(q.shape[1]):
        total += q[p, j] * x[i, j]
    return total


@njit(**FAST)
def outer(G, k, rows, columns, q, p, x, slots, slot, scale):
    """G_i += scale q[p : p + rows] x[slots]^T, summed over the tile; G_i (rows, columns) from entry k on."""
    for r in range(0, rows - 1, 2):
        for c in range(0, columns - 3, 4):
            i, at = slot + c, k + r * columns + c
            g = _two_by_four(q, p + r, x, slots[i], slots[i + 1], slots[i + 2], slots[i + 3])
            for n in range(4):
                G[at + n] += scale * g[n]
                G[at + columns + n] += scale * g[4 + n]
        for c in range(columns - columns % 4, columns):
            for row in range(r, r + 2):
                G[k + row * columns + c] += scale * dot(q, p + row, x, slots[slot + c])
    if rows % 2:
        for c in range(columns):
            G[k + (rows - 1) * columns + c] += scale * dot(q, p + rows - 1, x, slots[slot + c])


@njit(**INLINE)
def _two_by_four_twice(q, s, p, x, u, i0, i1, i2, i3):
    g00 = g01 = g02 = g03 = g10 = g11 = g12 = g13 = q.dtype.type(0)
    for j in range(q.shape[1]):
        q0, q1, s0, s1 = q[p, j], q[p + 1, j], s[p, j], s[p + 1, j]
        x0, x1, x2, x3 = x[i0, j], x[i1, j], x[i2, j], x[i3, j]
        u0, u1, u2, u3 = u[i0, j], u[i1, j], u[i2, j], u[i3, j]
        g00 += q0 * x0 + s0 * u0
        g01 += q0 * x1 + s0 * u1
        g02 += q0 * x2 + s0 * u2
        g03 += q0 * x3 + s0 * u3
        g10 += q1 * x0 + s1 * u0
        g11 += q1 * x1 + s1 * u1
        g12 += q1 * x2 + s1 * u2
        g13 += q1 * x3 + s1 * u3
    return g00, g01, g02, g03, g10, g11, g12, g13


@njit(**FAST)
def outer_twice(G, k, rows, columns, q, s, p, x, u, slots, slot):
    """G_i += q x^T + s u^T, as two calls of ``outer``, with half the work beside the products."""
    for r in range(0, rows - 1, 2):
        for c in range(0, columns - 3, 4):
            i, at = slot + c, k + r * columns + c
            g = _two_by_four_twice(q, s, p + r, x, u, slots[i], slots[i + 1], slots[i + 2], slots[i + 3])
            for n in range(4):
                G[at + n] += g[n]
                G[at + columns + n] += g[4 + n]
        for c in range(columns - columns % 4, columns):
            for row in range(r, r + 2):
                G[k + row * columns + c] += dot(q, p + row, x, slots[slot + c]) + dot(s, p + row, u, slots[slot + c])
    if rows % 2:
        row = rows - 1
        for c in range(columns):
            G[k + row * columns + c] += dot(q, p + row, x, slots[slot + c]) + dot(s, p + row, u, slots[slot + c])
