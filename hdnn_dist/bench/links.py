"""What benchmarks ask of the links between ranks: how to choose them, which were taken, and how long a rank has waited.

The only file here that knows how the exchange says so.
"""

from __future__ import annotations

from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.world import World


def joined(transport: str, links: str) -> World:
    """The world of this rank, whose tensors are on the CPU; ``links``: "auto" or "network"."""
    return connect(transport, device="cpu", links=links)


def link_of(agents: Agents) -> str:
    """The links from this rank to its peers, each named once; empty for a rank without peers."""
    return ", ".join(sorted(set(agents.links.values())))


def waited(agents: Agents) -> float:
    """Seconds that this rank has waited for others in exchanges so far."""
    return agents.waited
