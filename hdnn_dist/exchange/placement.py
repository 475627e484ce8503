"""Which rank owns which agent."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.common_facts import same_in_world
from hdnn_dist.exchange.ledger import Ledger, Route
from hdnn_dist.exchange.links import linked_channel, links_of
from hdnn_dist.exchange.world import Channel, World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import concerning, require_type, unknown

Method = str | Sequence[int] | Mapping[Any, int]
METHODS = ("auto", "metis", "contiguous")


class PlacementWarning(UserWarning):
    """The agents are placed in another way than asked for."""


class Agents:
    """The agents of a graph, spread over the ranks of a world.

    ``owner``: (agents,) the rank of each agent; ``local``: (local agents,), those of this rank, ascending.
    ``peers``: the ranks that own a neighbour of one of them. The ledger sees every message that they send.
    """

    def __init__(self, graph: CommunicationGraph, world: World, owner: np.ndarray) -> None:
        self.graph = graph
        self.world = world
        self.owner = owner
        self.local = np.flatnonzero(owner == world.rank)
        self.ledger = Ledger(graph, owner, world.rank, world.about)
        self.rank_links = links_of(world)
        across = np.unique(np.sort(owner[graph.edges], axis=1), axis=0)
        between = across[across[:, 0] < across[:, 1]]
        self.rank_links.add(map(tuple, between.tolist()))
        own = between[(between == world.rank).any(axis=1)]
        self.peers: list[int] = sorted((own.sum(axis=1) - world.rank).tolist())

    @property
    def links(self) -> dict[int, str]:
        """Rank of a neighbour -> what carries the edge to it: "shared memory", or the network of the transport."""
        return {peer: self.rank_links.kind(peer) for peer in self.peers}

    @property
    def waited(self) -> float:
        """Seconds that this rank has waited in exchanges so far, of all networks of its world."""
        return 1e-9 * float(self.rank_links.waited[0])

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        """As ``World.channel``, over the links of this rank."""
        if not self.peers:
            return self.world.channel(route, sends, receives)
        return linked_channel(self.rank_links, route, sends, receives)

    def neighbours(self, agent: int) -> np.ndarray:
        """(degree,): the graph neighbours of an agent, ascending, without itself."""
        return self.graph.neighbours(agent)

    def owns(self, agent: int) -> bool:
        """Whether the agent lives on this rank."""
        return bool(self.owner[agent] == self.world.rank)

    def __deepcopy__(self, memo: dict[int, Any]) -> Agents:
        """A copy of what stands on them, a network, stands on the same."""
        return self

    def __reduce__(self) -> str:
        raise TypeError(
            "agents belong to the ranks of a running job and cannot be pickled: save state_dict(), or a checkpoint "
            "with hdnn_dist.runs.save_weights, and build the network anew"
        )

    def __len__(self) -> int:
        return len(self.local)

    def __repr__(self) -> str:
        return f"Agents({len(self)} of {self.graph.agents} of {self.graph.name!r} on rank {self.world.rank})"


def place(graph: CommunicationGraph, world: World, method: Method = "auto") -> Agents:
    """Give every agent a rank.

    ``method``: ``"metis"`` (few edges between ranks; needs pymetis; a ``PlacementWarning`` where it leaves a rank
    empty and the agents are placed in order), ``"contiguous"``, ``"auto"`` (METIS where it is installed and a rank
    holds more than one agent, contiguous otherwise), or the rank of each agent as a list, or as a mapping from numbers
    or labels. Every rank must pass the same. Raises ``ValueError`` when a rank would be left empty.
    """
    require_type("graph", graph, CommunicationGraph, "a CommunicationGraph, such as CommunicationGraph.ring(8)")
    require_type("world", world, World, "what hdnn_dist.connect() returns")
    given = list(method.items()) if isinstance(method, Mapping) else method
    same_in_world(world, {"graph": graph, "labels of the agents": graph.labels, "placement": given})
    return Agents(graph, world, _same_owners(graph, world, method))


def _same_owners(graph: CommunicationGraph, world: World, method: Method) -> np.ndarray:
    """(agents,) as ``owners``; what is refused or found otherwise on one rank, METIS on one machine only, on all."""
    refused: ValueError | None = None
    try:
        with warnings.catch_warnings():
            if world.job.rank:
                warnings.simplefilter("ignore", PlacementWarning)  # one rank says it
            owner = owners(graph, world.size, method)
    except ValueError as error:
        refused, owner = _of_each(world, error), np.empty(0, dtype=np.int64)
    same_in_world(world, {"owners of the agents": owner.tolist() if refused is None else f"refused ({refused})"})
    if refused is not None:
        raise refused
    return owner


def _of_each(world: World, error: ValueError) -> ValueError:
    return error if world.replicas == 1 else ValueError(f"in each of {world.replicas} replicas: {error}")


def owners(graph: CommunicationGraph, ranks: int, method: Method = "auto") -> np.ndarray:
    """(agents,) the rank of each agent; ``method`` and errors as in ``place``."""
    if ranks > graph.agents:
        raise ValueError(
            f"{ranks} ranks were started for {graph.agents} agents: "
            f"every rank needs an agent, so start at most {graph.agents} ranks or use a larger graph"
        )
    if isinstance(method, Mapping):
        method = _by_label(graph, method)
    return _by_name(graph, ranks, method) if isinstance(method, str) else _by_hand(graph, ranks, method)


def _by_label(graph: CommunicationGraph, table: Mapping[Any, int]) -> list[int]:
    with concerning("placement"):
        rank = graph.by_agent(table)
    missing = [agent for agent in range(graph.agents) if agent not in rank]
    if missing:
        raise ValueError(
            f"placement gives no rank to {graph.named(missing[0])} ({len(missing)} of {graph.agents} agents have "
            "none): give one to each"
        )
    return [rank[agent] for agent in range(graph.agents)]


def _by_name(graph: CommunicationGraph, ranks: int, method: str) -> np.ndarray:
    if method not in METHODS:
        raise unknown("placement", method, METHODS)
    installed = importlib.util.find_spec("pymetis") is not None
    if method == "metis" and not installed:
        raise ValueError("placement 'metis' needs pymetis, which is not installed: pip install 'hdnn-dist[metis]'")
    if installed and method != "contiguous" and 1 < ranks < graph.agents:
        return _metis(graph, ranks)
    return _contiguous(graph.agents, ranks)


def _contiguous(agents: int, ranks: int) -> np.ndarray:
    return np.arange(agents) * ranks // agents


def _metis(graph: CommunicationGraph, ranks: int) -> np.ndarray:
    """METIS's parts, numbered by their lowest agent.

    Where its partition into so many parts leaves one empty, that by recursive bisection; where this does too,
    contiguous parts, with a ``PlacementWarning``.
    """
    import pymetis

    adjacency = [graph.neighbours(agent) for agent in range(graph.agents)]
    for recursive in (None, True):
        part = np.asarray(pymetis.part_graph(ranks, adjacency=adjacency, recursive=recursive)[1])
        _, first, part = np.unique(part, return_index=True, return_inverse=True)
        if len(first) == ranks:
            return np.argsort(np.argsort(first))[part]
    warnings.warn(
        f"METIS leaves a rank without agents: {graph.agents} agents are placed on {ranks} ranks in their order, which "
        "can cut more edges; give 'contiguous' or a list of ranks to choose this yourself",
        PlacementWarning,
        stacklevel=2,
    )
    return _contiguous(graph.agents, ranks)


def _by_hand(graph: CommunicationGraph, ranks: int, owner: Sequence[int]) -> np.ndarray:
    given = np.asarray(owner)
    if given.shape != (graph.agents,) or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(
            f"placement has {given.size} entries for {graph.agents} agents: give one whole number, its rank, per agent"
        )
    outside = np.flatnonzero((given < 0) | (given >= ranks))
    if outside.size:
        raise ValueError(
            f"placement puts {graph.named(outside[0])} on rank {given[outside[0]]}, but the ranks are 0 to {ranks - 1}"
        )
    empty = sorted(set(range(ranks)) - set(given.tolist()))
    if empty:
        raise ValueError(f"placement leaves rank {empty[0]} without agents: give it one, or start fewer ranks")
    return given.astype(np.int64)
