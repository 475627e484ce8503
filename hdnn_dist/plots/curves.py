"""Loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hdnn_dist.plots.style import PALETTE, Array, dress, save


def draw_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw loss and accuracy against the epoch.

    ``metrics``: a row an epoch with ``epoch`` and any of ``loss``, ``train_accuracy``, ``test_accuracy``; a value that
    is missing, None or not finite is left out. The loss has a logarithmic axis when all of it is positive.
    """
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = _draw_series(left, metrics, "loss", PALETTE[0])
    _draw_series(right, metrics, "train_accuracy", PALETTE[0])
    _draw_series(right, metrics, "test_accuracy", PALETTE[1])
    if len(losses) and losses.min() > 0:
        left.set_yscale("log")
    for axes, title in ((left, "Loss"), (right, "Accuracy")):
        dress(axes, title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#E3E5E8", linewidth=0.8)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    return save(figure, path)


def _draw_series(axes: Axes, metrics: Sequence[Mapping[str, Any]], key: str, colour: str) -> Array:
    """Draw one column of the metrics, if there is any of it, and return it."""
    rows = [(row["epoch"], row[key]) for row in metrics if row.get(key) is not None and np.isfinite(row[key])]
    epochs, values = np.array(rows, dtype=float).reshape(-1, 2).T
    if rows:
        label = f"{key.removesuffix('_accuracy')}, last {values[-1]:.4g}"
        axes.plot(epochs, values, "o-" if len(rows) <= 20 else "-", color=colour, markersize=3.5, label=label)
    return values
