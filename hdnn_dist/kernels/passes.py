"""Whole passes through many layers on one rank, compiled: tile after tile, each through all layers while in cache.

States come and go as the user has them, (batch, features, positions); inside, a tile is (parts * n, T) with part after
part, n the local rows of a part. Columns beyond the last sample repeat it, with a gradient of zero.

Each pass is compiled twice: for one thread, and with the agents of each phase spread over threads.
"""

from __future__ import annotations

from types import FunctionType, SimpleNamespace

import numpy as np
from numba import njit, prange

from hdnn_dist.kernels.half_steps import couple, couple_gradient, fill, forward_steps, reverse_steps
from hdnn_dist.kernels.tiles import FAST
from hdnn_dist.kernels.transfers import blank, load, miss, store

# A half-step. ``source``, ``target``: parts; L = alpha K + beta K^T; ``gradient``: F(x) = K^T s(K x + b), else
# s(L x + b); C = forth A + back A^T - damping I, where there is one.
HALF_STEP = np.dtype(
    [(name, np.int64) for name in ["source", "target", "operator", "bias", "gradient", "replaces"]]
    + [(name, np.float64) for name in ["scale", "alpha", "beta", "forth", "back", "damping"]]
)


@njit(**FAST)
def copy(out, x):
    for row in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[row, j] = x[row, j]


def _half_step(half, layer, tables, weights, coupling, A, code, state, out, work, schedule):
    """out[target] += scale C F(state[source])."""
    n, number, K = work.shape[1], weights.dtype.type, weights[layer, half.operator]
    x, target = state[half.source * n : (half.source + 1) * n], out[half.target * n : (half.target + 1) * n]
    s, f, bias, gradient = work[0], target, half.bias, half.gradient
    scale, alpha, beta = number(half.scale), number(half.alpha), number(half.beta)
    if half.replaces:
        fill(target, 0, n, 0)
    if coupling is not None:
        f = work[1]
        fill(f, 0, n, 0)
    for phase in range(len(schedule.start) - 1):
        for c in prange(schedule.start[phase], schedule.start[phase + 1]):
            steps = schedule.steps[schedule.piece[c] : schedule.piece[c + 1]]
            forward_steps(steps, tables, K, bias, code, gradient, alpha, beta, scale, x, s, f)
    if coupling is not None:
        C = A[min(layer, len(A) - 1)]
        forth, back, damping, one = number(half.forth), number(half.back), number(half.damping), number(1)
        for c in prange(len(schedule.range) - 1):
            couple(schedule.range[c], schedule.range[c + 1], coupling, C, forth, back, damping, one, f, target)


def _reverse(half, layer, tables, weights, G, coupling, A, G_A, code, state, grad, leaving, undo, work, schedule):
    """leaving[source] += dF^T C^T grad[target], the gradients of the weights, and the half-step undone if ``undo``."""
    n, number, K = work.shape[1], weights.dtype.type, weights[layer, half.operator]
    x, target = state[half.source * n : (half.source + 1) * n], state[half.target * n : (half.target + 1) * n]
    g, v = grad[half.target * n : (half.target + 1) * n], leaving[half.source * n : (half.source + 1) * n]
    s, f, q, u, bias, gradient, G_K = work[0], target, work[2], g, half.bias, half.gradient, G[layer, half.operator]
    scale, alpha, beta, subtract = number(half.scale), number(half.alpha), number(half.beta), number(-1 if undo else 0)
    if coupling is not None:
        f, u, subtract, C = work[1], work[3], number(1), A[min(layer, len(A) - 1)]
        forth, back, damping, one = number(half.forth), number(half.back), number(half.damping), number(1)
        fill(f, 0, n, 0)
        fill(u, 0, n, 0)
        for c in prange(len(schedule.range) - 1):
            couple(schedule.range[c], schedule.range[c + 1], coupling, C, back, forth, damping, one, g, u)
    for phase in range(len(schedule.start) - 1):
        for c in prange(schedule.start[phase], schedule.start[phase + 1]):
            steps = schedule.steps[schedule.piece[c] : schedule.piece[c + 1]]
            reverse_steps(steps, tables, K, G_K, bias, code, gradient, alpha, beta, scale, x, u, s, q, subtract, f, v)
    if coupling is not None:
        trained = len(G_A) > 0
        G_C = G_A[min(layer, len(G_A) - 1)] if trained else C
        for c in prange(len(schedule.range) - 1):
            first, last = schedule.range[c], schedule.range[c + 1]
            if undo:
                couple(first, last, coupling, C, forth, back, damping, -one, f, target)
            if trained:
                couple_gradient(first, last, coupling, G_C, forth, back, f, g)


