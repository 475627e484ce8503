"""The built-in activations on rows of a tile, compiled; the same functions as in ``activations``."""

from __future__ import annotations

import math

from numba import njit

from hdnn_dist.activations import LEAKY_SLOPE
from hdnn_dist.kernels.tiles import FAST

TANH, RELU, LEAKY_RELU, SOFTPLUS, SIGMOID, IDENTITY = range(6)
CODES = {
    "tanh": TANH,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "softplus": SOFTPLUS,
    "sigmoid": SIGMOID,
    "identity": IDENTITY,
}


@njit(**FAST)
def _tanh(z, row, by):
    """z[row] becomes tanh(by z[row]), to rounding, without a branch and with one division.

    Lambert's continued fraction for the tanh of z / 2^n, as a quotient p / q, then n times the double argument:
    tanh 2t = 2 p q / (p^2 + q^2). Its seventh convergent is off by z^15 / 2.7e11, relatively, after which the doublings
    make the error smaller: n = 2 serves for float32, where tanh(9) rounds to 1, n = 5 for float64, where tanh(20) does.
    """
    number = z.dtype.type
    single = z.itemsize == 4
    part = number(0.25 if single else 1 / 32)
    limit, part = part * number(9.0 if single else 20.0), part * number(by)
    two, c378, c17325, c135135 = number(2), number(378), number(17325), number(135135)
    c28, c3150, c62370 = number(28), number(3150), number(62370)
    for j in range(z.shape[1]):
        x = z[row, j] * part
        x = limit if x > limit else x
        x = -limit if x < -limit else x
        w = x * x
        p, q = x * (((w + c378) * w + c17325) * w + c135135), ((c28 * w + c3150) * w + c62370) * w + c135135
        p, q = two * p * q, p * p + q * q
        p, q = two * p * q, p * p + q * q
        if not single:
            p, q = two * p * q, p * p + q * q
            p, q = two * p * q, p * p + q * q
            p, q = two * p * q, p * p + q * q
        z[row, j] = p / q


@njit(**FAST)
def activate(code, z, first, rows):
    """z becomes s(z) in rows first, ..., first + rows - 1."""
    zero, half, leak = z.dtype.type(0), z.dtype.type(0.5), z.dtype.type(LEAKY_SLOPE)
    for row in range(first, first + rows):
        if code == TANH:
            _tanh(z, row, 1.0)
        elif code == RELU:
            for j in range(z.shape[1]):
                z[row, j] = zero if z[row, j] < zero else z[row, j]
        elif code == LEAKY_RELU:
            for j in range(z.shape[1]):
                z[row, j] = leak * z[row, j] if z[row, j] < zero else z[row, j]
        elif code == SOFTPLUS:
            for j in range(z.shape[1]):
                x = z[row, j]
                z[row, j] = (x if x > zero else zero) + math.log1p(math.exp(-abs(x)))
        elif code == SIGMOID:
            _tanh(z, row, 0.5)
            for j in range(z.shape[1]):
                z[row, j] = half + half * z[row, j]


@njit(**FAST)
def activate_both(code, s, q, first, rows):
    """s, which holds z, becomes s(z), and q becomes s'(z) q: all slopes follow from the value."""
    activate(code, s, first, rows)
    zero, one, leak = s.dtype.type(0), s.dtype.type(1), s.dtype.type(LEAKY_SLOPE)
    for row in range(first, first + rows):
        if code == TANH:
            for j in range(s.shape[1]):
                q[row, j] *= one - s[row, j] * s[row, j]
        elif code == RELU:
            for j in range(s.shape[1]):
                q[row, j] = q[row, j] if s[row, j] > zero else zero
        elif code == LEAKY_RELU:
            for j in range(s.shape[1]):
                q[row, j] = q[row, j] if s[row, j] > zero else leak * q[row, j]
        elif code == SOFTPLUS:
            for j in range(s.shape[1]):
                q[row, j] *= -math.expm1(-s[row, j])  # sigmoid(z) = 1 - exp(-softplus(z))
        elif code == SIGMOID:
            for j in range(s.shape[1]):
                q[row, j] *= s[row, j] * (one - s[row, j])
