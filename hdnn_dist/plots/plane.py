"""Points in a plane, and what a network makes of the plane behind them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hdnn_dist.plots.style import Array


def check_plane(x: Array, y: Array, points: Array, value: tuple[str, ArrayLike], known: tuple[str, ArrayLike]) -> None:
    """``ValueError`` unless value is (ny, nx) over x (nx,) and y (ny,), and known (points,) for points (points, 2).

    ``value``, ``known``: each with its name.
    """
    (name, over), (of_points, each) = (value[0], np.shape(value[1])), (known[0], np.shape(known[1]))
    if x.ndim != 1 or y.ndim != 1 or over != (y.size, x.size):
        raise ValueError(
            f"{name} has shape {over}, grid_x {x.shape}, grid_y {y.shape}: "
            "expected (ny, nx) over vectors (nx,) and (ny,)"
        )
    if points.ndim != 2 or points.shape[1] != 2 or each != points.shape[:1]:
        raise ValueError(f"inputs have shape {points.shape}, {of_points} {each}: expected (points, 2) and (points,)")
