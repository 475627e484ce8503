"""Experiment 4: MNIST on 49 agents that see a patch each, read at all of them, at the central one, at a corner."""

from __future__ import annotations

from hdnn_dist.experiments.cells import Cell, Experiment, Findings
from hdnn_dist.experiments.table import accuracy, listed

CONFIGS = {
    "all agents": "mnist_patches.toml",
    "central agent": "mnist_patches_centre.toml",
    "corner agent": "mnist_patches_corner.toml",
}


def _table(found: Findings) -> str:
    return listed(found, ["readout"])


def _headline(found: Findings) -> str:
    """The accuracy of each readout."""
    return ", ".join(f"{finding.cell.labels['readout']} {accuracy(finding.median)}" for finding in found)


EXPERIMENT = Experiment(
    name="mnist_patches",
    title="MNIST, a patch an agent",
    compares=(
        "49 agents on a 7 x 7 grid, each of which sees 4 x 4 pixels and talks to its nearest neighbours only. The "
        "lines differ in the agents whose states are read: all, the central one alone, one corner alone."
    ),
    cells=tuple(Cell({"readout": readout}, config) for readout, config in CONFIGS.items()),
    table=_table,
    headline=_headline,
    seeds=1,
    reads_files=True,
)
