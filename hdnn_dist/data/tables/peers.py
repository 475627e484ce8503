"""What ranks tell each other while they read their files: sample ids go down the tree, counts come up."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


class Peers(Protocol):
    """The ranks of a job. All of them call the same methods in the same order."""

    ranks: int

    def from_agent(self, agent: int, values: np.ndarray | None) -> np.ndarray:
        """The array of the rank that owns an agent, of any shape and type of numbers or bytes; others give None."""
        ...

    def total(self, counts: Counts) -> Counts:
        """The sum of the arrays of all ranks, which have the same shape."""
        ...

    def agreed(self) -> AbstractContextManager[None]:
        """A block whose errors are those of all ranks; nothing is exchanged in it."""
        ...


class Alone:
    """All agents in one process."""

    ranks = 1

    def from_agent(self, agent: int, values: np.ndarray | None) -> np.ndarray:
        """As ``Peers.from_agent``, of any shape."""
        assert values is not None
        return values

    def total(self, counts: Counts) -> Counts:
        """As ``Peers.total``, of any shape."""
        return counts

    def agreed(self) -> AbstractContextManager[None]:
        """As ``Peers.agreed``."""
        return nullcontext()
