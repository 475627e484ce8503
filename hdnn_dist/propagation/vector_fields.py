"""The forms that a half-step's F takes, each with its exchange, its reverse and its tangent.

    Gradient    F(x) = K^T s(K x + b)       the gradient of a Hamiltonian: H1, H2, MS3
    Direct      F(x) = s(K x + b)           MS1's first half-step, the MLP
    Transposed  F(x) = s(-K^T x + b)        MS1's second half-step, with the K of the first
    Skew        F(x) = s((U - U^T) x + b)   MS2: every block of the skew matrix is stored once

Legend: z = K x_hat + b with x_hat the blocks an agent reads, s = s(z), f = F(x); in reverse u is the gradient that
enters, q = s'(z) times what u gives there, v = dF^T u the gradient that leaves. u, f and v are (local rows, width).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.products import BlockProduct


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

    ``source_width``: columns of the field that ``reverse`` reads x from, in its first ``width`` columns.
    ``alpha``, ``beta``: of L = alpha K + beta K^T in F(x) = s(L x + b); ``gradient``: whether K^T follows.
    """

    doubled = False
    gradient = False
    alpha, beta = 1.0, 0.0

    def __init__(self, layout: BlockLayout, activation: Activation, width: int, dtype: torch.dtype) -> None:
        self.layout = layout
        self.activation = activation
        self.width = width
        self.dtype = dtype

    @property
    def source_width(self) -> int:
        return 2 * self.width if self.doubled else self.width

    @abstractmethod
    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """f = F(x); x has ``width`` columns, its local rows are read."""

    def entering(self, x: HaloBuffer) -> Tensor:
        """Where u, or dx, has to stand when ``reverse``, or ``tangent``, is called for the state in x."""
        return x.local[:, self.width :] if self.doubled else self._entering.local

    @abstractmethod
    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        """(f if ``rebuild``, v), adding to ``grad``; x has ``source_width`` columns."""

    @abstractmethod
    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        """(f, dF dx); x has ``source_width`` columns."""

    @cached_property
    def _entering(self) -> HaloBuffer:
        return self._field(self.width)

    def _field(self, width: int) -> HaloBuffer:
        return self.layout.halo.buffer(width, self.dtype)

    def _product(self, width: int, returned: int) -> BlockProduct:
        return BlockProduct(self.layout, width, returned, self.dtype)


class Gradient(VectorField):
    """K^T s(K x + b). Its Jacobian K^T diag(s') K is symmetric, so reverse and tangent are one product."""

    doubled = True
    gradient = True

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        product, f = self._forward
        x.gather()
        z = product.apply(at.K, x.data).add_(at.b)
        self.activation.apply_(z)
        product.adjoint(at.K, z, f.data)
        f.scatter_add()
        return f.local

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        product, fv = self._both if rebuild else self._second
        s, q = self._response(at, x, product)
        product.adjoint(at.K, product.z[:, -fv.data.shape[1] :], fv.data)
        product.accumulate(grad.K, q, slice(0, self.width))
        product.accumulate(grad.K, s, slice(self.width, None))
        grad.b.add_(q.sum(1, keepdim=True))
        fv.scatter_add()
        return fv.local[:, : self.width] if rebuild else None, fv.local[:, -self.width :]

    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        product, fv = self._both
        self._response(at, x, product)
        product.adjoint(at.K, product.z, fv.data)
        fv.scatter_add()
        return fv.local[:, : self.width], fv.local[:, self.width :]

    def _response(self, at: Blocks, x: HaloBuffer, product: BlockProduct) -> tuple[Tensor, Tensor]:
        """s = s(K x + b) and q = s' K u, side by side in the product's z."""
        x.gather()
        z = product.apply(at.K, x.data)
        s, q = z[:, : self.width], z[:, self.width :]
        self.activation.both_(s.add_(at.b), q)
        return s, q

    @cached_property
    def _forward(self) -> tuple[BlockProduct, HaloBuffer]:
        return self._product(self.width, self.width), self._field(self.width)

    @cached_property
    def _both(self) -> tuple[BlockProduct, HaloBuffer]:
        return self._product(2 * self.width, 2 * self.width), self._field(2 * self.width)

    @cached_property
    def _second(self) -> tuple[BlockProduct, HaloBuffer]:
        return self._product(2 * self.width, self.width), self._field(self.width)


