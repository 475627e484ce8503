"""Bounds of the norm of the BSMs, from the norms of the weights. All are logarithms, for they overflow.

With |s'| <= a, every layer multiplies the norm by at most

    H2         (1 + h a ||X|| ||Kp||^2)(1 + h a ||X|| ||Kq||^2)
    MS3        (1 + h a ||K1||^2)(1 + h a ||K2||^2)
    MS1        (1 + h a ||K0||)^2
    H1         1 + h a ||J|| ||K||^2       also H2 and MS3 under forward Euler, with K their whole matrix
    MS2        1 + h a ||K||               also MS1 under forward Euler
    MLP        a ||K||

and the continuous system, y' = J K^T s(K y + b), by at most exp(Q t) in a time t, Q = a max ||J|| ||K||^2 (Gronwall;
a max ||K|| where J K^T = I). They hold always and are very loose: bounds, never estimates. The one of the continuous
system need not bound the network.

They do not show that damping contracts: ||J - gamma I|| grows with gamma, and so do they. No bound from ||K|| alone can
fall below 1, since a K of any smaller norm is allowed for, and K = 0 makes a layer of H1 the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.model.network import HDNN
from hdnn_dist.model.norms import coupling_norm, operator_norms

MOST_DENSE_FEATURES = 2048
MOST_DENSE_ENTRIES = 2**25  # of the dense K of all layers: 256 MB


@dataclass(frozen=True)
class Bounds:
    """``log_factors``: (layers,) natural logarithms of the factors above; ``rate``: Q, ``None`` for the MLP.

    ``lower``: 1 where the architecture guarantees it, or ``None``. ``spectral``: whether the norms of K are
    exact; for a network whose dense matrices would be too large they are the bounds of ``norms``, as in the projection.
    """

    lower: float | None
    log_factors: np.ndarray
    rate: float | None
    step: float
    spectral: bool

    def log_upper(self, j: int) -> float:
        """Natural logarithm of the upper bound of ||d y_N / d y_{N-j}||."""
        return float(self.log_factors[len(self.log_factors) - j :].sum())

    def log_continuous(self, j: int) -> float | None:
        """Q t, with t = j h: natural logarithm of the bound of the continuous system."""
        return None if self.rate is None else self.rate * j * self.step


def bounds(net: HDNN) -> Bounds:
    """The bounds of a network; every rank has to call it."""
    n = int(net.features.sum())
    spectral = n <= MOST_DENSE_FEATURES and net.layers * n * n <= MOST_DENSE_ENTRIES
    K, C = _spectral_norms(net) if spectral else _norms_by_neighbours(net)
    return Bounds(lower_bound(net), _log_factors(net, K, C), _rate(net, K, C), net.step, spectral)


def lower_bound(net: HDNN) -> float | None:
    """1 for H2, MS1 and MS3 with their own scheme, else ``None``.

    A half-step that adds to one half what it reads from the other has determinant 1, whatever K, X and s are, so every
    BSM has: its largest singular value is at least 1.
    """
    return None if net.architecture.simultaneous else 1.0


def _log_factors(net: HDNN, K: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(layers,) from the norms K (layers, operators) and those of the coupling (layers,)."""
    growth = net.step * _responses(net, K, C)
    name = net.architecture.name
    if name == "MLP":
        with np.errstate(divide="ignore"):
            return np.log(net.activation.slope * K[:, 0])
    if net.architecture.simultaneous:
        return np.log1p(growth.max(axis=1))
    return np.log1p(growth).sum(axis=1) * (2 if name == "MS1" else 1)


def _responses(net: HDNN, K: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(layers, operators) largest Lipschitz constant of what each operator adds, per unit of h."""
    squared = net.architecture.name not in ("MS1", "MS2", "MLP")
    return net.activation.slope * (C[:, np.newaxis] * K**2 if squared else K)


def _rate(net: HDNN, K: np.ndarray, C: np.ndarray) -> float | None:
    return None if net.architecture.name == "MLP" else float(_responses(net, K, C).max())


def _spectral_norms(net: HDNN) -> tuple[np.ndarray, np.ndarray]:
    """Norms of every operator (layers, operators), and of J (layers,), from the dense matrices."""
    dense = net.dense()
    n = dense.K.shape[-1]

    def part(half: int | None) -> slice:
        return slice(None) if half is None else slice(half * (n // 2), (half + 1) * (n // 2))

    operators = [dense.K[:, part(known.rows), part(known.columns)] for known in net.architecture.operators]
    K = torch.stack([_norms(operator) for operator in operators], dim=1)
    C = _norms(dense.J).expand(net.layers) if net.architecture.coupled else K.new_ones(net.layers)
    return K.cpu().numpy(), C.cpu().numpy()


def _norms(matrices: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrices, 2).double()


def _norms_by_neighbours(net: HDNN) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of the same norms, those that the projection keeps, without a dense matrix."""
    K = operator_norms(net).cpu().numpy()
    return K, np.full(net.layers, coupling_norm(net))
