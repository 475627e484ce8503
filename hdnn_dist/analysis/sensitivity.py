"""Backward sensitivity matrices (BSMs): the Jacobians M_j = d y_N / d y_{N-j} of a network at one input.

Vectors stay where their agents live. Products with M_j and its transpose use the exchanges of the network itself;
the transposed ones go back a few layers at a time, so that states that are rebuilt cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.network import HDNN
from hdnn_dist.support.arrays import ranges

CHUNK = 16  # layers that are undone before the state is read again


class Sensitivity:
    """M_j at one input as a linear map. ``x``: (1, local features), the input of the network, not of layer N - j.

    Every rank has to make it, and to call its products. Raises ``ValueError`` unless 1 <= j <= layers, and for an x of
    more than one sample.
    """

    def __init__(self, net: HDNN, x: Tensor, j: int) -> None:
        _check(net, x, [j])
        self.net = net
        self.first = net.layers - j
        self._starts = _starts(net.layers, [j])
        self._states = _states(net, x, self._starts)

    def times(self, v: Tensor) -> Tensor:
        """M_j v, for v (1, local features)."""
        layers = slice(self.first, self.net.layers)
        return self.net.tangent(self._states[self.first], v, layers=layers)[1]

    def transposed_times(self, w: Tensor) -> Tensor:
        """M_j^T w, for w (1, local features)."""
        for start, stop in _backwards(self._starts, self.net.layers):
            w = pull_back(self.net, self._states[start], slice(start, stop), w)
        return w


def exact(net: HDNN, x: Tensor, distances: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """(j, M_j) for every j of ``distances``, ascending; M_j is (n, n) in the dense order, on every rank.

    One pass back through the layers with n cotangents, n the features of all agents: for small networks.
    Every rank has to take all of it. Raises ``ValueError`` unless 1 <= j <= layers, without any j, and for an x that is
    not (1, local features).
    """
    wanted = _check(net, x, distances)
    starts = _starts(net.layers, sorted(wanted))
    states = _states(net, x, starts)
    collect = _Collector(net)
    rows = collect.own_rows(x)
    for start, stop in _backwards(starts, net.layers):
        rows = pull_back(net, states[start], slice(start, stop), rows)
        if net.layers - start in wanted:
            yield net.layers - start, collect(rows)


def forward_exact(net: HDNN, x: Tensor, depths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """(N, d y_N / d y_0) for every N of ``depths``, ascending, as ``exact`` but in one pass forward; (n, n) each.

    The N-layer networks are the first N layers of this one.
    """
    _check(net, x, depths)
    collect = _Collector(net)
    change = collect.own_rows(x)
    state, before = x.expand_as(change).contiguous(), 0
    for depth in sorted(depths):
        state, change = net.tangent(state, change, layers=slice(before, depth))
        before = depth
        yield depth, collect(change).T


def single_layers(net: HDNN, x: Tensor) -> Iterator[Tensor]:
    """The Jacobian d y_{j+1} / d y_j of every layer at the state it acts on, first to last; (n, n) as in ``exact``."""
    _check(net, x, [1])
    collect = _Collector(net)
    every = collect.own_rows(x)
    state = x.expand_as(every).contiguous()
    for layer in range(net.layers):
        state, change = net.tangent(state, every, layers=slice(layer, layer + 1))
        yield collect(change).T


def pull_back(net: HDNN, state: Tensor, layers: slice, cotangents: Tensor) -> Tensor:
    """The cotangents (vectors, local features) behind ``layers`` as cotangents of ``state`` (1, local features)."""
    x = state.detach().expand(len(cotangents), -1).clone().requires_grad_()
    with torch.enable_grad():
        (before,) = torch.autograd.grad(net(x, layers=layers), x, cotangents)
    return before


def spread(distances: int, most: int = 16) -> list[int]:
    """About ``most`` whole numbers from 1 to ``distances``, evenly spread on a logarithmic axis."""
    return sorted({round(value) for value in np.geomspace(1, distances, most)})


def _check(net: HDNN, x: Tensor, distances: Sequence[int]) -> set[int]:
    if x.dim() != 2 or len(x) != 1:
        raise ValueError(f"x has shape {tuple(x.shape)}: a BSM is that of one sample, (1, local features); pass x[:1]")
    if len(distances) == 0:
        raise ValueError(f"no j was given: name the layers back from the output, such as [1, {net.layers}]")
    for j in distances:
        if not 1 <= j <= net.layers:
            raise ValueError(
                f"j is {j}: the network has {net.layers} layers, so d y_N / d y_(N-j) exists for 1 to that"
            )
    return set(distances)


def _starts(layers: int, distances: Sequence[int]) -> list[int]:
    """The layers, ascending, before which the state is kept: those asked for, and one at least every CHUNK layers."""
    return sorted({layers - j for j in distances} | set(range(layers - max(distances), layers, CHUNK)))


def _states(net: HDNN, x: Tensor, starts: Sequence[int]) -> dict[int, Tensor]:
    states, before = {}, 0
    with torch.no_grad():
        for start in starts:
            x = net(x, layers=slice(before, start)) if start > before else x
            states[start], before = x, start
    return states


def _backwards(starts: Sequence[int], layers: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], layers], strict=True))[::-1]


class _Collector:
    """From the columns that each rank has of a matrix, n vectors of its local features, to the whole of it."""

    def __init__(self, net: HDNN) -> None:
        starts, own = np.cumsum(net.features) - net.features, net.agents.local
        device = net.trained_weights.device
        self._tree = SumTree(net.agents)
        self._columns = torch.as_tensor(ranges(starts[own], net.features[own]), device=device)
        self._order = torch.as_tensor(net.architecture.dense_rows(net.features), device=device)

    def own_rows(self, like: Tensor) -> Tensor:
        """This rank's columns of the identity, (n, local features), agent after agent."""
        return torch.eye(len(self._order), dtype=like.dtype, device=like.device)[:, self._columns]

    def __call__(self, vectors: Tensor) -> Tensor:
        """(n, n) in the dense order, on every rank."""
        whole = vectors.new_zeros(len(vectors), len(vectors))
        whole[:, self._columns] = vectors
        return self._tree.sum(whole)[self._order][:, self._order]
