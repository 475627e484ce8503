"""Loss and accuracy over the epochs, or the error where numbers are learned."""

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
    ``test_accuracy``, and ``metrics`` by name; a value that is missing, None or not finite is left out. Where no row
    has an accuracy but some have errors among the metrics, those are drawn in its place. The loss and errors have a
    logarithmic axis when all of them are positive.
    """
    figure = new_figure((9.6, 4.4))
    left, right = figure.subplots(1, 2)
    losses = _draw_both(left, metrics, "loss", "test_loss")
    _logarithmic(left, losses)
    about = _draw_errors(right, metrics) if _of_numbers(metrics) else _draw_accuracy(right, metrics)
    for axes, (title, height) in ((left, ("Loss", "mean loss of a sample")), (right, about)):
        dress(axes, title)
        axes.set(xlabel="epoch", ylabel=height)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=GRID, linewidth=0.8)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return save(figure, path)


def _of_numbers(metrics: Sequence[Mapping[str, Any]]) -> bool:
    accuracies = [row.get(key) for row in metrics for key in ("train_accuracy", "test_accuracy")]
    return all(value is None for value in accuracies) and any("rmse" in row.get("metrics", {}) for row in metrics)


def _draw_accuracy(axes: Axes, metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Title and label of what was drawn."""
    _draw_both(axes, metrics, "train_accuracy", "test_accuracy")
    return "Accuracy", "share of samples right"


def _draw_errors(axes: Axes, metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Title and label of what was drawn."""
    rows = [{"epoch": row["epoch"], **row.get("metrics", {})} for row in metrics]
    looks = ({"color": PALETTE[1], "linestyle": "--", "marker": "^"}, {"color": PALETTE[2], "marker": "s"})
    named = zip(("rmse", "mae"), ("root of the mean square, test", "mean absolute, test"), looks, strict=True)
    _logarithmic(axes, np.concatenate([_draw_series(axes, rows, key, name, **look) for key, name, look in named]))
    return "Error", "error of a prediction"


def _logarithmic(axes: Axes, values: Array) -> None:
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
        plain_numbers(axes)


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
