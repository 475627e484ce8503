"""How edges are drawn: straight, or in an arc round the agents that are not their ends.

An edge that runs under an agent reads as two edges of it.
"""

from __future__ import annotations

import numpy as np

from hdnn_dist.plots.layout import WIDTH
from hdnn_dist.plots.style import Array

FEW, MOST = 100_000, 4_000_000  # pairs of an edge and an agent; with more than that lines are a tangle, bent or not
LOW = 0.35  # of the usual length of an edge, the height of arcs in a large graph
HEIGHTS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # of arcs, in radii of an agent
ROUND, FLAT = 2, 4  # shapes of an arc: a flat one passes a row of agents
CLEAR = 1.2  # radii from the middle of an agent, where an edge does not touch it
ALONG = np.linspace(0.0, 1.0, 33)[:, None]


def edge_lengths(where: Array, edges: Array) -> Array:
    """(edges,) in units of the picture's side. ``where``: (agents, 2), ``edges``: (edges, 2), here and below."""
    return np.asarray(np.linalg.norm(where[edges[:, 0]] - where[edges[:, 1]], axis=1))


def edge_paths(where: Array, edges: Array, diameter: float) -> list[Array]:
    """(points, 2) for each edge, clear of all agents but its ends where an arc can be; ``diameter``: in points.

    In a large graph only the long edges that run exactly through others are bent, as around a torus.
    """
    paths, radius = list(where[edges]), 0.5 * diameter / WIDTH
    if len(edges) * len(where) <= FEW:
        for edge in _hidden(where, edges, np.arange(len(edges)), CLEAR * radius):
            paths[edge] = _clearest(where[edges[edge]], np.delete(where, edges[edge], axis=0), radius)
        return paths
    usual = float(np.median(edge_lengths(where, edges)))
    for edge in _hidden(where, edges, np.nonzero(edge_lengths(where, edges) > 1.5 * usual)[0], 1e-6):
        paths[edge] = _arc(where[edges[edge]], LOW * usual, FLAT)
    return paths


def _hidden(where: Array, edges: Array, tested: Array, near: float) -> Array:
    """Those of the ``tested`` edges that come nearer than ``near`` to an agent that is not their end."""
    if tested.size == 0 or tested.size * len(where) > MOST:
        return tested[:0]
    ends = edges[tested]
    away = _from_lines(where, ends)
    away[np.arange(len(ends))[:, None], ends] = np.inf
    return np.asarray(tested[away.min(axis=1) < near])


def _from_lines(where: Array, ends: Array) -> Array:
    """(edges, agents) distances of every agent from the straight line between two."""
    start, end = where[ends].transpose(1, 0, 2)[:, :, None]
    along, offset = end - start, where - start
    reach = (offset * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-12)
    return np.asarray(np.linalg.norm(offset - np.clip(reach, 0, 1)[..., None] * along, axis=-1))


def _clearest(ends: Array, others: Array, radius: float) -> Array:
    """The lowest arc that is clear of the ``others`` (agents, 2), or the one that comes nearest to it."""
    best, found = -1.0, ends
    for height in HEIGHTS:
        for shape in (ROUND, FLAT):
            for side in (1.0, -1.0):
                arc = _arc(ends, side * height * radius, shape)
                clearance = float(np.linalg.norm(arc[:, None] - others, axis=-1).min())
                if clearance > CLEAR * radius:
                    return arc
                best, found = max((best, found), (clearance, arc), key=lambda tried: tried[0])
    return found


def _arc(ends: Array, height: float, shape: int) -> Array:
    """(33, 2)."""
    along = ends[1] - ends[0]
    across = along[::-1] * [-1.0, 1.0] / max(float(np.linalg.norm(along)), 1e-12)
    return np.asarray(ends[0] + ALONG * along + height * (1.0 - (2.0 * ALONG - 1.0) ** shape) * across)
