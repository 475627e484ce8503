"""Experiment 2: the same 8 agents on six graphs."""

from __future__ import annotations

from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.table import accuracy, listed, median_range

DATA = ("double_circles", "swiss_roll")
GRAPHS = ("ring:8", "complete:8", "path:8", "star:8", "grid:2x4", "hypercube:3")


def _cell(data: str, graph: str) -> Cell:
    return Cell({"data": data, "graph": graph}, f"{data}_ring8.toml", (f"graph={graph}",))


def _table(found: Findings) -> str:
    return listed(found, ["data", "graph"])


def _headline(found: Findings) -> str:
    """Medians and the worst seed of all graphs, and what the cheapest and the dearest graph send."""
    worst = accuracy(min(finding.worst for finding in found))
    fewest, *_, most = sorted(found, key=lambda finding: finding.bytes_per_step)
    return f"medians {median_range(found)}, worst seed {worst}; bytes a step {_sent(fewest)} to {_sent(most)}"


def _sent(finding: Finding) -> str:
    return f"{finding.bytes_per_step:,.0f} ({finding.cell.labels['graph']})"


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
    headline=_headline,
    seeds=5,
)
