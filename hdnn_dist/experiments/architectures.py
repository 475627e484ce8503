"""Experiment 1: the architectures against each other at five depths, with 4 features in all and a dense K."""

from __future__ import annotations

from pathlib import Path

from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.depth import accuracy_axis, depth_panels
from hdnn_dist.experiments.table import accuracy, grouped, pivoted
from hdnn_dist.plots.lines import draw_lines

DATA = ("swiss_roll", "double_moons")
ARCHITECTURES = ("MS1", "MS2", "MS3", "H1-J1", "H1-J2", "H2")
LAYERS = (4, 8, 16, 32, 64)


def _cell(data: str, architecture: str, layers: int) -> Cell:
    overrides = (
        f"data.name={data}",
        f"network.architecture={architecture}",
        f"network.layers={layers}",
        f"network.step={round(_step(layers), 4)}",
    )
    return Cell({"data": data, "architecture": architecture, "layers": layers}, "four_features.toml", overrides)


def _step(layers: int) -> float:
    """The step at which the initial weights, drawn anew in each layer, move the state equally far at every depth.

    Independent moves add up like a random walk: step times the root of layers is 1.
    """
    return layers**-0.5


def _table(found: Findings) -> str:
    """The architectures and, below them, the best median of each data set at each depth."""
    return pivoted(found, ["data", "architecture"], "layers") + "\n" + "\n".join(_best(found))


def _best(found: Findings) -> list[str]:
    lines = []
    for (data,), group in grouped(found, ["data"]).items():
        best = [_highest(same) for same in grouped(group, ["layers"]).values()]
        shown = [f"{accuracy(finding.median)} {finding.cell.labels['architecture']}" for finding in best]
        lines.append(f"| {data} | best | {' | '.join(shown)} | |")
    return lines


def _highest(found: Findings) -> Finding:
    """The highest median, of the fewest layers that reach it."""
    return max(found, key=lambda finding: (finding.median, -finding.cell.labels["layers"]))


def _headline(found: Findings) -> str:
    """The best median of each data set at any depth, and that of H2."""
    return "; ".join(_summed_up(data, group) for (data,), group in grouped(found, ["data"]).items())


def _summed_up(data: str, found: Findings) -> str:
    best = _highest(found)
    h2 = _highest([finding for finding in found if finding.cell.labels["architecture"] == "H2"])
    layers = best.cell.labels["layers"]
    return f"{data}: best {accuracy(best.median)}, first at {layers} layers, H2 {accuracy(h2.median)}"


def _draw(found: Findings, path: Path) -> Path:
    panels = depth_panels(found, "data", "architecture")
    return draw_lines(panels, path, x="layers", y=accuracy_axis(found))


EXPERIMENT = Experiment(
    name="architectures",
    title="Architectures and depth",
    compares=(
        "Two spirals and four half moons, 4 features in all and a dense K (two agents, each of which sees one "
        "coordinate). The step is one over the root of the number of layers; data, seeds and optimiser are the same "
        "throughout, so columns differ in depth and lines in architecture alone."
    ),
    cells=tuple(_cell(data, name, layers) for data in DATA for name in ARCHITECTURES for layers in LAYERS),
    table=_table,
    headline=_headline,
    draw=_draw,
)
