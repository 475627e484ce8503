"""Whole passes through many layers on one rank, compiled: programs (``kernels.programs``) that are carried out.

States come and go as the user has them, (batch, features, positions); inside, a tile is (rows, T) in a room of its own,
with T samples side by side, taken through all layers while in cache. Columns beyond the last sample repeat it, with a
gradient of zero. Several tiles can be in flight: where one has to wait for what another rank sends, the next one is
gone on with. All ranks come to their exchanges in the same order.

Each pass is compiled twice: for one thread, and with the agents of each phase spread over threads.
"""

from __future__ import annotations

from types import FunctionType, SimpleNamespace
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from hdnn_dist.kernels.block_tables import Tables
from hdnn_dist.kernels.cpu.exchanges import DONE, POST, send_rows, take_rows
from hdnn_dist.kernels.cpu.half_steps import (
    add_adjoint,
    copy_rows,
    couple,
    couple_gradient,
    fill,
    gradient_forward,
    gradient_reverse,
    pointwise_forward,
    pointwise_reverse,
)
from hdnn_dist.kernels.cpu.transfers import blank, load, miss, store
from hdnn_dist.kernels.instructions import (
    ADD,
    BLANK,
    COPY,
    COUPLE,
    COUPLE_GRADIENT,
    FETCH,
    GRADIENT,
    GRADIENT_REVERSE,
    KEEP,
    LOAD,
    MISS,
    POINTWISE,
    POINTWISE_REVERSE,
    RETURN,
    SEND,
    STORE,
    ZERO,
)
from hdnn_dist.kernels.layouts import Steps
from hdnn_dist.support.compiled.cache import shared
from hdnn_dist.support.compiled.functions import CALLED, DIGEST, FAST, INLINE
from hdnn_dist.support.compiled.memory import rows_from

# A tile in flight: which it is, where it stands in its program, and in the exchange that it waits for. ``held``: since
# it sent something the others have had their turn. So messages are sent and taken tile after tile, on every rank.
LANE = np.dtype([(name, np.int64) for name in ["tile", "section", "at", "progress", "held"]])


class NetworkArrays(NamedTuple):
    """What every pass is told. ``half_steps``: (half-steps,) of all layouts, ``HALF_STEP``; ``code``: of the
    activation; ``place``: (features,) the row of a tile for each; ``part``: (parts,) the first row of each part in a
    state; ``rows``: of a part; ``ranges``: of agents, for loops over all; ``starts``, ``sizes``: (layers,) where the
    weights of a layer begin, and how many each of its operators has.

    Beside it a pass is given W, all weights of K, and A, (1 or layers, size) of the coupling, if any; and arguments of
    which ``None`` says what there is not, so that it is not compiled: ``wires``, the messages; ``gradient``,
    F(x) = K^T s(K x + b); ``pointwise``, F(x) = s(L x + b); ``coupling``, the tables of C; ``G_A``, the gradient of A.
    """

    half_steps: np.ndarray
    code: int
    place: np.ndarray
    part: np.ndarray
    rows: int
    ranges: int
    tables: Tables
    steps: Steps
    starts: np.ndarray
    sizes: np.ndarray


