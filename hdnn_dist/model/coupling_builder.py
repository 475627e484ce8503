"""What the user says of J or X, checked and brought to blocks: the coupling of a network and its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern, stored_once
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.propagation.state import halves_rows
from hdnn_dist.propagation.system import CouplingSpec
from hdnn_dist.support.arguments import LARGEST, is_number, real_array, shown
from hdnn_dist.support.arrays import ranges
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.initial import COUPLING_STREAM, draw_weights
from hdnn_dist.weights.layers import Layers

SKEW_TOLERANCE = 1e-12
LARGEST_CONDITION = 1e12


@dataclass(frozen=True)
class Coupled:
    """The spec of a coupling and its weights: (1 or layers, size) float64, (0, 0) where it has none.

    ``size``: of the largest layout; in layers with a smaller one, zeros follow.
    """

    spec: CouplingSpec
    weights: np.ndarray


NO_WEIGHTS = np.empty((0, 0))
Entry = Callable[[np.ndarray, np.ndarray], np.ndarray]


class CouplingBuilder:
    """Makes the coupling of one network.

    ``features``: (agents,); ``layers``: those of K, to whose graphs the coupling keeps; ``pattern``: R, inside all of
    them, by default each itself. ``ValueError`` for one that is not. ``sizes``: (agents,) rows of the blocks.
    ``order``: (n,), n the rows of a part: for every place of the dense J or X, the row in a part that holds agent
    after agent.
    """

    def __init__(
        self,
        agents: Agents,
        architecture: Architecture,
        features: np.ndarray,
        layers: Layers,
        pattern: Pattern | ArrayLike | None,
        seed: int,
    ) -> None:
        self.agents, self.architecture, self.layers, self.seed = agents, architecture, layers, seed
        self.features = features
        self._graphs = [layout.halo.graph for layout in layers.layouts]
        self._patterns = [self._inside(number, pattern) for number in range(len(self._graphs))]
        self.sizes = architecture.block_sizes(features)
        whole = len(architecture.parts) == 1
        self.order = architecture.dense_rows(features) if whole else np.arange(self.sizes.sum())
        self.is_J = whole

    def build(self, given: str | Tensor | Sequence[Tensor] | None, damping: float) -> Coupled:
        """From "J1", "J2", "trained", a matrix (n, n), n the rows of a part, or one per layer.

        ``ValueError`` for what cannot be a coupling.
        """
        if not self.architecture.coupled:
            self._refuse_without_coupling(given, damping)
            return Coupled(CouplingSpec(), NO_WEIGHTS)
        self._check_damping(damping)
        if given is None:
            given = self._default()
        if not isinstance(given, str):
            return self._given(real_array("J" if self.is_J else "X", given), damping)
        if given == "trained":
            return self._trained(damping)
        if given == "I" and not self.is_J:
            return Coupled(CouplingSpec(), NO_WEIGHTS)
        if given == "J1" and self.is_J:
            self._check_halves()
            return Coupled(CouplingSpec("canonical", damping=damping), NO_WEIGHTS)
        if given == "J2" and self.is_J:
            varied = len(set(self._patterns)) > 1
            return self._blocks([_second_canonical] * (len(self.layers) if varied else 1), damping)
        known = "'J1', 'J2'" if self.is_J else "'I'"
        raise ValueError(f"coupling is {shown(given)}: {self.architecture.name} takes {known}, 'trained' or a matrix")

    def _default(self) -> str:
        if self.architecture.coupling is None:
            known, matrix = ("'J1', 'J2'", "a skew matrix") if self.is_J else ("'I'", "a matrix")
            raise ValueError(
                f"architecture {self.architecture.name!r} needs a coupling {'J' if self.is_J else 'X'}: "
                f"pass coupling={known}, 'trained' or {matrix}"
            )
        return self.architecture.coupling

    def _refuse_without_coupling(self, given: object, damping: float) -> None:
        if given is not None or damping:
            raise ValueError(
                f"{self.architecture.name} has J K^T = I and takes no coupling and no damping: leave them out, "
                "or use 'H1' or 'H2'"
            )

    def _check_damping(self, damping: float) -> None:
        if not is_number(damping) or damping < 0:
            raise ValueError(
                f"damping is {shown(damping)}: expected a finite number of 0 or more, the gamma of J - gamma I, "
                f"at most {LARGEST:g}"
            )
        if damping and not self.is_J:
            raise ValueError("damping needs the whole state in one part: use architecture 'H1' with a coupling J")

    def _check_halves(self) -> None:
        odd = np.flatnonzero(self.features % 2)
        if odd.size:
            raise ValueError(
                f"agent {odd[0]} has {self.features[odd[0]]} features, but J1 joins two halves of each agent's: "
                "give it an even number, or use 'J2'"
            )

    def _inside(self, number: int, pattern: Pattern | ArrayLike | None) -> Pattern:
        """R in the layers of one layout."""
        graph = self._graphs[number]
        try:
            return graph.pattern(pattern, "R")
        except ValueError as error:
            at = "" if graph is self.agents.graph else f"layer {self.layers.which.index(number)}: "
            raise ValueError(f"{at}{error}") from None

    def _in_all_layers(self) -> Pattern:
        return reduce(Pattern.within, self._patterns)

    def _layouts(self, patterns: Sequence[Pattern]) -> tuple[BlockLayout, ...]:
        """A layout of each pattern, whose messages keep to the graph beside it."""

        def layout(pattern: Pattern, graph: CommunicationGraph) -> BlockLayout:
            return BlockLayout(Halo(self.agents, pattern, self.sizes, graph), pattern, biases=0)

        return tuple(map(cache(layout), patterns, self._graphs))

    def _trained(self, damping: float) -> Coupled:
        """X starts at the identity, J at A - A^T with A of variance 1/fan-in."""
        if self.is_J:
            layouts = self._layouts([stored_once(self._in_all_layers(), "R")] * len(self._graphs))
            drawn = draw_weights(layouts[0], 1, 1, self.seed, "scaled", stream=COUPLING_STREAM)[:, 0]
            return Coupled(CouplingSpec("skew", layouts, damping, trained=True), drawn)
        return self._blocks([np.equal], damping, trained=True)

    def _given(self, matrix: np.ndarray, damping: float) -> Coupled:
        n = int(self.sizes.sum())
        name = "J" if self.is_J else "X"
        layers = len(self.layers)
        matrices = matrix[np.newaxis] if matrix.ndim == 2 else matrix
        if matrices.shape[1:] != (n, n) or (matrix.ndim == 3 and len(matrices) != layers):
            raise ValueError(
                f"{name} has shape {matrix.shape}: expected ({n}, {n}), or one for each of the {layers} layers"
            )
        self._check_mathematics(matrices)
        self._refuse_outside_pattern(matrices, name)
        return self._blocks([partial(_entries, one) for one in matrices], damping)

    def _refuse_outside_pattern(self, matrices: np.ndarray, name: str) -> None:
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)[self.order]
        for number, pattern in enumerate(self._patterns):
            layers = np.flatnonzero(np.equal(self.layers.which, number))
            at, rows, columns = np.nonzero(matrices[layers] if len(matrices) > 1 else matrices)
            outside = np.flatnonzero(~pattern.contains(owner[rows], owner[columns]))
            if outside.size:
                first = outside[0]
                i, k = owner[rows[first]], owner[columns[first]]
                raise ValueError(
                    f"{name} of layer {layers[at[first]]} joins agents {i} and {k}, and block ({i}, {k}) is outside "
                    "the pattern R of that layer: set it to zero, or join the agents in the layer's graph"
                )

    def _check_mathematics(self, matrices: np.ndarray) -> None:
        if self.is_J:
            worst = np.abs(matrices + matrices.transpose(0, 2, 1)).max()
            if worst > SKEW_TOLERANCE * max(1.0, np.abs(matrices).max()):
                raise ValueError(f"J is not skew: J + J^T has an entry of {worst:.3g}; pass A - A^T, or use damping=")
            return
        condition = max(np.linalg.cond(X) for X in matrices)
        if not condition < LARGEST_CONDITION:
            raise ValueError(
                f"X is singular (condition number {condition:.2g}): only an invertible X keeps gradients alive"
            )

    def _blocks(self, entries: Sequence[Entry], damping: float, trained: bool = False) -> Coupled:
        """A coupling from functions of the places of row and column in the dense order.

        One for all layers, which gets the blocks that all of them have, or one for each.
        """
        alike = len(entries) == 1
        layouts = self._layouts([self._in_all_layers()] * len(self._graphs) if alike else self._patterns)
        place = np.argsort(self.order)
        places = [(place[rows], place[columns]) for rows, columns, _ in (layout.positions() for layout in layouts)]
        weights = np.zeros((len(entries), max(layout.size for layout in layouts)))
        for row, entry, number in zip(weights, entries, self.layers.which, strict=False):
            row[: layouts[number].size] = entry(*places[number])
        return Coupled(CouplingSpec("block", layouts, damping, trained), weights)


def _entries(matrix: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return matrix[row, column]


def _second_canonical(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """+1 above the diagonal, -1 below."""
    return np.sign(column - row)


def dense_coupling(builder: CouplingBuilder, spec: CouplingSpec, weights: Tensor) -> Tensor:
    """This rank's part of the dense J, or X of H2, (1 or layers, n, n) in the dense order; the ranks' parts add up."""
    n, own = int(builder.sizes.sum()), builder.agents.local
    dense = weights.new_zeros(max(len(weights), 1), n, n)
    place, starts = np.argsort(builder.order), np.cumsum(builder.sizes) - builder.sizes
    mine = place[ranges(starts[own], builder.sizes[own])]
    if spec.kind == "identity":
        dense[:, mine, mine] = 1.0
    elif spec.kind == "canonical":
        first, second = (rows[np.isin(place[rows], mine)] for rows in halves_rows(builder.features))
        dense[:, place[first], place[second]], dense[:, place[second], place[first]] = -1.0, 1.0
    else:
        positions = [layout.positions() for layout in spec.layouts]
        for layer, C in enumerate(weights):
            rows, columns, _ = positions[builder.layers.which[layer]]
            dense[layer, place[rows], place[columns]] += C[: len(rows)]
            if spec.kind == "skew":
                dense[layer, place[columns], place[rows]] -= C[: len(rows)]
    dense[:, mine, mine] -= spec.damping
    return dense
