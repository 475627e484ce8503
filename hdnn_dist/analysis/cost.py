"""What a layer costs in messages, read off the ledger of a layer that is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.ledger import Traffic
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.kernels.registry import PORTABLE
from hdnn_dist.model.network import HDNN


@dataclass(frozen=True)
class Spent:
    """One pass through one layer: exchanges one after the other, messages and bytes of all agents together."""

    rounds: int
    messages: int
    bytes: int
    busiest_edge_bytes: int

    def times(self, batch: int) -> Spent:
        """The same pass with so many samples as it had one."""
        return replace(self, bytes=batch * self.bytes, busiest_edge_bytes=batch * self.busiest_edge_bytes)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.messages:,} messages, {self.bytes:,} bytes, "
            f"{self.busiest_edge_bytes:,} on the busiest edge"
        )


@dataclass(frozen=True)
class LayerCost:
    """The passes of one layer for one minibatch."""

    forward: Spent
    backward: Spent


def layer_cost(graph: CommunicationGraph, features: int | list[int] = 2, batch: int = 125, **network: Any) -> LayerCost:
    """The cost of one layer for ``batch`` samples; ``network``: arguments of ``HDNN``, whose default is float32.

    ``ValueError`` where ``HDNN`` raises it.
    """
    return cost_of(HDNN(place(graph, connect("local")), features, layers=1, **network), batch)


def cost_of(net: HDNN, batch: int) -> LayerCost:
    """The cost of a network of one layer, whose agents are all in this process; one sample runs forward and backward.

    Messages do not depend on the batch, and their bytes are as many times those of one sample. Nor on the kernel: from
    here on the network has the portable one, for which nothing is compiled.
    """
    agents, net.kernel = net.agents, PORTABLE
    started = _Counts.of(agents)
    y = net(net.trained_weights.new_zeros(1, net.local_features))
    between = _Counts.of(agents)
    y.sum().backward()
    ended = _Counts.of(agents)
    return LayerCost((between - started).times(batch), (ended - between.later(_shared_sum(net))).times(batch))


def _shared_sum(net: HDNN) -> tuple[_Counts, _Counts]:
    """Before and after what is no cost of a layer: the sum of the gradient of shared weights, once a step."""
    before = _Counts.of(net.agents)
    if net.shared is not None:
        net.tree.sum(torch.zeros_like(net.trained_weights))
    return before, _Counts.of(net.agents)


@dataclass(frozen=True)
class _Counts:
    """What the ledger has seen so far."""

    rounds: int
    traffic: Traffic

    @staticmethod
    def of(agents: Agents) -> _Counts:
        return _Counts(agents.ledger.rounds, agents.ledger.traffic())

    def later(self, times: tuple[_Counts, _Counts]) -> _Counts:
        """These counts, after what came between two times."""
        before, after = times
        return _Counts(self.rounds + after.rounds - before.rounds, self.traffic - (before.traffic - after.traffic))

    def __sub__(self, other: _Counts) -> Spent:
        spent = self.traffic - other.traffic
        busiest = int(spent.edge_bytes.max(initial=0))
        return Spent(self.rounds - other.rounds, spent.messages, spent.bytes, busiest)
