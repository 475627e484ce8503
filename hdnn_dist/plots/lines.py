"""Accuracy against depth: a line for each thing that is compared, a panel for each problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hdnn_dist.plots.style import PALETTE, colour, dress, legend_below, marker, save

PANEL = 4.8, 4.2  # inches
LEAST_SPAN = 0.01  # of accuracies; less than that between two lines is chance, and is not blown up


@dataclass(frozen=True)
class Line:
    """``y`` against ``x``; a value that is not finite is a cross at the bottom."""

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
        axes.set(xlabel=x, ylabel=y, ylim=_widened(*axes.get_ylim()))
    legend_below(figure)
    return save(figure, path)


def _draw_panel(axes: Axes, lines: Sequence[Line]) -> None:
    for index, line in enumerate(lines):
        _draw_line(axes, line, index, len(lines) - 1 - index)
    if not all(np.isfinite(line.y).all() for line in lines):
        axes.plot([], [], "x", color=PALETTE[6], markersize=6, label="diverged")
    axes.set_xscale("log", base=2)
    ticks = sorted({position for line in lines for position in line.x})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    axes.grid(color="#E3E5E8", linewidth=0.8)


def _draw_line(axes: Axes, line: Line, index: int, above: int) -> None:
    """The wider the more lines are drawn ``above`` it, so that it shows behind those that it coincides with."""
    look: dict[str, Any] = {"color": colour(index), "markersize": 4 + 0.9 * above}
    known = np.isfinite(line.y)
    values = np.where(known, line.y, np.nan)
    axes.plot(line.x, values, marker=marker(index), linewidth=1.3 + 0.45 * above, label=line.name, **look)
    lost = np.asarray(line.x)[~known]
    if len(lost):
        bottom = np.full(len(lost), 0.04 * (index + 1))
        across = axes.get_xaxis_transform()
        axes.plot(lost, bottom, "x", color=colour(index), markersize=6, transform=across)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Downwards, for accuracies end at 1."""
    spare = max(0.0, LEAST_SPAN - (high - low))
    return low - spare, high + 0.04 * spare
