"""A half-step and its reverse on one tile, compiled.

Every linear map here is alpha A + beta A^T, of one block-sparse matrix A: K itself, -K^T (MS1), U - U^T
(MS2, a trained J), X, X^T. Its adjoint is the same with alpha and beta swapped, and its gradient is
alpha q x^T + beta x q^T. F is the ``gradient`` of a Hamiltonian, K^T s(K x + b), or ``pointwise``, s(L x + b) with such
an L = alpha K + beta K^T.

An agent takes part in two steps: it *responds*, from the blocks that it reads, and its block is *settled*, from what
its readers responded. A list of steps says in which order: k for the response of agent k, ~k for settling its block.
A block is settled as soon as its readers have responded, while what they wrote is in cache; the responses of a gradient
lie in rows that they share, see ``Schedule``. Each step writes the agent's own rows only, and sums in a fixed
order: so the result is the same in every order that is allowed, on any number of threads.

Legend as in ``propagation.vector_fields``: u enters the reverse, q = s'(z) K u (or s'(z) u), v leaves it. States,
responses and their gradients are (rows, T), with T samples side by side.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hdnn_dist.kernels.cpu.activations import activate, activate_both
from hdnn_dist.kernels.cpu.tiles import add_product, outer, put_product
from hdnn_dist.support.compiled.functions import FAST, INLINE


@njit(**INLINE)
def add_forward(out, x, tables, k, A, scale):
    """The rows of agent k of out += scale A x."""
    at = tables.blocks[k]
    add_product(out, at.row, at.height, x, tables.reads, at.reads, at.reads_end, A, at.reads_end - at.reads, scale)


@njit(**INLINE)
def put_forward(out, o, x, tables, k, A, share, b):
    """out[o : o + rows of agent k] = share b + A x; ``b``: the biases of all agents."""
    at = tables.blocks[k]
    width = at.reads_end - at.reads
    put_product(out, o, at.height, x, tables.reads, at.reads, at.reads_end, A, width, share, b, at.bias - o)


@njit(**INLINE)
def add_adjoint(out, x, returns, tables, k, A, scale):
    """The rows of block k of out += scale A^T x, what all local readers of the block return, in ascending order.

    ``returns``: the terms, those of ``tables`` for buffer rows, those of a schedule for responses.
    """
    at = tables.blocks[k]
    add_product(out, at.row, at.height, x, returns, at.returns, at.returns_end, A, np.int64(1), scale)


@njit(**INLINE)
def add_outer(G, tables, k, q, p, x, scale):
    """The gradient of the rows of agent k += scale q x^T: its rows of q, from p on, the blocks of x that it reads.

    q and x are tuples, of whose parts the products are added up.
    """
    at = tables.blocks[k]
    outer(G, at.height, at.reads_end - at.reads, q, p, x, tables.reads, at.reads, scale)


@njit(**FAST)
def total(x, row):
    """The sum of a row."""
    result = x.dtype.type(0)
    for j in range(x.shape[1]):
        result += x[row, j]
    return result


@njit(**FAST)
def fill(out, first, rows, value):
    """out = value in some rows."""
    for row in range(first, first + rows):
        for j in range(out.shape[1]):
            out[row, j] = value


@njit(**FAST)
def copy_rows(out, x, first, rows):
    """out = x in some rows."""
    for row in range(first, first + rows):
        for j in range(x.shape[1]):
            out[row, j] = x[row, j]


@njit(**FAST)
def add_scaled(out, x, first, rows, scale):
    """out += scale x in some rows."""
    for row in range(first, first + rows):
        for j in range(x.shape[1]):
            out[row, j] += scale * x[row, j]


@njit(**INLINE)
def add_linear(out, x, tables, k, A, alpha, beta):
    """The rows of agent k of out += (alpha A + beta A^T) x."""
    if alpha != 0:
        add_forward(out, x, tables, k, A, alpha)
    if beta != 0:
        add_adjoint(out, x, tables.returns, tables, k, A, beta)


@njit(**FAST)
def set_bias(z, tables, k, b):
    """z = b in the rows of agent k; ``b``: the biases of all agents."""
    block = tables.blocks[k]
    for r in range(block.height):
        fill(z, block.row + r, 1, b[block.bias + r])


@njit(**FAST)
def add_totals(G, tables, k, q, p, scale):
    """The gradient of the bias of agent k += scale q, its rows from p on, summed over the tile."""
    block = tables.blocks[k]
    for r in range(block.height):
        G[block.bias + r] += scale * total(q, p + r)


@njit(**INLINE)
def gradient_forward(steps, schedule, tables, K, b, code, scale, x, s, out):
    """Response: s = s(K x + b). Settling: out += scale K^T s."""
    for step in steps:
        if step >= 0:
            put_forward(s, schedule.slots[step], x, tables, step, K, K.dtype.type(1), b)
            activate(code, s, schedule.slots[step], tables.blocks[step].height)
        else:
            add_adjoint(out, s, schedule.returns, tables, ~step, K, scale)


@njit(**INLINE)
def gradient_reverse(steps, schedule, tables, K, b, G, G_b, code, scale, x, u, s, q, undo, f, v):
    """Response: s = s(z) and q = s'(z) K u, z = K x + b; G += scale (q x^T + s u^T) and G_b += scale q.

    Settling: f += scale undo K^T s and v += scale K^T q.
    """
    for step in steps:
        if step >= 0:
            slot = schedule.slots[step]
            put_forward(s, slot, x, tables, step, K, K.dtype.type(1), b)
            put_forward(q, slot, u, tables, step, K, K.dtype.type(0), b)
            activate_both(code, s, q, slot, tables.blocks[step].height)
            add_totals(G_b, tables, step, q, slot, scale)
            add_outer(G, tables, step, (q, s), slot, (x, u), scale)
        else:
            if undo != 0:
                add_adjoint(f, s, schedule.returns, tables, ~step, K, scale * undo)
            add_adjoint(v, q, schedule.returns, tables, ~step, K, scale)


@njit(**INLINE)
def pointwise_forward(steps, tables, K, b, code, alpha, beta, scale, x, w, added, s, out):
    """Response: s = s(L x + b) and out += scale s; ``added``: whether L x has a share w from other ranks."""
    for step in steps:
        if step >= 0:
            row, rows = tables.blocks[step].row, tables.blocks[step].height
            set_bias(s, tables, step, b)
            add_linear(s, x, tables, step, K, alpha, beta)
            if added:
                add_scaled(s, w, row, rows, K.dtype.type(1))
            activate(code, s, row, rows)
            add_scaled(out, s, row, rows, scale)


@njit(**INLINE)
def pointwise_reverse(steps, tables, K, b, G, G_b, code, alpha, beta, scale, x, w, added, u, s, q, undo, f, v):
    """Response: s = s(z) and q = s'(z) u, z = L x + b, with w as before; the share of alpha in G, and G_b += scale q.

    Settling: f += scale undo s, v += scale L^T q, and the share of beta in G.
    """
    for step in steps:
        k = step if step >= 0 else ~step
        row, rows = tables.blocks[k].row, tables.blocks[k].height
        if step >= 0:
            set_bias(s, tables, k, b)
            add_linear(s, x, tables, k, K, alpha, beta)
            if added:
                add_scaled(s, w, row, rows, K.dtype.type(1))
            copy_rows(q, u, row, rows)
            activate_both(code, s, q, row, rows)
            add_totals(G_b, tables, k, q, row, scale)
            if alpha != 0:
                add_outer(G, tables, k, (q,), row, (x,), scale * alpha)
        else:
            if undo != 0:
                add_scaled(f, s, row, rows, scale * undo)
            add_linear(v, q, tables, k, K, scale * beta, scale * alpha)
            if beta != 0:
                add_outer(G, tables, k, (x,), row, (q,), scale * beta)


@njit(**FAST)
def couple(first, last, tables, A, alpha, beta, damping, scale, f, out):
    """out += scale C f in the rows of some agents, with C = alpha A + beta A^T - damping I."""
    for k in range(first, last):
        add_linear(out, f, tables, k, A, scale * alpha, scale * beta)
        if damping != 0:
            add_scaled(out, f, tables.blocks[k].row, tables.blocks[k].height, -scale * damping)


@njit(**FAST)
def couple_gradient(first, last, tables, G, alpha, beta, f, g):
    """The gradient of A += alpha g f^T + beta f g^T, for C as in ``couple``."""
    for k in range(first, last):
        if alpha != 0:
            add_outer(G, tables, k, (g,), tables.blocks[k].row, (f,), alpha)
        if beta != 0:
            add_outer(G, tables, k, (f,), tables.blocks[k].row, (g,), beta)
