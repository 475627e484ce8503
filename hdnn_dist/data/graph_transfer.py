"""Graph transfer: two agents far apart swap what they see, and all others keep what they see.

Every agent sees a number drawn uniformly from [0, 1], but agent 0 sees 1 and the agent farthest from it 0. Every agent
shall tell its own number, and those two each other's. On ring:2d and crossed_ring:2d they are d hops apart, on path:d
d - 1.

Source of the task: Di Giovanni et al., "On over-squashing in message passing neural networks: the impact of width,
depth, and topology", ICML 2023; as drawn here: Gravina et al., "On oversquashing in graph neural networks through the
lens of dynamical systems", AAAI 2025, with 1000 samples to train with and 100 for test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdnn_dist.data.source import REGRESSION, Description, Request, Source, Split
from hdnn_dist.graph.communication import CommunicationGraph

NAME = "graph_transfer"
SAMPLES, TEST = 1100, 11  # one of so many samples is for test
SOURCE = 0


@dataclass(frozen=True)
class GraphTransfer:
    """Data on any graph of two agents or more."""

    name: str = NAME

    def on(self, graph: CommunicationGraph) -> Source:
        """The source for this graph; ValueError for one of a single agent."""
        if graph.agents < 2:
            raise ValueError(f"the data set {NAME} needs two agents at least, but {graph.name} has one")
        return Transfer(graph.agents, int(graph.hops([SOURCE]).argmax()))


@dataclass(frozen=True)
class Transfer:
    """A source of samples for ``agents``, of which ``target`` is as far from agent 0 as any."""

    agents: int
    target: int

    def describe(self, root: Path | None) -> Description:
        return Description(
            NAME,
            columns=self.agents,
            classes=self.agents,
            samples=SAMPLES,
            task=REGRESSION,
            targets=dict.fromkeys(range(self.agents), 1),
            assignment={agent: (agent,) for agent in range(self.agents)},
        )

    def read(self, request: Request) -> tuple[Split, Split]:
        """Draw the samples; ValueError for fewer than ``TEST``."""
        if request.samples < TEST:
            raise ValueError(f"{NAME} makes {TEST} samples or more, one in {TEST} for test, not {request.samples}")
        seen = np.random.default_rng(request.seed).random((request.samples, self.agents))
        seen[:, [SOURCE, self.target]] = 1.0, 0.0
        swapped = seen.copy()
        swapped[:, [SOURCE, self.target]] = 0.0, 1.0
        train = request.samples - request.samples // TEST
        train_part, test_part = slice(train), slice(train, None)
        return self._part(request, seen, swapped, train_part), self._part(request, seen, swapped, test_part)

    def _part(self, request: Request, seen: np.ndarray, swapped: np.ndarray, rows: slice) -> Split:
        return request.split(
            seen[rows], None, {agent: swapped[rows, agent : agent + 1] for agent in range(self.agents)}
        )
