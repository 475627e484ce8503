"""Training on many graphs: unions are what their graphs are, and a small task is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hdnn_dist import HDNN, connect, place
from hdnn_dist.experiments.graph_batches import LESSONS, GraphSet, diameters
from hdnn_dist.experiments.graph_head import SIZE
from hdnn_dist.experiments.long_range import EXPERIMENT
from hdnn_dist.experiments.many_graphs import TAUGHT, _steps, errors, train_on_graphs
from hdnn_dist.graph.families import FAMILIES, draw_graphs
from hdnn_dist.graph.union import union

SMALL = (
    "graph=drawn:2,4", "data.samples=24", "epochs=25", "network.layers=4", "network.kernel=torch",
    "network.features=16", "optimizer.learning_rate=0.01", "batch_size=6",
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
    states = batch.net(x).unflatten(1, (-1, 16))
    hidden = batch.head.hidden(states[:, : batch.graphs[0].agents])
    first = batch.head.last(hidden.sum(1) / SIZE).squeeze(-1)
    torch.testing.assert_close(batch.predict(x)[:, 0], 10 * first)
    found = errors([batch], config.seed, 2.0)
    assert found["constant"] == pytest.approx(float((diameters_of_all - 2).abs().mean()))


def test_an_agent_knows_how_many_neighbours_it_has() -> None:
    config = EXPERIMENT.cells[1].with_settings(SMALL).settings(seed=0)
    with connect("local") as world:
        (batch,) = GraphSet(config, world, len(FAMILIES)).test
    x, _ = batch.draw(np.random.default_rng(0))
    shown = x.unflatten(1, (-1, 2, 8))
    assert torch.equal(shown[:, :, 0], shown[:, :, 1])
    degrees = np.concatenate([graph.degree for graph in batch.graphs])
    assert np.array_equal(shown[0, :, 0, 2:7].argmax(1) + 1, np.minimum(degrees, 5))
    assert not shown[:, :, :, 1].any()  # nobody is the source


def test_lessons_come_first_and_their_graphs_grow() -> None:
    config = EXPERIMENT.cells[1].with_settings([*SMALL, "graph=drawn:6,10,2"]).settings(seed=0)
    with connect("local") as world:
        graphs = GraphSet(config, world, len(FAMILIES))
    assert len(graphs.lessons) == LESSONS
    largest = [max(graph.diameter for batch in lesson for graph in batch.graphs) for lesson in graphs.lessons]
    assert largest == sorted(largest)
    assert largest[0] <= 3
    assert all(graph.diameter >= 6 for batch in (*graphs.train, *graphs.test) for graph in batch.graphs)
    steps = 40
    taught = [batch for batch, _ in _steps(graphs, config.seed, steps)]
    lessons = [batch for lesson in graphs.lessons for batch in lesson]
    assert [any(batch is other for other in lessons) for batch in taught] == [n < TAUGHT * steps for n in range(steps)]
    assert {id(batch) for batch in taught[: steps // 2]} == {id(batch) for batch in lessons}


@pytest.mark.parametrize("spec", ["ring:8", "drawn:3", "drawn:3,x", "drawn", "drawn:3,4,5,6"])
def test_diameters_are_two_numbers(spec: str) -> None:
    with pytest.raises(ValueError, match="LEAST,MOST"):
        diameters(spec)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.samples=6", "24 at least"),
        ("network.features=[2, 4]", "one number"),
        ("network.features=8", "14 at least"),
        ("data.name=girth", "girth"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(setting: str, said: str) -> None:
    config = EXPERIMENT.cells[0].with_settings([*SMALL, setting]).settings(seed=0)
    with pytest.raises(ValueError, match=said):
        train_on_graphs(config)
