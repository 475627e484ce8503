"""What was predicted against what was true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hdnn_dist.plots.style import EDGE, GRID, PALETTE, legend_below, save, square_figure


def draw_predictions(true: ArrayLike, predicted: ArrayLike, path: str | Path, *, title: str) -> Path:
    """Draw ``predicted`` (samples,) against ``true`` (samples,), and the line on which they are the same."""
    x, y = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)
    figure, axes = square_figure(title)
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    axes.plot(ends, ends, color=EDGE, linewidth=1.0, label="as true")
    axes.plot(x, y, "o", color=PALETTE[0], markersize=3.0, markeredgewidth=0, alpha=0.6, label="a test sample")
    axes.set(xlabel="true", ylabel="predicted")
    axes.grid(color=GRID, linewidth=0.8)
    legend_below(figure)
    return save(figure, path)
