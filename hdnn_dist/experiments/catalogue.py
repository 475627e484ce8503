"""All experiments, by name."""

from __future__ import annotations

from hdnn_dist.experiments import (
    architectures,
    graph_transfer,
    long_range,
    mnist_channels,
    mnist_patches,
    power,
    reach,
    sensors,
    topologies,
    transfer,
)
from hdnn_dist.experiments.cells import Experiment
from hdnn_dist.support.arguments import named

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        architectures.EXPERIMENT,
        topologies.EXPERIMENT,
        mnist_channels.EXPERIMENT,
        mnist_patches.EXPERIMENT,
        reach.EXPERIMENT,
        power.EXPERIMENT,
        sensors.EXPERIMENT,
        transfer.EXPERIMENT,
        long_range.EXPERIMENT,
        graph_transfer.EXPERIMENT,
    )
}


def experiment_named(name: str | None) -> Experiment:
    """The experiment of this name. Raises ``ValueError``, with the names there are, for none and for an unknown one."""
    if name is None:
        raise ValueError(f"which experiment? there are {', '.join(EXPERIMENTS)}")
    return named("experiment", name, EXPERIMENTS)
