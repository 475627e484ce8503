"""Where this rank's weights stand in the dense K, b and J of the whole network: for inspection and tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.coupling_builder import CouplingBuilder, dense_coupling
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.propagation.system import CouplingSpec
from hdnn_dist.weights.blocks import BlockLayout


class Dense(NamedTuple):
    """The whole network as dense matrices, in the order of the formulas: all first halves, then all second halves.

    ``K``: (layers, n, n), ``b``: (layers, n), n = features of all agents. ``J``: (n, n), or (layers, n, n) where layers
    differ; zero where the architecture has J K^T = I.
    """

    K: Tensor
    b: Tensor
    J: Tensor


def dense_J(builder: CouplingBuilder, spec: CouplingSpec, weights: Tensor, tree: SumTree) -> Tensor:
    """J (n, n), or (layers, n, n) where it differs, in the dense order, on every rank; summed along the tree."""
    C = tree.sum(dense_coupling(builder, spec, weights))
    C = C if builder.is_J else between_halves(C)
    return C[0] if len(C) == 1 else C


def between_halves(X: Tensor) -> Tensor:
    """J = [0 -X^T; X 0], (layers, 2 m, 2 m), for X (layers, m, m)."""
    zero = torch.zeros_like(X)
    return torch.cat([torch.cat([zero, -X.mT], 2), torch.cat([X, zero], 2)], 1)


class DenseView:
    """The tables from this rank's flat weights to the dense matrices, and back; ``features``: (agents,)."""

    def __init__(self, architecture: Architecture, layout: BlockLayout, features: np.ndarray) -> None:
        self.n = int(features.sum())
        self._sizes = layout.halo.sizes
        self._pattern = layout.pattern
        self._operators = architecture.operators
        self._order = architecture.dense_rows(features)
        rows, columns, bias_rows = layout.positions()
        self._at = torch.as_tensor(rows * int(self._sizes.sum()) + columns, device=layout.device)
        self._entries, self._mirrors, self._biases = [], [], []
        for operator in self._operators:
            r, c = self._place(operator.rows)[rows], self._place(operator.columns)[columns]
            self._entries.append(torch.as_tensor(r * self.n + c, device=layout.device))
            self._mirrors.append(torch.as_tensor(c * self.n + r, device=layout.device) if operator.mirrored else None)
            places = [self._place(half)[bias_rows] for half in operator.biases]
            self._biases.append(torch.as_tensor(np.concatenate(places), device=layout.device))

    def _place(self, half: int | None) -> np.ndarray:
        """Where each row of a part, agent after agent, stands in the dense order."""
        if half is None:
            return np.argsort(self._order)
        return np.arange(self.n).reshape(2, -1)[half]

    def fill(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """K (n, n) and b (n,) of a layer from its weights (operators, size), zero elsewhere. Differentiable."""
        K, b = weights.new_zeros(self.n * self.n), weights.new_zeros(self.n)
        for values, entries, mirrors, biases in zip(weights, self._entries, self._mirrors, self._biases, strict=True):
            K = K.index_copy(0, entries, values[: len(entries)])
            if mirrors is not None:
                K = K.index_add(0, mirrors, -values[: len(entries)])
            b = b.index_copy(0, biases, values[len(entries) :])
        return K.view(self.n, self.n), b

    def stored(self, weights: Tensor) -> Tensor:
        """(operators, m, m) this rank's entries of every K as it is stored, m the rows of a part, agent after agent."""
        m = int(self._sizes.sum())
        matrices = weights.new_zeros(len(weights), m * m)
        matrices[:, self._at] = weights[:, : len(self._at)]
        return matrices.view(-1, m, m)

    def take(self, K: Tensor, b: Tensor, layer: int) -> Tensor:
        """This rank's (operators, size) weights of a layer from dense K (n, n) and b (n,).

        ``ValueError`` unless K is of the pattern, and skew where it has to be.
        """
        self._refuse_outside_pattern(K, layer)
        self._refuse_broken_mirror(K, layer)
        flat, taken = K.flatten(), []
        tables = zip(self._operators, self._entries, self._mirrors, self._biases, strict=True)
        for operator, entries, mirrors, biases in tables:
            own = flat[entries]
            if operator.skew and mirrors is not None:  # a diagonal block holds each of its entries twice
                own = torch.where(self._diagonal(), own / 2, own)
            taken.append(torch.cat([own, b[biases]]))
        return torch.stack(taken)

    def _diagonal(self) -> Tensor:
        owner = np.repeat(np.arange(len(self._sizes)), self._sizes)[self._order]
        entries = self._entries[0].cpu().numpy()
        same = owner[entries // self.n] == owner[entries % self.n]
        return torch.as_tensor(same, device=self._entries[0].device)

    def _refuse_broken_mirror(self, K: Tensor, layer: int) -> None:
        if all(mirrors is None for mirrors in self._mirrors):
            return
        worst = float((K + K.mT).abs().max())
        if worst > 1e-6 * max(1.0, float(K.abs().max())):
            raise ValueError(
                f"K of layer {layer} is not skew: K + K^T has an entry of {worst:.3g}; this architecture needs K = -K^T"
            )

    def _refuse_outside_pattern(self, K: Tensor, layer: int) -> None:
        allowed = np.zeros((self.n, self.n), dtype=bool)
        block_mask = self._pattern.mask(self._sizes)
        for operator in self._operators:
            rows, columns = self._place(operator.rows), self._place(operator.columns)
            allowed[np.ix_(rows, columns)] |= block_mask
            if operator.mirrored:
                allowed[np.ix_(columns, rows)] |= block_mask.T
        outside = (K.detach().cpu() != 0) & torch.as_tensor(~allowed)
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            raise ValueError(
                f"K of layer {layer} has the entry {K[row, column].item():.3g} at row {row}, column {column}, "
                "which lies outside the pattern T: set it to zero or use a pattern that has this block"
            )
