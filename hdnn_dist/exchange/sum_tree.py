"""Sums to the root of a spanning tree, and values back from it, along graph edges only.

Agents of one rank that are joined by graph edges form a *component*, which sums in memory. The tree crosses
between components along one graph edge each, found breadth first from the root's component, so it is as shallow
as the placement allows. A level of the tree is a halo with the pattern {(child, parent)}: its scatter-add
is a step of the sum, its gather a step of the broadcast.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import Halo, HaloBuffer
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.support.arguments import whole

CACHED_WIDTHS = 8


class SumTree:
    """The tree that joins ``members`` (default: all agents) to ``root`` within a spanning tree of the graph.

    Its values are tensors of shape (parts, width): a row for each component of this rank that takes part, see
    ``part_of``. Ranks without such a component hold no rows and exchange nothing.
    """

    def __init__(self, agents: Agents, root: int = 0, members: Iterable[int] | None = None) -> None:
        root = whole("root", root, least=0)
        if root >= agents.graph.agents:
            raise ValueError(f"root {root} is not an agent: the agents are 0 to {agents.graph.agents - 1}")
        self.agents = agents
        self.root = root
        self.is_root = agents.owns(root)
        self._component = _components(agents)
        self.parent, self._level = _spanning_tree(agents, self._component, root)
        self.members = _towards(range(agents.graph.agents) if members is None else members, self.parent)
        here = np.flatnonzero(self.members & (agents.owner == agents.world.rank))
        self._parts = np.unique(self._component[here])
        self.parts = len(self._parts)
        self._levels = self._make_levels()
        self._buffers = lru_cache(maxsize=CACHED_WIDTHS)(self._make_buffers)

    def __deepcopy__(self, memo: dict[int, Any]) -> SumTree:
        return self  # of routes that the ledger knows, which a readout and its copies share

    def part_of(self, agents: np.ndarray) -> np.ndarray:
        """(n,) -> (n,): the row of ``values`` to which each of these local members belongs."""
        return np.searchsorted(self._parts, self._component[agents])

    @cached_property
    def root_part(self) -> int:
        """The root's row, on the rank that owns the root."""
        return int(self.part_of(np.array([self.root]))[0])

    def reduce(self, values: Tensor) -> None:
        """Add every row of (parts, width) into the row of the root, in place; the others are left with partial sums."""
        self._up.record(values.shape[1] * values.element_size(), 0, 0)
        buffers = self._buffers(values.shape[1], values.dtype)
        for level, buffer in zip(reversed(self._levels), reversed(buffers), strict=True):
            level.reduce(buffer, values)

    def broadcast(self, values: Tensor) -> None:
        """Copy the row of the root into every row of (parts, width), in place."""
        self._down.record(values.shape[1] * values.element_size(), 0, 0)
        for level, buffer in zip(self._levels, self._buffers(values.shape[1], values.dtype), strict=True):
            level.broadcast(buffer, values)

    def spread(self, vector: Tensor) -> Tensor:
        """(width,) -> (parts, width): the root's vector in every row, on every rank; others give room for one."""
        values = vector.expand(self.parts, -1)
        if self._levels:
            values = values.contiguous()
        self.broadcast(values)
        return values

    def sum(self, vector: Tensor) -> Tensor:
        """The sum of one tensor per rank, on every rank; all have the same shape, and so has the sum."""
        if not self._levels and self.parts == 1:
            for route in (self._up, self._down):
                route.record(vector.numel() * vector.element_size(), 0, 0)
            return vector
        values = vector.new_zeros(self.parts, vector.numel())
        values[0] = vector.reshape(-1)
        self.reduce(values)
        self.broadcast(values)
        return values[0].reshape(vector.shape)

    def collect(self, values: Tensor) -> Tensor:
        """(ranks, *shape): the ``values`` of every rank, all of one shape, on every rank."""
        world = self.agents.world
        ranks = values.new_zeros(world.size, *values.shape)
        ranks[world.rank] = values
        return self.sum(ranks)

    def _make_levels(self) -> list[_Level]:
        """Levels from the root downwards; the edges inside components are declared to the ledger here."""
        child = np.flatnonzero(self.members & (self.parent >= 0))
        crosses = self._component[child] != self._component[self.parent[child]]
        inside = np.column_stack([child, self.parent[child]])[~crosses]
        one_row = np.ones(len(inside), dtype=np.int64)
        self._up = self.agents.ledger.route(inside, one_row)
        self._down = self.agents.ledger.route(inside[:, ::-1], one_row)
        child = child[crosses]
        level = self._level[child]
        return [_Level(self, child[level == number]) for number in np.unique(level)]

    def _make_buffers(self, width: int, dtype: torch.dtype) -> list[HaloBuffer]:
        return [level.halo.buffer(width, dtype) for level in self._levels]


