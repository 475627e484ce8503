"""Samples row after row, as batches want them: in memory, or in a file of which batches alone are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
WIDTH = np.dtype(np.float32).itemsize


class Rows(Protocol):
    """float32 (samples, columns)."""

    columns: int

    def __len__(self) -> int: ...

    def read(self, index: np.ndarray) -> Float32:
        """(batch, columns) the samples of an index (batch,), in its order."""
        ...


class MemoryRows:
    """An array (samples, columns)."""

    def __init__(self, table: Float32) -> None:
        self.table, self.columns = table, table.shape[1]

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: np.ndarray) -> Float32:
        """As ``Rows.read``: (batch, columns)."""
        return self.table[index]


class FileRows:
    """Rows ``first`` to ``first + samples`` of a file, and of each the columns ``start`` to ``stop`` of ``width``.

    Reads go past the memory of this process: its pages are never mapped.
    """

    def __init__(self, path: Path, width: int, first: int, samples: int, start: int, stop: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._width, self._first, self._samples, self._start = width, first, samples, start
        self.columns = stop - start

    def __len__(self) -> int:
        return self._samples

    def read(self, index: np.ndarray) -> Float32:
        """As ``Rows.read``: (batch, columns); IndexError for a sample that is not there."""
        if len(index) and not 0 <= index.min() <= index.max() < self._samples:
            raise IndexError(f"samples {index.min()} to {index.max()} are asked for, of {self._samples}")
        order = np.argsort(index, kind="stable")
        rows = np.empty((len(index), self._width), dtype=np.float32)
        self._fill(rows, index[order])
        batch = np.empty((len(index), self.columns), dtype=np.float32)
        batch[order] = rows[:, self._start : self._start + self.columns]
        return batch

    def _fill(self, rows: Float32, index: np.ndarray) -> None:
        """Neighbours in the file are read together."""
        if not rows.size:
            return
        breaks = np.flatnonzero(np.diff(index) != 1) + 1
        starts = [0, *breaks.tolist()]
        memory, size, descriptor = memoryview(rows.data).cast("B"), WIDTH * self._width, self._file.fileno()
        places = ((index[starts] + self._first) * size).tolist()
        for start, stop, place in zip(starts, [*starts[1:], len(index)], places, strict=True):
            wanted = memory[start * size : stop * size]
            if os.preadv(descriptor, [wanted], place) < len(wanted):
                raise OSError(f"{self._file.name} is cut off: remove its folder, so that it is made again")
