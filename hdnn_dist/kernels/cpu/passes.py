"""Whole passes through many layers on one rank, compiled: tile after tile, each through all layers while in cache.

States come and go as the user has them, (batch, features, positions); inside, a tile is (parts * n, T) with part after
part, n the local rows of a part. Columns beyond the last sample repeat it, with a gradient of zero.

Each pass is compiled twice: for one thread, and with the agents of each phase spread over threads.
"""

from __future__ import annotations

from types import FunctionType, SimpleNamespace
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from hdnn_dist.kernels.block_tables import Tables
from hdnn_dist.kernels.cpu.activations import activate, activate_both
from hdnn_dist.kernels.cpu.cache import shared
from hdnn_dist.kernels.cpu.half_steps import (
    add_forward,
    add_scaled,
    add_totals,
    copy_rows,
    couple,
    couple_gradient,
    fill,
    gradient_forward,
    gradient_reverse,
    pointwise_forward,
    pointwise_reverse,
    return_rows,
    set_bias,
)
from hdnn_dist.kernels.cpu.tiles import CALLED, DIGEST, FAST, INLINE
from hdnn_dist.kernels.cpu.transfers import blank, load, miss, store


class NetworkArrays(NamedTuple):
    """What every pass is told. ``half_steps``: (half-steps,) of a layer, ``HALF_STEP``; ``code``: of the activation;
    ``place``: (features,) the row of a tile for each; ``weights``: (layers, operators, size); ``A``: (1 or layers,
    size) of the coupling, if any.

    Beside it a pass is given three arguments, of which ``None`` says what there is not, so that it is not compiled:
    ``gradient``, F(x) = K^T s(K x + b); ``pointwise``, F(x) = s(L x + b); ``coupling``, the tables of C.
    """

    half_steps: np.ndarray
    code: int
    place: np.ndarray
    tables: Tables
    weights: np.ndarray
    A: np.ndarray


def _half_step(half, layer, tables, net, gradient, pointwise, coupling, state, out, work, schedule):
    """out[target] += scale C F(state[source])."""
    n, number, K = work.shape[1], net.weights.dtype.type, net.weights[layer, half.operator]
    x, target = state[half.source * n : (half.source + 1) * n], out[half.target * n : (half.target + 1) * n]
    s, f, b, code, is_gradient = work[0], target, K[half.bias :], net.code, half.gradient
    scale, alpha, beta = number(half.scale), number(half.alpha), number(half.beta)
    if half.replaces:
        fill(target, 0, n, number(0))
    if coupling is not None:
        f = work[1]
        fill(f, 0, n, number(0))
    for phase in range(len(schedule.start) - 1):
        for c in prange(schedule.start[phase], schedule.start[phase + 1]):
            steps = schedule.steps[schedule.piece[c] : schedule.piece[c + 1]]
            if gradient is not None:  # noqa: SIM102  numba leaves out what is None
                if is_gradient:
                    gradient_forward(steps, schedule, tables, K, b, code, scale, x, s, f)
            if pointwise is not None:  # noqa: SIM102
                if not is_gradient:
                    pointwise_forward(steps, tables, K, b, code, alpha, beta, scale, x, s, f)
    if coupling is not None:
        A = net.A[min(layer, len(net.A) - 1)]
        forth, back, damping, one = number(half.forth), number(half.back), number(half.damping), number(1)
        for c in prange(len(schedule.range) - 1):
            couple(schedule.range[c], schedule.range[c + 1], coupling, A, forth, back, damping, one, f, target)


def _reverse(
    half, layer, tables, net, G, G_A, gradient, pointwise, coupling, state, grad, leaving, undo, work, schedule
):
    """leaving[source] += dF^T C^T grad[target], the gradients of the weights, and the half-step undone if ``undo``."""
    n, number, K = work.shape[1], net.weights.dtype.type, net.weights[layer, half.operator]
    x, target = state[half.source * n : (half.source + 1) * n], state[half.target * n : (half.target + 1) * n]
    g, v = grad[half.target * n : (half.target + 1) * n], leaving[half.source * n : (half.source + 1) * n]
    s, f, q, u, b = work[0], target, work[2], g, K[half.bias :]
    code, is_gradient = net.code, half.gradient
    G_K, G_b = G[layer, half.operator], G[layer, half.operator, half.bias :]
    scale, alpha, beta, subtract = number(half.scale), number(half.alpha), number(half.beta), number(-1 if undo else 0)
    if coupling is not None:
        f, u, subtract, A = work[1], work[3], number(1), net.A[min(layer, len(net.A) - 1)]
        forth, back, damping, one = number(half.forth), number(half.back), number(half.damping), number(1)
        fill(f, 0, n, number(0))
        fill(u, 0, n, number(0))
        for c in prange(len(schedule.range) - 1):
            couple(schedule.range[c], schedule.range[c + 1], coupling, A, back, forth, damping, one, g, u)
    for phase in range(len(schedule.start) - 1):
        for c in prange(schedule.start[phase], schedule.start[phase + 1]):
            steps = schedule.steps[schedule.piece[c] : schedule.piece[c + 1]]
            if gradient is not None:  # noqa: SIM102  numba leaves out what is None
                if is_gradient:
                    gradient_reverse(steps, schedule, tables, K, b, G_K, G_b, code, scale, x, u, s, q, subtract, f, v)
            if pointwise is not None:  # noqa: SIM102
                if not is_gradient:
                    pointwise_reverse(steps, tables, K, b, G_K, G_b, code, alpha, beta, scale, x, u, s, q, subtract,
                                      f, v)  # fmt: skip
    if coupling is not None:
        for c in prange(len(schedule.range) - 1):
            if undo:
                couple(schedule.range[c], schedule.range[c + 1], coupling, A, forth, back, damping, -one, f, target)
    if G_A is not None:
        G_l = G_A[min(layer, len(G_A) - 1)]
        for c in prange(len(schedule.range) - 1):
            couple_gradient(schedule.range[c], schedule.range[c + 1], coupling, G_l, forth, back, f, g)


