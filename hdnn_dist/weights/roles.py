"""From blocks that agents share to the weights of each agent, and back: K_ik = c_ik W_r, r the role that k has for i.

Roles are "own" and the labels of edges. c_ii = 1, and for neighbours, of the n_i that i reads in this role and the m_k
that read k in it,

    "sum"        c_ik = 1
    "mean"       c_ik = 1 / n_i
    "symmetric"  c_ik = 1 / sqrt(n_i m_k), so that ||K|| <= sum over roles of ||W_r||, whatever the graph

The latter is the scaling of Kipf and Welling, "Semi-supervised classification with graph convolutional networks", ICLR
2017, with a matrix of its own for an agent's own block. Of a skew K = A - A^T it is A that is made of shared blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.edge_labels import EdgeLabels, labels_of
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.initial import generator

NORMALISATIONS = ("symmetric", "mean", "sum")
OWN = "own"
ROLE_STREAM = 1 << 36


class Pairs:
    """The role and the coefficient of every block of a pattern.

    ``names``: (blocks,) of the roles; ``coefficients``: (blocks,); both in the order of the pattern.
    """

    def __init__(self, graph: CommunicationGraph, pattern: Pattern, labels: EdgeLabels, normalisation: str) -> None:
        self.pattern = pattern
        others = pattern.rows != pattern.columns
        rows, columns = pattern.rows[others], pattern.columns[others]
        known = labels_of(graph, labels, rows, columns)
        self.names = np.full(len(pattern), OWN, dtype=np.result_type(known, np.array(OWN)))
        self.names[others] = known
        self.coefficients = np.ones(len(pattern))
        for name in np.unique(known):
            alike = self.names == name
            self.coefficients[alike] = _coefficients(pattern, alike, normalisation)

    def of(self, rows: np.ndarray, columns: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(roles, pairs) the coefficient of each of these pairs in the row of its role, zero elsewhere."""
        keys = self.pattern.rows * self.pattern.agents + self.pattern.columns
        at = np.searchsorted(keys, rows * self.pattern.agents + columns)
        return np.where(self.names[at] == np.array(names)[:, np.newaxis], self.coefficients[at], 0.0)


def _coefficients(pattern: Pattern, alike: np.ndarray, normalisation: str) -> np.ndarray:
    """Of the blocks of one role."""
    rows, columns = pattern.rows[alike], pattern.columns[alike]
    read = np.bincount(rows, minlength=pattern.agents)[rows]
    readers = np.bincount(columns, minlength=pattern.agents)[columns]
    known = {"sum": np.ones(len(rows)), "mean": 1 / read, "symmetric": 1 / np.sqrt(read * readers)}
    return known[normalisation]


class LocalPairs(NamedTuple):
    """Who reads what in which role, (pairs,) each, reader after reader: ``readers`` counts the agents here, ``blocks``
    those that are present, which come first.
    """

    roles: np.ndarray
    readers: np.ndarray
    blocks: np.ndarray
    coefficients: np.ndarray

    def of_role(self, role: int) -> LocalPairs:
        """Those of one role, by its number."""
        return LocalPairs(*(part[self.roles == role] for part in self))


