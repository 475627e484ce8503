"""Accuracy against depth: a line for each thing that is compared, a panel for each problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hdnn_dist.plots.style import PALETTE, colour, dress, save

PANEL = 4.8, 4.2  # inches
MARKERS = "os^Dv<>P"


@dataclass(frozen=True)
class Line:
    """``y`` against ``x``; a value that is not finite is left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def draw_lines(
    panels: Mapping[str, Sequence[Line]], path: str | Path, *, x: str, y: str, level: tuple[str, float] | None = None
) -> Path:
    """Draw a panel for each title, ``x`` on a logarithmic axis. ``level``: a name and a height, drawn dotted across."""
    figure = Figure(figsize=(PANEL[0] * len(panels), PANEL[1]), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        dress(axes, title)
        _draw_panel(axes, lines)
        if level is not None:
            axes.axhline(level[1], color=PALETTE[6], linewidth=0.8, linestyle=":", label=level[0])
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(frameon=False, fontsize=9)
    return save(figure, path)


def _draw_panel(axes: Axes, lines: Sequence[Line]) -> None:
    for index, line in enumerate(lines):
        values = np.where(np.isfinite(line.y), line.y, np.nan)
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(line.x, values, marker=marker, color=colour(index), label=line.name, markersize=4, linewidth=1.4)
    axes.set_xscale("log", base=2)
    ticks = sorted({position for line in lines for position in line.x})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    axes.grid(color="#E3E5E8", linewidth=0.8)
