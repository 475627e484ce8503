"""Where agents are drawn, and how large."""

from __future__ import annotations

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.arrangement import arrange
from hdnn_dist.plots.style import Array

WIDTH = 380.0  # points across the drawn graph
LARGEST, SMALLEST = 20.0, 2.0  # an agent's diameter in points
TESTS = 4_000_000  # pairs of agents


def place_agents(graph: CommunicationGraph) -> Array:
    """(agents, 2) from the corner (0, 0), the longer side 1; where the graph has no positions, arranged."""
    where = arrange(graph) if graph.positions is None else graph.positions
    where = where - where.min(axis=0)
    return where / (where.max() or 1.0)


def agent_diameter(where: Array) -> float:
    """In points, such that no agents touch but a few that given positions put (almost) into one place.

    ``where``: (agents, 2).
    """
    return float(np.clip(WIDTH * 0.65 * closest(where), SMALLEST, LARGEST))


def closest(where: Array) -> float:
    """The distance of the two nearest of ``where`` (agents, 2); in a large graph, of some of them and all."""
    if len(where) == 1:
        return 1.0
    some = np.arange(0, len(where), 1 + len(where) ** 2 // TESTS)
    x, y = where.T
    distances = np.hypot(x[some, None] - x, y[some, None] - y)
    distances[np.arange(len(some)), some] = np.inf
    nearest = distances.min(axis=1)
    return float(max(nearest.min(), 0.5 * np.quantile(nearest, 0.1)))
