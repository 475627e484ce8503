"""How far a small change of one agent's state goes: its norm at every distance from there, layer by layer.

Tangents carry a few directions of unit length through the network, by its own exchanges, so that no Jacobian is formed:
with d orthonormal directions at agent a, the sum over them of the squared change at agent b is that of the block
d y_j[b] / d y_0[a] on these directions, all of it where d is the number of the agent's features.

    norm[j, r]  =  sqrt( mean over directions and samples of  sum over agents b, r hops from a, of |change_b|^2 )
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.analysis.conditions import Reads
from hdnn_dist.graph.pairs import IntArray
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.network import HDNN
from hdnn_dist.propagation.system import BLOCK_MAPS
from hdnn_dist.weights.initial import generator

MOST_DIRECTIONS = 8  # of a change; an agent with no more features is measured exactly
ARRIVED = 0.01  # of the change at the source: what counts as having come somewhere
DIRECTION_STREAM = 1 << 35


@dataclass(frozen=True, eq=False)
class Transport:
    """What becomes of a change of norm 1 at ``source``.

    ``norms``: (layers + 1, hops + 1) its norm at all agents together that are so many hops away, after so many layers;
    ``cone``: (layers + 1,) the most hops that so many layers can reach, by which blocks agents read: beyond it the
    change is exactly 0.
    """

    source: int
    norms: np.ndarray
    cone: IntArray

    @cached_property
    def front(self) -> IntArray:
        """(layers + 1,) the most hops at which at least 1 % of the change arrives, -1 where it does nowhere."""
        arrived = self.norms >= ARRIVED
        farthest = arrived.shape[1] - 1 - np.argmax(arrived[:, ::-1], axis=1)
        return np.where(arrived.any(axis=1), farthest, -1)

    @property
    def speed(self) -> float:
        """Hops a layer of the front, until it is where it comes farthest."""
        last = int(np.argmax(self.front))
        return float(self.front[last] / last) if last else 0.0

    @property
    def total(self) -> np.ndarray:
        """(layers + 1,) the norm of the change at all agents."""
        with np.errstate(over="ignore"):
            return np.asarray(np.sqrt(np.square(self.norms).sum(axis=1)))


def transport(net: HDNN, states: Tensor, source: int) -> Transport:
    """Follow a change at the agent ``source`` from ``states`` (samples, local features) before the first layer.

    Every rank has to call it, and gets the same, on any number of ranks to rounding. ``ValueError`` unless all call it
    with the same agent and as many samples.
    """
    net.require_same(source=source, samples=len(states))
    hops = net.agents.graph.hops([source])
    shells = _Shells(net, hops)
    squares = torch.stack([shells.squares(change) for change in _changes(net, states, source)])
    return Transport(source, net.tree.sum(squares).sqrt().cpu().numpy(), light_cone(net, source, hops))


def light_cone(net: HDNN, source: int, hops: IntArray) -> IntArray:
    """(layers + 1,) the most ``hops`` (agents,) at which a change at ``source`` can be, after 0, 1, ... layers."""
    graph = net.agents.graph
    own = (np.arange(graph.agents) == source).astype(np.uint64)
    state = dict.fromkeys(net.architecture.parts, own)
    cone = [0]
    for layout in net.stack.which:
        state = _reads(net, layout).layer(state)
        reached = np.bitwise_or.reduce(list(state.values())) > 0
        cone.append(max(cone[-1], int(hops[reached].max(initial=0))))
    return np.array(cone)


def _reads(net: HDNN, layout: int) -> Reads:
    """The blocks that agents read in a layer of that layout."""
    spec, here = net.coupling_spec, net.stack.layouts[layout]
    own = Pattern.diagonal(net.agents.graph.agents)
    R = BLOCK_MAPS[spec.kind].pattern(spec.layouts[layout].pattern) if spec.layouts else own
    return Reads(net.architecture, here.halo.graph, here.pattern, R)


def _changes(net: HDNN, states: Tensor, source: int) -> Iterator[Tensor]:
    """(samples times directions, local features) the changes before the first layer, and after each."""
    directions = _directions(net, source)
    state = states.repeat_interleave(len(directions), dim=0)
    change = directions.repeat(len(states), 1)
    yield change
    for layer in range(net.layers):
        state, change = net.tangent(state, change, layers=slice(layer, layer + 1))
        yield change


def _directions(net: HDNN, source: int) -> Tensor:
    """(directions, local features) orthonormal, at ``source`` alone; zero on the ranks that do not own it."""
    agents, features = net.agents, int(net.features[source])
    count = min(features, MOST_DIRECTIONS)
    directions = np.zeros((count, net.local_features))
    if agents.owns(source):
        first = int(net.features[agents.local[agents.local < source]].sum())
        drawn = generator(net.seed, source, DIRECTION_STREAM).standard_normal((features, count))
        directions[:, first : first + features] = np.linalg.qr(drawn)[0].T
    return torch.as_tensor(directions, dtype=net.trained_weights.dtype, device=net.trained_weights.device)


class _Shells:
    """Sums over the features of all agents that are equally far from the source; ``hops``: (agents,)."""

    def __init__(self, net: HDNN, hops: IntArray) -> None:
        own = net.agents.local
        self._shell = torch.as_tensor(np.repeat(hops[own], net.features[own]), device=net.trained_weights.device)
        self._count = int(hops.max()) + 1

    def squares(self, change: Tensor) -> Tensor:
        """(vectors, local features) -> (shells,) mean over the vectors of the squares of this rank's agents."""
        squares = change.square().mean(dim=0)
        return squares.new_zeros(self._count).index_add_(0, self._shell, squares)
