"""Upper bounds of the norms of K and J, found by neighbours alone, without a dense matrix.

With r_i at least the norm of agent i's rows, ||K||^2 <= max over blocks k of the sum of r_i^2 over the agents i that
read k. The owner of a block sums them, in one scatter-add and one gather of a number for each K.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.network import HDNN
from hdnn_dist.propagation.system import BLOCK_MAPS
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Run


class RowNorms:
    """For every agent the largest of the sums above, among the blocks that it reads: of every K of a network."""

    def __init__(self, net: HDNN) -> None:
        self.net = net
        self._sums = [_ReaderSums(run.layout, run.weights[..., 0].numel()) for run in self._runs()]

    def parts(self) -> Iterator[tuple[Run, Tensor]]:
        """(run, squares (layers of the run, operators, local agents)) of every run; every rank has to take all."""
        for run, sums in zip(self._runs(), self._sums, strict=True):
            yield run, sums.worst(_row_squares(run.layout, run.weights))

    def _runs(self) -> list[Run]:
        return self.net.stack.runs(self.net.weights.detach())


def operator_norms(net: HDNN) -> Tensor:
    """(layers, operators) float64, at least ||K|| as it is stored; the same on every rank, all have to call it."""
    squares = torch.cat([squares.amax(-1) for _, squares in RowNorms(net).parts()])
    return _over_ranks(net, squares).sqrt()


def coupling_norm(net: HDNN) -> float:
    """At least ||J||, or ||X|| of H2, of every layer; 1 where there is none. Every rank has to call it."""
    spec = net.coupling_spec
    if not spec.layouts:
        return math.hypot(1, spec.damping) if spec.kind == "canonical" else 1.0
    squares = torch.stack([_largest_sum(layout, weights) for layout, weights in _couplings(net)])
    stored = float(_over_ranks(net, squares.amax().reshape(1)).sqrt())
    return BLOCK_MAPS[spec.kind].size * stored + spec.damping


def _couplings(net: HDNN) -> Iterator[tuple[BlockLayout, Tensor]]:
    """Each layout of the coupling with the weights, (layers, 1, size), of the layers that have it."""
    weights = net.coupling.detach().unsqueeze(1)
    which = torch.as_tensor(net.stack.which[: len(weights)], device=weights.device)  # one for all layers, or for each
    for number in which.unique().tolist():
        yield net.coupling_spec.layouts[number], weights[which == number]


def _largest_sum(layout: BlockLayout, weights: Tensor) -> Tensor:
    return _ReaderSums(layout, len(weights)).worst(_row_squares(layout, weights)).max()


def _over_ranks(net: HDNN, numbers: Tensor) -> Tensor:
    """The largest of each number among the ranks, by a sum along the tree."""
    return SumTree(net.agents).collect(numbers).amax(0)


class _ReaderSums:
    """Sums over the agents that read a block, for ``width`` numbers an agent."""

    def __init__(self, layout: BlockLayout, width: int) -> None:
        agents, pattern = layout.halo.agents, layout.pattern
        halo = Halo(agents, pattern, np.ones(agents.graph.agents, dtype=np.int64))
        self._buffer = halo.buffer(width, torch.float64)
        own = agents.owner[pattern.rows] == agents.world.rank
        device = agents.world.device
        self._readers = torch.as_tensor(np.searchsorted(agents.local, pattern.rows[own]), device=device)
        self._blocks = torch.as_tensor(halo.offsets[pattern.columns[own]], device=device)

    def worst(self, numbers: Tensor) -> Tensor:
        """(layers, operators, local agents) -> the same: for each agent the largest sum among the blocks it reads."""
        rows = numbers.flatten(0, 1).T
        buffer = self._buffer
        buffer.data.zero_().index_add_(0, self._blocks, rows[self._readers])
        buffer.scatter_add()
        buffer.gather()
        index = self._readers[:, None].expand(-1, rows.shape[1])
        worst = torch.zeros_like(rows).scatter_reduce_(0, index, buffer.data[self._blocks], "amax")
        return worst.T.unflatten(0, numbers.shape[:2])


def _row_squares(layout: BlockLayout, weights: Tensor) -> Tensor:
    """(layers, operators, size) -> (layers, operators, local agents) float64: above the squared norm of each K_i."""
    local = layout.halo.agents.local
    squares = weights.new_empty(*weights.shape[:2], len(local), dtype=torch.float64)
    for group in layout.groups:
        squares[..., np.searchsorted(local, group.agents)] = squared_norm_bound(group.matrices(weights).double())
    return squares


def squared_norm_bound(K: Tensor) -> Tensor:
    """(..., rows, columns) -> (...,): at least ||K||_2^2, at most min(rows, columns)^(1/8) times it.

    The square of the Schatten 16-norm: with G = K K^T, ||K||_2^16 <= trace(G^8) = ||G^4||_F^2.
    """
    G = K @ K.mT if K.shape[-2] <= K.shape[-1] else K.mT @ K
    trace = G.diagonal(dim1=-2, dim2=-1).sum(-1)
    G = G / trace.clamp_min(torch.finfo(K.dtype).tiny)[..., None, None]
    fourth = torch.linalg.matrix_power(G, 4)
    return trace * fourth.square().sum((-2, -1)).pow(1 / 8)
