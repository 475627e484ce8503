"""What a state is made of: features of agents, halves of features, parts of the state, and where these stand.

A state is (batch, features, positions...) for the user and (features, width) inside, width = batch times positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.support.arguments import require_memory, shown
from hdnn_dist.support.arrays import ranges

Parts = dict[str, Tensor]
ROOM = 64  # bytes a feature, at least: where it stands in the state, and a few samples of it


def features_per_agent(features: int | Sequence[int], agents: int) -> np.ndarray:
    """(agents,) int64 from one number for all or one per agent; ``ValueError`` unless every agent has some."""
    given = np.asarray(features)
    if not np.issubdtype(given.dtype, np.integer) or given.shape not in ((), (agents,)):
        expected = f"a whole number, or one for each of the {agents} agents"
        raise ValueError(f"features is {shown(features)}: expected {expected}")
    sizes = np.broadcast_to(given, agents).astype(np.int64)
    if (sizes < 1).any():
        agent = int(np.flatnonzero(sizes < 1)[0])
        raise ValueError(
            f"agent {agent} has {sizes[agent]} features: every agent needs at least one; leave it out of the graph"
        )
    total = float(sizes.sum(dtype=np.float64))
    require_memory(f"{total:.3g} features", ROOM * int(total))
    return sizes


def halves_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all first halves and of all second halves, (rows,) each, in a state that holds agent after agent.

    ``features``: (agents,).
    """
    half = features // 2
    start = np.cumsum(features) - features
    return ranges(start, half), ranges(start + half, half)


def canonical_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """J1 row by row, (rows,) each: the column of its only entry, and that entry, 1 or -1.

    In a state that holds agent after agent; ``features``: (agents,).
    """
    first, second = halves_rows(features)
    partner, sign = np.empty(features.sum(), dtype=np.int64), np.empty(features.sum())
    partner[first], partner[second], sign[first], sign[second] = second, first, -1.0, 1.0
    return partner, sign


def feature_major(x: Tensor) -> Tensor:
    """(batch, features, positions...) -> (features, batch * positions)."""
    return x.movedim(1, 0).reshape(x.shape[1], -1)


def sample_major(x: Tensor, shape: torch.Size) -> Tensor:
    """The inverse: (features, width) -> ``shape``, (batch, features, positions...)."""
    return x.reshape(shape[1], shape[0], *shape[2:]).movedim(0, 1).contiguous()


def split(whole: Tensor, rows: Mapping[str, Tensor]) -> Parts:
    """The parts of a state (features, width), as new tensors; ``rows``: (rows,) of each part in it."""
    return {part: whole.index_select(0, own) for part, own in rows.items()}


def join(parts: Parts, rows: Mapping[str, Tensor]) -> Tensor:
    """A new state (features, width) from its parts, the inverse of ``split``."""
    like = next(iter(parts.values()))
    whole = like.new_empty(sum(len(own) for own in rows.values()), like.shape[1])
    for part, own in rows.items():
        whole.index_copy_(0, own, parts[part])
    return whole


def drift_of(x: Tensor, rebuilt: Tensor) -> Tensor:
    """The largest difference of two states of the same shape, relative to the largest entry of x, or to 1."""
    return (x - rebuilt).abs().amax() / x.abs().amax().clamp_min(1)


class State:
    """A state in the buffers of the half-steps that work on it; ``parts``: its rows there, (rows, width) each."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.buffers: dict[str, HaloBuffer] = {}
        self.parts: Parts = {}

    def put(self, parts: Parts) -> None:
        """Copy the (rows, width) of every part into the buffers where the state is."""
        for part, rows in parts.items():
            self.parts[part].copy_(rows)

    def enter(self, buffers: dict[str, HaloBuffer], start: Parts | None) -> None:
        """Go to other buffers, from ``start``, (rows, width) of every part, if that is given.

        Costs nothing if the state is there already.
        """
        if buffers is not self.buffers:
            before = start or self.parts
            self.buffers, self.parts = buffers, {part: f.local[:, : self._width] for part, f in buffers.items()}
            self.put(before)
