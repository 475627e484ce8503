"""What a network predicts over a plane, where it has learned numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

from hdnn_dist.plots.plane import check_plane
from hdnn_dist.plots.style import EDGE, save, square_figure

SHADES = "cividis"  # its colours differ in lightness, which everybody sees


def draw_surface(
    grid_x: ArrayLike,
    grid_y: ArrayLike,
    predicted: ArrayLike,
    inputs: ArrayLike,
    targets: ArrayLike,
    path: str | Path,
    *,
    title: str = "Prediction",
    axes_show: tuple[str, str] = ("column 0", "column 1"),
) -> Path:
    """Draw the numbers that are predicted over a plane, and on it the points it was tested on, in the same colours.

    A point that cannot be told from what is behind it is predicted right. ``title``, ``axes_show``: as in
    ``draw_decision``.

    ``grid_x``: (nx,), ``grid_y``: (ny,). ``predicted``: (ny, nx). ``inputs``: (points, 2). ``targets``: (points,).
    Raises ``ValueError`` when these shapes do not fit together.
    """
    x, y, value = np.asarray(grid_x), np.asarray(grid_y), np.asarray(predicted, dtype=float)
    points, given = np.asarray(inputs), np.asarray(targets, dtype=float)
    check_plane(x, y, points, ("predicted", value), ("targets", given))
    figure, axes = square_figure(title)
    ends = np.concatenate([value.ravel(), given])
    scale = Normalize(ends.min(), ends.max())
    image = axes.pcolormesh(x, y, value, shading="gouraud", cmap=SHADES, norm=scale, rasterized=True)
    axes.scatter(points[:, 0], points[:, 1], c=given, s=14, edgecolors=EDGE, linewidths=0.4, cmap=SHADES, norm=scale)
    figure.colorbar(image, ax=axes, label="predicted; of the points: the target", shrink=0.7, aspect=30)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    axes.set_xlabel(axes_show[0], parse_math=False)
    axes.set_ylabel(axes_show[1], parse_math=False)
    return save(figure, path)
