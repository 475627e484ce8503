"""Is a BSM symplectic? For the Jacobian M = d y_N / d y_{N-j} of H2 and MS3, M J M^T = J.

With J = [0 -X^T; X 0] this holds for every invertible X that all layers share. Where every layer has its own X, each
layer is symplectic with its own J, and their products in general with none. The other order, M^T J M = J, is the same
statement where X is orthogonal, and the one of the literature, which writes the transpose of the Jacobian for the BSM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdnn_dist.model.network import HDNN


def is_symplectic(net: HDNN) -> bool:
    """Whether the BSMs are symplectic by construction: layers that are, with one X for all of them, as H2 and MS3."""
    return net.architecture.symplectic and len(net.coupling) <= 1


def has_reciprocal_values(net: HDNN) -> bool:
    """Whether the singular values of every BSM come in pairs s, 1/s: symplectic with an orthogonal J (X = I)."""
    return is_symplectic(net) and len(net.coupling) == 0


def structure_matrix(net: HDNN) -> Tensor | None:
    """(n, n) the J that the residual of a product is taken with, in the dense order; collected along the tree.

    The network's own, without damping; the canonical one where it has none of its own, or one per layer; ``None`` where
    that does not exist, for an odd n.
    """
    J = _own(net)
    return J if J is not None and J.dim() == 2 else _canonical_of(net)


def layer_structure_matrices(net: HDNN) -> Tensor | None:
    """(layers, n, n), as ``structure_matrix`` for single layers: each has its own J where there is one per layer."""
    J = _own(net) if net.architecture.coupled else _canonical_of(net)
    return None if J is None else J.expand(net.layers, *J.shape[-2:])


def _own(net: HDNN) -> Tensor | None:
    """(n, n), or (layers, n, n); the damping, a multiple of I, is what is not skew."""
    if not net.architecture.coupled:
        return None
    J = net.dense().J
    return (J - J.mT) / 2


def _canonical_of(net: HDNN) -> Tensor | None:
    n = int(net.features.sum())
    return canonical(n, net.trained_weights) if n % 2 == 0 else None


def canonical(n: int, like: Tensor) -> Tensor:
    """[0 -I; I 0], (n, n)."""
    J = like.detach().new_zeros(n, n)
    half = torch.arange(n // 2, device=like.device)
    J[half, half + n // 2], J[half + n // 2, half] = -1.0, 1.0
    return J


def residual(M: Tensor, J: Tensor) -> float:
    """||M J M^T - J|| / (max(1, ||M||^2) ||J||), 2-norms, of M and J (n, n).

    Relative to ||M||^2 because that is the size of the terms that cancel, and of their rounding errors: without it
    the residual would measure how far the norm has grown, not how far M is from symplectic.
    """
    size = max(1.0, float(torch.linalg.matrix_norm(M, 2)) ** 2) * float(torch.linalg.matrix_norm(J, 2))
    return float(torch.linalg.matrix_norm(M @ J @ M.T - J, 2)) / size
