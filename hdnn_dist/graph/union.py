"""Several graphs as one, so that a network passes through all of them at once.

Ranks and sums along the tree need a connected graph: each graph's first agent is joined with that of the next one.
Layers send nothing there, if their pattern is ``Union.pattern``: to them the graphs are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.pairs import IntArray
from hdnn_dist.graph.patterns import Pattern


class Union(NamedTuple):
    """``graph``: of the agents of all graphs, one graph's after the other's; ``pattern``: its blocks without the edges
    that join graphs; ``starts``: (graphs + 1,) the first agent of each, and the number of all.
    """

    graph: CommunicationGraph
    pattern: Pattern
    starts: IntArray

    def of_agents(self) -> IntArray:
        """(agents,) the number of the graph that each agent belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def union(graphs: Sequence[CommunicationGraph]) -> Union:
    """The graphs side by side. ``ValueError`` for none."""
    if not graphs:
        raise ValueError("a union of no graphs: give one at least")
    starts = np.cumsum([0, *(graph.agents for graph in graphs)])
    edges = np.concatenate([graph.edges + start for graph, start in zip(graphs, starts[:-1], strict=True)])
    agents = int(starts[-1])
    own = np.arange(agents)
    rows, columns = (np.concatenate([edges[:, i], edges[:, k], own]) for i, k in ((0, 1), (1, 0)))
    joining = np.column_stack([starts[:-2], starts[1:-1]])
    joined = CommunicationGraph(agents, np.concatenate([edges, joining]), name=f"union of {len(graphs)}")
    return Union(joined, Pattern(agents, rows, columns), starts)
