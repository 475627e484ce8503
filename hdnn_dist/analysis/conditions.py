"""What a graph and the patterns T and R of K and of J (or X) decide before anything is trained.

Whether neighbours alone can run the network (T <= S and R <= S), whether one exchange a half-step would do, and which
agents' inputs can change which agents' outputs. All three come from the blocks of dF/dsource that may be non-zero:

    K^T s(K x + b)                             T^T T
    s(L x + b), L = alpha K + beta K^T         T, T^T or both together

and from the coupling in front of it, R or, for X^T, R^T (``HalfStep.patterns``). No block of T or R is taken to be zero
by chance.

A set of agents is a bit of ``uint64``: 64 of them move through the layers at once, and the products of patterns, which
can be dense, are never formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdnn_dist.analysis.cost import LayerCost, layer_cost
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.layer_graphs import check_graphs
from hdnn_dist.graph.pairs import BoolArray, IntArray
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.propagation.architectures import architecture as named
from hdnn_dist.support.arguments import require_memory, whole

Bits = NDArray[np.uint64]
WORD = 64


@dataclass(frozen=True, eq=False)
class Conditions:
    """What ``check`` finds.

    ``refusal``: why neighbours alone cannot run the network, or None. ``outside``: (agents, agents) bool, [i, j]
    whether a single exchange would carry something from j to i, in any layer, although they are not neighbours there.
    ``influence``: (agents, agents) bool, [i, k] whether the input of agent k can change the output of agent i after
    all ``layers``; ``pairs``: (layers + 1,) how many such pairs there are after 0, 1, ... layers. ``cost``: of a layer,
    the dearest one where graphs differ, None where there is a refusal.
    """

    layers: int
    refusal: str | None
    outside: BoolArray
    influence: BoolArray
    pairs: IntArray
    cost: LayerCost | None

    @property
    def distributed(self) -> bool:
        """Whether the two-exchange protocol runs it with messages between neighbours only: T <= S and R <= S."""
        return self.refusal is None

    @property
    def single_exchange(self) -> bool:
        """Whether one exchange a half-step would do, every agent holding copies of the rows of K it needs.

        R T^T T <= S for H2, H1 and MS3; T <= S where F is s(K x + b).
        """
        return not self.outside.any()

    @property
    def breaking(self) -> IntArray:
        """(P, 2): all pairs (i, j) that break it, in lexicographic order."""
        return np.argwhere(self.outside)

    @property
    def settled(self) -> int:
        """The number of layers after which their number stays the same."""
        return int(np.flatnonzero(self.pairs != self.pairs[-1]).max(initial=-1)) + 1

    def unreached(self, readers: ArrayLike, inputs: ArrayLike | None = None) -> IntArray:
        """(n,) the agents of ``inputs`` (inputs,), default all, whose input reaches none of ``readers`` (readers,)."""
        reaches = self.influence[np.asarray(readers)].any(axis=0)
        chosen = np.arange(len(reaches)) if inputs is None else np.asarray(inputs)
        return chosen[~reaches[chosen]]


def check(
    graph: CommunicationGraph,
    T: Pattern | ArrayLike | None = None,
    R: Pattern | ArrayLike | None = None,
    layers: int = 1,
    *,
    architecture: str = "H2",
    scheme: str | None = None,
    graphs: Sequence[CommunicationGraph] | None = None,
    enters: ArrayLike | None = None,
    cost: LayerCost | None = None,
) -> Conditions:
    """The conditions of an architecture with K in blkSparse(T) and J or X in blkSparse(R) on ``graph``.

    ``T``: default the graph with self-loops; ``R``: default each agent by itself (X = I, J1), for H1-J2 the graph.
    Patterns, or dense 0/1 matrices (agents, agents). ``graphs``: one per layer, each a part of ``graph``, in its place.
    ``enters``: (parts, agents) bool, which parts of an agent's state its input enters; default all.
    ``cost``: of a layer, where it is known; otherwise a layer with 2 features an agent and 125 samples is run.
    ``ValueError`` for patterns of another size, for graphs that do not fit the layers, and for an R where the
    architecture has no coupling.
    """
    known, layers = named(architecture, scheme), whole("layers", layers)
    require_memory(f"the pairs of {graph.agents} agents", 3 * graph.agents**2)
    if graphs is not None:
        check_graphs(graphs, layers, graph)
    if R is not None and not known.coupled:
        raise ValueError(f"R is given, but {known.name} has J K^T = I and takes no coupling: leave R out")
    kinds = {here: Reads(known, here, T, R) for here in (graphs or [graph])}
    refusal = _refusal(graphs, kinds)
    if refusal is None and cost is None:
        costs = [_cost(reads, architecture, scheme, coupled=R is not None) for reads in kinds.values()]
        cost = max(costs, key=lambda cost: cost.forward.bytes)
    outside = np.logical_or.reduce([_outside(reads) for reads in kinds.values()])
    each = [*kinds.values()] * layers if graphs is None else [kinds[here] for here in graphs]
    influence, pairs = _influence(each, enters)
    return Conditions(layers, refusal, outside, influence, pairs, cost)


class Reads:
    """The half-steps of a layer as patterns, each with those that a set of agents passes one after the other.

    ``T``, ``R``: as of ``check``, patterns or dense 0/1 matrices (agents, agents).
    """

    def __init__(
        self,
        architecture: Architecture,
        graph: CommunicationGraph,
        T: Pattern | ArrayLike | None,
        R: Pattern | ArrayLike | None,
    ) -> None:
        self.architecture, self.graph = architecture, graph
        self.T = _pattern(T, graph.pattern(), "T")
        own = Pattern.diagonal(graph.agents)
        self.R = _pattern(R, graph.pattern() if architecture.coupling == "J2" else own, "R")
        self.halves = [(half, half.patterns(self.T, self.R)) for half in architecture.layer]

    def layer(self, state: dict[str, Bits]) -> dict[str, Bits]:
        """Which inputs each agent's parts depend on after a layer, from what they depend on before: (agents,) each."""
        after = dict(state)
        for half, patterns in self.halves:
            moved = _through(patterns, (state if self.architecture.simultaneous else after)[half.source])
            after[half.target] = moved if half.replaces else after[half.target] | moved
        return after


