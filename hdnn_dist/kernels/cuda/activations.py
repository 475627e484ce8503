"""The built-in activations on a tile in registers, in Triton: those of ``propagation.activations``, in float32.

Written with operations that Triton's interpreter knows too, so that what is tested there is what runs on a GPU.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="import-not-found"
from __future__ import annotations

import triton
import triton.language as tl

from hdnn_dist.propagation.activations import LEAKY_SLOPE

LEAK = tl.constexpr(LEAKY_SLOPE)


@triton.jit
def _tanh(z):
    """Lambert's continued fraction on z / 4, doubled twice: tanh(9) rounds to 1."""
    x = z * 0.25
    x = tl.where(x > 2.25, 2.25, tl.where(x < -2.25, -2.25, x))
    w = x * x
    t = x * (((w + 378.0) * w + 17325.0) * w + 135135.0) / (((28.0 * w + 3150.0) * w + 62370.0) * w + 135135.0)
    t = 2.0 * t / (1.0 + t * t)
    return 2.0 * t / (1.0 + t * t)


@triton.jit
def _softplus(z):
    """max(z, 0) + log(1 + e) with e = exp(-|z|); e / (u - 1) makes up for the digits that u = 1 + e loses."""
    e = tl.exp(-tl.abs(z))
    u = 1.0 + e
    log1p = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.where(z < 0.0, 0.0, z) + log1p


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """s(z)."""
    if ACTIVATION == "tanh":
        return _tanh(z)
    elif ACTIVATION == "relu":
        return tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "leaky_relu":
        return tl.where(z < 0.0, LEAK * z, z)
    elif ACTIVATION == "softplus":
        return _softplus(z)
    elif ACTIVATION == "sigmoid":
        return 0.5 + 0.5 * _tanh(0.5 * z)
    else:
        tl.static_assert(ACTIVATION == "identity")
        return z


@triton.jit
def times_slope(r, z, s, ACTIVATION: tl.constexpr):
    """s'(z) r, for s = s(z)."""
    if ACTIVATION == "tanh":
        return (1.0 - s * s) * r
    elif ACTIVATION == "relu":
        return tl.where(s > 0.0, r, 0.0)
    elif ACTIVATION == "leaky_relu":
        return tl.where(s > 0.0, r, LEAK * r)
    elif ACTIVATION == "softplus":
        return (0.5 + 0.5 * _tanh(0.5 * z)) * r
    elif ACTIVATION == "sigmoid":
        return s * (1.0 - s) * r
    else:
        tl.static_assert(ACTIVATION == "identity")
        return r
