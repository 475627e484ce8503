"""Experiment 9: two agents swap what they see over lines, rings and crossed rings, with weights that all share."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.table import median_figure, seconds
from hdnn_dist.support.markdown import plain_table
from hdnn_dist.training.job import Job

DISTANCES = (3, 5, 10)
GRAPHS = {"line": "path:{}", "ring": "ring:{}", "crossed ring": "crossed_ring:{}"}
FIELD = {
    "A-DGN": {
        "line": (1.18e-6, 2.95e-6, 1.59e-6),
        "ring": (4.43e-5, 1.01e-3, 4.10e-3),
        "crossed ring": (3.45e-5, 9.88e-5, 3.17e-5),
    },
    "SWAN": {
        "line": (5.22e-7, 4.41e-7, 1.68e-6),
        "ring": (2.71e-5, 2.74e-4, 4.39e-3),
        "crossed ring": (5.83e-7, 1.09e-6, 1.50e-6),
    },
    "GCN": {
        "line": (1.66e-4, 3.65e-3, 1.22e-2),
        "ring": (4.57e-3, 1.65e-2, 4.42e-2),
        "crossed ring": (1.73e-2, 1.68e-2, 3.41e-2),
    },
}  # mean squared errors, from graph_transfer/results of https://github.com/gravins/SWAN


def measure(job: Job) -> Mapping[str, float]:
    """Mean squared errors over all agents and test samples: of H2, and of telling what one sees."""
    test, known = job.test.whole()
    with torch.no_grad():
        told = torch.cat([job.head(job.forward(part)) for part in test.split(500)])
        seen = test[:, :: int(job.net.features[0])]
        return {"H2": float((told - known).square().mean()), "seen": float((seen - known).square().mean())}


def _cell(graph: str, distance: int) -> Cell:
    agents = distance if graph == "line" else 2 * distance
    return Cell(
        {"graph": graph, "distance": distance}, "graph_transfer_ring20.toml", (f"graph={GRAPHS[graph].format(agents)}",)
    )


def _table(found: Findings) -> str:
    head = ["graph", "distance", "H2", "what one sees", *FIELD, "seconds"]
    return plain_table(head, [_row(finding) for finding in found])


def _row(finding: Finding) -> list[str]:
    graph, distance = (str(value) for value in finding.cell.labels.values())
    others = [f"{figures[graph][DISTANCES.index(int(distance))]:.3g}" for figures in FIELD.values()]
    own = [median_figure(finding, "H2"), median_figure(finding, "seen", worst=False)]
    return [graph, distance, *own, *others, seconds(finding.seconds)]


def _headline(found: Findings) -> str:
    ring = next(one for one in found if one.cell.labels == {"graph": "ring", "distance": DISTANCES[-1]})
    return f"mean squared error on the ring at {DISTANCES[-1]} hops: H2 {median_figure(ring, 'H2', worst=False)}"


EXPERIMENT = Experiment(
    name="graph_transfer",
    title="Two agents swap what they see",
    compares=(
        "Every agent sees a number from [0, 1] and tells it; but agent 0, which sees 1, and the agent farthest from "
        "it, which sees 0, tell each other's. Rings and crossed rings of twice as many agents as `distance`, lines of "
        "as many, 1000 samples to train with and 100 for test, drawn as by Gravina et al., AAAI 2025. Mean squared "
        "errors over all agents: of H2 with weights and readout that all agents share, of telling what one sees, and "
        "the published ones, from [the repository of SWAN](https://github.com/gravins/SWAN), on draws of its own and "
        "after up to 2000 epochs in batches of 512, here 300 in batches of 25. What the two have to tell is the same "
        "in every sample: an agent that knows itself by a number close to 0 or 1, or by its one neighbour, can be "
        "right without hearing of the other."
    ),
    cells=tuple(_cell(graph, distance) for graph in GRAPHS for distance in DISTANCES),
    table=_table,
    headline=_headline,
    measure=measure,
    judged_by="Mean squared errors on the test samples after the last epoch",
    seeds=1,
)
