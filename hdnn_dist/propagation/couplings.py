"""Couplings C: the part of J that stands between F(source) and the target of a half-step.

    Identity          C = I
    Canonical         C = J1 = [0 -I; I 0] on the two halves of every agent; C^T = -C
    BlockCoupling     C a block-sparse matrix on the graph: a given J or X, or a trained X
    SkewCoupling      C = A - A^T with every block of A stored once: a trained J

The first two need no message. The others are one more exchange: a gather for C, a scatter-add for C^T.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.propagation.state import canonical_rows
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.products import BlockProduct


class Coupling(ABC):
    """A linear map C on local rows. ``at``: its blocks in the layer at hand, nothing for those without weights."""

    @abstractmethod
    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        """target += scale C f."""

    @abstractmethod
    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        """out = scale C^T g."""

    def accumulate(self, grad: Sequence[Tensor], f: Tensor, g: Tensor, scale: float) -> None:
        """grad += scale g f^T on the blocks of C, after ``transpose`` of this g and ``add_`` of this f."""
        raise AssertionError("this coupling has no weights")


class Identity(Coupling):
    """C = I: the halves of an agent drive each other feature by feature."""

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        target.add_(f, alpha=scale)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        torch.mul(g, scale, out=out)


class Canonical(Coupling):
    """C = J1 - damping I, with J1 = [0 -I; I 0] on the halves of each agent. ``like`` gives type and device."""

    def __init__(self, features: np.ndarray, like: Tensor, damping: float = 0.0) -> None:
        swap, sign = canonical_rows(features)
        self._swap = torch.as_tensor(swap, device=like.device)
        self._sign = torch.as_tensor(sign[:, np.newaxis], dtype=like.dtype, device=like.device)
        self._damping = damping

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        target.addcmul_(f.index_select(0, self._swap), self._sign, value=scale)
        if self._damping:
            target.add_(f, alpha=-scale * self._damping)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        torch.mul(g, -scale * self._damping, out=out)
        out.addcmul_(g.index_select(0, self._swap), self._sign, value=-scale)


class WeightedCoupling(Coupling):
    """A coupling with blocks; ``layout`` is theirs, ``width`` the number of columns of f and g."""

    def __init__(self, layout: BlockLayout, width: int, dtype: torch.dtype, damping: float = 0.0) -> None:
        self.layout = layout
        self._width, self._dtype, self._damping = width, dtype, damping
        self._back = layout.halo.buffer(width, dtype)

    def _reader(self) -> tuple[HaloBuffer, BlockProduct]:
        """Buffers to read rows with; the blocks that were read last stay in them for ``accumulate``."""
        field = self.layout.halo.buffer(self._width, self._dtype)
        return field, BlockProduct(self.layout, self._width, self._width, self._dtype)

    def _apply(self, reader: tuple[HaloBuffer, BlockProduct], rows: Tensor, at: Sequence[Tensor]) -> Tensor:
        """Blocks times rows: a gather and a product."""
        field, product = reader
        field.local.copy_(rows)
        field.gather()
        return self.layout.ungrouped(product.apply(at, field.data))

    def _adjoint(self, reader: tuple[HaloBuffer, BlockProduct], rows: Tensor, at: Sequence[Tensor]) -> Tensor:
        """Transposed blocks times rows: a product and a scatter-add."""
        reader[1].adjoint(at, self.layout.grouped(rows), self._back.data)
        self._back.scatter_add()
        return self._back.local

    def _damp(self, result: Tensor, rows: Tensor, scale: float) -> None:
        if self._damping:
            result.add_(rows, alpha=-scale * self._damping)


class BlockCoupling(WeightedCoupling):
    """C = X - damping I, or C = X^T, for a block-sparse X whose rows lie with their agents."""

    def __init__(
        self, layout: BlockLayout, width: int, dtype: torch.dtype, transposed: bool = False, damping: float = 0.0
    ) -> None:
        super().__init__(layout, width, dtype, damping)
        self._transposed = transposed
        self._read = self._reader()

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        move = self._adjoint if self._transposed else self._apply
        self._damp(target.add_(move(self._read, f, at), alpha=scale), f, scale)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        move = self._apply if self._transposed else self._adjoint
        self._damp(torch.mul(move(self._read, g, at), scale, out=out), g, scale)

    def accumulate(self, grad: Sequence[Tensor], f: Tensor, g: Tensor, scale: float) -> None:
        own = f if self._transposed else g  # the other one is what X was applied to, and has been read
        self._read[1].accumulate(grad, self.layout.grouped(own), slice(None), scale)


class SkewCoupling(WeightedCoupling):
    """C = A - A^T - damping I."""

    def __init__(self, layout: BlockLayout, width: int, dtype: torch.dtype, damping: float = 0.0) -> None:
        super().__init__(layout, width, dtype, damping)
        self._read_f, self._read_g = self._reader(), self._reader()

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        target.sub_(self._adjoint(self._read_f, f, at), alpha=scale)
        self._damp(target.add_(self._apply(self._read_f, f, at), alpha=scale), f, scale)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        torch.mul(self._adjoint(self._read_g, g, at), scale, out=out)
        self._damp(out.sub_(self._apply(self._read_g, g, at), alpha=scale), g, scale)

    def accumulate(self, grad: Sequence[Tensor], f: Tensor, g: Tensor, scale: float) -> None:
        self._read_f[1].accumulate(grad, self.layout.grouped(g), slice(None), scale)
        self._read_g[1].accumulate(grad, self.layout.grouped(f), slice(None), -scale)