def _load(tile, x, place, start, schedule):
    """Samples into a tile, its features spread over threads."""
    features, pieces = len(place), len(schedule.range) - 1
    for c in prange(pieces):
        load(tile, x, place, start, c * features // pieces, (c + 1) * features // pieces)


def _store(x, tile, place, start, schedule):
    """And back."""
    features, pieces = len(place), len(schedule.range) - 1
    for c in prange(pieces):
        store(x, tile, place, start, c * features // pieces, (c + 1) * features // pieces)


def forward(x, y, layers, net, gradient, pointwise, coupling, states, work, schedule):
    """y = the state after the layers, where half-steps alternate."""
    width, state = states.shape[2], states[0]
    for t in range((x.shape[0] * x.shape[2] + width - 1) // width):
        _load(state, x, net.place, t * width, schedule)
        for layer in range(layers[0], layers[1]):
            for i in range(len(net.half_steps)):
                half = net.half_steps[i]
                _half_step(half, layer, net.tables, net, gradient, pointwise, coupling, state, state, work, schedule)
        _store(y, state, net.place, t * width, schedule)


def backward(x, y, grad_y, grad_x, missed, layers, net, G, G_A, gradient, pointwise, coupling, states, work, schedule):
    """From the output and its gradient to the gradient of the input, states rebuilt; adds to those of the weights.

    ``missed``: (2, T) the largest differences between x and the rebuilt input, and the largest entries of x. ``G``: the
    gradient of the weights; ``G_A``: that of A, ``None`` where the coupling is not trained.
    """
    width, state, grad = states.shape[2], states[0], states[2]
    for t in range((y.shape[0] * y.shape[2] + width - 1) // width):
        _load(state, y, net.place, t * width, schedule)
        _load(grad, grad_y, net.place, t * width, schedule)
        blank(grad, y.shape[0] * y.shape[2] - t * width)
        for layer in range(layers[1] - 1, layers[0] - 1, -1):
            for i in range(len(net.half_steps) - 1, -1, -1):
                _reverse(net.half_steps[i], layer, net.tables, net, G, G_A, gradient, pointwise, coupling,
                         state, grad, grad, True, work, schedule)  # fmt: skip
        if len(grad_x):
            _store(grad_x, grad, net.place, t * width, schedule)
        _load(grad, x, net.place, t * width, schedule)
        miss(missed, grad, state)


def euler_forward(x, y, stored, every, layers, net, gradient, pointwise, coupling, states, work, schedule):
    """y = the state after the layers by forward Euler, and every ``every``-th state where ``stored`` has room."""
    width = states.shape[2]
    for t in range((x.shape[0] * x.shape[2] + width - 1) // width):
        state, after = states[0], states[1]
        _load(state, x, net.place, t * width, schedule)
        for layer in range(layers[0], layers[1]):
            if len(stored) and (layer - layers[0]) % every == 0:
                copy_rows(stored[t, (layer - layers[0]) // every], state, 0, state.shape[0])
            copy_rows(after, state, 0, state.shape[0])
            for i in range(len(net.half_steps)):
                half = net.half_steps[i]
                _half_step(half, layer, net.tables, net, gradient, pointwise, coupling, state, after, work, schedule)
            state, after = after, state
        _store(y, state, net.place, t * width, schedule)


def euler_backward(
    grad_y, grad_x, stored, segment, layers, net, G, G_A, gradient, pointwise, coupling, states, work, schedule
):
    """From the stored states and the gradient of the output to that of the input; adds to those of the weights.

    ``segment``: (k, parts * n, T), room for the k states from one that is stored to the next.
    """
    every, width = len(segment), states.shape[2]
    for t in range(len(stored)):
        grad, leaving = states[2], states[3]
        _load(grad, grad_y, net.place, t * width, schedule)
        blank(grad, grad_y.shape[0] * grad_y.shape[2] - t * width)
        for number in range(stored.shape[1] - 1, -1, -1):
            start = layers[0] + number * every
            stop = min(start + every, layers[1])
            copy_rows(segment[0], stored[t, number], 0, segment.shape[1])
            for layer in range(start, stop - 1):
                before, after = segment[layer - start], segment[layer + 1 - start]
                copy_rows(after, before, 0, before.shape[0])
                for i in range(len(net.half_steps)):
                    half = net.half_steps[i]
                    _half_step(half, layer, net.tables, net, gradient, pointwise, coupling, before, after, work,
                               schedule)  # fmt: skip
            for layer in range(stop - 1, start - 1, -1):
                copy_rows(leaving, grad, 0, grad.shape[0])
                if net.half_steps[0].replaces:
                    fill(leaving, 0, leaving.shape[0], leaving.dtype.type(0))
                for i in range(len(net.half_steps)):
                    _reverse(net.half_steps[i], layer, net.tables, net, G, G_A, gradient, pointwise, coupling,
                             segment[layer - start], grad, leaving, False, work, schedule)  # fmt: skip
                grad, leaving = leaving, grad
        if len(grad_x):
            _store(grad_x, grad, net.place, t * width, schedule)


def local_forward(schedule, tables, K, bias, code, x, s, f):
    """K^T s(K x + b) of one rank between two exchanges, added to f; x is a buffer that has been gathered."""
    gradient_forward(schedule.steps, schedule, tables, K, K[bias:], code, K.dtype.type(1), x, s, f)


def local_reverse(schedule, tables, K, G, bias, code, rebuild, x, u, s, q, f, v):
    """The same (if ``rebuild``) and its reverse for u, added to f and v; x and u have been gathered."""
    one, again = K.dtype.type(1), K.dtype.type(1 if rebuild else 0)
    gradient_reverse(schedule.steps, schedule, tables, K, K[bias:], G, G[bias:], code, one, x, u, s, q, again, f, v)


def local_linear(tables, K, bias, alpha, beta, x, z, w):
    """Of z = L x + b: what this rank knows, z = alpha K x + b, and in w the rows of beta K^T x that it returns."""
    b, here, there = K[bias:], K.dtype.type(alpha), K.dtype.type(beta)
    for k in range(tables.agents):
        set_bias(z, tables, k, b)
        if here != 0:
            add_forward(z, x, tables, k, K, here)
    return_rows(tables, K, there, x, w)


def local_response(tables, code, z, w):
    """z becomes s(z + w), with the rows of w that have come back, if any."""
    add_scaled(z, w, 0, w.shape[0], z.dtype.type(1))
    activate(code, z, 0, z.shape[0])


def local_slope(tables, G, bias, code, z, w, q):
    """The same, q becomes s'(z + w) q, and the gradient of b += q."""
    add_scaled(z, w, 0, w.shape[0], z.dtype.type(1))
    activate_both(code, z, q, 0, z.shape[0])
    for k in range(tables.agents):
        add_totals(G[bias:], tables, k, q, tables.blocks[k].row, z.dtype.type(1))


def local_adjoint(tables, K, G, alpha, beta, x, q, v):
    """v = beta K q, the rows of alpha K^T q that are returned added, and the gradient of K; q is as x is."""
    here, there = K.dtype.type(alpha), K.dtype.type(beta)
    fill(v, 0, v.shape[0], K.dtype.type(0))
    for k in range(tables.agents):
        if there != 0:
            add_forward(v, q, tables, k, K, there)
    return_rows(tables, K, here, q, v)
    couple_gradient(0, tables.agents, tables, G, here, there, x, q)


PASSES = (
    local_forward,
    local_reverse,
    local_linear,
    local_response,
    local_slope,
    local_adjoint,
    _load,
    _store,
    _half_step,
    _reverse,
    forward,
    backward,
    euler_forward,
    euler_backward,
)


def _compiled(parallel: bool) -> SimpleNamespace:
    """The passes compiled for one thread or for many, under names of their own so that both can be cached."""
    names, kind = dict(globals()), f"{'threaded' if parallel else 'serial'}_{DIGEST}"
    inner = {**FAST, "parallel": True} if parallel else INLINE
    for function in PASSES:
        clone = FunctionType(function.__code__, names, function.__name__)
        clone.__qualname__ = f"{function.__name__}_{kind}"
        inside = function.__name__.startswith("_")
        names[function.__name__] = njit(**inner)(clone) if inside else shared(njit(**CALLED)(clone))
    return SimpleNamespace(**{function.__name__: names[function.__name__] for function in PASSES})


SERIAL, THREADED = _compiled(parallel=False), _compiled(parallel=True)
