"""Experiment 2: the same 8 agents on six graphs."""

from __future__ import annotations

from hdnn_dist.experiments.cells import Cell, Experiment, Findings
from hdnn_dist.experiments.table import listed

DATA = ("double_circles", "swiss_roll")
GRAPHS = ("ring:8", "complete:8", "path:8", "star:8", "grid:2x4", "hypercube:3")


def _cell(data: str, graph: str) -> Cell:
    return Cell({"data": data, "graph": graph}, f"{data}_ring8.toml", (f"graph={graph}",))


def _table(found: Findings) -> str:
    return listed(found, ["data", "graph"])


EXPERIMENT = Experiment(
    name="topologies",
    title="Eight agents on six graphs",
    compares=(
        "One coordinate enters at agent 0, the other at agent 4; 32 layers, all agents in the readout. The lines of a "
        "data set differ in the graph alone: its edges decide which blocks of K there are and who talks to whom. Bytes "
        "are those that agents send their neighbours in a training step, forward and backward."
    ),
    cells=tuple(_cell(data, graph) for data in DATA for graph in GRAPHS),
    table=_table,
    seeds=5,
)
