"""What a head is built with, checked: the agents that it reads, and the positions of their states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.support.arguments import shown, whole


def checked_positions(positions: Sequence[int]) -> tuple[int, ...]:
    """``positions`` as whole numbers; ``ValueError`` for anything else."""
    if not isinstance(positions, Sequence) or isinstance(positions, str):
        raise ValueError(f"positions is {shown(positions)}: expected a sequence of sizes, such as (28, 28), or ()")
    return tuple(whole("a size in positions", size) for size in positions)


def check_positions(y: Tensor, positions: tuple[int, ...]) -> None:
    """``ValueError`` unless y is (batch, features, *positions)."""
    if tuple(y.shape[2:]) != positions:
        raise ValueError(
            f"the readout was built for positions {positions}, but the state has {tuple(y.shape[2:])}: "
            "pass positions= to the readout"
        )


def check_agents(own: Agents, of_network: Agents) -> None:
    """``ValueError`` unless a head is given the agents of its network."""
    if own.graph != of_network.graph or not np.array_equal(own.owner, of_network.owner):
        raise ValueError(
            f"the readout was given {own}, but the network has {of_network}: give it the agents of the network"
        )


def check_readers(at: Sequence[int] | None, agents: int) -> np.ndarray:
    """(readers,) the agents that are read, as given; ``ValueError`` unless they are agents, each once."""
    readers = np.arange(agents) if at is None else np.asarray(at)
    if readers.ndim != 1 or not readers.size or not np.issubdtype(readers.dtype, np.integer):
        raise ValueError(f"readout at {shown(at)}: expected a list of agents, such as [0], or None for all")
    if len(np.unique(readers)) < len(readers) or readers.min() < 0 or readers.max() >= agents:
        raise ValueError(f"readout at {readers.tolist()}: expected different agents between 0 and {agents - 1}")
    return readers
