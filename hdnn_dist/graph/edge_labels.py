"""Labels of edges: what tells the neighbours of an agent apart, where nobody is told apart by a number.

An edge has a label in each of its two directions: how the agent that reads sees the one that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hdnn_dist.graph import topologies
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.pairs import IntArray
from hdnn_dist.support.arguments import shown

DIRECTION, NEIGHBOUR = "direction", "neighbour"
EdgeLabels = str | Mapping[tuple[int, int], str] | None
Made = tuple[Callable[..., topologies.Topology], tuple[int, ...]]


def labels_of(graph: CommunicationGraph, given: EdgeLabels, rows: IntArray, columns: IntArray) -> NDArray[np.str_]:
    """(pairs,) the label of each pair of neighbours, of ``rows`` that read ``columns``, (pairs,) each.

    ``given``: None where all neighbours are alike; "direction" on a ring or a path (next, previous), a grid or a torus
    (right, left, down, up); or a label for every pair (i, k), agent i reading k. ``ValueError`` for anything else.
    """
    if given is None:
        return np.full(len(rows), NEIGHBOUR)
    if isinstance(given, Mapping):
        return _of_table(graph, given, rows, columns)
    if given != DIRECTION:
        raise ValueError(
            f"edge_labels is {shown(given)}: expected 'direction', a label for every pair of neighbours, or None"
        )
    return _directions(graph, rows, columns)


def _of_table(
    graph: CommunicationGraph, table: Mapping[tuple[int, int], str], rows: IntArray, columns: IntArray
) -> NDArray[np.str_]:
    for pair, label in table.items():
        if not (isinstance(label, str) and label.isidentifier()) or label == "own":
            raise ValueError(f"edge_labels: {shown(pair)} has the label {shown(label)}: expected a word, and not 'own'")
        if not (isinstance(pair, tuple) and len(pair) == 2 and graph.contains(*pair) and pair[0] != pair[1]):
            raise ValueError(f"edge_labels: {shown(pair)} is no pair of neighbours of {graph.name}: leave it out")
    missing = next((pair for pair in zip(rows.tolist(), columns.tolist(), strict=True) if pair not in table), None)
    if missing is not None:
        i, k = map(graph.named, missing)
        raise ValueError(f"edge_labels has no label for {i} reading {k}: give one for each pair, in both directions")
    return np.array([table[pair] for pair in zip(rows.tolist(), columns.tolist(), strict=True)], dtype=np.str_)


def _directions(graph: CommunicationGraph, rows: IntArray, columns: IntArray) -> NDArray[np.str_]:
    n = graph.agents
    sizes = [(height, n // height) for height in range(2, n) if n % height == 0]
    lines: list[Made] = [(topologies.path, (n,)), *([(topologies.ring, (n,))] if n > 2 else [])]
    lattices: list[Made] = [(topologies.grid, size) for size in sizes]
    lattices += [(topologies.torus, size) for size in sizes if min(size) > 2]
    for make, shape in lines + lattices:
        if _is(graph, make(*shape)):
            wraps = make in (topologies.ring, topologies.torus)
            (below, right), (r, c) = divmod(columns, shape[-1]), divmod(rows, shape[-1])
            if len(shape) == 1:
                return np.where(_onwards(right - c, n, wraps), "next", "previous")
            sideways = np.where(_onwards(right - c, shape[1], wraps), "right", "left")
            return np.where(below == r, sideways, np.where(_onwards(below - r, shape[0], wraps), "down", "up"))
    raise ValueError(
        f"edge_labels 'direction' is known of rings, paths, grids and tori, but not of {graph.name}: give a label for "
        "every pair of neighbours, or None"
    )


def _onwards(difference: IntArray, size: int, wraps: bool) -> NDArray[np.bool_]:
    """Whether a step in a line of ``size`` goes to the next, (pairs,)."""
    return difference % size == 1 if wraps else difference == 1


def _is(graph: CommunicationGraph, topology: topologies.Topology) -> bool:
    return len(topology.edges) == len(graph.edges) and CommunicationGraph(topology.agents, topology.edges) == graph
