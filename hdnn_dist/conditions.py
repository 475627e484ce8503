"""What a graph and the patterns T and R of K and of J (or X) decide before anything is trained.

Whether neighbours alone can run the network (T <= S and R <= S), whether one exchange a half-step would do, and which
agents' inputs can change which agents' outputs. All three come from the blocks of dF/dsource that may be non-zero:

    Gradient, K^T s(K x + b)     T^T T        Direct, s(K x + b)               T
    Skew, s((U - U^T) x + b)     T = T^T      Transposed, s(-K^T x + b)      T^T

and from the coupling in front of it, R or, for X^T, R^T. No block of T or R is taken to be zero by chance.

A set of agents is a bit of ``uint64``: 64 of them move through the layers at once, and the products of patterns, which
can be dense, are never formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdnn_dist.architectures import Architecture, HalfStep
from hdnn_dist.architectures import architecture as named
from hdnn_dist.cost import LayerCost, layer_cost
from hdnn_dist.forms import Gradient, Transposed
from hdnn_dist.graph import CommunicationGraph
from hdnn_dist.pairs import BoolArray, IntArray
from hdnn_dist.patterns import Pattern

Bits = NDArray[np.uint64]
Pair = tuple[int, int]
WORD = 64
NAMED_PAIRS = 3


@dataclass(frozen=True, eq=False)
class Conditions:
    """What ``check`` finds.

    ``refusal``: why neighbours alone cannot run the network, or None. ``breaking``: the first pairs (i, j), in
    lexicographic order, at which a single exchange would leave the graph, ``breaking_count`` of them in all.
    ``influence``: (agents, agents) bool, [i, k] whether the input of agent k can change the output of agent i after
    all ``layers``; ``pairs``: (layers + 1,) how many such pairs there are after 0, 1, ... layers. ``cost``: of a layer,
    None where there is a refusal.
    """

    layers: int
    refusal: str | None
    breaking: tuple[Pair, ...]
    breaking_count: int
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
        return not self.breaking_count

    @property
    def settled(self) -> int:
        """The number of layers after which their number stays the same."""
        return int(np.flatnonzero(self.pairs != self.pairs[-1]).max(initial=-1)) + 1

    def unreached(self, readers: ArrayLike, inputs: ArrayLike | None = None) -> IntArray:
        """The agents of ``inputs`` (default: all) whose input reaches no agent of ``readers``."""
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
    enters: ArrayLike | None = None,
    cost: LayerCost | None = None,
) -> Conditions:
    """The conditions of an architecture with K in blkSparse(T) and J or X in blkSparse(R) on ``graph``.

    ``T``: default the graph with self-loops; ``R``: default each agent by itself (X = I, J1). Patterns, or dense 0/1
    matrices. ``enters``: (parts, agents) bool, which parts of an agent's state its input enters; default all.
    ``cost``: of a layer, where it is known; otherwise a layer with 2 features an agent and 125 samples is run.
    ``ValueError`` for patterns of another size and for an R where the architecture has no coupling.
    """
    known = named(architecture, scheme)
    if layers < 1:
        raise ValueError(f"layers is {layers}: expected at least 1")
    K, C = _pattern(T, graph.pattern(), "T"), _pattern(R, _own(graph.agents), "R")
    if R is not None and not known.coupled:
        raise ValueError(f"R is given, but {known.name} has J K^T = I and takes no coupling: leave R out")
    moves = _Moves(known, K, C)
    refusal = _refusal(graph, K, C)
    if refusal is None and cost is None:
        coupling: dict[str, Any] = {} if R is None else {"coupling": "trained", "coupling_pattern": C}
        cost = layer_cost(graph, architecture=architecture, scheme=scheme, pattern=K, **coupling)
    breaking, count = _breaking(graph, moves)
    influence, pairs = _influence(moves, layers, enters)
    return Conditions(layers, refusal, breaking, count, influence, pairs, cost)


class _Moves:
    """The half-steps of a layer as patterns, each with those that a set of agents passes one after the other."""

    def __init__(self, architecture: Architecture, T: Pattern, R: Pattern) -> None:
        self.architecture = architecture
        self.agents = T.agents
        self.halves = [(half, _passed(half, T, R)) for half in architecture.layer]

    def layer(self, state: dict[str, Bits]) -> dict[str, Bits]:
        """Which inputs each agent's parts depend on after a layer, from what they depend on before."""
        after = dict(state)
        for half, patterns in self.halves:
            moved = _through(patterns, (state if self.architecture.simultaneous else after)[half.source])
            after[half.target] = moved if half.replaces else after[half.target] | moved
        return after


