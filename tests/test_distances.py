"""Tasks about distances on graphs, against networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from hdnn_dist.data.distances import TASKS, draw_samples
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.families import draw_graphs

GRAPHS = [*draw_graphs(6, 2, (4, 9)), CommunicationGraph.path(1), CommunicationGraph.star(5)]


@pytest.mark.parametrize("task", TASKS)
def test_targets_are_those_of_networkx(task: str) -> None:
    for graph in GRAPHS:
        inputs, targets = draw_samples(task, graph, 3, np.random.default_rng(0))
        assert inputs.shape == (3, graph.agents, 2)
        for given, wanted in zip(inputs, targets, strict=True):
            assert wanted.tolist() == _known(task, graph.networkx, given)


def _known(task: str, graph: nx.Graph, given: np.ndarray) -> list[float]:
    sources = np.flatnonzero(given[:, 1])
    assert len(sources) == (task == "sssp")
    if task == "sssp":
        found = nx.single_source_shortest_path_length(graph, int(sources[0]))
        return [found[agent] for agent in sorted(graph)]
    if task == "eccentricity":
        return [nx.eccentricity(graph)[agent] for agent in sorted(graph)]
    return [nx.diameter(graph)] * len(graph)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="eccentricity"):
        draw_samples("girth", GRAPHS[0], 1, np.random.default_rng(0))
