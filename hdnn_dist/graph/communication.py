"""The communication graph S: who may talk to whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdnn_dist.graph import files as graph_files
from hdnn_dist.graph import topologies
from hdnn_dist.graph.distances import can_be_surveyed, distances_to, eccentricities
from hdnn_dist.graph.generated import GeneratedGraphs
from hdnn_dist.graph.labels import NamedAgents, checked_labels
from hdnn_dist.graph.nodes import numbered
from hdnn_dist.graph.pairs import (
    BoolArray,
    IntArray,
    PairError,
    Pairs,
    agent_array,
    agent_count,
    find_pairs,
    pair_array,
    read_only,
    row_starts,
    simple_edges,
    slice_of,
)
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.graph.positions import checked_positions
from hdnn_dist.support.arguments import require_type


@dataclass(frozen=True, init=False, eq=False, repr=False)
class CommunicationGraph(NamedAgents, GeneratedGraphs):
    """An undirected, connected, simple graph on the agents 0..agents-1.

    ``edges``: read-only int64 (E, 2), i < k in each row, rows in lexicographic order. Self-loops are implied
    (S_ii = 1) and not listed. ``positions``: where to draw the agents, read-only float64 (agents, 2), or None.
    ``labels``: what people call the agents, (agents,) different texts, or None where that is their number.
    Two graphs are equal when agents and edges are.

    The constructor takes edges in any order and direction. ValueError on an agent out of range, a self-loop,
    an edge given twice, and a graph that is not connected.
    """

    agents: int
    edges: IntArray
    name: str
    positions: NDArray[np.float64] | None
    labels: tuple[str, ...] | None

    check: ClassVar[Callable[..., Any]]
    """``analysis.conditions.check`` of this graph, given to the class by the package's face: it runs a layer."""

    def __init__(
        self,
        agents: int,
        edges: Pairs,
        *,
        name: str = "custom",
        positions: ArrayLike | None = None,
        labels: Sequence[object] | None = None,
    ) -> None:
        require_type("name", name, str, "a text")
        agents = agent_count(agents)
        known = checked_labels(agents, labels)
        object.__setattr__(self, "agents", agents)
        object.__setattr__(self, "edges", simple_edges(agents, edges, known))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "positions", checked_positions(agents, positions))
        object.__setattr__(self, "labels", known)

    # Where graphs come from

    @classmethod
    def parse(cls, spec: str) -> CommunicationGraph:
        """The graph of a spec, ``ring:8``, ``grid:8x8``, ``erdos_renyi:20,0.3,0``, or of a file (see ``load``)."""
        require_type("a graph spec", spec, str, "a text, such as 'ring:8', or the path of a graph file")
        if graph_files.is_file(spec):
            return cls.load(spec.strip())
        return cls._of(topologies.parse(spec))

    @classmethod
    def from_edges(cls, edges: Pairs, agents: int | None = None) -> CommunicationGraph:
        """The graph of these edges (E, 2); without ``agents``, the largest number in them decides."""
        pairs = pair_array(edges, "edge")
        if agents is None and not len(pairs):
            raise ValueError("no edges and no number of agents; for a graph of one agent give agents=1")
        return cls(max(1, int(pairs.max()) + 1) if agents is None else agents, pairs)

    @classmethod
    def from_networkx(cls, graph: nx.Graph) -> CommunicationGraph:
        """A networkx graph, its nodes numbered in sorted order, or in the graph's if they have none.

        The node attribute ``pos`` gives the positions, nodes or their attribute ``label`` the labels. ValueError on a
        directed graph and on a multigraph.
        """
        require_type("graph", graph, nx.Graph, "a networkx.Graph")
        topology = numbered(graph)
        return cls._of(topology._replace(name=topology.name or "custom"))

    @classmethod
    def load(cls, path: str | Path, merge: bool = False) -> CommunicationGraph:
        """Read an edge list (.edges, .txt, .edgelist, .csv), GraphML, networkx node-link JSON, GML, Pajek or MATPOWER.

        ``merge``: take links of either direction, and several between two agents, as one edge, and leave out links of
        an agent with itself, which are refused otherwise. What is left out of the file is told by a GraphFileWarning.

        ValueError with the file, for edge lists the line, and the mend.
        """
        require_type("path", path, (str, Path), "the path of a graph file")
        source = graph_files.read(Path(path), merge)
        try:
            return cls._of(source.topology)
        except PairError as error:
            place = f"{path}, line {source.lines[error.row]}" if source.lines else f"{path}"
            raise ValueError(f"{place}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the graph in the format of the suffix (see ``load``), whole or not at all.

        Edge lists hold neither name nor positions, and labels only where these are numbers in ascending order; what
        is lost of them is told by a GraphFileWarning. ValueError if the file cannot be written.
        """
        require_type("path", path, (str, Path), "the path of a graph file")
        graph_files.write(Path(path), self.networkx)

    @classmethod
    def _of(cls, topology: topologies.Topology) -> Self:
        agents, labels = topology.agents, topology.labels
        return cls(agents, topology.edges, name=topology.name, positions=topology.positions, labels=labels)

    # What a graph tells

    @cached_property
    def networkx(self) -> nx.Graph:
        """As a frozen networkx.Graph without self-loops; nodes have the attributes ``pos`` and ``label``, if known."""
        graph = nx.Graph(name=self.name)
        graph.add_nodes_from(range(self.agents))
        graph.add_edges_from(self.edges.tolist())
        if self.positions is not None:
            nx.set_node_attributes(graph, dict(enumerate(map(tuple, self.positions.tolist()))), "pos")
        nx.set_node_attributes(graph, dict(enumerate(self.labels or ())), "label")
        return nx.freeze(graph)

    def neighbours(self, agent: int) -> IntArray:
        """(degree,): the neighbours of an agent, ascending, without itself (read-only)."""
        indptr, neighbours = self._adjacency
        return neighbours[slice_of(indptr, agent)]

    @cached_property
    def degree(self) -> IntArray:
        """(agents,): how many neighbours each agent has."""
        return read_only(np.diff(self._adjacency[0]))

    @property
    def diameter(self) -> int:
        """The largest distance between two agents, in edges."""
        return int(self.eccentricity.max())

    @property
    def centre(self) -> int:
        """The lowest-numbered agent of least eccentricity."""
        return int(self.eccentricity.argmin())

    def has_edge(self, i: int, k: int) -> bool:
        """Whether S_ik = 1: i and k are neighbours, or the same agent."""
        return bool(self.contains(i, k))

    def contains(self, i: ArrayLike, k: ArrayLike) -> BoolArray:
        """Whether S_ik = 1, elementwise for arrays that broadcast together; False for an agent that does not exist."""
        one, other = agent_array(i), agent_array(k)
        low, high = np.minimum(one, other), np.maximum(one, other)
        itself = (low == high) & (low >= 0) & (high < self.agents)
        return np.asarray(itself | find_pairs(self._keys, self.agents, low, high))

    def matrix(self) -> BoolArray:
        """S as a dense (agents, agents) array, its diagonal set."""
        return self.pattern().matrix()

    def pattern(self, blocks: Pattern | ArrayLike | None = None, name: str = "T") -> Pattern:
        """The block pattern S, self-loops included, or ``blocks``, checked to lie inside S.

        ``blocks``: a Pattern, or a dense 0/1 matrix (agents, agents). ValueError, in which it is called ``name``, if
        it leaves the graph, or if an agent reads no block.
        """
        if blocks is None:
            return self._pattern
        pattern = blocks if isinstance(blocks, Pattern) else Pattern.from_matrix(blocks)
        pattern.check_inside(self, name)
        return pattern

    @property
    def surveyable(self) -> bool:
        """Whether diameter and centre are computed: from every agent to every other, too much on large graphs."""
        return can_be_surveyed(*self._adjacency)

    @cached_property
    def _pattern(self) -> Pattern:
        own = np.arange(self.agents)
        rows = np.concatenate([self.edges[:, 0], self.edges[:, 1], own])
        return Pattern(self.agents, rows, np.concatenate([self.edges[:, 1], self.edges[:, 0], own]))

    @cached_property
    def _keys(self) -> IntArray:
        return self.edges[:, 0] * self.agents + self.edges[:, 1]

    def hops(self, agents: ArrayLike) -> IntArray:
        """(agents,): edges from every agent to the nearest of ``agents``, (n,) of their numbers."""
        return distances_to(*self._adjacency, np.asarray(agents))

    @cached_property
    def eccentricity(self) -> IntArray:
        """(agents,): edges from every agent to the one farthest from it; ``ValueError`` unless ``surveyable``."""
        if not self.surveyable:
            raise ValueError(
                f"diameter and centre of {self.name} would take too long to compute: name the agents that you mean"
            )
        return eccentricities(*self._adjacency)

    @cached_property
    def _adjacency(self) -> tuple[IntArray, IntArray]:
        """(agents + 1,) row starts and (2 E,) neighbours: compressed sparse rows."""
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        return row_starts(self.agents, both[:, 0]), read_only(both[:, 1].copy())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CommunicationGraph):
            return NotImplemented
        return self.agents == other.agents and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash((self.agents, self.edges.tobytes()))

    def __repr__(self) -> str:
        return f"CommunicationGraph({self.name!r}, agents={self.agents}, edges={len(self.edges)})"