def _through(patterns: list[Pattern], bits: Bits) -> Bits:
    """The sets of the agents that each agent readers, united: one pattern after the other."""
    for pattern in patterns:
        readers = np.flatnonzero(np.diff(pattern.indptr))
        united = np.zeros_like(bits)
        united[readers] = np.bitwise_or.reduceat(bits[pattern.columns], pattern.indptr[readers])
        bits = united
    return bits


def _words(agents: int) -> Iterator[tuple[slice, Bits]]:
    """64 agents at a time: which, and (agents,) the bit of each of them, at its own place."""
    for first in range(0, agents, WORD):
        word = slice(first, min(first + WORD, agents))
        bits = np.zeros(agents, dtype=np.uint64)
        bits[word] = np.uint64(1) << np.arange(word.stop - first, dtype=np.uint64)
        yield word, bits


def _unpacked(bits: Bits, count: int) -> BoolArray:
    """(agents,) bits -> (agents, count) bool."""
    return (bits[:, np.newaxis] >> np.arange(count, dtype=np.uint64) & np.uint64(1)).astype(np.bool_)


def _outside(reads: Reads) -> BoolArray:
    """(agents, agents): where the blocks of any half-step lie outside the graph."""
    graph = reads.graph
    outside = np.empty((graph.agents, graph.agents), dtype=np.bool_)
    for word, bits in _words(graph.agents):
        needed = np.bitwise_or.reduce([_through(patterns, bits) for _, patterns in reads.halves])
        outside[:, word] = _unpacked(needed & ~_through([graph.pattern()], bits), word.stop - word.start)
    return outside


def _cost(reads: Reads, architecture: str, scheme: str | None, coupled: bool) -> LayerCost:
    coupling: dict[str, Any] = {"coupling": "trained", "coupling_pattern": reads.R} if coupled else {}
    return layer_cost(reads.graph, architecture=architecture, scheme=scheme, pattern=reads.T, **coupling)


def _influence(layers: Sequence[Reads], enters: ArrayLike | None) -> tuple[BoolArray, IntArray]:
    parts, agents = layers[0].architecture.parts, layers[0].graph.agents
    entered = np.broadcast_to(True if enters is None else np.asarray(enters), (len(parts), agents))
    influence = np.empty((agents, agents), dtype=np.bool_)
    pairs = np.zeros(len(layers) + 1, dtype=np.int64)
    alike = len(set(layers)) == 1
    for word, bits in _words(agents):
        state = {part: np.where(here, bits, np.uint64(0)) for part, here in zip(parts, entered, strict=True)}
        pairs[0] += _size(state)
        for layer, reads in enumerate(layers, 1):
            before, state = state, reads.layer(state)
            if alike and all(np.array_equal(before[part], state[part]) for part in parts):
                pairs[layer:] += _size(state)
                break
            pairs[layer] += _size(state)
        influence[:, word] = _unpacked(_any_part(state), word.stop - word.start)
    return influence, pairs


def _any_part(state: dict[str, Bits]) -> Bits:
    return np.asarray(np.bitwise_or.reduce(list(state.values())))


def _size(state: dict[str, Bits]) -> int:
    return int(np.unpackbits(_any_part(state).view(np.uint8)).sum(dtype=np.int64))


def _refusal(graphs: Sequence[CommunicationGraph] | None, kinds: Mapping[CommunicationGraph, Reads]) -> str | None:
    for graph, reads in kinds.items():
        for name, pattern in (("T", reads.T), ("R", reads.R)):
            try:
                pattern.check_inside(graph, name)
            except ValueError as error:
                return str(error) if graphs is None else f"layer {graphs.index(graph)}: {error}"
    return None


def _pattern(given: Pattern | ArrayLike | None, default: Pattern, name: str) -> Pattern:
    pattern = default if given is None else given if isinstance(given, Pattern) else Pattern.from_matrix(given)
    if pattern.agents != default.agents:
        raise ValueError(
            f"{name} is a pattern of {pattern.agents} agents, but the graph has {default.agents}; "
            f"give a {default.agents} x {default.agents} pattern"
        )
    return pattern