class Pointwise(VectorField):
    """s(A x + b) for a linear A: everything but A itself."""

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        z = self._linear(at, x).add_(self._bias(at))
        self.activation.apply_(z)
        return z

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        s, q = self._linear(at, x).add(self._bias(at)), self._entering.local
        self.activation.both_(s, q)
        grad.b.add_(self.layout.grouped(q.sum(1, keepdim=True)))
        return s, self._adjoint(at, x, self._entering, grad)

    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        response = self._linear(at, self._entering).clone()
        s = self._linear(at, x).add(self._bias(at))
        self.activation.both_(s, response)
        return s, response

    def _bias(self, at: Blocks) -> Tensor:
        return self.layout.ungrouped(at.b)

    @abstractmethod
    def _linear(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """A x, (local rows, width), in a buffer of its own."""

    @abstractmethod
    def _adjoint(self, at: Blocks, x: HaloBuffer, q: HaloBuffer, grad: Blocks) -> Tensor:
        """A^T q, adding the gradient of K by A to ``grad``; x is as ``_linear`` left it."""

    @cached_property
    def _leaving(self) -> HaloBuffer:
        return self._field(self.width)

    @cached_property
    def _x_product(self) -> BlockProduct:
        return self._product(self.width, self.width)

    @cached_property
    def _q_product(self) -> BlockProduct:
        return self._product(self.width, self.width)


class Direct(Pointwise):
    """A = K: gather, product."""

    def _linear(self, at: Blocks, x: HaloBuffer) -> Tensor:
        x.gather()
        return self.layout.ungrouped(self._x_product.apply(at.K, x.data))

    def _adjoint(self, at: Blocks, x: HaloBuffer, q: HaloBuffer, grad: Blocks) -> Tensor:
        grouped = self.layout.grouped(q.local)
        self._x_product.accumulate(grad.K, grouped, slice(None))
        self._x_product.adjoint(at.K, grouped, self._leaving.data)
        self._leaving.scatter_add()
        return self._leaving.local


class Transposed(Pointwise):
    """A = -K^T: partial products go to the agents whose blocks K reads."""

    alpha, beta = 0.0, -1.0

    def _linear(self, at: Blocks, x: HaloBuffer) -> Tensor:
        self._x_product.adjoint(at.K, self.layout.grouped(x.local), self._leaving.data)
        self._leaving.scatter_add()
        return self._leaving.local.neg_()

    def _adjoint(self, at: Blocks, x: HaloBuffer, q: HaloBuffer, grad: Blocks) -> Tensor:
        q.gather()
        v = self._q_product.apply(at.K, q.data)
        self._q_product.accumulate(grad.K, self.layout.grouped(x.local), slice(None), scale=-1.0)
        return self.layout.ungrouped(v).neg_()


class Skew(Pointwise):
    """A = U - U^T, where U holds each block of the skew matrix once; A^T = -A."""

    alpha, beta = 1.0, -1.0

    def _linear(self, at: Blocks, x: HaloBuffer) -> Tensor:
        return self._skew(at, x, self._x_product)

    def _adjoint(self, at: Blocks, x: HaloBuffer, q: HaloBuffer, grad: Blocks) -> Tensor:
        v = self._skew(at, q, self._q_product).neg_()
        self._x_product.accumulate(grad.K, self.layout.grouped(q.local), slice(None))
        self._q_product.accumulate(grad.K, self.layout.grouped(x.local), slice(None), scale=-1.0)
        return v

    def _skew(self, at: Blocks, x: HaloBuffer, product: BlockProduct) -> Tensor:
        x.gather()
        product.adjoint(at.K, self.layout.grouped(x.local), self._leaving.data)
        self._leaving.scatter_add()
        ahead = self.layout.ungrouped(product.apply(at.K, x.data))
        return torch.sub(ahead, self._leaving.local, out=self._difference)

    @cached_property
    def _difference(self) -> Tensor:
        return torch.empty_like(self._leaving.local)
