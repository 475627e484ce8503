"""Experiment 7: one sensor of a network predicts what it will measure next, beside the last value."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hdnn_dist.experiments.baselines import centralised
from hdnn_dist.experiments.cells import Cell, Experiment, Findings
from hdnn_dist.experiments.table import median_figure, seconds
from hdnn_dist.support.markdown import plain_table
from hdnn_dist.training.job import Job

METHODS = {
    "H2": "H2, a sensor an agent",
    "MLP": "MLP that sees all sensors",
    "last": "the last value of the sensor itself",
    "mean": "mean of the training samples",
}


def measure(job: Job) -> Mapping[str, float]:
    """Mean absolute errors of the predicting sensor over the test samples, by method."""
    (agent,) = job.about.targets or {}
    (inputs, answers), (test, known) = job.train.whole(), job.test.whole()
    with torch.no_grad():
        ours = torch.cat([job.head(job.forward(part)) for part in test.split(500)])
    predicted = {
        "H2": ours,
        "MLP": centralised(inputs, answers, test, job.config.seed),
        "last": test[:, [_column(job, agent)]],
        "mean": answers.mean(0).expand_as(known),
    }
    return {name: float((found - known).abs().mean()) for name, found in predicted.items()}


def _column(job: Job, agent: int) -> int:
    """Where what an agent measures lies among the inputs."""
    return int(job.net.features[:agent].sum())


def _table(found: Findings) -> str:
    took = seconds(found[0].seconds)  # of our own training alone
    rows = [[title, median_figure(found[0], key), took if key == "H2" else ""] for key, title in METHODS.items()]
    return plain_table(["predicted by", "error", "seconds"], rows)


def _headline(found: Findings) -> str:
    shown = [
        f"{name} {median_figure(found[0], key, worst=False)}" for key, name in (("H2", "H2"), ("last", "last value"))
    ]
    return f"mean absolute error: {', '.join(shown)}"


EXPERIMENT = Experiment(
    name="sensors",
    title="A sensor predicts what it will measure next",
    compares=(
        "Heat spreads over the 37 nodes of the research network GEANT as of 2010, from the Internet Topology Zoo. "
        "Every node is a sensor that measures its own value, with noise; the one in the middle predicts its value "
        "three steps later, and it alone knows the answers. Beside it, on the same 2000 test samples: a centralised "
        "multilayer perceptron that sees all sensors, the last value of the sensor itself, and the mean. Mean "
        "absolute errors."
    ),
    cells=(Cell({"graph": "Geant2010"}, "sensors_geant37.toml"),),
    table=_table,
    headline=_headline,
    measure=measure,
    judged_by="Mean absolute errors on the test samples after the last epoch",
    seeds=3,
)
