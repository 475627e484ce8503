"""Arrays of pairs of agents: what graphs and patterns are made of, how they are checked and looked up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdnn_dist.graph.labels import Labels, label, named
from hdnn_dist.support.arguments import one_line, shown

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Pairs = Iterable[Sequence[int]] | ArrayLike

MOST_AGENTS = 2**31 - 1  # so that the key i * agents + k of a pair fits into 64 bits


class PairError(ValueError):
    """A pair of agents that cannot be used; ``row`` is its place in the array that was given."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def agent_count(agents: int) -> int:
    """``agents`` as a plain int; ValueError unless it is a whole number from 1 to MOST_AGENTS."""
    whole = isinstance(agents, int | np.integer) and not isinstance(agents, bool)
    if not whole or not 1 <= agents <= MOST_AGENTS:
        raise ValueError(f"agents is {shown(agents)}, expected an integer from 1 to {MOST_AGENTS}")
    return int(agents)


def agent_array(agents: ArrayLike) -> IntArray:
    """Agent numbers as int64, of the same shape; ValueError if they are not integers."""
    array = np.asarray(agents)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"agent numbers have type {array.dtype}, expected integers counted from 0")
    return array.astype(np.int64)


def pair_array(pairs: Pairs, what: str) -> IntArray:
    """Pairs of agents as an (E, 2) int64 array; ValueError on another shape or type."""
    try:
        array = agent_array(pairs if isinstance(pairs, np.ndarray) else list(pairs))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}s must be pairs of integers (i, k): {one_line(error)}") from None
    if not array.size:
        return array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{what}s have shape {array.shape}, expected (E, 2): one pair (i, k) a row")
    return array


def check_range(agents: int, pairs: IntArray, what: str) -> None:
    """Raise PairError at the first of ``pairs`` (E, 2) that names an agent outside 0..agents-1."""
    wrong = np.flatnonzero(((pairs < 0) | (pairs >= agents)).any(axis=1))
    if len(wrong):
        raise PairError(
            int(wrong[0]),
            f"{what} {pair_text(pairs[wrong[0]])} names an agent outside 0..{agents - 1}; "
            f"agents are counted from 0: correct the number or raise agents (now {agents})",
        )


def check_distinct(agents: int, pairs: IntArray, what: str, labels: Labels = None) -> None:
    """Raise PairError at the first of ``pairs`` (E, 2) that repeats an earlier one."""
    keys = pairs[:, 0] * agents + pairs[:, 1]
    order = np.argsort(keys, kind="stable")
    repeats = order[1:][keys[order[1:]] == keys[order[:-1]]]
    if len(repeats):
        row = int(repeats.min())
        raise PairError(
            row, f"{what} {pair_text(pairs[row], labels)} is given twice ({len(repeats)} repeats); keep one"
        )


def simple_edges(agents: int, edges: Pairs, labels: Labels = None) -> IntArray:
    """Edges of a connected simple graph, read-only (E, 2), i < k each, sorted; ValueError, in labels, otherwise."""
    pairs = pair_array(edges, "edge")
    check_range(agents, pairs, "edge")
    loops = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    if len(loops):
        loop = pair_text(pairs[loops[0]], labels)
        raise PairError(int(loops[0]), f"edge {loop} is a self-loop; self-loops are implied (S_ii = 1): remove it")
    pairs = np.sort(pairs, axis=1)
    check_distinct(agents, pairs, "edge", labels)
    _check_connected(agents, pairs, labels)
    return read_only(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def _check_connected(agents: int, pairs: IntArray, labels: Labels) -> None:
    graph = nx.Graph(pairs.tolist())  # without the agents that have no edge, so that a slip in ``agents`` costs nothing
    graph.add_node(0)
    components = nx.number_connected_components(graph) + agents - len(graph)
    if components > 1:
        reached = nx.node_connected_component(graph, 0)
        cut_off = next(agent for agent in range(agents) if agent not in reached)
        ends = f"agents 0 and {cut_off}" if labels is None else f"{named(labels, 0)} and {named(labels, cut_off)}"
        raise ValueError(
            f"the graph is not connected: it has {components} components, "
            f"and {ends} are not connected; add an edge between the components, "
            f"or take fewer agents (now {agents})"
        )


def find_pairs(keys: IntArray, agents: int, i: ArrayLike, k: ArrayLike) -> BoolArray:
    """Whether (i, k), elementwise, is among the pairs with the sorted ``keys`` (E,), which are i * agents + k."""
    rows, columns = np.broadcast_arrays(agent_array(i), agent_array(k))
    inside = (rows >= 0) & (rows < agents) & (columns >= 0) & (columns < agents)
    key = np.where(inside, rows * agents + columns, -1)
    return np.asarray(np.searchsorted(keys, key, side="right") > np.searchsorted(keys, key, side="left"))


def row_starts(agents: int, rows: IntArray) -> IntArray:
    """(agents + 1,): where each row begins in sorted ``rows`` (E,), and the end."""
    return read_only(np.searchsorted(rows, np.arange(agents + 1)).astype(np.int64))


def slice_of(indptr: IntArray, agent: int) -> slice:
    """The part of a row, from ``indptr`` (agents + 1,); ValueError if there is no such agent.

    Without that, a negative number would give an empty row.
    """
    if not isinstance(agent, Integral) or isinstance(agent, bool) or not 0 <= agent < len(indptr) - 1:
        raise ValueError(f"there is no agent {shown(agent)}, expected 0..{len(indptr) - 2}")
    return slice(int(indptr[agent]), int(indptr[agent + 1]))


def read_only(array: IntArray) -> IntArray:
    """The same array, of any shape, no longer writeable."""
    array.setflags(write=False)
    return array


def pair_text(pair: IntArray, labels: Labels = None) -> str:
    """``(i, k)`` of a pair (2,), for messages; the labels of both, if there are any."""
    return f"({label(labels, int(pair[0]))}, {label(labels, int(pair[1]))})"
