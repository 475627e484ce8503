"""Experiment 3: MNIST as published, a convolution to 8 channels and layers at every pixel; the channels are agents."""

from __future__ import annotations

from pathlib import Path

from hdnn_dist.experiments.cells import Cell, Experiment, Findings
from hdnn_dist.experiments.depth import accuracy_axis, depth_lines
from hdnn_dist.experiments.table import grouped, median_range, pivoted
from hdnn_dist.plots.lines import draw_lines

ARCHITECTURES = ("MS1", "H1-J1", "H1-J2", "H2")
LAYERS = (2, 4, 8)


def _cell(architecture: str, layers: int) -> Cell:
    overrides = (f"network.architecture={architecture}", f"network.layers={layers}")
    return Cell({"architecture": architecture, "layers": layers}, "mnist_channels.toml", overrides)


def _table(found: Findings) -> str:
    return pivoted(found, ["architecture"], "layers")


def _headline(found: Findings) -> str:
    """The range of the architectures at each depth."""
    depths = grouped(found, ["layers"]).items()
    return ", ".join(f"{median_range(same)} at {layers} layers" for (layers,), same in depths)


def _draw(found: Findings, path: Path) -> Path:
    return draw_lines({"MNIST": depth_lines(found, "architecture")}, path, x="layers", y=accuracy_axis(found))


EXPERIMENT = Experiment(
    name="mnist_channels",
    title="MNIST, channels as agents",
    compares=(
        "A 3 x 3 convolution makes 8 channels of an image, the layers act on the channels at every pixel, and a linear "
        "head reads them all; the channels belong to 4 agents on a ring, two each. Step, data, seeds and optimiser are "
        "the same throughout, so columns differ in depth and lines in architecture alone."
    ),
    cells=tuple(_cell(architecture, layers) for architecture in ARCHITECTURES for layers in LAYERS),
    table=_table,
    headline=_headline,
    draw=_draw,
    seeds=1,
    reads_files=True,
)
