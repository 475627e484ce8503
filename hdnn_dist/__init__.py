"""Hamiltonian deep neural networks over a communication graph."""

from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.readout import Readout
from hdnn_dist.propagation import activations  # noqa: F401
from hdnn_dist.support.version import VERSION

__all__ = ["HDNN", "Agents", "CommunicationGraph", "Readout", "connect", "place"]
__version__ = VERSION
