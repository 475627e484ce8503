"""The largest and smallest singular value of a BSM whose vectors are spread over the ranks.

Golub-Kahan-Lanczos bidiagonalisation with full reorthogonalisation: M V = U B, B upper bidiagonal, its singular values
approach those of M, the largest first (Golub and Kahan, SIAM J. Numer. Anal. B 2(2), 1965). Dot products are sums along
the tree, so every rank gets the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.analysis.sensitivity import Sensitivity
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.network import HDNN
from hdnn_dist.weights.initial import generator

START_STREAM = 1 << 34
NEGLIGIBLE = 1e-14  # relative to the norm: what is left of a vector that the basis already spans


class Extremes(NamedTuple):
    """``norm``: the largest singular value; ``smallest``: the smallest, ``None`` where it has not converged."""

    norm: float
    smallest: float | None
    steps: int


def extremes(
    net: HDNN, x: Tensor, j: int, *, tolerance: float = 1e-4, most: int = 256, smallest: bool = True
) -> Extremes:
    """Norm and, if ``smallest``, smallest singular value of M_j at the input x (1, local features).

    A value has converged when its residual is at most ``tolerance`` times itself; at n steps, n the features of all
    agents, both are exact. Where M_j is symplectic and J orthogonal, the smallest is 1/norm, and asking for it here is
    a waste. Every rank has to call it. Raises ``ValueError`` for a j outside the network, an x of more than one sample,
    a ``most`` below 1, and where not even the norm has converged after ``most`` steps.
    """
    if most < 1:
        raise ValueError(f"most is {most}: expected at least 1 Lanczos step; the default is 256")
    found = _Bidiagonalisation(net, x, j, min(most, int(net.features.sum())))
    while True:
        found.advance()
        largest, least = found.estimates(tolerance)
        if largest is not None and (least is not None or not smallest):
            return Extremes(largest, least, found.steps)
        if found.steps == found.limit:
            break
    if largest is None:
        raise ValueError(
            f"the norm of the BSM over {j} layers has not converged after {found.steps} Lanczos steps: raise most="
        )
    return Extremes(largest, None, found.steps)


class _Bidiagonalisation:
    """U, V: (limit, local features), their rows orthonormal across ranks, zero where not reached yet."""

    def __init__(self, net: HDNN, x: Tensor, j: int, limit: int) -> None:
        self.limit, self.steps = limit, 0
        self._M = Sensitivity(net, x, j)
        self._tree = SumTree(net.agents)
        self._complete = limit == int(net.features.sum())
        self._U, self._V = x.new_zeros(limit, x.shape[1]), x.new_zeros(limit, x.shape[1])
        self._alphas: list[float] = []
        self._betas: list[float] = []
        v = _start(net)
        self._V[0] = v / self._norm(v)

    def advance(self) -> None:
        """One product with M, one with its transpose."""
        k = self.steps
        u = self._orthogonal(self._M.times(self._V[k : k + 1])[0], self._U)
        alpha = self._norm(u)
        self._U[k] = u / alpha if alpha > 0 else u
        w = self._orthogonal(self._M.transposed_times(self._U[k : k + 1])[0], self._V)
        beta = self._norm(w)
        self._alphas.append(alpha)
        self._betas.append(beta)
        self.steps += 1
        if self.steps < self.limit:
            self._V[self.steps] = w / beta if beta > 0 else w

    def estimates(self, tolerance: float) -> tuple[float | None, float | None]:
        """(largest, smallest) singular value, each ``None`` unless it has converged."""
        B = np.diag(self._alphas) + np.diag(self._betas[:-1], 1)
        left, values, _ = np.linalg.svd(B)
        invariant = self._betas[-1] <= NEGLIGIBLE * values[0] or (self._complete and self.steps == self.limit)
        residuals = np.zeros_like(values) if invariant else self._betas[-1] * np.abs(left[-1])
        settled = residuals <= tolerance * values
        settled[-1] &= self.steps > 1 or invariant
        return tuple(float(values[at]) if settled[at] else None for at in (0, -1))  # type: ignore[return-value]

    def _orthogonal(self, w: Tensor, basis: Tensor) -> Tensor:
        for _ in range(2):  # once is not enough in floating point (Kahan, Parlett)
            w = w - self._tree.sum(basis @ w) @ basis
        return w

    def _norm(self, w: Tensor) -> float:
        return float(self._tree.sum(w.square().sum().reshape(1)).sqrt())


def _start(net: HDNN) -> Tensor:
    """A random vector, drawn per agent, so that it does not depend on the ranks."""
    drawn = [
        generator(net.seed, agent, START_STREAM).standard_normal(net.features[agent])
        for agent in net.agents.local.tolist()
    ]
    return torch.as_tensor(np.concatenate(drawn), dtype=net.trained_weights.dtype, device=net.trained_weights.device)
