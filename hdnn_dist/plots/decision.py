"""What a network decides over a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from hdnn_dist.plots.plane import check_plane
from hdnn_dist.plots.style import INK, Array, colour, legend_below, marker, save, square_figure


def draw_decision(
    grid_x: ArrayLike,
    grid_y: ArrayLike,
    probability: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    path: str | Path,
    *,
    title: str = "Decision regions",
    axes_show: tuple[str, str] = ("column 0", "column 1"),
) -> Path:
    """Draw what the network decides over a plane, and the points it was tested on.

    ``title``: with a second line that says which points these are; ``axes_show``: what each axis is.

    ``grid_x``: (nx,), ``grid_y``: (ny,). ``probability``: (ny, nx), floats for the probability of class 1, or
    integers for the class itself. ``inputs``: (points, 2). ``labels``: (points,) class numbers. Raises ``ValueError``
    when these shapes do not fit together.
    """
    x, y, value = np.asarray(grid_x), np.asarray(grid_y), np.asarray(probability)
    points, classes = np.asarray(inputs), np.asarray(labels).astype(int)
    check_plane(x, y, points, ("probability", value), ("labels", classes))
    figure, axes = square_figure(title)
    if np.issubdtype(value.dtype, np.floating):
        _draw_probability(figure, axes, x, y, value)
    else:
        _draw_classes(axes, x, y, value)
    _draw_points(axes, points, classes)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    axes.set_xlabel(axes_show[0], parse_math=False)
    axes.set_ylabel(axes_show[1], parse_math=False)
    legend_below(figure)
    return save(figure, path)


def _draw_probability(figure: Figure, axes: Axes, x: Array, y: Array, probability: Array) -> None:
    shades = LinearSegmentedColormap.from_list("classes", ["#9CCBE6", "#FFFFFF", "#F5BE9B"])
    image = axes.pcolormesh(x, y, probability, cmap=shades, vmin=0, vmax=1, shading="gouraud", rasterized=True)
    if probability.min() < 0.5 < probability.max():
        axes.contour(x, y, probability, levels=[0.5], colors=INK, linewidths=1.0)
        axes.plot([], [], color=INK, linewidth=1.0, label="boundary, probability 0.5")
    figure.colorbar(image, ax=axes, label="probability of class 1", shrink=0.7, aspect=30)


def _draw_classes(axes: Axes, x: Array, y: Array, classes: Array) -> None:
    shades = ListedColormap([colour(index) for index in range(int(classes.max()) + 1)])
    look: dict[str, Any] = {"alpha": 0.35, "shading": "nearest", "rasterized": True}
    axes.pcolormesh(x, y, classes, cmap=shades, vmin=0, vmax=shades.N - 1, **look)


def _draw_points(axes: Axes, points: Array, classes: Array) -> None:
    size = float(np.clip(70.0 / np.sqrt(max(len(points), 1)), 1.8, 5.0))
    for index in np.unique(classes):
        x, y = points[classes == index].T
        axes.plot(x, y, marker(index), markersize=size, color=colour(index), markeredgewidth=0)
        axes.plot([], [], marker(index), markersize=6.0, color=colour(index), markeredgewidth=0, label=f"class {index}")
