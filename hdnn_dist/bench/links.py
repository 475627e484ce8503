"""What benchmarks ask of the links between ranks: how to choose them, which were taken, and how long a rank has waited.

The only file here that knows how the exchange says so.
"""

from __future__ import annotations

from hdnn_dist.bench.cases import Case
from hdnn_dist.bench.held import hold
from hdnn_dist.bench.launching import HELD
from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.world import World
from hdnn_dist.kernels.block_tables import TILE


def joined(transport: str, links: str) -> World:
    """The world of this rank, whose tensors are on the CPU; ``links``: "auto", "network", or one of ``HELD``."""
    if links in HELD:
        return hold(connect(transport, device="cpu", links="network"))
    return connect(transport, device="cpu", links=links)


def flight_of(links: str, case: Case) -> tuple[int, int] | None:
    """The tiles to have in flight; ``None`` to have it chosen."""
    return (min(TILE, 32 << (max(case.batch - 1, 1) // 32).bit_length()), 1) if links == HELD[1] else None


def link_of(agents: Agents) -> str:
    """The links from this rank to its peers, each named once; empty for a rank without peers."""
    return ", ".join(sorted(set(agents.links.values())))


def waited(agents: Agents) -> float:
    """Seconds that this rank has waited for others in exchanges so far."""
    return agents.waited
