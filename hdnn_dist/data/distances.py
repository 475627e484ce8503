"""What agents of a graph shall find out about distances on it: tasks of the ECHO benchmark.

Every agent sees two numbers: one drawn uniformly from [0, 1], which says nothing, and whether it is the source. It
shall tell its distance from the source, its eccentricity, or the diameter of the graph, in hops.

Source of the tasks: Gravina, Bacciu, Gallicchio, Anti-Symmetric DGN, ICLR 2023; Miglior et al., ICLR 2026.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import named

Values = npt.NDArray[np.float64]
Target = Callable[[CommunicationGraph, int], Values]

INPUTS = 2


def from_source(graph: CommunicationGraph, source: int) -> Values:
    """(agents,) the distance of each agent from the source."""
    return graph.hops([source]).astype(np.float64)


def eccentricity(graph: CommunicationGraph, source: int) -> Values:
    """(agents,) the distance of each agent from the one farthest from it, wherever the source is."""
    return graph.eccentricity.astype(np.float64)


def diameter(graph: CommunicationGraph, source: int) -> Values:
    """(agents,) the largest distance on the graph, which every agent shall tell."""
    return np.full(graph.agents, float(graph.diameter))


TASKS: dict[str, Target] = {"sssp": from_source, "eccentricity": eccentricity, "diameter": diameter}
WITH_SOURCE = ("sssp",)
OF_GRAPHS = ("diameter",)  # one number for a graph


def draw_samples(
    task: str, graph: CommunicationGraph, samples: int, random: np.random.Generator
) -> tuple[Values, Values]:
    """Inputs (samples, agents, 2) and targets (samples, agents), in hops.

    The source of a sample is drawn from all agents; where a task asks for none, there is none.

    Raises ``ValueError`` for an unknown task.
    """
    target = named("task", task, TASKS)
    inputs = np.zeros((samples, graph.agents, INPUTS))
    inputs[..., 0] = random.random((samples, graph.agents))
    if task not in WITH_SOURCE:
        return inputs, np.tile(target(graph, 0), (samples, 1))
    sources = random.integers(graph.agents, size=samples)
    inputs[np.arange(samples), sources, 1] = 1.0
    return inputs, np.stack([target(graph, int(source)) for source in sources])
