"""The file that says which samples there are: their ids and, at the root, their labels and times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hdnn_dist.data.source import CLASSIFICATION
from hdnn_dist.data.tables.cells import INTEGER, numbers, refuse_cell, refuse_gaps
from hdnn_dist.data.tables.formats import TableFile, arrow
from hdnn_dist.data.tables.ids import ids_of, joined, refuse_repeated
from hdnn_dist.data.tables.plan import missing_column
from hdnn_dist.data.tables.spec import Table

MOST_CLASSES = 1000
DATE = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}"


@dataclass(frozen=True)
class Reference:
    """Samples in the order of their ids.

    ids: (samples,), see ``ids``. labels: class numbers (samples,), or numbers (samples, outputs); times: (samples,)
    numbers or dates as bytes; None where there are none. classes: the values behind class numbers.
    """

    ids: np.ndarray
    labels: np.ndarray | None = None
    times: np.ndarray | None = None
    classes: tuple[str, ...] = ()


def read_reference(file: TableFile, table: Table) -> Reference:
    """Read it, chunk by chunk; ``ValueError`` for what is missing, twice there, or no label."""
    names = file.names()
    wanted = list(dict.fromkeys((table.id, *_answers(table))))
    for name in wanted:
        if name not in names:
            raise missing_column(file, name, names, "the sample's id" if name == table.id else "named for the labels")
    columns = _Columns(file, table)
    for batch in file.chunks(wanted, columns.texts):
        columns.add(batch)
    return columns.sorted()


def _answers(table: Table) -> tuple[str, ...]:
    if table.labels is None:
        return ()
    return (*table.label_names, *([table.split.time] if table.split.time is not None else []))


class _Columns:
    """What has been read so far."""

    def __init__(self, file: TableFile, table: Table) -> None:
        self._file, self._table, self._rows = file, table, 0
        self._classes = table.labels is not None and table.task == CLASSIFICATION
        self._dates = isinstance(table.split.test_from, str)
        self.texts = [table.id, *(table.label_names if self._classes else ())]
        self.texts += [table.split.time] if table.split.time is not None and self._dates else []
        self._ids: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._times: list[np.ndarray] = []
        self._code = {str(name): code for code, name in enumerate(table.classes or ())}

    def add(self, batch: Any) -> None:
        """One more record batch."""
        ids = batch.column(self._table.id)
        self._ids.append(ids_of(self._file, ids, self._rows))
        if self._classes:
            self._labels.append(self._codes(batch.column(self._table.label_names[0]), ids))
        elif self._table.labels is not None:
            self._labels.append(np.column_stack([self._numbers(batch, name) for name in self._table.label_names]))
        if self._table.split.time is not None:
            self._times.append(self._time(batch, self._table.split.time))
        self._rows += batch.num_rows

    def sorted(self) -> Reference:
        """All of it, in the order of the ids."""
        if not self._rows:
            raise self._file.error("has no rows: expected one for each sample")
        ids = joined(self._ids)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        refuse_repeated(self._file, ids)
        labels, times = (np.concatenate(parts)[order] if parts else None for parts in (self._labels, self._times))
        found = Reference(ids, labels, times)
        return self._with_classes(found) if self._classes else found

    def _with_classes(self, found: Reference) -> Reference:
        names = list(self._code)
        if self._table.classes is not None:
            return replace(found, classes=tuple(names))
        if len(names) < 2:
            raise self._file.error(
                f"has one class, {names[0]}, in column {self._table.label_names[0]!r}: expected two or more"
            )
        numbered = all(re.match(INTEGER, name) for name in names)
        order = sorted(names, key=int) if numbered else sorted(names)
        number = np.array([order.index(name) for name in names], dtype=np.int64)
        assert found.labels is not None
        return replace(found, labels=number[found.labels], classes=tuple(order))

    def _codes(self, column: Any, ids: Any) -> np.ndarray:
        """(rows,) class numbers, in the order in which classes come unless they were given."""
        name = self._table.label_names[0]
        texts = _as_texts(column)
        empty = np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False))
        if len(empty):
            refuse_cell(self._file, name, ids, self._rows, int(empty[0]), None, "a class")
        coded = texts.dictionary_encode()
        values = coded.dictionary.to_pylist()
        for place, value in enumerate(values):
            if value not in self._code:
                self._new(name, value, ids, int(np.flatnonzero(coded.indices.to_numpy() == place)[0]))
        table = np.array([self._code[value] for value in values], dtype=np.int64)
        return table[coded.indices.to_numpy()]

    def _new(self, name: str, value: str, ids: Any, place: int) -> None:
        if self._table.classes is not None or value == "":
            known = ", ".join(map(str, self._table.classes or ()))
            refuse_cell(self._file, name, ids, self._rows, place, value, f"one of the classes {known}".rstrip())
        if len(self._code) == MOST_CLASSES:
            raise self._file.error(
                f"has more than {MOST_CLASSES} classes in column {name!r}: for numbers set task = 'regression'"
            )
        self._code[value] = len(self._code)

    def _numbers(self, batch: Any, name: str) -> np.ndarray:
        ids = batch.column(self._table.id)
        values = numbers(self._file, name, batch.column(name), ids, self._rows)
        refuse_gaps(self._file, name, values, ids, self._rows, "")
        return values

    def _time(self, batch: Any, name: str) -> np.ndarray:
        if not self._dates:
            return self._numbers(batch, name)
        texts = _as_texts(batch.column(name)).to_pylist()
        for place, text in enumerate(texts):
            if text is None or not re.match(DATE, text.encode()):
                expected = "a date such as 2024-01-31, as in split.test_from"
                refuse_cell(self._file, name, batch.column(self._table.id), self._rows, place, text, expected)
        return np.array([date(text) for text in texts])


def date(text: str) -> bytes:
    """A date, with a time of day or not, so that dates compare as bytes do."""
    return text.strip().replace("T", " ").encode()


def _as_texts(column: Any) -> Any:
    """Text without blanks around it; whole numbers that came as floating-point ones lose their point."""
    pa, pc, types = arrow(), arrow(".compute"), arrow(".types")
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_floating(column.type) and _all_whole(column):
        column = column.cast(pa.int64())
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _all_whole(column: Any) -> bool:
    values: Sequence[float] = column.drop_null().to_numpy(zero_copy_only=False)
    return bool(np.all(np.abs(values) < 2**53) and np.all(np.floor(values) == values))
