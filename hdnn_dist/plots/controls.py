"""What each control of explosion does and costs, a column for each control, a row for each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from hdnn_dist.plots.style import GRID, PALETTE, dress, new_figure, plain_numbers, save

COST = "test_accuracy"
FIGURES = {
    "norm": "2-norm of d y_N / d y_0\n(last by first state)",
    "log10_upper_bound": "log10 of the upper\nbound of that norm",
    "differences": "squared differences\nof neighbouring layers",
    "weights": "sum of squares\nof the weights",
    COST: "the cost:\ntest accuracy",
}
LINEAR = ("log10_upper_bound", COST)


def draw_controls(controls: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw every figure against the strength of a control.

    ``controls``: for each its ``key`` in the config, the ``network`` it was set on, and ``rows`` with ``control``,
    ``strength`` (None without it) and the figures above, None where there is none. Columns of one network share their
    scales.
    """
    figure = new_figure((1.9 * len(controls) + 0.8, 9.2))
    grid = figure.subplots(len(FIGURES), len(controls), squeeze=False)
    networks = [control["network"] for control in controls]
    for line, (key, label) in enumerate(FIGURES.items()):
        for column, control in enumerate(controls):
            axes, first = grid[line, column], networks.index(networks[column])
            if first < column:
                axes.sharey(grid[line, first])
                axes.tick_params(which="both", labelleft=False)
            _draw_column(axes, control["rows"], key, PALETTE[first % len(PALETTE)])
        grid[line, 0].set_ylabel(label)
    for axes, control in zip(grid[0], controls, strict=True):
        axes.set_title(f"{control['rows'][0]['control']}\n{control['network']}", fontsize=9)
    for axes, control in zip(grid[-1], controls, strict=True):
        axes.set_xlabel(control["key"], fontsize=9)
    figure.supxlabel("value of the key in the config, from no control to a strong one; h is the step size", fontsize=10)
    return save(figure, path)


def _draw_column(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, colour: str) -> None:
    dress(axes, "")
    places = range(len(rows))
    axes.set_xlim(-0.3, len(rows) - 0.7)
    axes.set_xticks(places, ["none" if row["strength"] is None else f"{row['strength']:g}" for row in rows])
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    known = [(place, row[key]) for place, row in enumerate(rows) if row[key] is not None]
    if not known:
        axes.text(0.5, 0.5, "not trained", ha="center", va="center", fontsize=9, transform=axes.transAxes)
        axes.set_yticks([])
        return
    axes.plot(*zip(*known, strict=True), "o-", color=colour, markersize=4)
    if key not in LINEAR:
        axes.set_yscale("log")
        plain_numbers(axes)
