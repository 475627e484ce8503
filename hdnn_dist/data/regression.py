"""Numbers to predict, made from a seed: a wavy surface over the plane, and a field that spreads over the graph.

The field u is heat on the agents, a sum of pulses that spread as u' = -L u, with L = I - D^-1 A of the graph: an agent
moves towards the mean of its neighbours. Agents measure u, and predict it at a later time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.source import REGRESSION, Description, Request, Source, Split
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import require_memory

SAMPLES = 4000
FEWEST = 4
HEATED = 0.3  # the share of the agents that get a pulse
BEFORE, AHEAD, STEP = 2, 3, 0.4  # steps before the field is measured, from then to what is predicted; their length

Points = npt.NDArray[np.float64]


class Waves:
    """A source of points in the square [-1, 1]^2 and of z = sin(pi x) cos(pi y) with noise, labels at the root."""

    name = "waves"

    def describe(self, root: Path | None) -> Description:
        return Description(self.name, columns=2, classes=1, samples=SAMPLES, noise=0.1, task=REGRESSION)

    def read(self, request: Request) -> tuple[Split, Split]:
        """Raises ValueError for too few samples and for a width of noise that is none."""
        _check(self.name, request)
        rng = np.random.Generator(np.random.Philox(request.seed))
        points = rng.uniform(-1.0, 1.0, (request.samples, 2))
        clean = np.sin(math.pi * points[:, :1]) * np.cos(math.pi * points[:, 1:])
        heights = clean + (request.noise or 0.0) * rng.uniform(-0.5, 0.5, clean.shape)
        half = request.samples // 2
        return request.split(points[:half], heights[:half]), request.split(points[half:], heights[half:])


@dataclass(frozen=True)
class Diffusion:
    """Data on any graph, a column an agent: with ``everywhere`` each agent predicts its own value, else the centre."""

    name: str
    everywhere: bool

    def on(self, graph: CommunicationGraph) -> Source:
        """The source for this graph."""
        return DiffusingField(self.name, graph, range(graph.agents) if self.everywhere else (graph.centre,))


@dataclass(frozen=True)
class DiffusingField:
    """A source of a field at one time, the columns, and at a later one, the targets of the ``predicting`` agents."""

    name: str
    graph: CommunicationGraph
    predicting: range | tuple[int, ...]

    def describe(self, root: Path | None) -> Description:
        return Description(
            self.name,
            columns=self.graph.agents,
            classes=len(self.predicting),
            samples=SAMPLES,
            noise=0.05,
            task=REGRESSION,
            targets=dict.fromkeys(self.predicting, 1),
        )

    def read(self, request: Request) -> tuple[Split, Split]:
        """Raises ValueError for too few samples, for more than fit, and for a width of noise that is none."""
        _check(self.name, request)
        require_memory(f"{request.samples} fields", 32 * request.samples * self.graph.agents)
        rng = np.random.Generator(np.random.Philox(request.seed))
        now = self._spread(_pulses(rng, request.samples, self.graph.agents), BEFORE)
        later = self._spread(now, AHEAD)
        measured = now + (request.noise or 0.0) * rng.uniform(-0.5, 0.5, now.shape)
        half = request.samples // 2
        return self._split(request, measured[:half], later[:half]), self._split(request, measured[half:], later[half:])

    def _spread(self, field: Points, steps: int) -> Points:
        """The field (samples, agents) some steps later."""
        reader, read = np.concatenate([self.graph.edges, self.graph.edges[:, ::-1]]).T
        degree = np.maximum(np.bincount(reader, minlength=self.graph.agents), 1)
        for _ in range(steps):
            near = np.zeros(field.T.shape)
            np.add.at(near, reader, field.T[read])
            field = (1 - STEP) * field + STEP * near.T / degree
        return field

    def _split(self, request: Request, measured: Points, later: Points) -> Split:
        return request.split(measured, None, {agent: later[:, [agent]] for agent in request.targets})


REGRESSIONS = (Waves(), Diffusion("diffusing_field", everywhere=True), Diffusion("diffusing_sensor", everywhere=False))


def _pulses(rng: np.random.Generator, samples: int, agents: int) -> Points:
    heat = rng.standard_normal((samples, agents))
    return heat * (rng.random((samples, agents)) < HEATED)


def _check(name: str, request: Request) -> None:
    if request.samples < FEWEST:
        raise ValueError(f"{name} makes {FEWEST} samples or more, half of them for test, not {request.samples}")
    if not 0 <= (request.noise or 0.0) < math.inf:
        raise ValueError(f"the noise of {name} must be a width of 0 or more, not {request.noise}")
