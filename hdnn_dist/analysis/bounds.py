"""Bounds of the norm of the BSMs, from the norms of the weights. All are logarithms, for they overflow.

With |s'| <= a, a half-step that adds h C F(source) multiplies the norm by at most 1 + h ||C|| Lip(F), where Lip(F) is
a ||K||^2 for K^T s(K x + b) and a ||L|| for s(L x + b). So every layer multiplies it by at most

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

    ``lower``: 1 where the architecture guarantees it, or ``None``. ``spectral``: whether the norms of K are exact;
    for a network whose dense matrices would be too large they are the bounds of ``model.norms``, as in the projection.
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
    stretches = _stretches(net, *(_spectral_norms(net) if spectral else _norms_by_neighbours(net)))
    return Bounds(lower_bound(net), _log_factors(net, stretches), _rate(net, stretches), net.step, spectral)


def lower_bound(net: HDNN) -> float | None:
    """1 for H2, MS1, MS3 and whatever else keeps volume, else ``None``: the determinant of every BSM is 1."""
    return 1.0 if net.architecture.keeps_volume else None


def _stretches(net: HDNN, L: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(layers, half-steps) of ``HalfStep.stretch``, from the norms of their L and those of the coupling (layers,)."""
    halves = net.architecture.layer
    each = [half.stretch(L[:, number], C, net.activation.slope) for number, half in enumerate(halves)]
    return np.stack(each, axis=1)


def _log_factors(net: HDNN, stretches: np.ndarray) -> np.ndarray:
    """(layers,) logarithms of what bounds the norm of a layer's Jacobian."""
    halves = net.architecture.layer
    scaled = stretches * [1.0 if half.replaces else net.step for half in halves]
    if not net.architecture.simultaneous:
        return np.log1p(scaled).sum(axis=1)
    kept = set(net.architecture.parts) - {half.target for half in halves if half.replaces}
    with np.errstate(divide="ignore"):
        return np.log(bool(kept) + _together(net, scaled))


def _together(net: HDNN, stretches: np.ndarray) -> np.ndarray:
    """(layers,) of half-steps that all read the state before the layer: the norm of the matrix of their norms."""
    parts = net.architecture.parts
    blocks = np.zeros((len(stretches), len(parts), len(parts)))
    for number, half in enumerate(net.architecture.layer):
        blocks[:, parts.index(half.target), parts.index(half.source)] += stretches[:, number]
    return np.linalg.norm(blocks, 2, axis=(1, 2))


def _rate(net: HDNN, stretches: np.ndarray) -> float | None:
    if any(half.replaces for half in net.architecture.layer):
        return None
    return float(_together(net, stretches).max())


def _spectral_norms(net: HDNN) -> tuple[np.ndarray, np.ndarray]:
    """Norms of L in every half-step, (layers, half-steps), and of the coupling, (layers,), from whole matrices."""
    stored = net.operators()
    L = torch.stack(
        [_norms(half.field.coefficients.of(stored[:, half.operator])) for half in net.architecture.layer], 1
    )
    C = _norms(net.dense().J).expand(net.layers) if net.architecture.coupled else L.new_ones(net.layers)
    return L.cpu().numpy(), C.cpu().numpy()


def _norms(matrices: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrices, 2).double()


def _norms_by_neighbours(net: HDNN) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of the same norms, those that the projection keeps, without a dense matrix."""
    stored = operator_norms(net).cpu().numpy()
    L = [half.field.coefficients.size * stored[:, half.operator] for half in net.architecture.layer]
    return np.stack(L, axis=1), np.full(net.layers, coupling_norm(net))
