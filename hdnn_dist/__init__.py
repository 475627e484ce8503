"""Hamiltonian deep neural networks over a communication graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hdnn_dist.analysis.conditions import check
from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.model.averaging import average_gradients
from hdnn_dist.model.clipping import clip_grad_norm_
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.readout import Readout
from hdnn_dist.propagation import activations
from hdnn_dist.support.version import VERSION

if TYPE_CHECKING:
    from hdnn_dist.runs.saved import SavedRun


def load(path: str | Path, world: World | None = None) -> SavedRun:
    """As ``runs.saved.load``, whose room, with its pictures, is only imported when it is used."""
    from hdnn_dist.runs import saved

    return saved.load(path, world)


CommunicationGraph.check = check  # stands above the graph, since it runs a layer

__all__ = [
    "HDNN",
    "AgentReadouts",
    "Agents",
    "CommunicationGraph",
    "Pattern",
    "Readout",
    "activations",
    "average_gradients",
    "check",
    "clip_grad_norm_",
    "connect",
    "load",
    "place",
]
__version__ = VERSION
