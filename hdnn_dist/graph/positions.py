"""Where agents are drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked_positions(agents: int, positions: ArrayLike | None) -> NDArray[np.float64] | None:
    """x and y of each agent, read-only float64 (agents, 2), or None; ValueError on another shape, NaN and infinity."""
    if positions is None:
        return None
    try:
        array = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError("positions are not numbers; give x and y of each agent, or None") from None
    if array.shape != (agents, 2) or not np.isfinite(array).all():
        raise ValueError(
            f"positions have shape {array.shape}, expected ({agents}, 2), all finite; "
            "give x and y of each agent, or None"
        )
    array.setflags(write=False)
    return array


def circle(n: int) -> NDArray[np.float64]:
    """(n, 2): clockwise on the unit circle from its top."""
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.sin(angle), np.cos(angle)])


def lattice(rows: int, columns: int) -> NDArray[np.float64]:
    """(rows * columns, 2): x to the right, y upwards, so row 0 is at the top."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.column_stack([column, rows - 1 - row]).astype(np.float64)


def cliques(left: int, path: int, right: int) -> NDArray[np.float64]:
    """(left + path + right, 2): circles of ``left`` and of ``right`` agents, and between them a line of ``path``.

    Agents are a unit from the next one; the last one on the left and the first one on the right are on the line.
    """
    one, other = (count / (2 * np.pi) for count in (left, right))
    line = np.column_stack([np.arange(1, path + 1), np.zeros(path)])
    first = one * np.roll(circle(left), -1, axis=0)[:, ::-1] - [one, 0.0]
    last = [path + 1 + other, 0.0] - other * circle(right)[:, ::-1]
    return np.concatenate([first, line, last])
