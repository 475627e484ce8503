"""Whole passes through many layers on a GPU, in Triton: for H2 and MS3, all agents on one device, layers alike.

A program takes a tile of T samples through all layers, with the state of all agents on chip: two parts of (N, T), in
registers, N the rows of a part padded to a power of two. Half-step 0 moves the first part by a function of the second,
half-step 1 the second by one of the first. Where a state is this small, K is multiplied as a dense (N, N) matrix: that
is what the matrix units want, and its zeros cost less than a gather. In memory the weights stay block-sparse:
``K_place`` (N, N) says where every entry of K lies in the flat weights of an operator, -1 where there is none.

States come and go as the user has them, (batch, features, positions). Columns beyond the last sample repeat it, with a
gradient of zero. Legend as in ``propagation.vector_fields``: u enters the reverse, q = s'(z) K u, f = F(x).

``OPERANDS`` of the products: "float32", multiplied as in torch, without TF32; "bf16", rounded to it and summed in
float32. The state stays float32 there too: a step of h f would be lost in a bf16 state, and could not be undone.
Measured with 8 agents of 8 + 8 features and 64 layers: the output is off by 2e-3, the gradient of K by 6e-3, and the
rebuilt input by 6e-4, as a state that is off by rounding has other bf16 operands now and then; in float32 all by 4e-7.
"emulated" is "bf16" for Triton's interpreter, which truncates and knows no products in bf16: operands are rounded by
hand and multiplied in float32, in which the product of two bf16 numbers is exact.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="import-not-found"
from __future__ import annotations

import triton
import triton.language as tl

from hdnn_dist.kernels.cuda.activations import activate, times_slope


@triton.jit
def _plus(a, b):
    """For sums without ``tl.sum``, which cannot be interpreted where triton was imported before that was asked for."""
    return a + b


@triton.jit
def _operand(A, OPERANDS: tl.constexpr):
    if OPERANDS == "float32":
        return A
    elif OPERANDS == "bf16":
        return A.to(tl.bfloat16)
    else:
        bits = A.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)  # to nearest, ties to even
        return (bits & -0x10000).to(tl.float32, bitcast=True)


@triton.jit
def _product(A, B, OPERANDS: tl.constexpr):
    return tl.dot(_operand(A, OPERANDS), _operand(B, OPERANDS), input_precision="ieee")


@triton.jit
def _operator(weights, K_place, b_place):
    """K (N, N) and b (N, 1)."""
    K = tl.load(weights + K_place, mask=K_place >= 0, other=0.0)
    b = tl.load(weights + b_place, mask=b_place >= 0, other=0.0)
    return K, b[:, None]


@triton.jit
def _add(to, value, mask):
    tl.store(to, tl.load(to, mask=mask, other=0.0) + value, mask=mask)


@triton.jit
def _half_step(target, source, weights, K_place, b_place, scale, ACTIVATION: tl.constexpr, OPERANDS: tl.constexpr):
    """target + scale F(source)."""
    K, b = _operator(weights, K_place, b_place)
    s = activate(_product(K, source, OPERANDS) + b, ACTIVATION)
    return target + scale * _product(tl.trans(K), s, OPERANDS)


@triton.jit
def _reverse(target, source, g_target, g_source, weights, grad, K_place, b_place, scale, ACTIVATION: tl.constexpr,
             OPERANDS: tl.constexpr):  # fmt: skip
    """The target before the half-step, and the gradient of the source; adds to the gradient of the weights."""
    K, b = _operator(weights, K_place, b_place)
    u = scale * g_target
    z = _product(K, source, OPERANDS) + b
    s = activate(z, ACTIVATION)
    q = times_slope(_product(K, u, OPERANDS), z, s, ACTIVATION)
    grad_K = _product(q, tl.trans(source), OPERANDS) + _product(s, tl.trans(u), OPERANDS)
    _add(grad + K_place, grad_K, K_place >= 0)
    _add(grad + b_place, tl.reduce(q, 1, _plus), b_place >= 0)
    before = target - scale * _product(tl.trans(K), s, OPERANDS)
    return before, g_source + _product(tl.trans(K), q, OPERANDS)


@triton.jit
def _square(places, N: tl.constexpr):
    """(N, N) from memory."""
    return tl.load(places + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :])


@triton.jit
def _columns(tile, columns, features, positions, T: tl.constexpr):
    """Where the columns of a tile begin in (batch, features, positions); beyond the last one, that again."""
    at = tl.minimum(tile * T + tl.arange(0, T), columns - 1).to(tl.int64)
    return (at // positions) * features * positions + at % positions


@triton.jit(do_not_specialize=["columns", "start", "stop"])
def forward(x, y, weights_0, weights_1, K_place, b_place, rows, scale_0, scale_1, columns, features, positions, stride,
            start, stop, ACTIVATION: tl.constexpr, OPERANDS: tl.constexpr, N: tl.constexpr,
            T: tl.constexpr):  # fmt: skip
    """y = the state after layers start, ..., stop - 1. Grid: (tiles,).

    ``weights_0``, ``weights_1``: those of half-step 0 and 1, ``stride`` from layer to layer. ``b_place``: (2, N), where
    the biases of both lie; ``rows``: (2, N), the features that are the rows of the two parts; -1 for none.
    """
    at = _columns(tl.program_id(0), columns, features, positions, T)
    rows_0, rows_1 = tl.load(rows + tl.arange(0, N))[:, None], tl.load(rows + N + tl.arange(0, N))[:, None]
    b_0, b_1 = tl.load(b_place + tl.arange(0, N)), tl.load(b_place + N + tl.arange(0, N))
    at_0, at_1 = rows_0 * positions + at[None, :], rows_1 * positions + at[None, :]
    first = tl.load(x + at_0, mask=rows_0 >= 0, other=0.0)
    second = tl.load(x + at_1, mask=rows_1 >= 0, other=0.0)
    for layer in range(start, stop):
        place, here = _square(K_place, N), layer * stride
        first = _half_step(first, second, weights_0 + here, place, b_0, scale_0, ACTIVATION, OPERANDS)
        second = _half_step(second, first, weights_1 + here, place, b_1, scale_1, ACTIVATION, OPERANDS)
    inside = (tl.program_id(0) * T + tl.arange(0, T) < columns)[None, :]
    tl.store(y + at_0, first, mask=(rows_0 >= 0) & inside)
    tl.store(y + at_1, second, mask=(rows_1 >= 0) & inside)


@triton.jit(do_not_specialize=["columns", "layers", "start", "stop"])
def backward(y, grad_y, rebuilt, grad_x, weights_0, weights_1, grads_0, grads_1, K_place, b_place, rows, scale_0,
             scale_1, columns, features, positions, stride, layers, start, stop, ACTIVATION: tl.constexpr,
             OPERANDS: tl.constexpr, N: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """From the output and its gradient to the rebuilt input and its gradient. Grid: (programs,).

    ``grads_0``, ``grads_1``: as the weights, zeros, once for each program, which adds up its own tiles in their order;
    ``layers``: how many they are for.
    """
    own = tl.program_id(0).to(tl.int64) * layers * stride
    rows_0, rows_1 = tl.load(rows + tl.arange(0, N))[:, None], tl.load(rows + N + tl.arange(0, N))[:, None]
    b_0, b_1 = tl.load(b_place + tl.arange(0, N)), tl.load(b_place + N + tl.arange(0, N))
    for tile in range(tl.program_id(0), (columns + T - 1) // T, tl.num_programs(0)):
        at = _columns(tile, columns, features, positions, T)
        inside = (tile * T + tl.arange(0, T) < columns)[None, :]
        at_0, at_1 = rows_0 * positions + at[None, :], rows_1 * positions + at[None, :]
        first = tl.load(y + at_0, mask=rows_0 >= 0, other=0.0)
        second = tl.load(y + at_1, mask=rows_1 >= 0, other=0.0)
        g_first = tl.load(grad_y + at_0, mask=(rows_0 >= 0) & inside, other=0.0)
        g_second = tl.load(grad_y + at_1, mask=(rows_1 >= 0) & inside, other=0.0)
        for step in range(start, stop):
            place, here = _square(K_place, N), (start + stop - 1 - step) * stride
            second, g_first = _reverse(second, first, g_second, g_first, weights_1 + here, grads_1 + own + here,
                                       place, b_1, scale_1, ACTIVATION, OPERANDS)  # fmt: skip
            first, g_second = _reverse(first, second, g_first, g_second, weights_0 + here, grads_0 + own + here,
                                       place, b_0, scale_0, ACTIVATION, OPERANDS)  # fmt: skip
        tl.store(rebuilt + at_0, first, mask=(rows_0 >= 0) & inside)
        tl.store(rebuilt + at_1, second, mask=(rows_1 >= 0) & inside)
        tl.store(grad_x + at_0, g_first, mask=(rows_0 >= 0) & inside)
        tl.store(grad_x + at_1, g_second, mask=(rows_1 >= 0) & inside)
        tl.debug_barrier()  # the next tile adds to the gradients that this one has written
