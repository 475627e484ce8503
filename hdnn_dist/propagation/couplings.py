"""Couplings C: the part of J that stands between F(source) and the target of a half-step.

    Identity          C = I
    Canonical         C = J1 = [0 -I; I 0] on the two halves of every agent; C^T = -C
    BlockCoupling     C a linear map of blocks on the graph: a given J or X, a trained X, or A - A^T, a trained J

The first two need no message. The last is one more exchange: a gather for A, a scatter-add for A^T.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.propagation.linear_map import Coefficients, LinearMap
from hdnn_dist.propagation.state import canonical_rows
from hdnn_dist.weights.blocks import BlockLayout


class Coupling(ABC):
    """A linear map C on local rows, (rows, width).

    ``at``: its blocks in the layer at hand, per group (A, rows, columns); nothing for those without weights.
    """

    @abstractmethod
    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        """target += scale C f, both (rows, width)."""

    @abstractmethod
    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        """out = scale C^T g, both (rows, width)."""

    def accumulate(self, grad: Sequence[Tensor], f: Tensor, g: Tensor, scale: float) -> None:
        """grad += scale g f^T on the blocks of C, per group (A, rows, columns).

        After ``transpose`` of this g and ``add_`` of this f, both (rows, width).
        """
        raise AssertionError("this coupling has no weights")


class Identity(Coupling):
    """C = I: the halves of an agent drive each other feature by feature."""

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        """As ``Coupling.add_``."""
        target.add_(f, alpha=scale)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        """As ``Coupling.transpose``."""
        torch.mul(g, scale, out=out)


class Canonical(Coupling):
    """C = J1 - damping I, with J1 = [0 -I; I 0] on the halves of each agent.

    ``features``: (local agents,); ``like`` gives type and device.
    """

    def __init__(self, features: np.ndarray, like: Tensor, damping: float = 0.0) -> None:
        swap, sign = canonical_rows(features)
        self._swap = torch.as_tensor(swap, device=like.device)
        self._sign = torch.as_tensor(sign[:, np.newaxis], dtype=like.dtype, device=like.device)
        self._damping = damping

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        """As ``Coupling.add_``."""
        target.addcmul_(f.index_select(0, self._swap), self._sign, value=scale)
        if self._damping:
            target.add_(f, alpha=-scale * self._damping)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        """As ``Coupling.transpose``."""
        torch.mul(g, -scale * self._damping, out=out)
        out.addcmul_(g.index_select(0, self._swap), self._sign, value=-scale)


class BlockCoupling(Coupling):
    """C = L - damping I, with L a linear map of blocks: ``coefficients`` (1, 0) for X, (0, 1) for X^T, (1, -1) for
    A - A^T; ``width``: columns of f and g.
    """

    def __init__(
        self, layout: BlockLayout, coefficients: Coefficients, width: int, dtype: torch.dtype, damping: float = 0.0
    ) -> None:
        self._L = LinearMap(layout, coefficients, width, dtype)
        self._f, self._g = layout.halo.buffer(width, dtype), layout.halo.buffer(width, dtype)
        self._damping = damping

    def add_(self, target: Tensor, f: Tensor, scale: float, at: Sequence[Tensor]) -> None:
        """As ``Coupling.add_``."""
        self._f.local.copy_(f)
        self._damp(target.add_(self._L.apply(at, self._f), alpha=scale), f, scale)

    def transpose(self, g: Tensor, scale: float, at: Sequence[Tensor], out: Tensor) -> None:
        """As ``Coupling.transpose``."""
        self._g.local.copy_(g)
        self._damp(torch.mul(self._L.adjoint(at, self._g), scale, out=out), g, scale)

    def accumulate(self, grad: Sequence[Tensor], f: Tensor, g: Tensor, scale: float) -> None:
        """As ``Coupling.accumulate``."""
        self._L.accumulate(grad, self._f, self._g, scale)

    def _damp(self, result: Tensor, rows: Tensor, scale: float) -> None:
        if self._damping:
            result.add_(rows, alpha=-scale * self._damping)
