"""What is known of the BSMs of a network at one input, as a table over j."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hdnn_dist.analysis.bounds import Bounds, bounds
from hdnn_dist.analysis.lanczos import extremes
from hdnn_dist.analysis.sensitivity import exact, forward_exact, single_layers
from hdnn_dist.analysis.symplectic import has_reciprocal_values, layer_structure_matrices, residual, structure_matrix
from hdnn_dist.model.network import HDNN

MOST_EXACT_FEATURES = 256


def sensitivity_table(net: HDNN, x: Tensor, distances: Sequence[int]) -> list[dict[str, Any]]:
    """A row for every j of ``distances``, ascending, of M_j = d y_N / d y_{N-j} at x (1, local features).

    ``norm``, ``smallest_singular_value``, ``lower_bound``, ``log10_upper_bound``, ``log10_continuous_bound``,
    ``symplectic_residual``, ``singular_values``. The last two need the whole matrix: ``None`` for more than 256
    features, where norms come from Lanczos. A singular value that is lost in the rounding of the largest is ``None``.
    Every rank has to call it, and gets the same.
    """
    limits = bounds(net)
    small = int(net.features.sum()) <= MOST_EXACT_FEATURES
    rows = _exact_rows(net, x, distances) if small else _estimated_rows(net, x, distances)
    return [{**row, **_limits(limits, row["j"])} for row in rows]


def layer_residuals(net: HDNN, x: Tensor) -> list[float] | None:
    """(layers,) the symplectic residual of every single layer at x, first to last.

    ``None`` for more than 256 features, and where there is no structure matrix. Every rank has to call it, and gets the
    same.
    """
    matrices = layer_structure_matrices(net) if int(net.features.sum()) <= MOST_EXACT_FEATURES else None
    if matrices is None:
        return None
    return [residual(M, J) for M, J in zip(single_layers(net, x), matrices, strict=True)]


def depth_sweep(net: HDNN, x: Tensor, depths: Sequence[int]) -> list[float]:
    """||d y_N / d y_0|| of the first N layers at x (1, local features), for every N of ``depths``, ascending."""
    return [float(torch.linalg.matrix_norm(M, 2)) for _, M in forward_exact(net, x, depths)]


def _exact_rows(net: HDNN, x: Tensor, distances: Sequence[int]) -> Iterator[dict[str, Any]]:
    J, paired = structure_matrix(net), has_reciprocal_values(net)
    for j, M in exact(net, x, distances):
        values = torch.linalg.svdvals(M).tolist()
        seen = [_above_rounding(value, values[0], net) for value in values]
        yield {
            "j": j,
            "norm": values[0],
            "smallest_singular_value": 1 / values[0] if paired else seen[-1],
            "symplectic_residual": None if J is None else residual(M, J),
            "singular_values": seen,
        }


def _estimated_rows(net: HDNN, x: Tensor, distances: Sequence[int]) -> Iterator[dict[str, Any]]:
    paired = has_reciprocal_values(net)
    for j in sorted(set(distances)):
        found = extremes(net, x, j, smallest=not paired)
        yield {
            "j": j,
            "norm": found.norm,
            "smallest_singular_value": 1 / found.norm if paired else _above_rounding(found.smallest, found.norm, net),
            "symplectic_residual": None,
            "singular_values": None,
        }


def _above_rounding(value: float | None, norm: float, net: HDNN) -> float | None:
    """A singular value that the rounding of a matrix of this norm does not hide, else ``None``."""
    size = int(net.features.sum()) * torch.finfo(net.trained_weights.dtype).eps * norm
    return None if value is None or value < size else value


def _limits(limits: Bounds, j: int) -> dict[str, float | None]:
    continuous = limits.log_continuous(j)
    return {
        "lower_bound": limits.lower,
        "log10_upper_bound": limits.log_upper(j) / math.log(10),
        "log10_continuous_bound": None if continuous is None else continuous / math.log(10),
    }
