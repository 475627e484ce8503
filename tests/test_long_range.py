"""Training on many graphs: unions are what their graphs are, and a small task is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hdnn_dist import HDNN, connect, place
from hdnn_dist.experiments.graph_batches import SIZE, GraphSet, diameters
from hdnn_dist.experiments.long_range import EXPERIMENT
from hdnn_dist.experiments.many_graphs import errors, train_on_graphs
from hdnn_dist.graph.families import FAMILIES, draw_graphs
from hdnn_dist.graph.union import union

SMALL = (
    "graph=drawn:2,4", "data.samples=24", "epochs=25", "network.layers=4", "network.kernel=torch",
    "network.features=8", "optimizer.learning_rate=0.01",
)  # fmt: skip


@pytest.mark.parametrize("normalisation", ["sum", "symmetric"])
def test_a_union_gives_what_its_graphs_give(normalisation: str) -> None:
    graphs = draw_graphs(6, 1, (2, 5))
    joined = union(graphs)
    given: dict[str, Any] = {"features": 4, "layers": 3, "step": 0.5, "normalisation": normalisation}
    given |= {"dtype": torch.float64, "kernel": "torch"}
    with connect("local") as world:
        all_of_them = HDNN(place(joined.graph, world), pattern=joined.pattern, shared=True, **given)
        x = torch.randn(2, joined.graph.agents, 4, dtype=torch.float64)
        together = all_of_them(x.flatten(1)).unflatten(1, (-1, 4))
        for graph, start in zip(graphs, joined.starts.tolist(), strict=False):
            alone = HDNN(place(graph, world), shared=all_of_them.shared, **given)
            here = slice(start, start + graph.agents)
            found = alone(x[:, here].flatten(1)).unflatten(1, (-1, 4))
            torch.testing.assert_close(together[:, here], found, rtol=1e-10, atol=1e-10)


def test_distances_of_other_graphs_are_learned() -> None:
    config = EXPERIMENT.cells[0].with_settings(SMALL).settings(seed=0)
    result = train_on_graphs(config)
    assert set(result.figures) == {"H2", "constant", *(f"H2 {family}" for family in FAMILIES)}
    assert result.figures["H2"] < 0.6 * result.figures["constant"]
    assert result.messages_per_step > 0


def test_what_is_told_of_a_graph_is_read_from_the_sum_over_its_agents() -> None:
    config = EXPERIMENT.cells[2].with_settings(SMALL).settings(seed=0)
    with connect("local") as world:
        (batch,) = GraphSet(config, world, len(FAMILIES)).test
    x, targets = batch.draw(np.random.default_rng(0))
    diameters_of_all = torch.tensor([float(graph.diameter) for graph in batch.graphs])
    torch.testing.assert_close(targets, diameters_of_all.expand_as(targets))
    states = batch.net(x).unflatten(1, (-1, 8))
    first = batch.head(states[:, : batch.graphs[0].agents].sum(1) / SIZE).squeeze(-1)
    torch.testing.assert_close(batch.predict(x)[:, 0], 10 * first)
    found = errors([batch], config.seed, 2.0)
    assert found["constant"] == pytest.approx(float((diameters_of_all - 2).abs().mean()))


@pytest.mark.parametrize("spec", ["ring:8", "drawn:3", "drawn:3,x", "drawn"])
def test_diameters_are_two_numbers(spec: str) -> None:
    with pytest.raises(ValueError, match="LEAST,MOST"):
        diameters(spec)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("data.samples=6", "24 at least"), ("network.features=[2, 4]", "one number"), ("data.name=girth", "girth")],
)
def test_a_config_that_cannot_be_trained_is_refused(setting: str, said: str) -> None:
    config = EXPERIMENT.cells[0].with_settings([*SMALL, setting]).settings(seed=0)
    with pytest.raises(ValueError, match=said):
        train_on_graphs(config)
