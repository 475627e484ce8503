"""Rows that come batch by batch, in one piece of memory.

A list of small tensors made between large ones that come and go would keep what lies around them from being used again.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class Rows:
    """Tensors (batch, ...) one after another, in memory that doubles when it is full."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._count = 0

    def append(self, rows: Tensor) -> None:
        """Copy one more (batch, ...), of the type, device and shape of the first but for the batch."""
        start, self._count = self._count, self._count + len(rows)
        if self._memory is None or self._count > len(self._memory):
            before = self._memory
            room = self._count if before is None else max(self._count, 2 * len(before))
            self._memory = rows.new_empty(room, *rows.shape[1:])
            if before is not None:
                self._memory[:start] = before[:start]
        self._memory[start : self._count] = rows

    def __len__(self) -> int:
        return self._count

    def all(self) -> Tensor:
        """View (rows, ...) of all so far; ``ValueError`` where there is none."""
        if self._memory is None:
            raise ValueError("no rows have been appended")
        return self._memory[: self._count]


def joined(parts: Iterable[Tensor]) -> Tensor:
    """(rows, ...) of all parts (batch, ...), which are made one at a time; as ``torch.cat``."""
    rows = Rows()
    for part in parts:
        rows.append(part)
    return rows.all()
