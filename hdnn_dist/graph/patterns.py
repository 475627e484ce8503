"""Block patterns: which blocks of a matrix may be non-zero, that is, which block each agent reads.

T_ik = 1 means that agent i reads block k. T need not be symmetric; it must lie inside the graph (T <= S).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from hdnn_dist.graph.labels import Labels, label, named
from hdnn_dist.graph.pairs import (
    BoolArray,
    IntArray,
    Pairs,
    agent_array,
    agent_count,
    check_distinct,
    check_range,
    find_pairs,
    pair_array,
    pair_text,
    read_only,
    row_starts,
    slice_of,
)
from hdnn_dist.support.arguments import one_line


class Neighbourhood(Protocol):
    """What a pattern is checked against: a CommunicationGraph, or another Pattern."""

    @property
    def agents(self) -> int: ...

    @property
    def labels(self) -> Labels: ...

    def contains(self, i: ArrayLike, k: ArrayLike) -> BoolArray:
        """As ``Pattern.contains``."""
        ...


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Pattern:
    """An ``agents`` x ``agents`` 0/1 block pattern T, as its non-zero pairs.

    ``rows``, ``columns``: read-only int64 (blocks,), sorted by (row, column), in any order when given:
    agent ``rows[e]`` reads block ``columns[e]``. ValueError on a pair out of range or given twice.
    """

    agents: int
    rows: IntArray
    columns: IntArray
    labels: Labels = None  # only graphs have names for agents

    def __init__(self, agents: int, rows: ArrayLike, columns: ArrayLike) -> None:
        agents = agent_count(agents)
        pairs = pair_array(np.column_stack([agent_array(rows), agent_array(columns)]), "block")
        check_range(agents, pairs, "block")
        check_distinct(agents, pairs, "block")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        object.__setattr__(self, "agents", agents)
        object.__setattr__(self, "rows", read_only(pairs[:, 0].copy()))
        object.__setattr__(self, "columns", read_only(pairs[:, 1].copy()))

    @classmethod
    def from_pairs(cls, agents: int, pairs: Pairs) -> Pattern:
        """The pattern of ``pairs`` (blocks, 2), i and k in a row: agent i reads block k."""
        array = pair_array(pairs, "block")
        return cls(agents, array[:, 0], array[:, 1])

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Pattern:
        """The pattern of a square 0/1 matrix (agents, agents)."""
        dense = _zero_one(matrix)
        return cls(len(dense), *np.nonzero(dense))

    @classmethod
    def diagonal(cls, agents: int) -> Pattern:
        """Every agent reads its own block alone."""
        return cls(agents, np.arange(agents), np.arange(agents))

    @cached_property
    def indptr(self) -> IntArray:
        """(agents + 1,): agent i reads ``columns[indptr[i]:indptr[i + 1]]``."""
        return row_starts(self.agents, self.rows)

    def reads(self, agent: int) -> IntArray:
        """(blocks of the agent,): those that it reads, ascending, its own included where T_ii = 1."""
        return self.columns[slice_of(self.indptr, agent)]

    def readers(self, block: int) -> IntArray:
        """(readers,): the agents that read a block, ascending."""
        return self._flipped.reads(block)

    def within(self, graph: Neighbourhood) -> Pattern:
        """Its blocks that lie inside a graph, or in another pattern."""
        inside = graph.contains(self.rows, self.columns)
        return Pattern(self.agents, self.rows[inside], self.columns[inside])

    def union(self, other: Pattern) -> Pattern:
        """The blocks of either, of as many agents."""
        extra = ~self.contains(other.rows, other.columns)
        rows, columns = np.append(self.rows, other.rows[extra]), np.append(self.columns, other.columns[extra])
        return Pattern(self.agents, rows, columns)

    def transposed(self) -> Pattern:
        """T^T: agent k reads block i where T_ik = 1."""
        return self._flipped

    def matrix(self) -> BoolArray:
        """T as a dense (agents, agents) array."""
        dense = np.zeros((self.agents, self.agents), dtype=np.bool_)
        dense[self.rows, self.columns] = True
        return dense

    def mask(self, row_sizes: ArrayLike, column_sizes: ArrayLike | None = None) -> BoolArray:
        """T entry by entry, (rows, columns) of all blocks: block (i, k) has row_sizes[i] rows, column_sizes[k] columns.

        Sizes are a scalar, for all agents, or (agents,); columns have the sizes of rows unless given.
        """
        rows = _block_sizes(self.agents, row_sizes)
        columns = rows if column_sizes is None else _block_sizes(self.agents, column_sizes)
        return np.repeat(np.repeat(self.matrix(), rows, axis=0), columns, axis=1)

    def contains(self, i: ArrayLike, k: ArrayLike) -> BoolArray:
        """Whether T_ik = 1, elementwise for arrays that broadcast together; False for an agent that does not exist."""
        return find_pairs(self._keys, self.agents, i, k)

    def check_inside(self, graph: Neighbourhood, name: str = "T") -> None:
        """Raise ValueError unless T <= S and every agent reads a block; ``name`` is what the message calls T.

        An agent that reads no block would have a K without columns (and make X singular).
        """
        if graph.agents != self.agents:
            raise ValueError(
                f"{name} is a pattern of {self.agents} agents, but the graph has {graph.agents}; "
                f"give a {graph.agents} x {graph.agents} pattern"
            )
        outside = np.flatnonzero(~graph.contains(self.rows, self.columns))
        if len(outside):
            raise ValueError(_outside_message(name, self, outside, graph.labels))
        _check_rows(name, self, graph.labels)

    @cached_property
    def _keys(self) -> IntArray:
        return self.rows * self.agents + self.columns

    @cached_property
    def _flipped(self) -> Pattern:
        return Pattern(self.agents, self.columns, self.rows)

    def __contains__(self, pair: tuple[int, int]) -> bool:
        return bool(self.contains(*pair))

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern):
            return NotImplemented
        return self.agents == other.agents and np.array_equal(self._keys, other._keys)

    def __hash__(self) -> int:
        return hash((self.agents, self._keys.tobytes()))

    def __repr__(self) -> str:
        return f"Pattern(agents={self.agents}, blocks={len(self)})"


def stored_once(pattern: Pattern, name: str = "T") -> Pattern:
    """Half of a symmetric pattern: of two agents of an edge stores the block, taking turns so that all store alike.

    ``ValueError`` where the pattern is not symmetric, so that it cannot be that of a skew matrix.
    """
    if pattern != pattern.transposed():
        i, k = next((i, k) for i, k in zip(pattern.rows, pattern.columns, strict=True) if (k, i) not in pattern)
        raise ValueError(f"{name} has block ({i}, {k}) but not ({k}, {i}): a skew matrix needs both; give both or none")
    rows, columns = pattern.rows, pattern.columns
    even = (rows + columns) % 2 == 0
    kept = (rows == columns) | np.where(even, rows < columns, rows > columns)
    own = np.unique(rows[kept])
    if len(own) < pattern.agents:
        agent = int(np.setdiff1d(np.arange(pattern.agents), own)[0])
        raise ValueError(f"{name} has no block ({agent}, {agent}): a skew matrix is stored with its diagonal blocks")
    return Pattern(pattern.agents, rows[kept], columns[kept])


def _check_rows(name: str, pattern: Pattern, labels: Labels) -> None:
    empty = np.flatnonzero(np.diff(pattern.indptr) == 0)
    if len(empty):
        i = empty[0]
        raise ValueError(
            f"{named(labels, i)} reads no block of {name} ({len(empty)} of {pattern.agents} agents read none), "
            f"so its matrix would have no column; add at least the diagonal block {pair_text(i.repeat(2), labels)}"
        )


def _zero_one(matrix: ArrayLike) -> BoolArray:
    try:
        dense = np.asarray(matrix)
    except ValueError as error:
        raise ValueError(f"a pattern must be a square 0/1 matrix: {one_line(error)}") from None
    if dense.ndim != 2 or dense.shape[0] != dense.shape[1] or not dense.size:
        raise ValueError(
            f"a pattern has shape {dense.shape}, expected (agents, agents); for a list of pairs use Pattern.from_pairs"
        )
    wrong = np.argwhere((dense != 0) & (dense != 1))
    if len(wrong):
        raise ValueError(
            f"a pattern holds {dense[tuple(wrong[0])]} at {pair_text(wrong[0])}, expected 0 or 1; "
            "write 1 where there is a block"
        )
    return np.asarray(dense == 1)


def _block_sizes(agents: int, sizes: ArrayLike) -> IntArray:
    array = np.asarray(sizes)
    if array.dtype.kind not in "iu" or array.shape not in ((), (agents,)):
        raise ValueError(
            f"block sizes have type {array.dtype} and shape {array.shape}, "
            f"expected one integer or {agents} of them, one an agent"
        )
    full = np.broadcast_to(array, (agents,)).astype(np.int64)
    if full.min() < 1:
        raise ValueError(f"agent {full.argmin()} has block size {full.min()}, expected at least 1")
    return full


def _outside_message(name: str, pattern: Pattern, outside: IntArray, labels: Labels) -> str:
    pairs = np.column_stack([pattern.rows, pattern.columns])[outside[:3]]
    i, k = (label(labels, agent) for agent in pairs[0])
    listed = ", ".join(pair_text(pair, labels) for pair in pairs) + (", ..." if len(outside) > 3 else "")
    return (
        f"{name} has block ({i}, {k}), but agents {i} and {k} are not neighbours; "
        f"{len(outside)} of its {len(pattern)} blocks lie outside the graph: {listed}; "
        f"remove them from {name} or add these edges to the graph"
    )
