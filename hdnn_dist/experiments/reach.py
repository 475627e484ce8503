"""Experiment 5: digits with a pixel an agent, read at one corner: how depth buys reach.

``all pixels``: pixel i enters at agent i. ``far pixels``: the image is cut into 16 patches of 2 x 2 pixels, which enter
at the 16 agents that are farthest from the one that is read, so that nothing is known of the digit near it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hdnn_dist.analysis.check import check_config
from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.depth import accuracy_axis, depth_panels
from hdnn_dist.experiments.table import accuracy, grouped, median_and_worst, median_range, pivoted
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.lines import draw_lines

GRAPHS = ("grid:8x8", "torus:8x8", "watts_strogatz:64,4,0.1,0")
LAYERS = (1, 2, 4, 8, 16, 32)
READER, FAR_AGENTS = 0, 16
SIDE, PATCH = 8, 2  # pixels
CHANCE = 0.1
ENTERED = {"all": "a pixel at each agent", "far": "pixels at the farthest agents"}
TIME, LARGEST_STEP = 6.4, 1.0  # layers times step, as in the config, while the step is not larger than this


def _cells(graph: str) -> list[Cell]:
    distance = CommunicationGraph.parse(graph).hops([READER])
    farthest = np.argsort(distance, kind="stable")[-FAR_AGENTS:].tolist()
    far = f"data.columns={_patches_at(farthest)}"
    return [
        Cell(
            {"graph": graph, "pixels": pixels, "nearest": nearest, "layers": layers},
            "digits_grid64.toml",
            (f"graph={graph}", f"network.layers={layers}", f"network.step={_step(layers)}", *overrides),
        )
        for pixels, nearest, overrides in (("all", 0, ()), ("far", int(distance[farthest[0]]), (far,)))
        for layers in LAYERS
    ]


def _step(layers: int) -> float:
    """The same time at every depth: with the step of a deep network, a shallow one passes on too little to learn."""
    return min(TIME / layers, LARGEST_STEP)


def _patches_at(agents: list[int]) -> str:
    """Which agent sees which patch, as TOML."""
    patches = np.arange(SIDE * SIDE).reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH)
    rows = patches.transpose(0, 2, 1, 3).reshape(FAR_AGENTS, -1).tolist()
    return "{" + ", ".join(f"{agent} = {row}" for agent, row in zip(agents, rows, strict=True)) + "}"


def _seen(cell: Cell) -> tuple[int, int]:
    """How many of the agents with pixels the readout can see, and how many there are."""
    config = cell.settings(seed=0)
    checked = check_config(config, CommunicationGraph.parse(config.graph))
    return len(checked.inputs) - len(checked.unreached), len(checked.inputs)


def _table(found: Findings) -> str:
    return pivoted(found, ["graph", "pixels", "nearest"], "layers", _accuracy_and_seen)


def _accuracy_and_seen(finding: Finding) -> str:
    seen, there = _seen(finding.cell)
    return f"{median_and_worst(finding)}, {seen} of {there}"


def _headline(found: Findings) -> str:
    """The best depth of each graph and of each place of the pixels, and what is guessed without a pixel in reach."""
    rows = grouped(found, ["graph", "pixels"]).values()
    best = median_range([max(row, key=lambda finding: finding.median) for row in rows])
    blind = max(finding.median for finding in found if _seen(finding.cell)[0] == 0)
    return f"{best} at the best depth; at most {accuracy(blind)} with no pixel in reach"


def _draw(found: Findings, path: Path) -> Path:
    panels = {f"digits, {ENTERED[pixels]}": lines for pixels, lines in depth_panels(found, "pixels", "graph").items()}
    return draw_lines(panels, path, x="layers", y=accuracy_axis(found), level=("chance, a tenth", CHANCE))


EXPERIMENT = Experiment(
    name="reach",
    title="How depth buys reach",
    compares=(
        "The 8 x 8 digits on 64 agents; the digit is read at agent 0 alone, a corner of the grid. `all`: a pixel an "
        "agent. `far`: all 64 pixels enter at the 16 agents farthest from agent 0, 4 each; `nearest` is the distance "
        "from it in hops. A layer of H2 carries information 4 hops, the first one 2 since pixels enter in p: N layers "
        "reach 4 N - 2 hops. The lines differ in the graph and in where pixels enter, the columns in depth; layers "
        f"times step is {TIME:g}, the step at most {LARGEST_STEP:g}. Behind the accuracy: how many of "
        "the agents with pixels the readout can see, as `hdnn-dist check` finds; where it sees none the accuracy is "
        "chance, a tenth."
    ),
    cells=tuple(cell for graph in GRAPHS for cell in _cells(graph)),
    table=_table,
    headline=_headline,
    draw=_draw,
)
