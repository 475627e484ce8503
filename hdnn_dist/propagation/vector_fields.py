"""The vector fields F of half-steps, each with its exchange, its reverse and its tangent.

    Gradient    F(x) = K^T s(K x + b)       the gradient of a Hamiltonian: H1, H2, MS3
    Direct      F(x) = s(K x + b)           MS1's first half-step, the MLP
    Transposed  F(x) = s(-K^T x + b)        MS1's second half-step, with the K of the first
    Skew        F(x) = s((U - U^T) x + b)   MS2: every block of the skew matrix is stored once

A field answers from what it is, without a name: which blocks it reads, how it stretches.

Legend: z = L x + b with L = alpha K + beta K^T, s = s(z), f = F(x); in reverse u is the gradient that enters, q = s'(z)
times what u gives there, v = dF^T u the gradient that leaves. u, f and v are (local rows, width).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.linear_map import Coefficients, LinearMap
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.products import BlockProduct

Norm = TypeVar("Norm", float, np.ndarray)
PLAIN = Coefficients(1.0, 0.0)  # L = K


class Blocks(NamedTuple):
    """One operator in one layer. ``K``: per group (A, rows, columns); ``b``: (rows, 1) in the order of the groups.

    ``flat``: (size,) all of its K and biases as they lie in memory; ``bias``: which of the biases b is.
    """

    K: Sequence[Tensor]
    b: Tensor
    flat: Tensor
    bias: int


class VectorField(ABC):
    """F for one layout and width. What it returns lives in its buffers, and is valid until its next call.

    ``coefficients``: of L; ``gradient``: whether F(x) = K^T s(K x + b), with L = K, and not s(L x + b).
    ``source_width``: columns of the buffer that ``reverse`` reads x from, in its first ``width`` columns.

    A field of another kind than these two overrides the passes, and ``patterns`` and ``lipschitz`` with them; kernels
    that know only these two leave it to the portable pass, see ``in_closed_form``.
    """

    coefficients: ClassVar[Coefficients] = PLAIN
    gradient: ClassVar[bool] = False
    doubled: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if cls.gradient and cls.coefficients != PLAIN:
            raise TypeError(
                f"{cls.__name__} is a gradient, K^T s(K x + b): it takes no coefficients, not {cls.coefficients}"
            )

    def __init__(self, layout: BlockLayout, activation: Activation, width: int, dtype: torch.dtype) -> None:
        self.layout = layout
        self.activation = activation
        self.width = width
        self.dtype = dtype

    @classmethod
    def in_closed_form(cls) -> bool:
        """Whether ``coefficients`` and ``gradient`` say all of it, so that a kernel can compute it from them."""
        family = Gradient if cls.gradient else Pointwise
        return all(getattr(cls, name) is getattr(family, name) for name in ("forward", "reverse", "tangent"))

    @classmethod
    def patterns(cls, T: Pattern) -> list[Pattern]:
        """What a set of agents passes one after the other on its way through dF, with K in blkSparse(T)."""
        reads = cls.coefficients.pattern(T)
        return [reads, reads.transposed()] if cls.gradient else [reads]

    @classmethod
    def lipschitz(cls, norm: Norm, slope: float) -> Norm:
        """A Lipschitz constant of F, for ||L|| = ``norm``, numbers or an array of any shape, and |s'| <= ``slope``."""
        return slope * (norm * norm if cls.gradient else norm)

    @classmethod
    def norm_within(cls, constant: float, slope: float) -> float:
        """The largest ||L|| for which that is at most ``constant``."""
        return math.sqrt(constant / slope) if cls.gradient else constant / slope

    @property
    def source_width(self) -> int:
        return 2 * self.width if self.doubled else self.width

    @abstractmethod
    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """f = F(x), (local rows, width); x has ``width`` columns, its local rows are read."""

    def entering(self, x: HaloBuffer) -> Tensor:
        """Where u, or dx, (local rows, width), has to stand when ``reverse``, or ``tangent``, is called for x."""
        return x.local[:, self.width :] if self.doubled else self._entering.local

    @abstractmethod
    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        """(f if ``rebuild``, v), (local rows, width) each, adding to ``grad``; x has ``source_width`` columns."""

    @abstractmethod
    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        """(f, dF dx), (local rows, width) each; x has ``source_width`` columns."""

    @cached_property
    def _entering(self) -> HaloBuffer:
        return self._buffer(self.width)

    def _buffer(self, width: int) -> HaloBuffer:
        return self.layout.halo.buffer(width, self.dtype)


