"""How one block-sparse matrix K lies in memory on a rank.

The rows of K that belong to agent i form one dense block K_i of (rows of i) x (sum of the blocks that i reads).
Agents whose K_i have one shape form a group and are multiplied in one batched product. A layer's weights are one flat
vector: the K_i of the first group, those of the second, ..., then the biases in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.halo import Halo, ranges
from hdnn_dist.patterns import Pattern


@dataclass(frozen=True)
class Group:
    """Local agents of one block shape.

    ``agents``: (A,) who; ``rows``, ``columns``: of every K_i; ``entries``, ``bias``: where K and b lie in the flat
    vector; ``slots``: (A * columns,) the field rows that are read; ``span``: their place among all slots.
    """

    agents: np.ndarray
    rows: int
    columns: int
    entries: slice
    bias: slice
    slots: Tensor
    span: slice

    def matrices(self, weights: Tensor) -> Tensor:
        """View (..., A, rows, columns) of flat weights (..., size)."""
        return weights[..., self.entries].unflatten(-1, (len(self.agents), self.rows, self.columns))

    def biases(self, weights: Tensor) -> Tensor:
        """View (..., A, rows) of flat weights (..., size)."""
        return weights[..., self.bias].unflatten(-1, (len(self.agents), self.rows))


class BlockLayout:
    """The groups of one pattern on one rank, and the adjoint table of their slots.

    ``size``: entries of the flat vector; ``slots``: field rows read, all groups together;
    ``bag_order``, ``bag_starts``: for every field row, the slots that read it, ascending.
    """

    def __init__(self, halo: Halo, pattern: Pattern) -> None:
        self.halo = halo
        self.pattern = pattern
        self.device = halo.agents.world.device
        self.groups = list(self._make_groups())
        self.size = self.groups[-1].bias.stop
        self.slots = self.groups[-1].span.stop
        self.rows = halo.rows + halo.halo_rows
        slot_rows = torch.cat([group.slots for group in self.groups])
        self.bag_order = torch.argsort(slot_rows, stable=True)
        counts = torch.bincount(slot_rows, minlength=self.rows)
        self.bag_starts = torch.cumsum(counts, 0) - counts

    def _make_groups(self) -> Iterator[Group]:
        sizes, local = self.halo.sizes, self.halo.agents.local
        rows = sizes[local]
        columns = np.bincount(self.pattern.rows, sizes[self.pattern.columns], len(sizes)).astype(np.int64)[local]
        shapes, member = np.unique(np.column_stack([rows, columns]), axis=0, return_inverse=True)
        bias_start = int((rows * columns).sum())
        entry_start = slot_start = 0
        for number, (height, width) in enumerate(shapes.tolist()):
            agents = local[member.reshape(-1) == number]
            entries = slice(entry_start, entry_start := entry_start + len(agents) * height * width)
            bias = slice(bias_start, bias_start := bias_start + len(agents) * height)
            span = slice(slot_start, slot_start := slot_start + len(agents) * width)
            yield Group(agents, height, width, entries, bias, self._slots(agents), span)

    def _slots(self, agents: np.ndarray) -> Tensor:
        blocks = np.concatenate([self.pattern.reads(agent) for agent in agents])
        return torch.as_tensor(ranges(self.halo.offsets[blocks], self.halo.sizes[blocks]), device=self.device)
