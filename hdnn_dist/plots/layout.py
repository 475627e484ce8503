"""Where agents are drawn, how large, and which edges have to go round others."""

from __future__ import annotations

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.arrangement import arrange
from hdnn_dist.plots.style import Array

WIDTH = 380.0  # points across the drawn graph
LARGEST, SMALLEST = 20.0, 2.0  # an agent's diameter in points
TESTS = 4_000_000  # pairs of an edge and an agent; more long edges than that are a tangle, bent or not


def place_agents(graph: CommunicationGraph) -> Array:
    """(agents, 2) from the corner (0, 0), the longer side 1; where the graph has no positions, arranged."""
    where = arrange(graph) if graph.positions is None else graph.positions
    where = where - where.min(axis=0)
    return where / (where.max() or 1.0)


def agent_diameter(where: Array) -> float:
    """In points, such that no agents touch but a few that given positions put (almost) into one place.

    ``where``: (agents, 2), ``edges``: (edges, 2), here and below.
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


def edge_lengths(where: Array, edges: Array) -> Array:
    """(edges,) in units of the picture's side."""
    return np.asarray(np.linalg.norm(where[edges[:, 0]] - where[edges[:, 1]], axis=1))


def hidden_edges(where: Array, edges: Array) -> Array:
    """(edges,) bool: the long edges that run exactly through other agents, as around a torus."""
    hidden = np.zeros(len(edges), dtype=bool)
    length = edge_lengths(where, edges)
    (long,) = np.nonzero(length > 1.5 * np.median(length))
    if len(long) * len(where) > TESTS:
        return hidden
    start, end = where[edges[long]].transpose(1, 0, 2)[:, :, None]
    along, offset = end - start, where - start
    reach = (offset * along).sum(-1) / (along * along).sum(-1)
    aside = np.abs(offset - reach[..., None] * along).max(-1)
    hidden[long] = ((aside < 1e-6) & (reach > 1e-6) & (reach < 1 - 1e-6)).any(axis=1)
    return hidden


def arcs(ends: Array, height: float) -> Array:
    """(edges, 33, 2): arcs of one height instead of the straight lines (edges, 2, 2); flat, to keep clear of agents."""
    t = np.linspace(0.0, 1.0, 33)[None, :, None]
    along = (ends[:, 1] - ends[:, 0])[:, None]
    across = along[..., ::-1] * [-1.0, 1.0] / np.linalg.norm(along, axis=-1, keepdims=True)
    return np.asarray(ends[:, :1] + t * along + height * (1.0 - (2.0 * t - 1.0) ** 4) * across)
