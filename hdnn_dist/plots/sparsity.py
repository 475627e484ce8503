"""Where a matrix is not zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from hdnn_dist.plots.style import PALETTE, PAPER, Array, save, square_figure

CELLS = 720  # a matrix with more rows is drawn in cells that hold several entries
LINED_BLOCKS = 64  # the lines between more blocks than this would hide the pattern


def draw_sparsity(
    K: ArrayLike,
    path: str | Path,
    *,
    block_starts: Sequence[int] | None = None,
    title: str = "Sparsity of K",
) -> Path:
    """Draw where ``K``, (rows, columns) of bool or float, is not zero.

    ``block_starts``: the first row (and column) of each block; lines are drawn between the blocks where they
    are few. In a large matrix a cell of the picture is filled when any entry under it is not zero. Raises
    ``ValueError`` when ``K`` is no matrix or is empty.
    """
    pattern = np.asarray(K) != 0
    if pattern.ndim != 2 or pattern.size == 0:
        raise ValueError(f"K has shape {pattern.shape}: expected a matrix (rows, columns) with entries")
    rows, columns = pattern.shape
    filled = int(pattern.sum())
    figure, axes = square_figure(f"{title}\n{rows} x {columns}, {filled} nonzero ({filled / pattern.size:.2%})")
    axes.imshow(
        _coarsen(_coarsen(pattern, 0), 1),
        extent=(0, columns, rows, 0),
        cmap=ListedColormap([PAPER, PALETTE[0]]),
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    if block_starts is not None and len(block_starts) <= LINED_BLOCKS:
        axes.hlines([start for start in block_starts if 0 < start < rows], 0, columns, color="white", linewidth=1.0)
        axes.vlines([start for start in block_starts if 0 < start < columns], 0, rows, color="white", linewidth=1.0)
    axes.set(xlabel="column", ylabel="row")
    return save(figure, path)


def _coarsen(pattern: Array, axis: int) -> Array:
    """At most CELLS cells along ``axis``, each true when any entry under it is."""
    length = pattern.shape[axis]
    if length <= CELLS:
        return pattern
    starts = np.linspace(0, length, CELLS, endpoint=False).astype(int)
    return np.logical_or.reduceat(pattern, starts, axis=axis)
