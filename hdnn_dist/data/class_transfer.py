"""Class transfer: a class is shown at one agent and has to be told at another one, as far away as one likes.

It measures how far a network reaches: nothing but what the layers carry from one agent to the other tells of the class.
After the graph transfer of Di Giovanni et al., "On over-squashing in message passing neural networks: the impact
of width, depth, and topology", 2023, and Gravina et al., "On oversquashing in graph neural networks through the lens of
dynamical systems", 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.source import Description, Request, Source, Split
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import require_memory, shown, whole

NAME = "class_transfer"
CLASSES, SAMPLES = 5, 3200
TEST = 5  # one of so many samples is for test
NOISE_STREAM = 1 << 60  # of the generators of agents, apart from those of their weights

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassTransfer:
    """Data on any graph. ``read_at``: the agent that has to tell the class.

    ``shown_at``: the agent that sees it, by default the farthest one from ``read_at``, or the first one ``distance``
    hops away. ``features``: of every agent, (agents,), None where all have one for each class. ``noise``: the width of
    what all other agents see, 0 where they see nothing.
    """

    classes: int = CLASSES
    distance: int | None = None
    shown_at: int | None = None
    read_at: int = 0
    features: Sequence[int] | None = None
    noise: float = 0.0
    name: str = NAME

    def on(self, graph: CommunicationGraph) -> Source:
        """The source for this graph; ValueError for one without an agent that far away."""
        classes = whole("classes", self.classes, 2)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise is {shown(self.noise)}: expected a width of 0 or more")
        shown_at = self._shown_at(graph)
        features = [classes] * graph.agents if self.features is None else self.features
        widths = [min(classes, count) if self.noise or agent == shown_at else 0 for agent, count in enumerate(features)]
        return Transfer(classes, shown_at, tuple(widths), self.noise)

    def _shown_at(self, graph: CommunicationGraph) -> int:
        """Where the class is shown, after everything was checked."""
        read_at = graph.agent(self.read_at)
        hops = graph.hops([read_at])
        if self.shown_at is not None:
            self._check(graph, hops, read_at, graph.agent(self.shown_at))
            return graph.agent(self.shown_at)
        farthest = int(hops.max())
        wanted = farthest if self.distance is None else whole("distance", self.distance)
        if not 0 < wanted <= farthest:
            raise ValueError(
                f"no agent of {graph.name} is {max(wanted, 1)} hops from {graph.named(read_at)}, which reads the "
                f"class: the farthest one is at {farthest}; lower distance, or take a larger graph"
            )
        return int((hops == wanted).argmax())

    def _check(self, graph: CommunicationGraph, hops: Index, read_at: int, shown_at: int) -> None:
        there = hops[shown_at]
        if not there:
            raise ValueError(
                f"shown_at is {graph.named(read_at)}, which reads the class: show it at another one, or leave it out"
            )
        if self.distance is not None and self.distance != there:
            raise ValueError(
                f"distance is {self.distance}, but {graph.named(read_at)}, which reads the class, is {there} hops "
                f"from shown_at, {graph.named(shown_at)}: give one of them"
            )


@dataclass(frozen=True)
class Transfer:
    """A source of classes, shown at one agent. ``widths``: how many columns each agent has, (agents,).

    The class is one of as many codes: with a column for each class it is one-hot, with fewer the codes are drawn,
    standard normal, from the seed. All other agents see uniform noise from 0 to its width.
    """

    classes: int
    shown_at: int
    widths: tuple[int, ...]
    noise: float

    def describe(self, root: Path | None) -> Description:
        starts = self._starts.tolist()
        return Description(
            NAME,
            columns=starts[-1],
            classes=self.classes,
            samples=SAMPLES,
            noise=self.noise,
            assignment={
                agent: tuple(range(starts[agent], starts[agent + 1]))
                for agent, width in enumerate(self.widths)
                if width
            },
        )

    def read(self, request: Request) -> tuple[Split, Split]:
        """Draw the columns of the agents that are asked for, and no others.

        Raises ValueError for fewer samples than have every class for test, and for noise that has no columns.
        """
        self._check(request)
        asked = np.searchsorted(self._starts, request.columns, side="right") - 1
        labels, table = self._labels(request), np.empty((request.samples, len(request.columns)), dtype=np.float32)
        for agent in np.unique(asked).tolist():
            chosen = asked == agent
            table[:, chosen] = self._seen(agent, labels, request)[:, request.columns[chosen] - self._starts[agent]]
        train, test = _parts(request.samples)
        known = labels if request.labels else None
        return _split(table, known, train), _split(table, known, test)

    @cached_property
    def _starts(self) -> Index:
        """(agents + 1,): the first column of each agent, and the number of columns."""
        return np.concatenate([[0], np.cumsum(self.widths)]).astype(np.int64)

    def _labels(self, request: Request) -> Index:
        """(samples,): as many of each class, to one, among those for training and among those for test."""
        rng = np.random.Generator(np.random.Philox(request.seed))
        sizes = [rows.stop - rows.start for rows in _parts(request.samples)]
        return np.concatenate([rng.permutation(np.arange(size) % self.classes) for size in sizes])

    def _seen(self, agent: int, labels: Index, request: Request) -> Floats:
        """(samples, columns of the agent)."""
        key = np.array([request.seed, agent], dtype=np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, NOISE_STREAM]))
        width = self.widths[agent]
        if agent != self.shown_at:
            return np.float32(request.noise or 0.0) * rng.random((len(labels), width), dtype=np.float32)
        codes = np.eye(width) if width == self.classes else rng.standard_normal((self.classes, width))
        return codes[labels].astype(np.float32)

    def _check(self, request: Request) -> None:
        if request.samples < TEST * self.classes:
            raise ValueError(
                f"{NAME} makes {TEST} samples or more of each of its {self.classes} classes, one of {TEST} of them for "
                f"test, not {request.samples} in all"
            )
        if not 0 <= (request.noise or 0.0) < math.inf or (request.noise and not self.noise):
            raise ValueError(
                f"noise is {shown(request.noise)}, but {NAME} was made for a width of {self.noise:g}: give the same"
            )
        require_memory(f"{request.samples} samples", 4 * request.samples * len(request.columns))


def _split(table: Floats, labels: Index | None, rows: slice) -> Split:
    return Split(table[rows], None if labels is None else labels[rows])


def _parts(samples: int) -> tuple[slice, slice]:
    """Those for training and those for test."""
    train = samples - samples // TEST
    return slice(0, train), slice(train, samples)
