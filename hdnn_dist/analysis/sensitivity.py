"""Backward sensitivity matrices (BSMs): the Jacobians M_j = d y_N / d y_{N-j} of a network at one input.

Vectors stay where their agents live. Products with M_j and its transpose use the exchanges of the network itself;
the transposed ones go back a few layers at a time, so that states that are rebuilt cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.halo import ranges
from hdnn_dist.network import HDNN
from hdnn_dist.tree import Tree

CHUNK = 16  # layers that are undone before the state is read again


class Sensitivity:
    """M_j at one input as a linear map. ``x``: (1, local features), the input of the network, not of layer N - j.

    Every rank has to make it, and to call its products. Raises ``ValueError`` unless 1 <= j <= layers.
    """

    def __init__(self, net: HDNN, x: Tensor, j: int) -> None:
        self.net = net
        self.first = net.layers - _check_distance(net, j)
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
    Every rank has to take all of it. Raises ``ValueError`` unless 1 <= j <= layers.
    """
    wanted = {_check_distance(net, j) for j in distances}
    starts = _starts(net.layers, sorted(wanted))
    states = _states(net, x, starts)
    tree, columns, order = Tree(net.agents), _own_columns(net), _dense_order(net)
    n = len(order)
    rows = torch.zeros(n, len(columns), dtype=x.dtype, device=x.device)
    rows[columns, torch.arange(len(columns), device=x.device)] = 1.0
    for start, stop in _backwards(starts, net.layers):
        rows = pull_back(net, states[start], slice(start, stop), rows)
        if net.layers - start in wanted:
            whole = rows.new_zeros(n, n)
            whole[:, columns] = rows
            yield net.layers - start, tree.sum(whole)[order][:, order]


def forward_exact(net: HDNN, x: Tensor, depths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """(N, d y_N / d y_0) for every N of ``depths``, ascending, as ``exact`` but in one pass forward.

    The N-layer networks are the first N layers of this one.
    """
    tree, columns, order = Tree(net.agents), _own_columns(net), _dense_order(net)
    n = len(order)
    state = x.expand(n, -1).contiguous()
    change = torch.zeros_like(state)
    change[columns, torch.arange(len(columns), device=x.device)] = 1.0
    before = 0
    for depth in sorted(depths):
        state, change = net.tangent(state, change, layers=slice(before, depth))
        before = depth
        whole = change.new_zeros(n, n)
        whole[columns] = change.T
        yield depth, tree.sum(whole)[order][:, order]


def pull_back(net: HDNN, state: Tensor, layers: slice, cotangents: Tensor) -> Tensor:
    """The cotangents (vectors, local features) behind ``layers`` as cotangents of ``state`` (1, local features)."""
    x = state.detach().expand(len(cotangents), -1).clone().requires_grad_()
    with torch.enable_grad():
        (before,) = torch.autograd.grad(net(x, layers=layers), x, cotangents)
    return before


def spread(distances: int, most: int = 16) -> list[int]:
    """About ``most`` whole numbers from 1 to ``distances``, evenly spread on a logarithmic axis."""
    return sorted({round(value) for value in np.geomspace(1, distances, most)})


def _check_distance(net: HDNN, j: int) -> int:
    if not 1 <= j <= net.layers:
        raise ValueError(f"j is {j}: the network has {net.layers} layers, so d y_N / d y_(N-j) exists for 1 to that")
    return j


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


def _own_columns(net: HDNN) -> Tensor:
    """(local features,) where the features of this rank stand in a state that holds agent after agent."""
    starts, own = np.cumsum(net.features) - net.features, net.agents.local
    return torch.as_tensor(ranges(starts[own], net.features[own]), device=net.weights.device)


def _dense_order(net: HDNN) -> Tensor:
    return torch.as_tensor(net.architecture.dense_rows(net.features), device=net.weights.device)