def _passed(half: HalfStep, T: Pattern, R: Pattern) -> list[Pattern]:
    own = {Gradient: [T, T.transposed()], Transposed: [T.transposed()]}.get(half.form, [T])
    coupling = {"C": [R], "CT": [R.transposed()]}.get(half.coupled or "", [])
    return own + coupling


def _through(patterns: list[Pattern], bits: Bits) -> Bits:
    """The sets of the agents that each agent reads, united: one pattern after the other."""
    for pattern in patterns:
        reads = np.flatnonzero(np.diff(pattern.indptr))
        united = np.zeros_like(bits)
        united[reads] = np.bitwise_or.reduceat(bits[pattern.columns], pattern.indptr[reads])
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


def _breaking(graph: CommunicationGraph, moves: _Moves) -> tuple[tuple[Pair, ...], int]:
    """The first pairs outside the graph of all half-steps' blocks, and how many there are."""
    found, count = [], 0
    for word, bits in _words(graph.agents):
        needed = np.bitwise_or.reduce([_through(patterns, bits) for _, patterns in moves.halves])
        outside = needed & ~_through([graph.pattern()], bits)
        pairs = np.argwhere(_unpacked(outside, word.stop - word.start))
        count += len(pairs)
        found.append(pairs[:NAMED_PAIRS] + np.array([0, word.start]))
    first = np.concatenate(found)
    first = first[np.lexsort((first[:, 1], first[:, 0]))][:NAMED_PAIRS]
    return tuple((int(i), int(j)) for i, j in first), count


def _influence(moves: _Moves, layers: int, enters: ArrayLike | None) -> tuple[BoolArray, IntArray]:
    parts = moves.architecture.parts
    entered = np.broadcast_to(True if enters is None else np.asarray(enters), (len(parts), moves.agents))
    influence = np.empty((moves.agents, moves.agents), dtype=np.bool_)
    pairs = np.zeros(layers + 1, dtype=np.int64)
    for word, bits in _words(moves.agents):
        state = {part: np.where(here, bits, np.uint64(0)) for part, here in zip(parts, entered, strict=True)}
        for layer in range(layers + 1):
            pairs[layer] += _size(state)
            before, state = state, moves.layer(state) if layer < layers else state
            if all(np.array_equal(before[part], state[part]) for part in parts):
                pairs[layer + 1 :] += _size(state)
                break
        influence[:, word] = _unpacked(_any_part(state), word.stop - word.start)
    return influence, pairs


def _any_part(state: dict[str, Bits]) -> Bits:
    return np.asarray(np.bitwise_or.reduce(list(state.values())))


def _size(state: dict[str, Bits]) -> int:
    return int(np.unpackbits(_any_part(state).view(np.uint8)).sum(dtype=np.int64))


def _refusal(graph: CommunicationGraph, T: Pattern, R: Pattern) -> str | None:
    for name, pattern in (("T", T), ("R", R)):
        try:
            pattern.check_inside(graph, name)
        except ValueError as error:
            return str(error)
    return None


def _pattern(given: Pattern | ArrayLike | None, default: Pattern, name: str) -> Pattern:
    pattern = default if given is None else given if isinstance(given, Pattern) else Pattern.from_matrix(given)
    if pattern.agents != default.agents:
        raise ValueError(
            f"{name} is a pattern of {pattern.agents} agents, but the graph has {default.agents}; "
            f"give a {default.agents} x {default.agents} pattern"
        )
    return pattern


def _own(agents: int) -> Pattern:
    return Pattern(agents, np.arange(agents), np.arange(agents))
