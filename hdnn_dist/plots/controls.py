"""What each control of explosion does, a column for each control, a row for each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from hdnn_dist.plots.style import PALETTE, dress, save

FIGURES = {
    "norm": "2-norm of\nd y$_N$ / d y$_0$",
    "log10_upper_bound": "log10 of its\nupper bound",
    "differences": "squared differences\nof the layers",
    "weights": "squares of\nthe weights",
}
LINEAR = "log10_upper_bound"


def draw_controls(tables: Sequence[Sequence[Mapping[str, Any]]], networks: Sequence[str], path: str | Path) -> Path:
    """Draw every figure against the strength of a control.

    ``tables``: for each control its rows, with ``control``, ``strength`` (None without it) and the figures above.
    ``networks``: for each control the network it was set on; columns of one network share their scales.
    """
    figure = Figure(figsize=(1.9 * len(tables) + 0.8, 7.4), layout="constrained")
    grid = figure.subplots(len(FIGURES), len(tables), squeeze=False)
    for line, (key, label) in enumerate(FIGURES.items()):
        for column, rows in enumerate(tables):
            axes, first = grid[line, column], networks.index(networks[column])
            if first < column:
                axes.sharey(grid[line, first])
                axes.tick_params(labelleft=False)
            _draw_column(axes, rows, key, PALETTE[first % len(PALETTE)])
        grid[line, 0].set_ylabel(label)
    for axes, rows, network in zip(grid[0], tables, networks, strict=True):
        axes.set_title(f"{rows[0]['control']}\n{network}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("strength")
    return save(figure, path)


def _draw_column(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, colour: str) -> None:
    dress(axes, "")
    places = range(len(rows))
    axes.plot(places, [row[key] for row in rows], "o-", color=colour, markersize=4)
    if key != LINEAR:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    axes.set_xlim(-0.3, len(rows) - 0.7)
    axes.set_xticks(places, ["none" if row["strength"] is None else f"{row['strength']:g}" for row in rows])
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(color="#E3E5E8", linewidth=0.8)
