"""What the user says of J or X, checked and brought to blocks: the coupling of a network and its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hdnn_dist.architectures import Architecture
from hdnn_dist.blocks import BlockLayout
from hdnn_dist.couplings import halves_rows
from hdnn_dist.halo import Halo, ranges
from hdnn_dist.initial import COUPLING_STREAM, draw_weights
from hdnn_dist.patterns import Pattern
from hdnn_dist.placement import Agents
from hdnn_dist.stations import CouplingPlan

SKEW_TOLERANCE = 1e-12
LARGEST_CONDITION = 1e12


@dataclass(frozen=True)
class Coupled:
    """The plan of a coupling and its weights: (1 or layers, size) float64, (0, 0) where it has none."""

    plan: CouplingPlan
    weights: np.ndarray


NO_WEIGHTS = np.empty((0, 0))
Entry = Callable[[np.ndarray, np.ndarray], np.ndarray]


class CouplingBuilder:
    """Makes the coupling of one network. ``pattern``: R, inside the graph; ``sizes``: (agents,) rows of its blocks.

    ``order``: for every place of the dense J or X, the row in a state that holds agent after agent.
    """

    def __init__(
        self, agents: Agents, architecture: Architecture, features: np.ndarray, layers: int, pattern: Pattern, seed: int
    ) -> None:
        self.agents, self.architecture, self.layers, self.seed = agents, architecture, layers, seed
        self.features = features
        self.pattern = pattern
        self.sizes = architecture.block_sizes(features)
        whole = len(architecture.parts) == 1
        self.order = architecture.dense_rows(features) if whole else np.arange(self.sizes.sum())
        self.is_J = whole

    def build(self, given: str | Tensor | None, damping: float) -> Coupled:
        """From "J1", "J2", "trained", a matrix or one per layer; ``ValueError`` for what cannot be a coupling."""
        if not self.architecture.coupled:
            self._refuse_without_coupling(given, damping)
            return Coupled(CouplingPlan(), NO_WEIGHTS)
        self._check_damping(damping)
        if given is None:
            given = self._default()
        if isinstance(given, Tensor | np.ndarray):
            return self._given(np.asarray(given, dtype=np.float64), damping)
        if given == "trained":
            return self._trained(damping)
        if given == "I" and not self.is_J:
            return Coupled(CouplingPlan(), NO_WEIGHTS)
        if given == "J1" and self.is_J:
            self._check_halves()
            return Coupled(CouplingPlan("canonical", damping=damping), NO_WEIGHTS)
        if given == "J2" and self.is_J:
            return self._blocks(self._second_canonical, damping)
        known = "'J1', 'J2'" if self.is_J else "'I'"
        raise ValueError(f"coupling is {given!r}: {self.architecture.name} takes {known}, 'trained' or a matrix")

    def _default(self) -> str:
        if not self.is_J:
            return "I"
        defaults = {"H1-J1": "J1", "H1-J2": "J2"}
        if self.architecture.name not in defaults:
            raise ValueError(
                "architecture 'H1' needs a coupling J: pass coupling='J1', 'J2', 'trained' or a skew matrix"
            )
        return defaults[self.architecture.name]

    def _refuse_without_coupling(self, given: object, damping: float) -> None:
        if given is not None or damping:
            raise ValueError(
                f"{self.architecture.name} has J K^T = I and takes no coupling and no damping: leave them out, "
                "or use 'H1' or 'H2'"
            )

    def _check_damping(self, damping: float) -> None:
        if damping < 0:
            raise ValueError(f"damping is {damping}: expected 0 or more, the gamma of J - gamma I")
        if damping and not self.is_J:
            raise ValueError("damping needs the whole state in one part: use architecture 'H1' with a coupling J")

    def _check_halves(self) -> None:
        odd = np.flatnonzero(self.features % 2)
        if odd.size:
            raise ValueError(
                f"agent {odd[0]} has {self.features[odd[0]]} features, but J1 joins two halves of each agent's: "
                "give it an even number, or use 'J2'"
            )

    def _layout(self, pattern: Pattern) -> BlockLayout:
        return BlockLayout(Halo(self.agents, pattern, self.sizes), pattern, biases=0)

    def _trained(self, damping: float) -> Coupled:
        """X starts at the identity, J at A - A^T with A of variance 1/fan-in."""
        if self.is_J:
            layout = self._layout(stored_once(self.pattern, "R"))
            drawn = draw_weights(layout, 1, 1, self.seed, "scaled", stream=COUPLING_STREAM)[:, 0]
            return Coupled(CouplingPlan("skew", layout, damping, trained=True), drawn)
        return self._blocks(np.equal, damping, trained=True)

    def _given(self, matrix: np.ndarray, damping: float) -> Coupled:
        n = int(self.sizes.sum())
        name = "J" if self.is_J else "X"
        stack = matrix[np.newaxis] if matrix.ndim == 2 else matrix
        if stack.shape[1:] != (n, n) or (matrix.ndim == 3 and len(stack) != self.layers):
            raise ValueError(
                f"{name} has shape {matrix.shape}: expected ({n}, {n}), or one for each of the {self.layers} layers"
            )
        self._check_mathematics(stack)
        self._refuse_outside_pattern(stack, name)
        return self._blocks(lambda row, column: stack[:, row, column], damping)

    def _refuse_outside_pattern(self, stack: np.ndarray, name: str) -> None:
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)[self.order]
        layers, rows, columns = np.nonzero(stack)
        outside = np.flatnonzero(~self.pattern.contains(owner[rows], owner[columns]))
        if outside.size:
            first = outside[0]
            i, k = owner[rows[first]], owner[columns[first]]
            raise ValueError(
                f"{name} of layer {layers[first]} joins agents {i} and {k}, and block ({i}, {k}) is outside "
                "the pattern R: set it to zero, or join the agents in the graph"
            )

    def _check_mathematics(self, stack: np.ndarray) -> None:
        if self.is_J:
            worst = np.abs(stack + stack.transpose(0, 2, 1)).max()
            if worst > SKEW_TOLERANCE * max(1.0, np.abs(stack).max()):
                raise ValueError(f"J is not skew: J + J^T has an entry of {worst:.3g}; pass A - A^T, or use damping=")
            return
        condition = max(np.linalg.cond(X) for X in stack)
        if not condition < LARGEST_CONDITION:
            raise ValueError(
                f"X is singular (condition number {condition:.2g}): only an invertible X keeps gradients alive"
            )

    def _blocks(self, entry: Entry, damping: float, trained: bool = False) -> Coupled:
        """A coupling from a function of the places of row and column in the dense order."""
        layout = self._layout(self.pattern)
        rows, columns, _ = layout.positions()
        place = np.argsort(self.order)
        values = np.asarray(entry(place[rows], place[columns]), dtype=np.float64)
        return Coupled(CouplingPlan("block", layout, damping, trained), np.atleast_2d(values))

    @staticmethod
    def _second_canonical(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """+1 above the diagonal, -1 below."""
        return np.sign(column - row)


def dense_coupling(builder: CouplingBuilder, plan: CouplingPlan, weights: Tensor) -> Tensor:
    """This rank's part of the dense J, or X of H2, (1 or layers, n, n) in the dense order; the ranks' parts add up."""
    n, own = int(builder.sizes.sum()), builder.agents.local
    dense = weights.new_zeros(max(len(weights), 1), n, n)
    place, starts = np.argsort(builder.order), np.cumsum(builder.sizes) - builder.sizes
    mine = place[ranges(starts[own], builder.sizes[own])]
    if plan.kind == "identity":
        dense[:, mine, mine] = 1.0
    elif plan.kind == "canonical":
        first, second = (rows[np.isin(place[rows], mine)] for rows in halves_rows(builder.features))
        dense[:, place[first], place[second]], dense[:, place[second], place[first]] = -1.0, 1.0
    else:
        assert plan.layout is not None
        rows, columns, _ = plan.layout.positions()
        dense[:, place[rows], place[columns]] += weights
        if plan.kind == "skew":
            dense[:, place[columns], place[rows]] -= weights
    dense[:, mine, mine] -= plan.damping
    return dense


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
