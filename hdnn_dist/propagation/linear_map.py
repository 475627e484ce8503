"""The one linear map that vector fields and couplings are made of, L = alpha A + beta A^T, by neighbours alone.

    A          alpha = 1, beta = 0     K itself, a given J or X
    -A^T       alpha = 0, beta = -1    MS1's second half-step, with the K of the first
    A - A^T    alpha = 1, beta = -1    a skew matrix whose blocks are stored once: MS2, a trained J

A x takes a gather and a product, A^T x a product and a scatter-add. L^T is the same with alpha and beta swapped, and
the gradient of A by u^T L x is alpha u x^T + beta x u^T on the blocks of A.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.products import BlockProduct


class Coefficients(NamedTuple):
    """Of L = alpha A + beta A^T."""

    alpha: float
    beta: float

    @property
    def transposed(self) -> Coefficients:
        """Of L^T."""
        return Coefficients(self.beta, self.alpha)

    @property
    def size(self) -> float:
        """||L|| is at most this times ||A||."""
        return abs(self.alpha) + abs(self.beta)

    @property
    def gathers(self) -> int:
        """Gathers that L x takes, none or one; L^T x takes as many scatter-adds."""
        return int(self.alpha != 0)

    @property
    def scatters(self) -> int:
        """Scatter-adds that L x takes, none or one; L^T x takes as many gathers."""
        return int(self.beta != 0)

    def of(self, A: Tensor) -> Tensor:
        """L, (..., n, n), for square A of the same shape."""
        return self.alpha * A + self.beta * A.mT if self.beta else self.alpha * A

    def pattern(self, T: Pattern) -> Pattern:
        """The blocks of L that may be non-zero, with A in blkSparse(T)."""
        if not self.beta:
            return T
        return T.union(T.transposed()) if self.alpha else T.transposed()


class LinearMap:
    """L for the blocks of one layout, on rows of ``width`` columns. Results are valid until the next call."""

    def __init__(self, layout: BlockLayout, coefficients: Coefficients, width: int, dtype: torch.dtype) -> None:
        self.layout = layout
        self.coefficients = coefficients
        self._width, self._dtype = width, dtype

    def apply(self, A: Sequence[Tensor], x: HaloBuffer) -> Tensor:
        """L x, (local rows, width); ``A``: per group (A, rows, columns), x: its local rows are read."""
        return self._sum(self.coefficients, self._x_product, A, x)

    def adjoint(self, A: Sequence[Tensor], u: HaloBuffer) -> Tensor:
        """L^T u, (local rows, width); ``A``, u: as in ``apply``."""
        return self._sum(self.coefficients.transposed, self._u_product, A, u)

    def accumulate(self, grad: Sequence[Tensor], x: HaloBuffer, u: HaloBuffer, scale: float = 1.0) -> None:
        """grad += scale (alpha u x^T + beta x u^T), per group (A, rows, columns).

        After ``apply`` to x and ``adjoint`` of u.
        """
        alpha, beta = self.coefficients
        if alpha:
            self._x_product.accumulate(grad, self.layout.grouped(u.local), slice(None), scale * alpha)
        if beta:
            self._u_product.accumulate(grad, self.layout.grouped(x.local), slice(None), scale * beta)

    def _sum(self, coefficients: Coefficients, product: BlockProduct, A: Sequence[Tensor], x: HaloBuffer) -> Tensor:
        alpha, beta = coefficients
        if beta:
            product.begin_adjoint(A, self.layout.grouped(x.local), self._returned)
            self._returned.end_scatter_add()
        if not alpha:
            return _times(self._returned.local, beta)
        read = _times(self.layout.ungrouped(product.apply(A, x)), alpha)
        return read.add_(self._returned.local, alpha=beta) if beta else read

    @cached_property
    def _x_product(self) -> BlockProduct:
        return BlockProduct(self.layout, self._width, self._width, self._dtype)

    @cached_property
    def _u_product(self) -> BlockProduct:
        """One of its own where both x and u are read: their blocks stay in the products for ``accumulate``."""
        return (
            BlockProduct(self.layout, self._width, self._width, self._dtype)
            if all(self.coefficients)
            else self._x_product
        )

    @cached_property
    def _returned(self) -> HaloBuffer:
        return self.layout.halo.buffer(self._width, self._dtype)


def _times(rows: Tensor, factor: float) -> Tensor:
    """In place, nothing for a factor of 1."""
    return rows if factor == 1 else rows.mul_(factor)
