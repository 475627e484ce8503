"""Communication graphs: what they hold, what they refuse, and how they come from edges and from networkx."""

from __future__ import annotations

import time

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.graph.source import GraphFileWarning


@st.composite
def connected_edges(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A random spanning tree and more edges, in random order and direction."""
    agents = draw(st.integers(1, 12))
    edges = {(draw(st.integers(0, agent - 1)), agent) for agent in range(1, agents)}
    pairs = [(i, k) for k in range(agents) for i in range(k)]
    edges |= draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    turned = [edge[::-1] if draw(st.booleans()) else edge for edge in sorted(edges)]
    return agents, draw(st.permutations(turned))


@given(connected_edges())
def test_agrees_with_networkx(given_graph: tuple[int, list[tuple[int, int]]]) -> None:
    """Every number that a graph tells is the one that networkx finds for the same edges."""
    agents, edges = given_graph
    graph = CommunicationGraph(agents, edges)
    reference = nx.Graph(edges)
    reference.add_nodes_from(range(agents))
    adjacency = nx.to_numpy_array(reference, nodelist=range(agents)) > 0
    eccentricity = nx.eccentricity(reference)
    np.testing.assert_array_equal(graph.matrix(), adjacency | np.eye(agents, dtype=bool))
    np.testing.assert_array_equal(graph.contains(*np.indices((agents, agents))), graph.matrix())
    np.testing.assert_array_equal(graph.edges, np.argwhere(np.triu(adjacency)))
    np.testing.assert_array_equal(graph.degree, adjacency.sum(axis=1))
    for agent in range(agents):
        np.testing.assert_array_equal(graph.neighbours(agent), np.flatnonzero(adjacency[agent]))
    assert graph.diameter == max(eccentricity.values())
    assert graph.centre == min(eccentricity, key=lambda agent: (eccentricity[agent], agent))
    assert nx.utils.graphs_equal(nx.Graph(graph.networkx.edges), nx.Graph(graph.edges.tolist()))


@pytest.mark.parametrize("spec", ["path:130", "star:64", "watts_strogatz:200,4,0.1,3", "tree:3x4"])
def test_distances_of_more_than_64_agents(spec: str) -> None:
    """Eccentricities are counted for 64 agents at a time; the batches must fit together."""
    graph = CommunicationGraph.parse(spec)
    eccentricity = nx.eccentricity(graph.networkx)
    assert graph.diameter == max(eccentricity.values())
    assert graph.centre == min(eccentricity, key=lambda agent: (eccentricity[agent], agent))


@given(connected_edges())
def test_order_of_edges_does_not_matter(given_graph: tuple[int, list[tuple[int, int]]]) -> None:
    """Ranks that read the same edges in another order have equal graphs; edges stay sorted int64."""
    agents, edges = given_graph
    graph, other = CommunicationGraph(agents, edges), CommunicationGraph(agents, sorted(edges), name="other")
    assert graph == other
    assert hash(graph) == hash(other)
    assert graph.edges.dtype == np.int64
    assert graph.edges.shape == (len(edges), 2)


def test_is_immutable() -> None:
    """Tables are computed once from a graph, so nothing of it may change afterwards."""
    graph = CommunicationGraph.ring(4)
    for array in (graph.edges, graph.degree, graph.neighbours(0), graph.positions):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9  # type: ignore[index]
    with pytest.raises(AttributeError):
        graph.agents = 5  # type: ignore[misc]
    with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
        graph.networkx.add_edge(0, 2)


def test_does_not_keep_the_callers_arrays() -> None:
    """Changing or freezing what the caller passed would leak in either direction."""
    edges, positions = np.array([[1, 0]]), np.zeros((2, 2))
    graph = CommunicationGraph(2, edges, positions=positions)
    edges[0] = positions[0] = 7
    assert graph.edges.tolist() == [[0, 1]]
    assert graph.positions is not None
    assert graph.positions.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("agents", "edges", "message"),
    [
        (0, [], "agents is 0, expected an integer from 1"),
        (2.0, [(0, 1)], r"agents is 2\.0"),
        (10**20, [(0, 1)], "expected an integer from 1 to"),
        (3, [(0, 1), (1, 3)], r"edge \(1, 3\) names an agent outside 0\.\.2.*raise agents \(now 3\)"),
        (3, [(0, -1)], r"edge \(0, -1\) names an agent outside"),
        (3, [(0, 1), (1, 1)], r"edge \(1, 1\) is a self-loop; self-loops are implied"),
        (3, [(0, 1), (1, 2), (1, 0)], r"edge \(0, 1\) is given twice"),
        (2, [(0, 1.5)], "must be pairs of integers"),
        (2, [("0", "1")], "must be pairs of integers"),
        (2, [(0, 1, 2)], r"shape \(1, 3\), expected \(E, 2\)"),
        (6, [(0, 1), (1, 2), (3, 4)], "3 components, and agents 0 and 3 are not connected; add an edge"),
        (2**31 - 1, [(0, 1)], "2147483646 components, and agents 0 and 2 are not connected"),
        (2, [], "2 components, and agents 0 and 1 are not connected"),
    ],
)
def test_refuses_what_is_no_graph(agents: int, edges: list, message: str) -> None:
    """Each slip in agents and edges is named on one line, and a huge number of agents costs nothing."""
    with pytest.raises(ValueError, match=message) as caught:
        CommunicationGraph(agents, edges)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "positions",
    [[[0, 0]], [[0, 0, 0], [1, 1, 1]], [[0, float("nan")], [1, 1]], [["a", "b"], [0, 1]], [[0], [0, 1]]],
)
def test_refuses_bad_positions(positions: list) -> None:
    """Positions of the wrong shape or kind would fail much later, in a picture."""
    with pytest.raises(ValueError, match=r"positions .* give x and y of each agent, or None"):
        CommunicationGraph(2, [(0, 1)], positions=positions)


def test_one_agent() -> None:
    """The smallest graph has no edges and still answers every question."""
    graph = CommunicationGraph(1, [])
    assert graph.edges.shape == (0, 2)
    assert (graph.diameter, graph.centre, graph.degree.tolist()) == (0, 0, [0])
    assert graph.neighbours(0).tolist() == []
    assert graph.has_edge(0, 0)
    assert graph.pattern().matrix().tolist() == [[True]]


def test_contains_knows_its_agents() -> None:
    """(0, 10) of 8 agents has the key of (1, 2), but no agent outside 0..7 is in the graph."""
    graph = CommunicationGraph.ring(8)
    assert graph.contains([0, 8, -1, 7, 3], [10, 8, -1, 0, 3]).tolist() == [False, False, False, True, True]
    assert graph.contains([], []).tolist() == []
    assert graph.contains(np.uint8(7), np.int64(0))
    assert graph.has_edge(7, 0)
    assert not graph.has_edge(0, 2)
    with pytest.raises(ValueError, match="expected integers"):
        graph.contains(0.5, 1)


def test_no_such_agent() -> None:
    """A negative agent would otherwise have an empty neighbourhood."""
    for wrong in (-1, 8):
        with pytest.raises(ValueError, match=rf"no agent {wrong}, expected 0\.\.7"):
            CommunicationGraph.ring(8).neighbours(wrong)


def test_pattern_of_the_graph_and_inside_it() -> None:
    """The default is S with self-loops; a custom one is taken as it is, and refused outside S."""
    graph = CommunicationGraph.path(3)
    assert graph.pattern().matrix().tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    custom = Pattern.from_pairs(3, [(0, 1), (1, 1), (2, 2)])
    assert graph.pattern(custom) is custom
    assert graph.pattern(custom.matrix()) == custom
    with pytest.raises(ValueError, match=r"block \(0, 2\), but agents 0 and 2 are not neighbours"):
        graph.pattern(np.ones((3, 3)))
    with pytest.raises(ValueError, match="agent 1 reads no block"):
        graph.pattern(np.diag([1, 0, 1]))


def test_large_graph_is_fast() -> None:
    """Looking up the neighbours of 65,536 agents, one after the other, stays under a second."""
    graph = CommunicationGraph.torus(256, 256)
    start = time.process_time()
    assert sum(len(graph.neighbours(agent)) for agent in range(graph.agents)) == 4 * 65536
    assert time.process_time() - start < 1


def test_from_edges_counts_agents() -> None:
    """Without `agents` the largest number decides; with it, a missing agent is a disconnected graph."""
    assert CommunicationGraph.from_edges([(0, 2), (2, 1)]).agents == 3
    assert CommunicationGraph.from_edges({(0, 1)}) == CommunicationGraph.from_edges(np.array([[1, 0]]), agents=2)
    assert CommunicationGraph.from_edges([], agents=1).agents == 1
    with pytest.raises(ValueError, match="give agents=1"):
        CommunicationGraph.from_edges([])
    with pytest.raises(ValueError, match="agents 0 and 3 are not connected"):
        CommunicationGraph.from_edges([(0, 2), (2, 1)], agents=4)
    with pytest.raises(ValueError, match=r"edge \(-1, -2\) names an agent outside"):
        CommunicationGraph.from_edges([(-1, -2)])


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([(10, 2), (2, 7)], [[0, 1], [0, 2]]),  # ints sort by value: 2, 7, 10
        ([("c", "a"), ("a", "b")], [[0, 1], [0, 2]]),
        ([((1, 0), (0, 1)), ((0, 1), (0, 0))], [[0, 1], [1, 2]]),
        ([("b", 1), (1, "a")], [[0, 1], [1, 2]]),  # no order among them: b, 1, a as they come
        ([(np.int64(5), 3), (3, 4)], [[0, 1], [0, 2]]),
    ],
)
def test_networkx_nodes_are_numbered_in_order(edges: list, expected: list) -> None:
    """Sorted where the nodes have an order, the graph's own order otherwise."""
    assert CommunicationGraph.from_networkx(nx.Graph(edges)).edges.tolist() == expected


def test_networkx_grid_is_our_grid() -> None:
    """Tuples of a lattice are numbered row by row, also when they come in another order."""
    lattice = nx.grid_2d_graph(3, 4)
    shuffled = nx.Graph()
    shuffled.add_nodes_from(reversed(list(lattice)))
    shuffled.add_edges_from(lattice.edges)
    assert CommunicationGraph.from_networkx(shuffled) == CommunicationGraph.grid(3, 4)


def test_networkx_positions_follow_their_nodes() -> None:
    """`pos` is kept and renumbered with the nodes; half of them, or three coordinates, are left out, which is said."""
    graph = nx.Graph([(5, 3)])
    graph.nodes[5]["pos"], graph.nodes[3]["pos"] = (5.0, 1.0), np.array([3.0, 2.0])
    positions = CommunicationGraph.from_networkx(graph).positions
    assert positions is not None
    assert positions.tolist() == [[3, 2], [5, 1]]
    del graph.nodes[5]["pos"]
    with pytest.warns(GraphFileWarning, match="positions are left out: 1 of 2 nodes, such as '5'"):
        assert CommunicationGraph.from_networkx(graph).positions is None
    nx.set_node_attributes(graph, (1, 2, 3), "pos")
    with pytest.warns(GraphFileWarning, match="2 of 2 nodes"):
        assert CommunicationGraph.from_networkx(graph).positions is None


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_networkx_kinds(kind: type) -> None:
    """Directions and parallel edges are not dropped silently."""
    with pytest.raises(ValueError, match="expected undirected and simple"):
        CommunicationGraph.from_networkx(kind([(0, 1)]))


def test_networkx_slips() -> None:
    """A self-loop, a second component and an empty graph are refused as in the constructor."""
    with pytest.raises(ValueError, match="self-loop"):
        CommunicationGraph.from_networkx(nx.Graph([(0, 1), (1, 1)]))
    with pytest.raises(ValueError, match="not connected"):
        CommunicationGraph.from_networkx(nx.Graph([(0, 1), (2, 3)]))
    with pytest.raises(ValueError, match="agents is 0"):
        CommunicationGraph.from_networkx(nx.Graph())
