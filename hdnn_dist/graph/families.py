"""Graphs on which some agents are far from each other, drawn at random: the families of the ECHO benchmark.

Line, ladder, grid, tree, caterpillar and lobster, of a diameter within given bounds; sizes follow from it.

Source of the families and of the diameters, up to 40: Miglior et al., Can You Hear Me Now? A Benchmark for Long-Range
Graph Propagation, ICLR 2026. They are drawn here anew and are none of its files.
"""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import unknown

Draw = Callable[[int, np.random.Generator], nx.Graph]

DIAMETERS = (17, 40)  # least and largest
LEGS, SECOND_LEGS = 0.5, 0.3  # probabilities of one more leg, and of one more at its end
NARROWEST, WIDEST = 3, 6  # rows of a grid
AGENTS_OF_TREES = 1 / 11  # of the square of the diameter, which a random tree of so many has on average
MOST_AGENTS = 320
TRIES = 100_000


def _line(diameter: int, random: np.random.Generator) -> nx.Graph:
    return nx.path_graph(diameter + 1)


def _ladder(diameter: int, random: np.random.Generator) -> nx.Graph:
    return nx.ladder_graph(diameter)


def _grid(diameter: int, random: np.random.Generator) -> nx.Graph:
    rows = int(random.integers(NARROWEST, WIDEST + 1))
    return nx.grid_2d_graph(rows, max(1, diameter + 2 - rows))


def _tree(diameter: int, random: np.random.Generator) -> nx.Graph:
    return nx.random_labeled_tree(max(diameter + 1, round(AGENTS_OF_TREES * diameter**2)), seed=_seed(random))


def _caterpillar(diameter: int, random: np.random.Generator) -> nx.Graph:
    return nx.random_lobster_graph(diameter, LEGS, 0.0, seed=_seed(random))


def _lobster(diameter: int, random: np.random.Generator) -> nx.Graph:
    return nx.random_lobster_graph(diameter, LEGS, SECOND_LEGS, seed=_seed(random))


FAMILIES: dict[str, Draw] = {
    "line": _line,
    "ladder": _ladder,
    "grid": _grid,
    "tree": _tree,
    "caterpillar": _caterpillar,
    "lobster": _lobster,
}
"""Each as a draw that aims at a diameter; what misses the bounds is drawn again."""


def draw_graph(family: str, random: np.random.Generator, diameters: tuple[int, int] = DIAMETERS) -> CommunicationGraph:
    """A graph of a family whose diameter is within ``diameters``, of at most ``MOST_AGENTS`` agents.

    Raises ``ValueError`` for an unknown family and for diameters that it does not have.
    """
    if family not in FAMILIES:
        raise unknown("family of graphs", family, FAMILIES)
    least, most = diameters
    if not 1 <= least <= most:
        raise ValueError(f"diameters are {least} to {most}: expected two of at least 1, the smaller one first")
    for _ in range(TRIES):
        drawn = FAMILIES[family](int(random.integers(least, most + 1)), random)
        if least < len(drawn) <= MOST_AGENTS:
            graph = _numbered(drawn, family)
            if least <= graph.diameter <= most:
                return graph
    raise ValueError(f"no {family} with a diameter of {least} to {most} in {TRIES} draws: ask for others")


def draw_graphs(count: int, seed: int, diameters: tuple[int, int] = DIAMETERS) -> list[CommunicationGraph]:
    """So many graphs, of one family after the other in turn; the first ones of more are the same."""
    random = np.random.default_rng(seed)
    families = list(FAMILIES)
    return [draw_graph(families[number % len(families)], random, diameters) for number in range(count)]


def _numbered(drawn: nx.Graph, family: str) -> CommunicationGraph:
    graph = nx.convert_node_labels_to_integers(drawn)
    return CommunicationGraph(len(graph), list(graph.edges), name=family)


def _seed(random: np.random.Generator) -> int:
    return int(random.integers(2**31))
