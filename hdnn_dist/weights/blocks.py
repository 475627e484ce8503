"""How one block-sparse matrix K lies in memory on a rank.

The rows of K that belong to agent i form one dense block K_i of (rows of i) x (sum of the blocks that i reads).
Agents whose K_i have one shape form a group and are multiplied in one batched product; agents that read blocks of
other ranks have groups of their own, the last ones. The flat vector of a matrix holds the K_i of the first group, those
of the second, ..., then its biases, each in the same order of agents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.support.arrays import ranges


@dataclass(frozen=True)
class Group:
    """Local agents of one block shape.

    ``agents``: (A,) who; ``rows``, ``columns``: of every K_i; ``entries``: where their K_i lie in the flat vector;
    ``place``: their rows in the order of the groups; ``slots``: (A * columns,) the buffer rows that are read;
    ``span``: their place among all slots.
    """

    agents: np.ndarray
    rows: int
    columns: int
    entries: slice
    place: slice
    slots: Tensor
    span: slice

    def matrices(self, weights: Tensor) -> Tensor:
        """View (..., A, rows, columns) of flat weights (..., size)."""
        return weights[..., self.entries].unflatten(-1, (len(self.agents), self.rows, self.columns))

    def matrix(self, weights: Tensor, number: int) -> Tensor:
        """View (..., rows, columns) of the K_i of one of ``agents``, by its place."""
        start = self.entries.start + number * self.rows * self.columns
        return weights[..., start : start + self.rows * self.columns].unflatten(-1, (self.rows, self.columns))


class Bags(NamedTuple):
    """The slots (slots,) that read some buffer rows, ascending row after row; ``starts``: (rows,) where each begins."""

    order: Tensor
    starts: Tensor


class BlockLayout:
    """The groups of one pattern on one rank, and the adjoint table of their slots.

    ``inner``: how many of the groups read blocks of this rank only. ``biases``: how many bias vectors go with the
    matrix. ``size``: entries of the flat vector, ``entries`` of them K's; ``order``: (rows,) for every row in the order
    of the groups, the local row; ``slots``: buffer rows read, of all groups together; ``own``, ``of_others``: who reads
    the local rows, and the halo rows.
    """

    def __init__(self, halo: Halo, pattern: Pattern, biases: int = 1) -> None:
        self.halo = halo
        self.pattern = pattern
        self.device = halo.agents.world.device
        self.inner, self.groups = self._make_groups()
        self.entries = self.groups[-1].entries.stop
        self.slots = self.groups[-1].span.stop
        self.biases = biases
        self.size = self.entries + biases * halo.rows
        members = np.concatenate([group.agents for group in self.groups])
        self.order = torch.as_tensor(ranges(halo.offsets[members], halo.sizes[members]), device=self.device)
        self.in_order = bool((self.order.diff() == 1).all())
        slot_rows = torch.cat([group.slots for group in self.groups])
        order = torch.argsort(slot_rows, stable=True)
        counts = torch.bincount(slot_rows, minlength=halo.rows + halo.halo_rows)
        starts, cut = torch.cumsum(counts, 0) - counts, int(counts[: halo.rows].sum())
        self.own = Bags(order[:cut], starts[: halo.rows])
        self.of_others = Bags(order[cut:], starts[halo.rows :] - cut)

    def bias(self, weights: Tensor, number: int = 0) -> Tensor:
        """View (..., rows) of a bias in flat weights (..., size), in the order of the groups."""
        start = self.bias_at(number)
        return weights[..., start : start + self.halo.rows]

    def biases_of(self, weights: Tensor, group: Group, number: int) -> Tensor:
        """View (..., biases, rows) of all biases of one of the agents of a group, in flat weights (..., size)."""
        start = group.place.start + number * group.rows
        return weights[..., self.entries :].unflatten(-1, (self.biases, self.halo.rows))[
            ..., start : start + group.rows
        ]

    def bias_at(self, number: int = 0) -> int:
        """Where a bias begins in the flat vector."""
        return self.entries + number * self.halo.rows

    def grouped(self, rows: Tensor) -> Tensor:
        """Local rows (rows, ...) in the order of the groups."""
        return rows if self.in_order else rows.index_select(0, self.order)

    def ungrouped(self, rows: Tensor) -> Tensor:
        """Rows (rows, ...) in the order of the groups, back in the local order."""
        return rows if self.in_order else torch.empty_like(rows).index_copy_(0, self.order, rows)

    def positions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row and column, (entries,) each, of every entry of K, and row of every entry of a bias, (rows,).

        In the order of the flat vector. Rows and columns count the blocks of all agents, agent after agent.
        """
        sizes = self.halo.sizes
        start = np.cumsum(sizes) - sizes
        rows, columns, bias_rows = [], [], []
        for group in self.groups:
            for agent in group.agents.tolist():
                reads = self.pattern.reads(agent)
                row, column = start[agent] + np.arange(group.rows), ranges(start[reads], sizes[reads])
                rows.append(np.repeat(row, len(column)))
                columns.append(np.tile(column, len(row)))
                bias_rows.append(row)
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(bias_rows)

    def _make_groups(self) -> tuple[int, list[Group]]:
        sizes, local = self.halo.sizes, self.halo.agents.local
        rows = sizes[local]
        columns = np.bincount(self.pattern.rows, sizes[self.pattern.columns], len(sizes)).astype(np.int64)[local]
        remote = np.bincount(self.pattern.rows, self._from_others(), len(sizes))[local] > 0
        kinds, member = np.unique(np.column_stack([remote, rows, columns]), axis=0, return_inverse=True)
        return int((kinds[:, 0] == 0).sum()), list(self._groups_of(kinds[:, 1:], member))

    def _from_others(self) -> np.ndarray:
        """(pairs of the pattern,) the size of a block that another rank owns, 0 for others."""
        owner, sizes = self.halo.agents.owner, self.halo.sizes
        return np.where(owner[self.pattern.columns] == self.halo.agents.world.rank, 0, sizes[self.pattern.columns])

    def _groups_of(self, shapes: np.ndarray, member: np.ndarray) -> Iterator[Group]:
        """``shapes``: (groups, 2) of K_i; ``member``: the group of each local agent."""
        local = self.halo.agents.local
        entry = row = slot = 0
        for number, (height, width) in enumerate(shapes.tolist()):
            agents = local[member.reshape(-1) == number]
            entries = slice(entry, entry := entry + len(agents) * height * width)
            place = slice(row, row := row + len(agents) * height)
            span = slice(slot, slot := slot + len(agents) * width)
            yield Group(agents, height, width, entries, place, self._slots(agents), span)

    def _slots(self, agents: np.ndarray) -> Tensor:
        blocks = np.concatenate([self.pattern.reads(agent) for agent in agents])
        return torch.as_tensor(ranges(self.halo.offsets[blocks], self.halo.sizes[blocks]), device=self.device)
