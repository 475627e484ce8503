"""Messages between neighbours: worlds of ranks, who owns which agent, and exchanges that the ledger has checked."""

from hdnn_dist.exchange.connect import TRANSPORTS, Transport
from hdnn_dist.exchange.ledger import OffGraphError
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.world import Channel, TransportError, World

__all__ = [
    "TRANSPORTS",
    "Agents",
    "Channel",
    "OffGraphError",
    "Transport",
    "TransportError",
    "World",
    "place",
]