class Gradient(VectorField):
    """K^T s(K x + b). Its Jacobian K^T diag(s') K is symmetric, so reverse and tangent are one product."""

    doubled = True
    gradient = True

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """As ``VectorField.forward``."""
        product, f = self._forward
        z = product.apply(at.K, x).add_(at.b)
        self.activation.apply_(z)
        product.begin_adjoint(at.K, z, f)
        f.end_scatter_add()
        return f.local

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        """As ``VectorField.reverse``."""
        product, fv = self._both if rebuild else self._second
        s, q = self._response(at, x, product)
        product.begin_adjoint(at.K, product.z[:, -fv.data.shape[1] :], fv)
        product.accumulate(grad.K, q, slice(0, self.width))
        product.accumulate(grad.K, s, slice(self.width, None))
        grad.b.add_(q.sum(1, keepdim=True))
        fv.end_scatter_add()
        return fv.local[:, : self.width] if rebuild else None, fv.local[:, -self.width :]

    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        """As ``VectorField.tangent``."""
        product, fv = self._both
        self._response(at, x, product)
        product.begin_adjoint(at.K, product.z, fv)
        fv.end_scatter_add()
        return fv.local[:, : self.width], fv.local[:, self.width :]

    def _response(self, at: Blocks, x: HaloBuffer, product: BlockProduct) -> tuple[Tensor, Tensor]:
        """s = s(K x + b) and q = s' K u, side by side in the product's z."""
        z = product.apply(at.K, x)
        s, q = z[:, : self.width], z[:, self.width :]
        self.activation.both_(s.add_(at.b), q)
        return s, q

    @cached_property
    def _forward(self) -> tuple[BlockProduct, HaloBuffer]:
        return self._product(self.width, self.width), self._buffer(self.width)

    @cached_property
    def _both(self) -> tuple[BlockProduct, HaloBuffer]:
        return self._product(2 * self.width, 2 * self.width), self._buffer(2 * self.width)

    @cached_property
    def _second(self) -> tuple[BlockProduct, HaloBuffer]:
        return self._product(2 * self.width, self.width), self._buffer(self.width)

    def _product(self, width: int, returned: int) -> BlockProduct:
        return BlockProduct(self.layout, width, returned, self.dtype)


class Pointwise(VectorField):
    """s(L x + b)."""

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """As ``VectorField.forward``."""
        z = self._L.apply(at.K, x).add_(self._bias(at))
        self.activation.apply_(z)
        return z

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        """As ``VectorField.reverse``."""
        s, q = self._L.apply(at.K, x).add(self._bias(at)), self._entering
        self.activation.both_(s, q.local)
        grad.b.add_(self.layout.grouped(q.local.sum(1, keepdim=True)))
        v = self._L.adjoint(at.K, q)
        self._L.accumulate(grad.K, x, q)
        return s, v

    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        """As ``VectorField.tangent``."""
        response = self._L.apply(at.K, self._entering).clone()
        s = self._L.apply(at.K, x).add(self._bias(at))
        self.activation.both_(s, response)
        return s, response

    def _bias(self, at: Blocks) -> Tensor:
        return self.layout.ungrouped(at.b)

    @cached_property
    def _L(self) -> LinearMap:
        return LinearMap(self.layout, self.coefficients, self.width, self.dtype)


class Direct(Pointwise):
    """s(K x + b)."""


class Transposed(Pointwise):
    """s(-K^T x + b)."""

    coefficients = Coefficients(0.0, -1.0)


class Skew(Pointwise):
    """s((U - U^T) x + b), where U holds each block of the skew matrix once."""

    coefficients = Coefficients(1.0, -1.0)
