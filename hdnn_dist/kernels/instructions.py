"""The instructions that passes are made of, and the memory of one tile of samples that they work on.

An instruction names its buffers by their first row in a *room*.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from hdnn_dist.exchange.halo import Halo

# What an instruction does; a, b, f, u, v, w, s, q name buffers.
#   LOAD, STORE       samples of the user's array ``first`` to a, or from it; BLANK: zero in the columns beyond them
#   ZERO, COPY        ``count`` rows of a; as many of b to a
#   KEEP, FETCH       a state, the section's ``stored``, from a, or to it
#   MISS              how far the rows of a are from those of b
#   GRADIENT, POINTWISE, and reverse: the pieces from ``first`` to ``last`` of the steps of half-step ``half``
#   COUPLE            a += sign C b, or its transpose, for the blocks from ``first`` on; COUPLE_GRADIENT: of C, for f, g
#   RETURN            the rows of a that are returned to blocks of other ranks: of K^T b, of C b where ``coupled``
#   SEND, TAKE, ADD   rows of a, and of b if there is one, leave; arrive in their place; are added to what is there
(
    LOAD, STORE, BLANK, ZERO, COPY, KEEP, FETCH, MISS, GRADIENT, GRADIENT_REVERSE, POINTWISE, POINTWISE_REVERSE, COUPLE,
    COUPLE_GRADIENT, RETURN, SEND, TAKE, ADD,
) = range(18)  # fmt: skip
NAMES = (
    "op", "half", "first", "last", "count", "a", "b", "f", "u", "v", "w", "s", "q", "sign", "transposed", "coupled",
    "blank",
)  # fmt: skip
INSTRUCTION = np.dtype([(name, np.int32) for name in NAMES])
NONE = -1  # no buffer
# A section: its layer, the instructions from ``first`` to ``last``, and which stored state it keeps or fetches.
SECTION = np.dtype([(name, np.int32) for name in ["layer", "first", "last", "stored"]])
X, Y, GRAD_Y, GRAD_X = range(4)  # the user's arrays
BUFFERS = "abfuvwsq"


class Numbered(NamedTuple):
    """The messages of one exchange: the number of the first, and how many."""

    first: int
    number: int


class Exchanges(Protocol):
    """Where the messages of a rank are numbered."""

    def gather(self, halo: Halo, parts: int = 1) -> Numbered | None:
        """Of the halo rows of ``parts`` buffers, filled at once; ``None`` where nothing comes or goes."""
        ...

    def scatter(self, halo: Halo, parts: int = 1) -> Numbered | None:
        """Of as many buffers' halo rows, returned to their owners."""
        ...


def without_exchanges(code: np.ndarray) -> np.ndarray:
    """(instructions,) the same, with nothing in the place of what other ranks are needed for."""
    silent = code.copy()
    exchanges = silent["op"] >= SEND
    silent["op"][exchanges], silent["count"][exchanges] = ZERO, 0
    return silent


class Code:
    """Instructions, and the rows of a room that their buffers take; ``room``: how many so far."""

    def __init__(self) -> None:
        self._given: list[dict[str, int]] = []
        self.room = 0

    def __len__(self) -> int:
        return len(self._given)

    def take(self, rows: int) -> int:
        """The first of so many rows for a buffer."""
        self.room += rows
        return self.room - rows

    def emit(self, op: int, **given: int) -> None:
        """One more instruction; buffers that it does not name are ``NONE``, everything else is zero."""
        self._given.append({"op": op, **given})

    def table(self) -> np.ndarray:
        """(instructions,) ``INSTRUCTION``."""
        rows = [tuple(given.get(name, NONE if name in BUFFERS else 0) for name in NAMES) for given in self._given]
        return np.array(rows, dtype=INSTRUCTION)
