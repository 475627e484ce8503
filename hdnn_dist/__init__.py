"""Hamiltonian deep neural networks over a communication graph."""

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.network import HDNN
from hdnn_dist.placement import Agents, place
from hdnn_dist.readout import Readout
from hdnn_dist.transport import connect

__all__ = ["HDNN", "Agents", "CommunicationGraph", "Readout", "connect", "place"]
__version__ = "0.1.0"
