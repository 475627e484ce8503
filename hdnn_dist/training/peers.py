"""What ranks tell each other about their data, along the tree of the graph."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree

WIDTH = 32_768  # numbers a message
SHORT = 8


class TreePeers:
    """The ranks of some agents, as ``data.tables.peers.Peers``: arrays go down the tree and counts up it, in pieces."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self.ranks = agents.world.size
        self._trees: dict[int, SumTree] = {}
        self._tree = self._rooted(0)

    def agreed(self) -> AbstractContextManager[None]:
        """As ``Peers.agreed``."""
        return agreed(self._tree)

    def from_agent(self, agent: int, values: np.ndarray | None) -> np.ndarray:
        """As ``Peers.from_agent``: of any shape."""
        tree = self._rooted(agent)
        if self.ranks == 1:
            assert values is not None
            return values
        shape, kind = self._head(tree, values)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        told = np.empty(-(-size // 8), dtype=np.int64)
        if values is not None:
            told.view(np.uint8)[:size] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        for start in range(0, len(told), WIDTH):
            piece = told[start : start + WIDTH]
            piece[:] = tree.spread(self._padded(piece))[0, : len(piece)].cpu().numpy()
        return told.view(np.uint8)[:size].view(kind).reshape(shape)

    def total(self, counts: np.ndarray) -> np.ndarray:
        """As ``Peers.total``: of any shape."""
        if self.ranks == 1:
            return counts
        told, flat = np.empty(counts.size, dtype=np.int64), counts.reshape(-1)
        for start in range(0, len(flat), WIDTH):
            piece = flat[start : start + WIDTH]
            told[start : start + WIDTH] = self._tree.sum(self._padded(piece))[: len(piece)].cpu().numpy()
        return told.reshape(counts.shape)

    def _head(self, tree: SumTree, values: np.ndarray | None) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array, which the others do not know."""
        head = np.zeros(SHORT, dtype=np.int64)
        if values is not None:
            head[:3] = ord(values.dtype.kind), values.dtype.itemsize, values.ndim
            head[3 : 3 + values.ndim] = values.shape
        kind, size, dimensions, *shape = tree.spread(self._tensor(head))[0].tolist()
        return tuple(shape[:dimensions]), np.dtype(f"{chr(kind)}{size}")

    def _rooted(self, agent: int) -> SumTree:
        if agent not in self._trees:
            self._trees[agent] = SumTree(self._agents, agent)
        return self._trees[agent]

    def _padded(self, piece: np.ndarray) -> Tensor:
        """(width,) of one of two widths, so that buffers are used again."""
        full = np.zeros(WIDTH if len(piece) > SHORT else SHORT, dtype=np.int64)
        full[: len(piece)] = piece
        return self._tensor(full)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=self._agents.world.device)