class _Level:
    """The tree edges that lead into one level: every child reads the one row of its parent."""

    def __init__(self, tree: SumTree, children: np.ndarray) -> None:
        agents, parents = tree.agents, tree.parent[children]
        sizes = np.bincount(np.unique(parents), minlength=agents.graph.agents)
        pattern = Pattern.from_pairs(agents.graph.agents, np.column_stack([children, parents]))
        self.halo = Halo(agents, pattern, sizes)
        device = agents.world.device
        own = agents.owner == agents.world.rank
        local_parents = np.unique(parents[own[parents]])
        local = own[children]
        self._parent_parts = torch.as_tensor(tree.part_of(local_parents), device=device)
        self._child_parts = torch.as_tensor(tree.part_of(children[local]), device=device)
        self._child_rows = torch.as_tensor(self.halo.offsets[parents[local]], device=device)

    def reduce(self, buffer: HaloBuffer, values: Tensor) -> None:
        buffer.data.zero_()
        buffer.data.index_add_(0, self._child_rows, values[self._child_parts])
        buffer.scatter_add()
        values.index_add_(0, self._parent_parts, buffer.local)

    def broadcast(self, buffer: HaloBuffer, values: Tensor) -> None:
        buffer.local.copy_(values[self._parent_parts])
        buffer.gather()
        values[self._child_parts] = buffer.data[self._child_rows]


def _components(agents: Agents) -> np.ndarray:
    """(agents,) label of each agent's component."""
    edges, owner = agents.graph.edges, agents.owner
    inside = nx.Graph(edges[owner[edges[:, 0]] == owner[edges[:, 1]]].tolist())
    inside.add_nodes_from(range(agents.graph.agents))
    label = np.empty(agents.graph.agents, dtype=np.int64)
    for number, members in enumerate(nx.connected_components(inside)):
        label[list(members)] = number
    return label


def _spanning_tree(agents: Agents, component: np.ndarray, root: int) -> tuple[np.ndarray, np.ndarray]:
    """(agents,) the parent of each agent, -1 at the root; and the level of its component, 0 for the root's.

    Breadth first over components: each is walked whole before the edges that leave it.
    """
    parent = np.full(agents.graph.agents, -1)
    parent[root] = root
    level = np.full(component.max() + 1, -1)
    level[component[root]] = 0
    entries = [root]
    for entry in entries:
        for agent, neighbour in _walk_component(agents, component, entry, parent):
            if level[component[neighbour]] < 0:
                level[component[neighbour]] = level[component[agent]] + 1
                parent[neighbour] = agent
                entries.append(neighbour)
    parent[root] = -1
    return parent, level[component]


def _walk_component(agents: Agents, component: np.ndarray, entry: int, parent: np.ndarray) -> list[tuple[int, int]]:
    """Walk the component of ``entry`` breadth first, set parents inside it, and return the edges that leave it."""
    leaving = []
    queue = [entry]
    for agent in queue:
        for neighbour in agents.graph.neighbours(agent).tolist():
            if component[neighbour] != component[agent]:
                leaving.append((agent, neighbour))
            elif parent[neighbour] < 0:
                parent[neighbour] = agent
                queue.append(neighbour)
    return leaving


def _towards(members: Iterable[int], parent: np.ndarray) -> np.ndarray:
    """(agents,) bool: the agents on the paths from ``members`` to the root, both ends included."""
    on_path = np.zeros(len(parent), dtype=bool)
    on_path[parent < 0] = True
    for member in members:
        agent = int(member)
        while not on_path[agent]:
            on_path[agent] = True
            agent = int(parent[agent])
    return on_path
