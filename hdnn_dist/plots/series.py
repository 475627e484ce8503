"""Numbers over epochs, steps or rates, a line for each name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hdnn_dist.plots.style import GRID, colour, dress, legend_below, marker, new_figure, plain_numbers, save

Points = tuple[Sequence[float], Sequence[float | None]]
WIDTH, HEIGHT = 7.2, 4.8  # inches of a panel
MARKED = 20  # points; lines of more have no markers
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Panel:
    """``series``: name -> (x, y), where what is None or not finite is left out; ``y``: what the axis upwards is.

    ``log``: it is logarithmic, where all values are positive; ``last``: whether the legend tells the last values.
    """

    title: str
    series: Mapping[str, Points]
    y: str
    log: bool = False
    last: bool = True


def draw_series(panel: Panel, path: str | Path, *, x: str = "epoch") -> Path:
    """Draw one panel against ``x``."""
    return draw_panels([panel], path, x=x)


def draw_panels(panels: Sequence[Panel], path: str | Path, *, x: str = "epoch") -> Path:
    """Draw panels beside each other, with one legend: names have the same colour in all."""
    figure = new_figure((WIDTH * len(panels), HEIGHT))
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        draw_panel(axes, panel)
        axes.set_xlabel(x)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure)
    return save(figure, path)


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Lines, title and scale."""
    dress(axes, panel.title)
    for number, (name, points) in enumerate(panel.series.items()):
        _draw(axes, number, name, points, panel.last)
    axes.set_ylabel(panel.y)
    axes.grid(color=GRID, linewidth=0.8)
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.ones(1)])
    if panel.log and values.min() > 0:
        axes.set_yscale("log")
        plain_numbers(axes)


def _draw(axes: Axes, number: int, name: str, points: Points, last: bool) -> None:
    known = [
        (at, value) for at, value in zip(*points, strict=True) if value is not None and np.isfinite([at, value]).all()
    ]
    if not known:
        return
    look: dict[str, Any] = {"color": colour(number), "linestyle": DASHES[number // 8 % len(DASHES)]}
    if len(known) <= MARKED:
        look |= {"marker": marker(number), "markersize": 3.5}
    axes.plot(*zip(*known, strict=True), label=f"{name}: {known[-1][1]:.4g}" if last else name, **look)