def _load(tile, x, place, start, ranges):
    """Samples into a tile, its features spread over threads."""
    features = len(place)
    for c in prange(ranges):
        load(tile, x, place, start, c * features // ranges, (c + 1) * features // ranges)


def _store(x, tile, place, start, ranges):
    """And back."""
    features = len(place)
    for c in prange(ranges):
        store(x, tile, place, start, c * features // ranges, (c + 1) * features // ranges)


def _gradient(first, last, order, tables, code, K, b, scale, x, s, f):
    """Phases of ``gradient_forward``."""
    for c in prange(first, last):
        steps = order.steps[order.piece[c] : order.piece[c + 1]]
        gradient_forward(steps, order, tables, K, b, code, scale, x, s, f)


def _gradient_reverse(first, last, order, tables, code, K, b, G_K, G_b, scale, x, u, s, q, undo, f, v):
    """Of ``gradient_reverse``."""
    for c in prange(first, last):
        steps = order.steps[order.piece[c] : order.piece[c + 1]]
        gradient_reverse(steps, order, tables, K, b, G_K, G_b, code, scale, x, u, s, q, undo, f, v)


def _pointwise(first, last, order, tables, code, K, b, alpha, beta, scale, x, w, added, s, f):
    """Of ``pointwise_forward``."""
    for c in prange(first, last):
        steps = order.steps[order.piece[c] : order.piece[c + 1]]
        pointwise_forward(steps, tables, K, b, code, alpha, beta, scale, x, w, added, s, f)


def _pointwise_reverse(
    first, last, order, tables, code, K, b, G_K, G_b, alpha, beta, scale, x, w, added, u, s, q, undo, f, v
):
    """Of ``pointwise_reverse``."""
    for c in prange(first, last):
        steps = order.steps[order.piece[c] : order.piece[c + 1]]
        pointwise_reverse(steps, tables, K, b, G_K, G_b, code, alpha, beta, scale, x, w, added, u, s, q, undo,
                          f, v)  # fmt: skip


def _couple(first, last, ranges, tables, A, alpha, beta, damping, scale, f, out):
    """``couple`` for all agents."""
    count = last - first
    for c in prange(ranges):
        couple(first + c * count // ranges, first + (c + 1) * count // ranges, tables, A, alpha, beta, damping, scale,
               f, out)  # fmt: skip


def _couple_gradient(first, last, ranges, tables, G, alpha, beta, f, g):
    """``couple_gradient`` for all agents."""
    count = last - first
    for c in prange(ranges):
        couple_gradient(first + c * count // ranges, first + (c + 1) * count // ranges, tables, G, alpha, beta, f, g)


def _return(first, last, tables, A, scale, x, out):
    """out += scale A^T x in the rows of blocks of other ranks."""
    for block in prange(first, last):
        add_adjoint(out, x, tables.returns, tables, block, A, scale)


def _compute(ins, layer, stored, tile, net, W, A, gradient, pointwise, coupling, users, kept, missed, G, G_A, room):
    """One instruction that needs no other rank."""
    number, n, width, op = W.dtype.type, net.rows, room.shape[1], ins.op
    half, zero = net.half_steps[ins.half], number(0)
    scale, alpha, beta, sign = number(half.scale), number(half.alpha), number(half.beta), number(ins.sign)
    a, b, f, v = rows_from(room, ins.a), rows_from(room, ins.b), rows_from(room, ins.f), rows_from(room, ins.v)
    s, q, u, w = rows_from(room, ins.s), rows_from(room, ins.q), rows_from(room, ins.u), rows_from(room, ins.w)
    start = net.starts[max(layer, 0)] + half.operator * net.sizes[max(layer, 0)]
    K, K_b = rows_from(W, start), rows_from(W, start + half.bias)
    order, tables, code = net.steps, net.tables, net.code
    G_K, G_b = rows_from(G, start), rows_from(G, start + half.bias)
    if op == LOAD:
        _load(a, users[ins.first], net.place, tile * width, net.ranges)
    elif op == STORE:
        _store(users[ins.first], a, net.place, tile * width, net.ranges)
    elif op == BLANK:
        blank(a[: net.part[-1] + n], users[2].shape[0] * users[2].shape[2] - tile * width)
    elif op == ZERO:
        fill(a, 0, ins.count, zero)
    elif op == COPY:
        copy_rows(a, b, 0, ins.count)
    elif op == KEEP:
        for part in range(len(net.part)):
            copy_rows(rows_from(kept[tile, stored], part * n), rows_from(a, net.part[part]), 0, n)
    elif op == FETCH:
        for part in range(len(net.part)):
            copy_rows(rows_from(a, net.part[part]), rows_from(kept[tile, stored], part * n), 0, n)
    elif op == MISS:
        miss(missed, a[: ins.count], b[: ins.count])
    elif op == COUPLE or (op == RETURN and ins.coupled):
        if coupling is not None:
            C, damping = A[min(layer, len(A) - 1)], number(half.damping)
            forth, back = number(half.forth), number(half.back)
            if ins.transposed:
                forth, back = back, forth
            if op == COUPLE:
                _couple(ins.first, ins.last, net.ranges, coupling, C, forth, back, damping, sign, b, a)
            else:
                _return(ins.first, ins.last, coupling, C, sign * back, b, a)
    elif op == COUPLE_GRADIENT:
        if G_A is not None:
            _couple_gradient(ins.first, ins.last, net.ranges, coupling, G_A[min(layer, len(G_A) - 1)],
                             number(half.forth), number(half.back), f, a)  # fmt: skip
    elif op == RETURN:
        if pointwise is not None:
            _return(ins.first, ins.last, net.tables, K, beta if ins.transposed else scale * alpha, b, a)
    elif op == GRADIENT:
        if gradient is not None:
            _gradient(ins.first, ins.last, order, tables, code, K, K_b, scale, a, s, f)
    elif op == GRADIENT_REVERSE:
        if gradient is not None:
            _gradient_reverse(ins.first, ins.last, order, tables, code, K, K_b, G_K, G_b, scale, a, u, s, q, sign, f, v)
    elif op == POINTWISE:
        if pointwise is not None:
            _pointwise(ins.first, ins.last, order, tables, code, K, K_b, alpha, beta, scale, a, w, ins.w >= 0, s, f)
    elif op == POINTWISE_REVERSE:  # noqa: SIM102  numba leaves out what is None
        if pointwise is not None:
            _pointwise_reverse(ins.first, ins.last, order, tables, code, K, K_b, G_K, G_b, alpha, beta, scale, a, w,
                               ins.w >= 0, u, s, q, sign, f, v)  # fmt: skip


def run(
    code, sections, lanes, turn, tiles, columns, net, W, A, wires, gradient, pointwise, coupling, users, kept, missed,
    G, G_A, rooms,
):  # fmt: skip
    """Carry a program out for all tiles, as far as it goes; returns what it stops for, and the message in question.

    ``lanes``: (tiles in flight,) ``LANE``, their state, from which it goes on when it is called again; ``turn``: (1,)
    whose turn it is. ``users``: the user's arrays x, y and their gradients.
    """
    count, idle = len(lanes), 0
    while idle < count:
        lane = turn[0]
        me, room = lanes[lane], rooms[lane]
        idle += 1
        while me.tile < tiles:
            idle = 0
            if me.at == sections[me.section].last:
                me.section += 1
                if me.section == len(sections):
                    me.section, me.tile = 0, me.tile + count
                me.at = sections[me.section].first
                continue
            ins, section = code[me.at], sections[me.section]
            if ins.op < SEND:
                _compute(ins, section.layer, section.stored, me.tile, net, W, A, gradient, pointwise, coupling, users,
                         kept, missed, G, G_A, room)  # fmt: skip
                me.at += 1
            elif wires is not None:
                if ins.op > SEND and count > 1 and not me.held:
                    me.held = 1
                    break
                first = ins.first + lane * ins.count
                samples = min(rooms.shape[2], columns - me.tile * rooms.shape[2])
                a, b, both = rows_from(room, ins.a), rows_from(room, ins.b), ins.b >= 0
                progress = lanes[lane : lane + 1].progress
                if ins.op == SEND:
                    reason = send_rows(wires.messages, first, first + ins.count, progress, wires.rows, a, b, both,
                                       samples, wires.waited)  # fmt: skip
                else:
                    reason = take_rows(wires.messages, first, first + ins.count, progress, wires.rows, a, b, both,
                                       ins.op == ADD, ins.blank != 0, samples, wires.waited)  # fmt: skip
                message = first + min(me.progress, ins.count - 1)
                if reason in (DONE, POST):
                    me.progress, me.at = 0, me.at + 1
                    me.held &= ins.op > SEND
                if reason != DONE:
                    return reason, message
        turn[0] = (lane + 1) % count
    return DONE, 0


PASSES = (
    _load,
    _store,
    _gradient,
    _gradient_reverse,
    _pointwise,
    _pointwise_reverse,
    _couple,
    _couple_gradient,
    _return,
    _compute,
    run,
)


APART = (_load, _store, _couple, _couple_gradient, _return)


def _compiled(parallel: bool) -> SimpleNamespace:
    """The passes compiled for one thread or for many, under names of their own so that both can be cached."""
    names, kind = dict(globals()), f"{'threaded' if parallel else 'serial'}_{DIGEST}"
    for function in PASSES:
        clone = FunctionType(function.__code__, names, function.__name__)
        clone.__qualname__ = f"{function.__name__}_{kind}"
        if function is run:
            names[function.__name__] = shared(njit(**CALLED)(clone))
        else:
            spread = "prange" in function.__code__.co_names
            kind_of = FAST if function in APART else INLINE
            names[function.__name__] = njit(**({**FAST, "parallel": True} if spread and parallel else kind_of))(clone)
    return SimpleNamespace(run=names["run"])


SERIAL, THREADED = _compiled(parallel=False), _compiled(parallel=True)
