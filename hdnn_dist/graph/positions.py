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
