"""Experiment 6: a power grid whose buses predict their own voltages, beside a centralised network and DC power flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hdnn_dist.data.power_flow import SOLVED, VALUES
from hdnn_dist.data.power_grid import ANSWERS, SAMPLES, SPREAD, TARGETS, Flows, kept, scale
from hdnn_dist.experiments.baselines import centralised
from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.table import median_figure, seconds
from hdnn_dist.support.markdown import plain_table
from hdnn_dist.training.job import Job

METHODS = {
    "H2": "H2, a bus an agent",
    "MLP": "MLP that sees all buses",
    "DC": "DC power flow, magnitude 1",
    "mean": "mean of the training samples",
}
QUANTITIES = {"V": "magnitude, per unit", "angle": "angle, degrees"}

Values = npt.NDArray[np.float64]


def measure(job: Job) -> Mapping[str, float]:
    """Mean absolute errors of magnitudes (per unit) and angles (degrees) over all buses and test samples, by method."""
    flows = _flows(job)
    values = np.stack([flows.bus(bus) for bus in range(job.agents.graph.agents)], axis=1)
    known = values[flows.train :, :, ANSWERS]
    mean, deviation = scale(values[..., ANSWERS], flows.train)
    predicted = {name: mean + deviation * _by_bus(found) for name, found in _learned(job).items()}
    predicted["DC"] = np.stack(
        [np.ones_like(known[..., 0]), values[flows.train :, :, VALUES.index(SOLVED[2])]], axis=-1
    )
    predicted["mean"] = np.broadcast_to(mean, known.shape)
    return {
        f"{name} {quantity}": float(error)
        for name in METHODS
        for quantity, error in zip(QUANTITIES, np.abs(predicted[name] - known).mean((0, 1)), strict=True)
    }


def _flows(job: Job) -> Flows:
    """The states that were trained with, in their own units."""
    data = job.config.data
    samples, spread = data.samples or SAMPLES, SPREAD if data.noise is None else data.noise
    root = None if data.root is None else Path(data.root)
    return kept(job.agents.graph.agents, samples, spread, job.config.seed, root)


def _learned(job: Job) -> dict[str, torch.Tensor]:
    """(test samples, 2 buses), standardised."""
    (inputs, answers), (test, _) = job.train.whole(), job.test.whole()
    with torch.no_grad():
        ours = torch.cat([job.head(job.forward(part)) for part in test.split(500)])
    return {"H2": ours, "MLP": centralised(inputs, answers, test, job.config.seed)}


def _by_bus(predicted: torch.Tensor) -> Values:
    return predicted.double().numpy().reshape(len(predicted), -1, TARGETS)


def _table(found: Findings) -> str:
    head = ["case", "predicted by", *QUANTITIES.values(), "seconds"]
    return plain_table(head, [row for finding in found for row in _rows(finding)])


def _rows(finding: Finding) -> list[list[str]]:
    """One for each method; seconds of our own training alone."""
    case, took = str(finding.cell.labels["case"]), seconds(finding.seconds)
    return [
        [case, title, *(median_figure(finding, f"{name} {q}") for q in QUANTITIES), took if name == "H2" else ""]
        for name, title in METHODS.items()
    ]


def _headline(found: Findings) -> str:
    """Magnitude and angle of each method."""
    shown = [
        f"{name} {median_figure(found[-1], f'{name} V', worst=False)} p.u. and "
        f"{median_figure(found[-1], f'{name} angle', worst=False)} degrees"
        for name in ("H2", "MLP", "DC")
    ]
    return f"IEEE 118: {', '.join(shown)}"


EXPERIMENT = Experiment(
    name="power",
    title="Buses of a power grid predict their own voltages",
    compares=(
        "AC power flow of the IEEE case of 118 buses: random loads, generation and voltage set points, 6000 states to "
        "train with and 2000 for test. Each bus is an agent that knows the active and reactive power that it draws "
        "itself and its own set point, and predicts its voltage magnitude and angle from what travels along lines and "
        "transformers. Beside it, on the same states: a centralised multilayer perceptron that sees all buses at once "
        "(two hidden layers of 256 ReLU), the linear DC power flow (magnitude 1 per unit) and the mean. Mean absolute "
        "errors over buses and test states."
    ),
    cells=(Cell({"case": "IEEE 118"}, "power_ieee118.toml"),),
    table=_table,
    headline=_headline,
    measure=measure,
    judged_by="Mean absolute errors on the test states after the last epoch",
    seeds=1,
)
