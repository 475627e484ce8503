"""Columns as they come from files, each whole and in the order of the samples, in memory or in a file without a name.

Pages of the file are given back as soon as they are written, so that no more than a part of it is in memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

PAGE = 4096
TOUCHED = 64 << 20  # bytes of pages that may be in memory
ROWS = 262_144  # of a column at once


class Scratch:
    """(columns, samples) of one type; ``folder``: None to keep it in memory."""

    def __init__(self, columns: int, samples: int, dtype: npt.DTypeLike, folder: Path | None) -> None:
        self._map: mmap.mmap | None = None
        self._touched = 0
        self._column_bytes = samples * np.dtype(dtype).itemsize
        if folder is None or not columns:
            self._table = np.zeros((columns, samples), dtype=dtype)
            return
        with tempfile.TemporaryFile(dir=folder) as file:
            os.truncate(file.fileno(), columns * self._column_bytes)
            self._map = mmap.mmap(file.fileno(), columns * self._column_bytes)
        self._table = np.frombuffer(self._map, dtype=dtype).reshape(columns, samples)

    def put(self, column: int, at: np.ndarray, values: np.ndarray) -> None:
        """Write values (rows,) for samples ``at`` (rows,) into a column."""
        self._table[column, at] = values
        self._touch(len(at))

    def take(self, column: int, at: np.ndarray) -> np.ndarray:
        """float64 (rows,) the values of samples ``at`` (rows,) of a column."""
        values: np.ndarray = self._table[column, at].astype(np.float64)
        self._touch(len(at))
        return values

    def parts(self, column: int, at: np.ndarray) -> Iterator[np.ndarray]:
        """The same for many samples, ``at`` (samples,), part by part."""
        for start in range(0, len(at), ROWS):
            yield self.take(column, at[start : start + ROWS])

    def close(self) -> None:
        """Give the memory or the file back."""
        self._table = self._table[:0, :0].copy()
        if self._map is not None:
            self._map.close()

    def _touch(self, rows: int) -> None:
        if self._map is None:
            return
        self._touched += min(PAGE * rows, self._column_bytes + PAGE)
        if self._touched > TOUCHED:
            self._map.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: nothing is lost
            self._touched = 0
