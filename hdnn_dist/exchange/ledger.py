"""The message ledger: every exchange is declared as a route between agents, checked against the graph, and counted.

Two kinds of traffic are told apart. *Graph* traffic is what the agents exchange along the edges of the
communication graph, one message per edge and direction, whether or not the two agents share a process; it does not
depend on the number of ranks. *Wire* traffic is what really crossed between processes, after blocks that
several agents of one rank read have been sent once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph


class OffGraphError(ValueError):
    """A message was asked for between two agents that are not neighbours."""


@dataclass(frozen=True)
class Traffic:
    """Messages and bytes sent by the agents of one rank; ``edge_bytes``: (edges,), in the order of ``graph.edges``."""

    messages: int
    bytes: int
    edge_bytes: np.ndarray
    wire_messages: int
    wire_bytes: int

    def vector(self) -> np.ndarray:
        """All counts as one float64 vector (4 + edges,), so that they can be summed along a tree."""
        counts = [self.messages, self.bytes, self.wire_messages, self.wire_bytes]
        return np.concatenate([np.array(counts, dtype=np.float64), self.edge_bytes])

    @staticmethod
    def from_vector(vector: np.ndarray) -> Traffic:
        """The inverse of ``vector``, from (4 + edges,)."""
        messages, bytes_, wire_messages, wire_bytes = (int(count) for count in vector[:4])
        return Traffic(messages, bytes_, vector[4:].astype(np.int64), wire_messages, wire_bytes)

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic.from_vector(self.vector() - other.vector())

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic.from_vector(self.vector() + other.vector())


class Route:
    """One direction of one exchange: which agents send how many rows to which agents.

    ``edges``: (messages, 2) sender and receiver, ``rows``: (messages,) how many, of what the agents of this rank send;
    ``peers``: the ranks that it is exchanged with, each with one of the pairs, for messages to people.
    Made by ``Ledger.route`` only, so that no exchange exists which the ledger has not checked.
    """

    def __init__(self, edges: np.ndarray, rows: np.ndarray, peers: dict[int, tuple[str, str]]) -> None:
        self.edges = edges
        self.rows = rows
        self.peers = peers
        self._exchanges: Counter[tuple[int, int, int]] = Counter()  # (row bytes, wire messages, wire bytes)

    def record(self, row_bytes: int, wire_messages: int, wire_bytes: int, times: int = 1) -> None:
        """Count ``times`` exchanges in which every row has ``row_bytes`` bytes."""
        self._exchanges[row_bytes, wire_messages, wire_bytes] += times

    @property
    def passes(self) -> int:
        """Exchanges so far in which a local agent sent anything."""
        return self._exchanges.total() if len(self.edges) else 0

    def edge_bytes(self) -> np.ndarray:
        """(messages,): bytes sent so far along each of ``edges``."""
        return self.rows * sum(row_bytes * times for (row_bytes, _, _), times in self._exchanges.items())

    @property
    def messages(self) -> int:
        """Messages sent so far by the local agents."""
        return len(self.edges) * self._exchanges.total()

    @property
    def wire(self) -> tuple[int, int]:
        """Messages and bytes that have left this process so far."""
        messages = sum(count * times for (_, count, _), times in self._exchanges.items())
        return messages, sum(size * times for (_, _, size), times in self._exchanges.items())


class Ledger:
    """Sees every message of the agents of one rank.

    ``owner``: (agents,) the rank that owns each agent; ``rank``: the rank this ledger belongs to; ``about``: what an
    error adds to the number of a rank.
    """

    def __init__(self, graph: CommunicationGraph, owner: np.ndarray, rank: int, about: str = "") -> None:
        self.graph = graph
        self.owner = owner
        self.rank = rank
        self.about = about
        self.off_graph_messages = 0
        self._routes: list[Route] = []

    def route(self, pairs: np.ndarray, rows: np.ndarray, graph: CommunicationGraph | None = None) -> Route:
        """Declare an exchange: ``pairs`` (P, 2) sender and receiver, ``rows`` (P,) rows of each message.

        ``graph``: the one that holds while it runs, if that is only a part of the ledger's. Every rank passes the same
        pairs; the route keeps those that touch its agents. Raises ``OffGraphError`` if any pair is not an edge of the
        graph, before anything is sent.
        """
        pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        self._refuse_off_graph(pairs, graph or self.graph)
        between = (pairs[:, 0] != pairs[:, 1]) & (rows > 0)
        pairs, rows = pairs[between], rows[between]
        sends, receives = self.owner[pairs[:, 0]] == self.rank, self.owner[pairs[:, 1]] == self.rank
        outside = np.concatenate([pairs[sends & ~receives], pairs[receives & ~sends]])
        other = self.owner[outside].sum(axis=1) - self.rank
        peers, first = np.unique(other, return_index=True)
        named = self.graph.named
        ends = [(named(sender), named(receiver) + self.about) for sender, receiver in outside[first]]
        route = Route(pairs[sends], rows[sends], dict(zip(peers.tolist(), ends, strict=True)))
        self._routes.append(route)
        return route

    def _refuse_off_graph(self, pairs: np.ndarray, graph: CommunicationGraph) -> None:
        on_graph = graph.contains(pairs[:, 0], pairs[:, 1])
        if on_graph.all():
            return
        self.off_graph_messages += int((~on_graph).sum())
        sender, receiver = pairs[~on_graph][0]
        raise OffGraphError(
            f"a message from {graph.named(sender)} to {graph.named(receiver)} would leave the graph {graph.name!r}: "
            "messages are allowed between neighbours only; add the edge or send along a path"
        )

    def traffic(self) -> Traffic:
        """Everything sent so far by the agents of this rank."""
        edge_bytes = np.zeros(len(self.graph.edges), dtype=np.int64)
        for route in self._routes:
            np.add.at(edge_bytes, self._edge_index(route.edges), route.edge_bytes())
        wire = [route.wire for route in self._routes]
        return Traffic(
            messages=sum(route.messages for route in self._routes),
            bytes=int(edge_bytes.sum()),
            edge_bytes=edge_bytes,
            wire_messages=sum(messages for messages, _ in wire),
            wire_bytes=sum(size for _, size in wire),
        )

    def directed(self) -> np.ndarray:
        """(edges, 2, 2) what the agents of this rank have sent so far along each edge and in each direction.

        Last but one: from the lower agent of the edge, from the higher; last: messages, bytes.
        """
        counts = np.zeros((len(self.graph.edges), 2, 2), dtype=np.int64)
        for route in self._routes:
            sent = np.column_stack([np.full(len(route.edges), route.passes), route.edge_bytes()])
            np.add.at(counts, (self._edge_index(route.edges), np.argmin(route.edges, axis=1)), sent)
        return counts

    @property
    def rounds(self) -> int:
        """Exchanges so far in which an agent of this rank sent anything."""
        return sum(route.passes for route in self._routes)

    def _edge_index(self, pairs: np.ndarray) -> np.ndarray:
        key = self.graph.edges[:, 0] * self.graph.agents + self.graph.edges[:, 1]
        low, high = pairs.min(axis=1, initial=self.graph.agents), pairs.max(axis=1, initial=0)
        return np.searchsorted(key, low * self.graph.agents + high)
