"""What a training step computes beside the passes, compiled: losses at the root, and the gradient of smoothness.

Formulas are those of ``model.losses`` and ``weights.layers``, which stay in torch as the reference.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from hdnn_dist.support.compiled.functions import called


@called
def cross_entropy(logits, labels, told):
    """The mean loss, the samples that are right and, if ``told`` is longer than that, the gradient by the logits.

    ``logits``: (batch, classes); ``labels``: (batch,); ``told``: (2,) or (2 + batch * classes,). Returns whether all
    labels are classes; stops at one that is none.
    """
    batch, classes = logits.shape
    share, train = logits.dtype.type(1) / logits.dtype.type(batch), told.size > 2
    loss, right = 0.0, 0
    for i in range(batch):
        label, best, total = labels[i], 0, logits.dtype.type(0)
        if not 0 <= label < classes:
            return False
        for k in range(1, classes):
            best = k if logits[i, k] > logits[i, best] else best
        for k in range(classes):
            part = math.exp(logits[i, k] - logits[i, best])
            total += part
            if train:
                told[2 + i * classes + k] = part
        if train:
            for k in range(classes):
                told[2 + i * classes + k] *= share / total
            told[2 + i * classes + label] -= share
        loss += math.log(total) - (logits[i, label] - logits[i, best])
        right += best == label
    told[0], told[1] = loss / batch, right
    return True


@called
def binary_cross_entropy(logits, labels, told):
    """The same for ``logits`` (batch, 1) of class 1 against class 0."""
    batch, train = len(logits), told.size > 2
    one = logits.dtype.type(1)
    loss, right = 0.0, 0
    for i in range(batch):
        label, z = labels[i], logits[i, 0]
        if not 0 <= label < 2:
            return False
        small = math.exp(-abs(z))
        loss += math.log1p(small) + (abs(z) if (z > 0) != label else 0 * z)
        right += (z > 0) == label
        if train:
            told[2 + i] = ((one if z > 0 else small) / (one + small) - label) / batch
    told[0], told[1] = loss / batch, right
    return True


@called
def add_differences(G, W, scale):
    """G += scale D^T D W, with D W the differences between neighbouring layers; (layers, operators, size)."""
    layers, factor = len(W), G.dtype.type(scale)
    for layer in range(layers):
        before, after = max(layer - 1, 0), min(layer + 1, layers - 1)
        for k in range(W.shape[1]):
            for i in range(W.shape[2]):
                here = W[layer, k, i]
                G[layer, k, i] += factor * ((here - W[before, k, i]) + (here - W[after, k, i]))


def signature(name: str, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """The types that the function of that name is called with, for numbers of ``dtype``."""
    number = numba.from_dtype(dtype)
    if name == "add_differences":
        return number[:, :, ::1], number[:, :, ::1], numba.float64
    return number[:, ::1], numba.int64[::1], number[::1]
