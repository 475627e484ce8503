"""Where a matrix is not zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from hdnn_dist.plots.style import EDGE, PALETTE, PAPER, Array, legend_below, save, short_name, square_figure

CELLS = 720  # a matrix with more rows is drawn in cells that hold several entries
MOST_NUMBERS = 25  # along an axis
LONGEST_NAME = 12  # characters of an agent's
UPRIGHT = 3  # characters that stand beside each other
LINED_BLOCKS = 64  # the lines between more blocks than this would hide the pattern


def draw_sparsity(
    K: ArrayLike,
    path: str | Path,
    *,
    block_starts: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Sparsity of K",
) -> Path:
    """Draw where ``K``, (rows, columns) of bool or float, is not zero.

    ``block_starts``: the first row (and column) of the block of each agent; agents are then what the axes count, and
    lines are drawn between the blocks where they are few. ``names``: of the agents, their numbers unless given. In a
    large matrix a cell of the picture is filled when any entry under it is not zero. Raises ``ValueError`` when ``K``
    is no matrix or is empty.
    """
    pattern = np.asarray(K) != 0
    if pattern.ndim != 2 or pattern.size == 0:
        raise ValueError(f"K has shape {pattern.shape}: expected a matrix (rows, columns) with entries")
    rows, columns = pattern.shape
    filled = int(pattern.sum())
    figure, axes = square_figure(f"{title}\n{rows} x {columns}, {filled} nonzero ({filled / pattern.size:.2%})")
    axes.set_facecolor(PAPER)
    axes.imshow(
        _coarsen(_coarsen(pattern, 0), 1),
        extent=(0, columns, rows, 0),
        cmap=ListedColormap(["none", PALETTE[0]]),
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    if block_starts is None:
        axes.set(xlabel="column", ylabel="row")
    else:
        axes.set(xlabel="agent whose block of the state is read", ylabel="agent that owns the rows")
        called = [short_name(str(name), LONGEST_NAME) for name in names or range(len(block_starts))]
        _mark_blocks(axes.xaxis, block_starts, columns, called)
        _mark_blocks(axes.yaxis, block_starts, rows, called)
        axes.tick_params(axis="x", rotation=90 if max(map(len, called)) > UPRIGHT else 0)
    axes.plot([], [], "s", color=PALETTE[0], label="may be nonzero")
    axes.plot([], [], "s", color=PAPER, markeredgecolor=EDGE, label="always zero")
    legend_below(figure)
    return save(figure, path)


def _mark_blocks(axis: Axis, starts: Sequence[int], length: int, names: Sequence[str]) -> None:
    """The names of agents at the middle of their blocks, of every second, fifth, ... where they are many; lines."""
    edges = np.append(starts, length)
    apart = next(
        step
        for decade in (1, 10, 100, 1000, 10000)
        for step in (decade, 2 * decade, 5 * decade)
        if MOST_NUMBERS * step >= len(starts)
    )
    numbered = list(range(0, len(starts), apart))
    axis.set_ticks((edges[:-1] + edges[1:])[numbered] / 2, labels=[names[agent] for agent in numbered])
    for text in axis.get_ticklabels():
        text.set_parse_math(False)  # a name may have dollar signs
    if len(starts) <= LINED_BLOCKS:
        axis.set_ticks(edges[1:-1], minor=True)
        axis.set_tick_params(which="minor", length=0)
        axis.grid(visible=True, which="minor", color="white", linewidth=1.0)


def _coarsen(pattern: Array, axis: int) -> Array:
    """At most CELLS cells along ``axis``, each true when any entry under it is."""
    length = pattern.shape[axis]
    if length <= CELLS:
        return pattern
    starts = np.linspace(0, length, CELLS, endpoint=False).astype(int)
    return np.logical_or.reduceat(pattern, starts, axis=axis)
