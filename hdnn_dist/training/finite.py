"""Where the numbers of a network stop being finite: the first such place, and the agent that has it there.

The order is that in which a training step meets them: the input (or the lift), the weights of layer 0, the state after
it, ..., the weights of the readout; on the way back the gradient of the readout, of the last layer, ..., of the first.
So weights come before the state that they spoil, and a state before those that it spreads to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.readout import Readout
from hdnn_dist.weights.blocks import BlockLayout

BEFORE = -1  # stands for the layer of the input, and of the lift
Owned = tuple[int, Tensor, np.ndarray]  # layer, numbers (..., size), the agent of each of the size


@dataclass(frozen=True)
class Place:
    """``kind``: "weights", "state" or "gradient" (of weights). ``layer``: from 0; ``BEFORE``, or ``layers`` (readout).

    ``layers``: of the network.
    """

    kind: str
    layer: int
    agent: int
    layers: int

    def __str__(self) -> str:
        before = "input" if self.kind == "state" else "lift"
        names = {BEFORE: before, self.layers: "readout"}
        return f"{names.get(self.layer, f'layer {self.layer}')}, agent {self.agent}"

    @property
    def stage(self) -> int:
        """The number of this place in the order of a training step, whoever the agent."""
        if self.kind == "gradient":
            return 2 * (self.layers + 2) + self.layers - self.layer
        return 2 * (self.layer + 1) + (self.kind == "state")

    @staticmethod
    def at(stage: int, agent: int, layers: int) -> Place:
        """The inverse of ``stage``."""
        if stage >= 2 * (layers + 2):
            return Place("gradient", layers - (stage - 2 * (layers + 2)), agent, layers)
        return Place("state" if stage % 2 else "weights", stage // 2 - 1, agent, layers)


def first_not_finite(net: HDNN, head: Readout, x: Tensor, lift: ConvolutionalLift | None = None) -> Place | None:
    """The first place on any rank with NaN or infinity, the same on all; ``None`` where all is finite.

    ``x``: the input of the network, or of the ``lift`` where there is one. Every rank has to call it with the same
    batch: it costs a forward pass, layer by layer, since later layers may heal what an earlier one broke, and
    one sum along the tree. Gradients are those that the parameters hold.
    """
    with torch.no_grad():
        values = [("weights", *own) for own in _parameters(net, head, lift, lambda parameter: parameter)]
        states = [("state", *own) for own in _states(net, x if lift is None else lift(x))]
        gradients = [("gradient", *own) for own in _parameters(net, head, lift, lambda parameter: parameter.grad)]
        found = [_first(net, *part) for part in (*values, *states, *gradients)]
    return _earliest(net, head.everyone, [place for place in found if place is not None])


def all_finite(tree: SumTree, *tensors: Tensor | None) -> bool:
    """Whether no rank has NaN or infinity in these; the same answer everywhere, for one sum along the tree."""
    flags = [given.isfinite().all() for given in tensors if given is not None]
    broken = torch.stack(flags).logical_not().any().to(torch.float64)
    return not bool(tree.sum(broken.reshape(1)))


def _states(net: HDNN, x: Tensor) -> Iterator[Owned]:
    """The state before the first layer and after each."""
    owners = np.repeat(net.agents.local, net.features[net.agents.local])
    yield BEFORE, x.movedim(1, -1), owners
    for layer in range(net.layers):
        x = net(x, layers=slice(layer, layer + 1))
        yield layer, x.movedim(1, -1), owners


def _parameters(
    net: HDNN, head: Readout, lift: ConvolutionalLift | None, of: Callable[[Tensor], Tensor | None]
) -> Iterator[Owned]:
    """All that is trained on this rank: the parameters, or what ``of`` makes of them, if anything."""
    if lift is not None:
        owners = np.repeat(net.agents.local, net.features[net.agents.local])
        yield from ((BEFORE, part.movedim(0, -1), owners) for part in map(of, lift.parameters()) if part is not None)
    if (weights := of(net.weights)) is not None:
        owners_of = cache(_owners)
        for layer in range(net.layers):
            yield layer, net.plan.weights(weights, layer), owners_of(net.plan.layout(layer))
    if isinstance(net.coupling, nn.Parameter) and (coupling := of(net.coupling)) is not None:
        assert net._coupling_plan.layout is not None
        yield from ((layer, C, _owners(net._coupling_plan.layout)) for layer, C in enumerate(coupling))
    yield from _head(net, head, of)


def _head(net: HDNN, head: Readout, of: Callable[[Tensor], Tensor | None]) -> Iterator[Owned]:
    read = net.agents.local[np.isin(net.agents.local, head.at)]
    if (weights := of(head.weights)) is not None and len(read):
        columns = weights.shape[1] // int(net.features[read].sum())
        yield net.layers, weights, np.repeat(read, net.features[read] * columns)
    if (bias := of(head.bias)) is not None:
        yield net.layers, bias, np.full(len(bias), head.root)


def _owners(layout: BlockLayout) -> np.ndarray:
    """(size,) the agent whose row of K, or whose bias, each number of the flat vector belongs to."""
    rows, _, bias_rows = layout.positions()
    biases = (layout.size - layout.entries) // len(bias_rows)
    ends = np.cumsum(layout.halo.sizes)
    return np.searchsorted(ends, np.concatenate([rows, np.tile(bias_rows, biases)]), side="right")


def _first(net: HDNN, kind: str, layer: int, numbers: Tensor, owners: np.ndarray) -> Place | None:
    """The lowest agent here with a number that is not finite."""
    broken = torch.atleast_2d(numbers).isfinite().flatten(0, -2).all(0).logical_not().cpu().numpy()
    return Place(kind, layer, int(owners[broken].min()), net.layers) if broken.any() else None


def _earliest(net: HDNN, tree: SumTree, found: list[Place]) -> Place | None:
    """The earliest place on any rank, of equally early ones that with the lowest agent; one sum along the tree."""
    agents = net.agents.graph.agents
    earliest = 1 + min((place.stage * agents + place.agent for place in found), default=-1)  # 0 where a rank has none
    known = tree.collect(torch.tensor(earliest, dtype=torch.float64, device=net.agents.world.device))
    known = known[known > 0]
    return None if not len(known) else Place.at(*divmod(int(known.min()) - 1, agents), net.layers)
