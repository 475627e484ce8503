"""The built-in activations on rows of a tile, compiled: those of ``propagation.activations``."""

from __future__ import annotations

import math

from numba import njit

from hdnn_dist.propagation.activations import LEAKY_SLOPE
from hdnn_dist.support.compiled.functions import FAST

TANH, RELU, LEAKY_RELU, SOFTPLUS, SIGMOID, IDENTITY = range(6)
CODES = {
    "tanh": TANH,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "softplus": SOFTPLUS,
    "sigmoid": SIGMOID,
    "identity": IDENTITY,
}


# tanh(x) = x P(x^2) / Q(x^2) on |x| <= 9, beyond which it rounds to 1 in float32: least largest relative error, 2.1e-8.
P = (0.999999979, 0.133810102, 3.49556969e-3, 2.06087804e-5, 1.33542534e-8)
Q = (1.0, 0.467143258, 2.58769122e-2, 3.28560468e-4, 7.77638874e-7)


@njit(**FAST)
def _tanh(z, row, by):
    """z[row] becomes tanh(by z[row]), to rounding, without a branch and with one division."""
    if z.itemsize == 4:
        _single_tanh(z, row, z.dtype.type(by))
    else:
        _double_tanh(z, row, z.dtype.type(by))


@njit(**FAST)
def _single_tanh(z, row, by):
    """In float32, by the quotient above."""
    number = z.dtype.type
    p0, p1, p2, p3, p4 = number(P[0]), number(P[1]), number(P[2]), number(P[3]), number(P[4])
    q0, q1, q2, q3, q4 = number(Q[0]), number(Q[1]), number(Q[2]), number(Q[3]), number(Q[4])
    limit = number(9)
    for j in range(z.shape[1]):
        x = z[row, j] * by
        x = limit if x > limit else x
        x = -limit if x < -limit else x
        w = x * x
        p = x * ((((p4 * w + p3) * w + p2) * w + p1) * w + p0)
        z[row, j] = p / ((((q4 * w + q3) * w + q2) * w + q1) * w + q0)


@njit(**FAST)
def _double_tanh(z, row, by):
    """In float64: Lambert's continued fraction for the tanh of z / 32, then five times the double argument.

    As a quotient, tanh 2t = 2 p q / (p^2 + q^2). The seventh convergent is off by z^15 / 2.7e11, relatively, after
    which the doublings make the error smaller; tanh(20) rounds to 1.
    """
    for j in range(z.shape[1]):
        x = z[row, j] * by
        x = 20.0 if x > 20.0 else x
        x = -20.0 if x < -20.0 else x
        x *= 1 / 32
        w = x * x
        p, q = x * (((w + 378.0) * w + 17325.0) * w + 135135.0), ((28.0 * w + 3150.0) * w + 62370.0) * w + 135135.0
        p, q = 2.0 * p * q, p * p + q * q
        p, q = 2.0 * p * q, p * p + q * q
        p, q = 2.0 * p * q, p * p + q * q
        p, q = 2.0 * p * q, p * p + q * q
        p, q = 2.0 * p * q, p * p + q * q
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
