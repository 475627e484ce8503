"""Numbers over epochs, steps or rates, a line for each name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hdnn_dist.plots.style import GRID, colour, dress, legend_below, marker, new_figure, plain_numbers, save

Points = tuple[Sequence[float], Sequence[float | None]]
SIZE = (7.2, 4.8)  # inches
MARKED = 20  # points; lines of more have no markers
DASHES = ("-", "--", ":", "-.")


def draw_series(
    series: Mapping[str, Points],
    path: str | Path,
    *,
    title: str,
    x: str,
    y: str,
    log: bool = False,
    log_x: bool = False,
    at: float | None = None,
) -> Path:
    """Draw lines (x, y) by their names; what is None or not finite is left out.

    ``x``, ``y``: what the axes are; ``log``: a logarithmic axis upwards, where all values are positive; ``log_x``: one
    to the right; ``at``: where to draw an upright line.
    """
    figure = new_figure(SIZE)
    axes = figure.subplots()
    dress(axes, title)
    for number, (name, points) in enumerate(series.items()):
        _draw(axes, number, name, points)
    if at is not None:
        axes.axvline(at, color=colour(6), linewidth=1.0, linestyle=":", label=f"{at:.3g}")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color=GRID, linewidth=0.8)
    _scale(axes, log, log_x)
    legend_below(figure)
    return save(figure, path)


def _draw(axes: Axes, number: int, name: str, points: Points) -> None:
    known = [
        (at, value) for at, value in zip(*points, strict=True) if value is not None and np.isfinite([at, value]).all()
    ]
    if not known:
        return
    look: dict[str, Any] = {"color": colour(number), "linestyle": DASHES[number // 8 % len(DASHES)]}
    if len(known) <= MARKED:
        look |= {"marker": marker(number), "markersize": 3.5}
    axes.plot(*zip(*known, strict=True), label=f"{name}: {known[-1][1]:.4g}", **look)


def _scale(axes: Axes, log: bool, log_x: bool) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.ones(1)])
    if log and values.min() > 0:
        axes.set_yscale("log")
        plain_numbers(axes)
    if log_x:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