def forward(x, y, place, program, tables, weights, coupling, A, code, layers, fields, work, schedule):
    """y = the state after the layers, where half-steps alternate."""
    width, state = fields.shape[2], fields[0]
    for t in range((x.shape[0] * x.shape[2] + width - 1) // width):
        load(state, x, place, t * width)
        for layer in range(layers[0], layers[1]):
            for i in range(len(program)):
                _half_step(program[i], layer, tables, weights, coupling, A, code, state, state, work, schedule)
        store(y, state, place, t * width)


def backward(x, y, grad_y, grad_x, missed, place, program, tables, weights, G, coupling, A, G_A, code, layers, fields,
             work, schedule):  # fmt: skip
    """From the output and its gradient to the gradient of the input, states rebuilt; adds to those of the weights.

    ``missed``: (2,) the largest difference between x and the rebuilt input, and the largest entry of x.
    """
    width, state, grad = fields.shape[2], fields[0], fields[2]
    for t in range((y.shape[0] * y.shape[2] + width - 1) // width):
        load(state, y, place, t * width)
        load(grad, grad_y, place, t * width)
        blank(grad, y.shape[0] * y.shape[2] - t * width)
        for layer in range(layers[1] - 1, layers[0] - 1, -1):
            for i in range(len(program) - 1, -1, -1):
                _reverse(program[i], layer, tables, weights, G, coupling, A, G_A, code, state, grad, grad, True, work,
                         schedule)  # fmt: skip
        if len(grad_x):
            store(grad_x, grad, place, t * width)
        load(grad, x, place, t * width)
        miss(missed, grad, state)


def euler_forward(x, y, stored, every, place, program, tables, weights, coupling, A, code, layers, fields, work,
                  schedule):  # fmt: skip
    """y = the state after the layers by forward Euler, and every ``every``-th state where ``stored`` has room."""
    width = fields.shape[2]
    for t in range((x.shape[0] * x.shape[2] + width - 1) // width):
        state, after = fields[0], fields[1]
        load(state, x, place, t * width)
        for layer in range(layers[0], layers[1]):
            if len(stored) and (layer - layers[0]) % every == 0:
                copy(stored[t, (layer - layers[0]) // every], state)
            copy(after, state)
            for i in range(len(program)):
                _half_step(program[i], layer, tables, weights, coupling, A, code, state, after, work, schedule)
            state, after = after, state
        store(y, state, place, t * width)


def euler_backward(grad_y, grad_x, stored, segment, place, program, tables, weights, G, coupling, A, G_A, code, layers,
                   fields, work, schedule):  # fmt: skip
    """From the stored states and the gradient of the output to that of the input; adds to those of the weights.

    ``segment``: (k, parts * n, T), room for the k states from one that is stored to the next.
    """
    every, width = len(segment), fields.shape[2]
    for t in range(len(stored)):
        grad, leaving = fields[2], fields[3]
        load(grad, grad_y, place, t * width)
        blank(grad, grad_y.shape[0] * grad_y.shape[2] - t * width)
        for number in range(stored.shape[1] - 1, -1, -1):
            start = layers[0] + number * every
            stop = min(start + every, layers[1])
            copy(segment[0], stored[t, number])
            for layer in range(start, stop - 1):
                before, after = segment[layer - start], segment[layer + 1 - start]
                copy(after, before)
                for i in range(len(program)):
                    _half_step(program[i], layer, tables, weights, coupling, A, code, before, after, work, schedule)
            for layer in range(stop - 1, start - 1, -1):
                copy(leaving, grad)
                if program[0].replaces:
                    fill(leaving, 0, leaving.shape[0], 0)
                for i in range(len(program)):
                    _reverse(program[i], layer, tables, weights, G, coupling, A, G_A, code, segment[layer - start],
                             grad, leaving, False, work, schedule)  # fmt: skip
                grad, leaving = leaving, grad
        if len(grad_x):
            store(grad_x, grad, place, t * width)


PASSES = (_half_step, _reverse, forward, backward, euler_forward, euler_backward)
PASS = {**FAST, "no_cpython_wrapper": False, "no_cfunc_wrapper": False, "cache": True}


def _compiled(parallel: bool) -> SimpleNamespace:
    """The passes compiled for one thread or for many, under names of their own so that both can be cached."""
    names = dict(globals())
    for function in PASSES:
        clone = FunctionType(function.__code__, names, function.__name__)
        clone.__qualname__ = f"{function.__name__}_{'threaded' if parallel else 'serial'}"
        options = FAST if function.__name__.startswith("_") else PASS
        names[function.__name__] = njit(parallel=parallel, **options)(clone)
    return SimpleNamespace(**{function.__name__: names[function.__name__] for function in PASSES})


SERIAL, THREADED = _compiled(parallel=False), _compiled(parallel=True)
