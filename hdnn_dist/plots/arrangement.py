"""Where to draw the agents of a graph that has no positions: lines folded, trees in rings, all else by distances.

line            to and fro in rows as many as columns; straight where it is short
cycle           a circle
tree            its centre in the middle, a ring for each distance from it, every branch in a sector of its own
all else        distances in the picture near those in the graph (stress majorisation: Gansner, Koren and North,
                "Graph drawing by stress majorization", 2004), then moved apart where agents would touch
"""

from __future__ import annotations

import networkx as nx
import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.style import Array

STRAIGHT = 12  # agents; a longer line is folded
MOST_BY_DISTANCE = 600  # agents; the time and memory of more grow with their square
ROUNDS = 200
SETTLED = 1e-4  # the part of the stress that a round has to take away
APART = 0.7  # of the distance of agents spread evenly over the picture


def arrange(graph: CommunicationGraph) -> Array:
    """(agents, 2), the same at every call. Too large a graph is a circle, in the order of its numbers."""
    lowest, highest = graph.degree.min(), graph.degree.max()
    if len(graph.edges) == graph.agents - 1:
        return _line(graph) if highest <= 2 else _rings(graph)
    if lowest == highest == 2:
        return _circle(list(nx.dfs_preorder_nodes(graph.networkx, 0)))
    if graph.agents > MOST_BY_DISTANCE or lowest == graph.agents - 1:
        return _circle(range(graph.agents))
    return _by_distance(graph)


def _line(graph: CommunicationGraph) -> Array:
    """From its end with the lowest number."""
    order = list(nx.dfs_preorder_nodes(graph.networkx, int(np.argmin(graph.degree))))
    columns = len(order) if len(order) <= STRAIGHT else int(np.ceil(np.sqrt(len(order))))
    row, column = np.divmod(np.arange(len(order)), columns)
    where = np.empty((len(order), 2))
    where[order] = np.column_stack([np.where(row % 2, columns - 1 - column, column), -row])
    return where


def _circle(order: list[int] | range) -> Array:
    angle = 2 * np.pi * np.arange(len(order)) / len(order)
    where = np.empty((len(order), 2))
    where[list(order)] = np.column_stack([np.sin(angle), np.cos(angle)])
    return where


def _rings(graph: CommunicationGraph) -> Array:
    """Radii grow by 1 at least, and so far that neighbours on a ring are 1 apart at least."""
    level, angle = _sectors(graph.networkx, graph.centre)
    radius, radii = 0.0, np.zeros(graph.agents)
    for ring in range(1, int(level.max()) + 1):
        on_it = level == ring
        gaps = np.diff(np.sort(angle[on_it]), append=angle[on_it].min() + 2 * np.pi)
        radius = max(radius + 1, 0.5 / np.sin(min(gaps.min(), np.pi) / 2))
        radii[on_it] = radius
    return np.column_stack([radii * np.sin(angle), radii * np.cos(angle)])


def _sectors(tree: nx.Graph, root: int) -> tuple[Array, Array]:
    """(agents,) distances from the root and angles: every agent in the middle of a sector as wide as its leaves."""
    parents = dict(nx.bfs_predecessors(tree, root))
    leaves, level, start = np.zeros(len(tree), dtype=int), np.zeros(len(tree), dtype=int), np.zeros(len(tree))
    for agent in reversed(parents):
        leaves[agent] = max(leaves[agent], 1)
        leaves[parents[agent]] += leaves[agent]
    taken = start.copy()
    for agent, parent in parents.items():
        level[agent], start[agent] = level[parent] + 1, start[parent] + taken[parent]
        taken[parent] += leaves[agent]
    return level, 2 * np.pi * (start + leaves / 2) / leaves[root]


def _by_distance(graph: CommunicationGraph) -> Array:
    hops = np.zeros((graph.agents, graph.agents))
    for agent, distances in nx.all_pairs_shortest_path_length(graph.networkx):
        hops[agent, list(distances)] = list(distances.values())
    circle = _circle(range(graph.agents)) * hops.max() / 2
    found = [_stressed(hops, start) for start in (_scaled(hops), circle)]
    return _moved_apart(min(found, key=lambda where: _stress(hops, where)))


def _scaled(hops: Array) -> Array:
    """Classical scaling; a little noise, of one seed, parts what it puts into one place."""
    centred = hops**2 - (hops**2).mean(axis=0)
    values, vectors = np.linalg.eigh(-0.5 * (centred - centred.mean(axis=1, keepdims=True)))
    noise = np.random.default_rng(0).normal(size=(len(hops), 2))
    return np.asarray(vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0)) + 0.05 * noise)


def _stressed(hops: Array, where: Array) -> Array:
    weights = 1 / np.maximum(hops, 1) ** 2
    np.fill_diagonal(weights, 0)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights, hermitian=True)
    before = _stress(hops, where)
    for _ in range(ROUNDS):
        pull = weights * hops / np.maximum(_distances(where), 1e-9)
        where = inverse @ (pull.sum(axis=1)[:, None] * where - pull @ where)
        stress = _stress(hops, where)
        if before - stress < SETTLED * before:
            break
        before = stress
    return where


def _stress(hops: Array, where: Array) -> float:
    return float((((_distances(where) - hops) / np.maximum(hops, 1)) ** 2).sum())


def _distances(where: Array) -> Array:
    """(agents, agents)."""
    x, y = where.T
    return np.hypot(x[:, None] - x, y[:, None] - y)


def _moved_apart(where: Array) -> Array:
    """Pairs that are too near push each other away."""
    least = APART * float(np.ptp(where, axis=0).max()) / np.sqrt(len(where))
    for _ in range(ROUNDS):
        offset = where[:, None] - where
        distance = np.linalg.norm(offset, axis=-1) + 1e-9
        near = np.maximum(least - distance, 0) / distance
        np.fill_diagonal(near, 0)
        if near.max() < 0.01:
            break
        where = where + 0.3 * (near[..., None] * offset).sum(axis=1)
    return where
