"""Who may talk to whom: communication graphs, and the block patterns inside them."""

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern

__all__ = ["CommunicationGraph", "Pattern"]
