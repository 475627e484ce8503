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

    ``K``: (layers, n, n), ``b``: (layers, n), n = features of all agents. ``J``: (n, n), or (layers, n, n) where it is
    given per layer; zero where the architecture has J K^T = I.
    """

    K: Tensor
    b: Tensor
    J: Tensor


class DenseView:
    """The tables from this rank's flat weights to the dense matrices, and back."""

    def __init__(self, architecture: Architecture, layout: BlockLayout, features: np.ndarray) -> None:
        self.n = int(features.sum())
        self._sizes = layout.halo.sizes
        self._pattern = layout.pattern
        self._operators = architecture.operators
        self._order = architecture.dense_rows(features)
        self._skew = architecture.skew
        rows, columns, bias_rows = block_positions(layout)
        self._entries, self._mirrors, self._biases = [], [], []
        for operator in self._operators:
            r, c = self._place(operator.rows)[rows], self._place(operator.columns)[columns]
            self._entries.append(torch.as_tensor(r * self.n + c))
            self._mirrors.append(torch.as_tensor(c * self.n + r) if operator.mirrored else None)
            places = [self._place(half)[bias_rows] for half in operator.biases]
            self._biases.append(torch.as_tensor(np.concatenate(places)))

    def _place(self, half: int | None) -> np.ndarray:
        """Where each row of a part, agent after agent, stands in the dense order."""
        if half is None:
            return np.argsort(self._order)
        return np.arange(self.n).reshape(2, -1)[half]

    def fill(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Dense K and b with this rank's entries in place and zero elsewhere. Differentiable."""
        layers = len(weights)
        K, b = weights.new_zeros(layers, self.n * self.n), weights.new_zeros(layers, self.n)
        for number, entries in enumerate(self._entries):
            values, mirrors = weights[:, number], self._mirrors[number]
            K = K.index_add(1, entries, values[:, : len(entries)])
            if mirrors is not None:
                K = K.index_add(1, mirrors, -values[:, : len(entries)])
            b = b.index_add(1, self._biases[number], values[:, len(entries) :])
        return K.unflatten(1, (self.n, self.n)), b

    def take(self, K: Tensor, b: Tensor) -> Tensor:
        """This rank's flat weights out of dense K and b; ``ValueError`` where they do not fit the network."""
        if K.dim() != 3 or K.shape[1:] != (self.n, self.n) or b.shape != (len(K), self.n):
            raise ValueError(
                f"dense weights K {tuple(K.shape)} and b {tuple(b.shape)} do not fit: "
                f"this network needs K (layers, {self.n}, {self.n}) and b (layers, {self.n})"
            )
        self._refuse_outside_pattern(K)
        self._refuse_broken_mirror(K)
        flat, taken = K.flatten(1), []
        for entries, mirrors, biases in zip(self._entries, self._mirrors, self._biases, strict=True):
            own = flat[:, entries]
            if self._skew and mirrors is not None:  # a diagonal block holds each of its entries twice
                own = torch.where(self._diagonal(), own / 2, own)
            taken.append(torch.cat([own, b[:, biases]], dim=1))
        return torch.stack(taken, dim=1)

    def _diagonal(self) -> Tensor:
        owner = np.repeat(np.arange(len(self._sizes)), self._sizes)[self._order]
        entries = self._entries[0].numpy()
        return torch.as_tensor(owner[entries // self.n] == owner[entries % self.n])

    def _refuse_broken_mirror(self, K: Tensor) -> None:
        if all(mirrors is None for mirrors in self._mirrors):
            return
        worst = float((K + K.mT).abs().max())
        if worst > 1e-6 * max(1.0, float(K.abs().max())):
            raise ValueError(f"K is not skew: K + K^T has an entry of {worst:.3g}; this architecture needs K = -K^T")

    def _refuse_outside_pattern(self, K: Tensor) -> None:
        allowed = np.zeros((self.n, self.n), dtype=bool)
        block_mask = self._pattern.mask(self._sizes)
        for operator in self._operators:
            rows, columns = self._place(operator.rows), self._place(operator.columns)
            allowed[np.ix_(rows, columns)] |= block_mask
            if operator.mirrored:
                allowed[np.ix_(columns, rows)] |= block_mask.T
        outside = (K.detach().cpu() != 0) & torch.as_tensor(~allowed)
        if outside.any():
            layer, row, column = outside.nonzero()[0].tolist()
            raise ValueError(
                f"K of layer {layer} has the entry {K[layer, row, column].item():.3g} at row {row}, column {column}, "
                "which lies outside the pattern T: set it to zero or use a pattern that has this block"
            )


def block_positions(layout: BlockLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of every entry of K, and row of every entry of b, in the order of the flat vector.

    Rows and columns count the blocks of all agents, agent after agent.
    """
    sizes = layout.halo.sizes
    start = np.cumsum(sizes) - sizes
    rows, columns, bias_rows = [], [], []
    for group in layout.groups:
        for agent in group.agents.tolist():
            row = np.arange(start[agent], start[agent] + group.rows)
            column = np.concatenate([np.arange(start[k], start[k] + sizes[k]) for k in layout.pattern.reads(agent)])
            rows.append(np.repeat(row, len(column)))
            columns.append(np.tile(column, len(row)))
            bias_rows.append(row)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(bias_rows)
