"""Where this rank's weights stand in the dense K, b and J of the whole network: for inspection and tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.architectures import Architecture
from hdnn_dist.blocks import BlockLayout


class Dense(NamedTuple):
    """The whole network as dense matrices, in the order of the formulas: all first halves, then all second halves.

    ``K``: (layers, n, n), ``b``: (layers, n), ``J``: (n, n), n = features of all agents.
    """

    K: Tensor
    b: Tensor
    J: Tensor


class DenseView:
    """The table from this rank's flat weights to the dense matrices, and back."""

    def __init__(self, architecture: Architecture, layout: BlockLayout, features: np.ndarray) -> None:
        self._sizes = layout.halo.sizes
        self._pattern = layout.pattern
        self.n = int(features.sum())
        self._places = _operator_places(architecture, features)
        rows, columns, bias_rows = _block_positions(layout)
        entries = [place[rows] * self.n + place[columns] for place in self._places]
        self._entries = torch.as_tensor(np.stack(entries))
        self._biases = torch.as_tensor(np.stack([place[bias_rows] for place in self._places]))

    def fill(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Dense K and b with this rank's entries in place and zero elsewhere."""
        layers, entries = len(weights), self._entries.shape[1]
        K = weights.new_zeros(layers, self.n * self.n)
        b = weights.new_zeros(layers, self.n)
        K[:, self._entries] = weights[..., :entries]
        b[:, self._biases] = weights[..., entries:]
        return K.unflatten(1, (self.n, self.n)), b

    def take(self, K: Tensor, b: Tensor) -> Tensor:
        """This rank's flat weights out of dense K and b; ``ValueError`` where they do not fit the network."""
        if K.shape[1:] != (self.n, self.n) or b.shape != (len(K), self.n):
            raise ValueError(
                f"dense weights K {tuple(K.shape)} and b {tuple(b.shape)} do not fit: "
                f"this network needs K (layers, {self.n}, {self.n}) and b (layers, {self.n})"
            )
        self._refuse_outside_pattern(K)
        return torch.cat([K.flatten(1)[:, self._entries], b[:, self._biases]], dim=-1)

    def coupling(self, like: Tensor) -> Tensor:
        """J = [0 -I; I 0]."""
        J = like.new_zeros(2, self.n // 2, 2, self.n // 2)
        J[0, :, 1], J[1, :, 0] = -torch.eye(self.n // 2), torch.eye(self.n // 2)
        return J.view(self.n, self.n)

    def _refuse_outside_pattern(self, K: Tensor) -> None:
        allowed = np.zeros((self.n, self.n), dtype=bool)
        block_mask = self._pattern.mask(self._sizes)
        for place in self._places:
            allowed[np.ix_(place, place)] = block_mask
        outside = (K.detach().cpu() != 0) & torch.as_tensor(~allowed)
        if outside.any():
            layer, row, column = outside.nonzero()[0].tolist()
            raise ValueError(
                f"K of layer {layer} has the entry {K[layer, row, column].item():.3g} at row {row}, column {column}, "
                "which lies outside the pattern T: set it to zero or use a pattern that has this block"
            )


def _operator_places(architecture: Architecture, features: np.ndarray) -> list[np.ndarray]:
    """For every operator, where each of its rows (agent after agent) stands in the dense order."""
    n = int(features.sum())
    if len(architecture.operators) == 1:
        return [np.argsort(architecture.dense_rows(features))]
    return list(np.arange(n).reshape(len(architecture.operators), -1))


def _block_positions(layout: BlockLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of every entry of K, and row of every entry of b, in the order of the flat vector."""
    sizes = layout.halo.sizes
    start = np.cumsum(sizes) - sizes
    rows, columns, bias_rows = [], [], []
    for group in layout.groups:
        for agent in group.agents.tolist():
            row = start[agent] + np.arange(group.rows)
            column = np.concatenate([start[block] + np.arange(sizes[block]) for block in layout.pattern.reads(agent)])
            rows.append(np.repeat(row, len(column)))
            columns.append(np.tile(column, len(row)))
            bias_rows.append(row)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(bias_rows)