class RoleTable:
    """The linear map from the blocks that agents share to this rank's weights in one layout, and its adjoint.

    Shared: (layers, operators, entries), the blocks (rows, rows) of ``names``, then the biases (biases, rows).
    ``pairs``: of all blocks of K, for a skew one of those that are not stored too.
    """

    def __init__(self, layout: BlockLayout, pairs: Pairs, names: Sequence[str], skew: bool, dtype: torch.dtype) -> None:
        self.layout, self.skew, self.roles, self.dtype = layout, skew, len(names), dtype
        self.rows = int(layout.halo.sizes[0])
        self._pairs, self._names = pairs, names
        self._tables = []
        for group in layout.groups:
            reads = [layout.pattern.reads(agent) for agent in group.agents.tolist()]
            rows, columns = np.repeat(group.agents, [len(own) for own in reads]), np.concatenate(reads)
            table = pairs.of(rows, columns, names)
            if skew:  # an agent's own block stands for itself, and minus its transpose comes with the other half
                mirror = pairs.of(columns, rows, names) * (rows != columns)
                table = np.concatenate([table, mirror])
            self._tables.append(torch.as_tensor(table.T, dtype=dtype, device=layout.device))

    def pairs(self) -> LocalPairs:
        """What the agents here read, where K is no skew matrix."""
        halo, pattern = self.layout.halo, self._pairs.pattern
        here = np.isin(pattern.rows, halo.agents.local)
        rows, columns = pattern.rows[here], pattern.columns[here]
        table = self._pairs.of(rows, columns, self._names)
        each = table.argmax(0), halo.offsets[rows] // self.rows, halo.offsets[columns] // self.rows, table.sum(0)
        order = np.argsort(each[1], kind="stable")
        return LocalPairs(*(part[order] for part in each))

    def expand(self, shared: Tensor) -> Tensor:
        """(layers, operators, entries) -> (layers, operators, size) of the layout."""
        m, layout = self.rows, self.layout
        blocks, biases = self._split(shared)
        flat = shared.new_empty(*shared.shape[:2], layout.size)
        for group, table in zip(layout.groups, self._tables, strict=True):
            first, *mirrored = table.split(self.roles, dim=1)
            each = _taken(blocks, first)
            for part in mirrored:
                each -= _taken(blocks.mT, part)
            each = each.unflatten(2, (len(group.agents), -1))
            group.matrices(flat).copy_(each.transpose(3, 4).flatten(-2))
        agents = layout.halo.rows // m
        flat[..., layout.entries :].unflatten(-1, (-1, agents, m)).copy_(biases.unsqueeze(-2))
        return flat

    def collect(self, flat: Tensor) -> Tensor:
        """The adjoint: (layers, operators, size) -> (layers, operators, entries), sums over the agents here."""
        m, layout = self.rows, self.layout
        total = flat.new_zeros(*flat.shape[:2], len(self._tables[0].T), m * m)
        for group, table in zip(layout.groups, self._tables, strict=True):
            each = group.matrices(flat).unflatten(-1, (-1, m)).transpose(3, 4).flatten(2, 3).flatten(-2)
            total += table.mT @ each
        blocks = total.unflatten(-1, (m, m))
        if self.skew:
            blocks = blocks[:, :, : self.roles] - blocks[:, :, self.roles :].mT
        biases = flat[..., layout.entries :].unflatten(-1, (-1, layout.halo.rows // m, m)).sum(-2)
        return torch.cat([blocks.flatten(2), biases.flatten(2)], -1)

    def counts(self) -> Tensor:
        """(entries,) by what ``expand`` and ``collect`` multiply each: a sum of c^2, twice it for K = A - A^T."""
        squares = sum(table.square().sum(0) for table in self._tables)
        assert isinstance(squares, Tensor)
        if self.skew:
            squares = 2 * (squares[: self.roles] + squares[self.roles :])
            squares[0] /= 2  # an agent's own block is stored as it is
        agents = squares.new_full((self.layout.biases * self.rows,), self.layout.halo.rows // self.rows)
        return torch.cat([squares.repeat_interleave(self.rows**2), agents])

    def _split(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks (layers, operators, roles, rows, rows), and biases (layers, operators, biases, rows)."""
        m = self.rows
        at = self.roles * m * m
        blocks = shared[..., :at].unflatten(-1, (self.roles, m, m))
        return blocks, shared[..., at:].unflatten(-1, (-1, m))


def _taken(blocks: Tensor, table: Tensor) -> Tensor:
    """(layers, operators, pairs, rows, rows): for each pair the block of its only role in ``table`` (pairs, roles)."""
    return blocks.index_select(2, table.argmax(1)).mul_(table.sum(1)[:, None, None])


def fan_in(pairs: Pairs, rows: int) -> float:
    """Variance of a sum over all that an agent reads, for blocks (rows, rows) of variance 1; the mean over agents."""
    return rows * float(np.bincount(pairs.pattern.rows, pairs.coefficients**2, pairs.pattern.agents).mean())


def draw_roles(
    names: Sequence[str], shape: tuple[int, int, int, int], seed: int, initial: str, fan_in: float
) -> np.ndarray:
    """(layers, operators, entries) float64, the blocks of ``names`` and the biases.

    ``shape``: layers, operators, rows of a block, biases. Drawn per (seed, role, layer): no agent and no rank.
    ``normal``: standard normal; ``scaled``: variance 1/fan-in.
    """
    layers, operators, rows, biases = shape
    shapes = [(layers, rows * rows)] * len(names) + [(layers, biases * rows)]
    drawn = [
        np.concatenate(
            [
                generator(seed, place, ROLE_STREAM + operator).standard_normal(shape)
                for place, shape in enumerate(shapes)
            ],
            axis=1,
        )
        for operator in range(operators)
    ]
    return np.stack(drawn, axis=1) / (np.sqrt(fan_in) if initial == "scaled" else 1.0)
