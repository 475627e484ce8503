"""Loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hdnn_dist.plots.style import GRID, PALETTE, Array, dress, new_figure, plain_numbers, save

TRAINING, TEST = "training, mean over the epoch", "test, after the epoch"


def draw_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw loss and accuracy against the epoch, of training and of the test samples.

    ``metrics``: a row an epoch with ``epoch`` and any of ``loss``, ``test_loss``, ``train_accuracy``,
    ``test_accuracy``; a value that is missing, None or not finite is left out. The loss has a logarithmic axis when all
    of it is positive.
    """
    figure = new_figure((9.6, 4.4))
    left, right = figure.subplots(1, 2)
    losses = _draw_both(left, metrics, "loss", "test_loss")
    _draw_both(right, metrics, "train_accuracy", "test_accuracy")
    if len(losses) and losses.min() > 0:
        left.set_yscale("log")
        plain_numbers(left)
    for axes, title, height in ((left, "Loss", "mean loss of a sample"), (right, "Accuracy", "share of samples right")):
        dress(axes, title)
        axes.set(xlabel="epoch", ylabel=height)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=GRID, linewidth=0.8)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return save(figure, path)


def _draw_both(axes: Axes, metrics: Sequence[Mapping[str, Any]], training: str, test: str) -> Array:
    """Both columns of the metrics, and all their values."""
    return np.concatenate(
        [
            _draw_series(axes, metrics, training, TRAINING, color=PALETTE[0], linestyle="-", marker="o"),
            _draw_series(axes, metrics, test, TEST, color=PALETTE[1], linestyle="--", marker="^"),
        ]
    )


def _draw_series(axes: Axes, metrics: Sequence[Mapping[str, Any]], key: str, name: str, **look: Any) -> Array:
    """Draw one column of the metrics, if there is any of it, and return it."""
    rows = [(row["epoch"], row[key]) for row in metrics if row.get(key) is not None and np.isfinite(row[key])]
    epochs, values = np.array(rows, dtype=float).reshape(-1, 2).T
    if rows:
        size = 3.5 if len(rows) <= 20 else 0.0
        axes.plot(epochs, values, label=f"{name}: {values[-1]:.4g} at the end", markersize=size, **look)
    return values
