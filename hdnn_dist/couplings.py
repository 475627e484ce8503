"""Couplings C: the part of J that stands between F(source) and the target of a half-step, inside each agent."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.halo import ranges


def halves_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all first halves and of all second halves in a state that holds agent after agent."""
    half = features // 2
    start = np.cumsum(features) - features
    return ranges(start, half), ranges(start + half, half)


class Coupling(ABC):
    """A linear map C between parts; ``features``: (local agents,) of the state; ``like`` gives type and device."""

    def __init__(self, features: np.ndarray, like: Tensor) -> None:  # noqa: B027  the identity needs no tables
        pass

    @abstractmethod
    def add_(self, target: Tensor, f: Tensor, scale: float) -> None:
        """target += scale C f."""

    @abstractmethod
    def transpose(self, g: Tensor, scale: float, out: Tensor) -> None:
        """out = scale C^T g."""


class Identity(Coupling):
    """C = I: the halves of an agent drive each other feature by feature."""

    def add_(self, target: Tensor, f: Tensor, scale: float) -> None:
        target.add_(f, alpha=scale)

    def transpose(self, g: Tensor, scale: float, out: Tensor) -> None:
        torch.mul(g, scale, out=out)


class Canonical(Coupling):
    """C = J1 = [0 -I; I 0] on the halves of each agent; C^T = -C."""

    def __init__(self, features: np.ndarray, like: Tensor) -> None:
        first, second = halves_rows(features)
        swap, sign = np.empty(features.sum(), dtype=np.int64), np.empty((features.sum(), 1))
        swap[first], swap[second] = second, first
        sign[first], sign[second] = -1.0, 1.0
        self._swap = torch.as_tensor(swap, device=like.device)
        self._sign = torch.as_tensor(sign, dtype=like.dtype, device=like.device)

    def add_(self, target: Tensor, f: Tensor, scale: float) -> None:
        target.addcmul_(f.index_select(0, self._swap), self._sign, value=scale)

    def transpose(self, g: Tensor, scale: float, out: Tensor) -> None:
        torch.mul(g.index_select(0, self._swap), self._sign, out=out).mul_(-scale)
