"""The files of a rank, read once each: every value to its sample, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hdnn_dist.data.tables.cells import exact_in_float32, numbers, refuse_gaps
from hdnn_dist.data.tables.formats import TableFile
from hdnn_dist.data.tables.ids import ids_of, positions, told
from hdnn_dist.data.tables.plan import Seen
from hdnn_dist.data.tables.scratch import Scratch
from hdnn_dist.data.tables.spec import MEAN, REFUSE, Table

IMPUTE = ", or missing_values = 'mean'"


class Column(NamedTuple):
    """A column of a file and its place among those of this rank; ``target``: whether it is predicted."""

    file: TableFile
    name: str
    place: int
    target: bool


def columns_of(seen: Sequence[Seen]) -> list[Column]:
    """First all that is seen, agent after agent, then all that is predicted."""
    pairs = [(own.file, name, False) for own in seen for name in own.inputs]
    pairs += [(own.file, name, True) for own in seen for name in own.targets]
    return [Column(file, name, place, target) for place, (file, name, target) in enumerate(pairs)]


def dtype_of(table: Table, columns: Sequence[Column]) -> type[np.floating[Any]]:
    """float32 where every file's numbers are as short, else float64: files are opened for it."""
    for columns_here in _by_path(columns).values():
        file, names = columns_here[0].file, list(dict.fromkeys(column.name for column in columns_here))
        for batch in file.chunks([table.id, *names], [table.id]):
            if not all(exact_in_float32(batch.column(name).type) for name in names):
                return np.float64
            break
    return np.float32


class Filling:
    """Fills a scratch with the columns of this rank; ``known``: (samples,) all ids, sorted."""

    def __init__(self, table: Table, known: np.ndarray, reference: TableFile, scratch: Scratch) -> None:
        self._table, self._known, self._reference, self._scratch = table, known, reference, scratch

    def fill(self, columns: Sequence[Column], files: Sequence[TableFile]) -> np.ndarray:
        """Read all files; (samples,) how many of them lack each sample. ``files``: those of all local agents.

        ``ValueError`` for ids that are twice there, or missing unless they are dropped, and for cells that are no
        numbers.
        """
        lacking = np.zeros(len(self._known), dtype=np.int64)
        by_path = _by_path(columns)
        for file in {file.path: file for file in files}.values():
            lacking += ~self._read(file, by_path.get(file.path, []))
        return lacking

    def _read(self, file: TableFile, columns: Sequence[Column]) -> np.ndarray:
        """(samples,) which of them the file has."""
        present, row = np.zeros(len(self._known), dtype=bool), 0
        names = list(dict.fromkeys(column.name for column in columns))
        for batch in file.chunks([self._table.id, *names], [self._table.id]):
            ids = batch.column(self._table.id)
            own = ids_of(file, ids, row)
            at = positions(self._known, own)
            self._mark(file, present, at, own)
            for column in columns:
                self._put(column, batch, ids, row, at)
            row += batch.num_rows
        if not row:
            raise file.error("has no rows: expected one for each sample")
        self._refuse_missing(file, present)
        return present

    def _mark(self, file: TableFile, present: np.ndarray, at: np.ndarray, own: np.ndarray) -> None:
        unknown = np.flatnonzero(at < 0)
        if len(unknown) and self._table.missing_ids == REFUSE:
            one = told(own[unknown[0]])
            raise self._reference.error(
                f"lacks the id {one}, which {file.path} of {file.whose} has: add it, or set missing_ids = 'drop'"
            )
        known = at[at >= 0]
        ordered = known if (known[1:] > known[:-1]).all() else np.sort(known)
        again = known[present[known]][:1].tolist() + ordered[1:][ordered[1:] == ordered[:-1]][:1].tolist()
        if again:
            raise file.error(f"has the id {told(self._known[again[0]])} twice: give each sample one row")
        present[known] = True

    def _put(self, column: Column, batch: Any, ids: Any, row: int, at: np.ndarray) -> None:
        values = numbers(column.file, column.name, batch.column(column.name), ids, row)
        if column.target or self._table.missing_values != MEAN:
            refuse_gaps(column.file, column.name, values, ids, row, "" if column.target else IMPUTE)
        known = at >= 0
        self._scratch.put(column.place, at if known.all() else at[known], values if known.all() else values[known])

    def _refuse_missing(self, file: TableFile, present: np.ndarray) -> None:
        missing = np.flatnonzero(~present)
        if len(missing) and self._table.missing_ids == REFUSE:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise file.error(
                f"lacks the id {told(self._known[missing[0]])}{more}, which {self._reference.path} of "
                f"{self._reference.whose} has: add it, or set missing_ids = 'drop'"
            )


def _by_path(columns: Sequence[Column]) -> dict[Path, list[Column]]:
    found: dict[Path, list[Column]] = {}
    for column in columns:
        found.setdefault(column.file.path, []).append(column)
    return found
