"""Drawn graphs of the benchmark's families, and several graphs as one."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.families import FAMILIES, draw_graph, draw_graphs
from hdnn_dist.graph.union import union


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_keeps_its_diameter_and_its_shape(family: str) -> None:
    graph = draw_graph(family, np.random.default_rng(3), (6, 12))
    assert nx.is_connected(graph.networkx)
    assert 6 <= nx.diameter(graph.networkx) <= 12
    left = nx.Graph(graph.networkx)
    for _ in range({"line": 0, "caterpillar": 1, "lobster": 2}.get(family, 0)):
        left.remove_nodes_from([node for node, degree in dict(left.degree).items() if degree <= 1])
    if family in ("line", "caterpillar", "lobster"):  # what is left of a lobster without two rounds of leaves is a line
        assert max(dict(left.degree).values(), default=0) <= 2
    assert nx.is_tree(graph.networkx) == (family not in ("ladder", "grid"))


def test_more_graphs_begin_with_the_same_ones() -> None:
    few, more = draw_graphs(7, 5), draw_graphs(9, 5)
    assert few == more[:7]
    assert [graph.name for graph in few] == [*FAMILIES, next(iter(FAMILIES))]


@pytest.mark.parametrize(
    ("family", "diameters", "said"),
    [("comb", (3, 5), "line"), ("line", (5, 3), "smaller one first"), ("grid", (1, 1), "no grid")],
)
def test_what_cannot_be_drawn_is_refused(
    monkeypatch: pytest.MonkeyPatch, family: str, diameters: tuple[int, int], said: str
) -> None:
    monkeypatch.setattr("hdnn_dist.graph.families.TRIES", 20)
    with pytest.raises(ValueError, match=said):
        draw_graph(family, np.random.default_rng(0), diameters)


def test_a_union_joins_graphs_where_layers_send_nothing() -> None:
    parts = [CommunicationGraph.path(3), CommunicationGraph.path(1), CommunicationGraph.ring(4)]
    joined = union(parts)
    assert joined.starts.tolist() == [0, 3, 4, 8]
    assert joined.of_agents().tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    blocks = joined.pattern.matrix()
    for part, start in zip(parts, joined.starts.tolist(), strict=False):
        here = slice(start, start + part.agents)
        assert (blocks[here, here] == part.matrix()).all()
        blocks[here, here] = False
    assert not blocks.any()
    joined.graph.pattern(joined.pattern)  # inside the graph, which is connected
    with pytest.raises(ValueError, match="no graphs"):
        union([])
