"""Samples in a file that somebody brings, with all columns of the data set in their order: CSV, NPZ or Parquet.

A column ``id`` names the samples, where there is one. CSV: commas between the columns, names in the first row if it
holds any text. NPZ: an array (samples, columns), or an array (samples,) for each column.
"""

from __future__ import annotations

import csv
import importlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hdnn_dist.support.arguments import one_line, shown

ID = "id"
PARQUET_MEND = "Parquet needs pyarrow, which is not installed: pip install pyarrow, or use .csv or .npz"


class NamedSamples(NamedTuple):
    """``ids``: (samples,) texts or numbers, ``None`` where a file has none; ``table``: (samples, columns)."""

    ids: np.ndarray | None
    table: np.ndarray


def read_samples(path: Path, columns: int) -> NamedSamples:
    """The samples of a file, as many ``columns`` each; their order is that of the file.

    ``ValueError`` that names the file, and the row where it has rows, for what is no table of so many finite numbers.
    """
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path} has suffix {path.suffix!r}: samples are read from {', '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give 'test', 'train', or a file of samples ({', '.join(READERS)})")
    try:
        found = READERS[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix[1:].lower()}: {one_line(error)}") from None
    _check(path, found, columns)
    return found


def _csv(path: Path) -> NamedSamples:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    if not lines:
        raise ValueError(f"{path} is empty: expected a row for each sample")
    names = None if all(map(_is_number, lines[0][1])) else [name.strip() for name in lines[0][1]]
    lines = lines if names is None else lines[1:]
    width = len(lines[0][1] if names is None and lines else names or ())
    at = names.index(ID) if names is not None and ID in names else None
    for number, row in lines:
        if len(row) != width:
            raise ValueError(
                f"{path}, row {number}: {len(row)} columns, but the first row has {width}; give all as many"
            )
    kept = [column for column in range(width) if column != at]
    table = [[_number(path, number, row[column], column, names) for column in kept] for number, row in lines]
    ids = None if at is None else np.array([row[at] for _, row in lines])
    return NamedSamples(ids, np.array(table, dtype=np.float64).reshape(len(lines), len(kept)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, row: int, text: str, column: int, names: Sequence[str] | None) -> float:
    if not _is_number(text):
        given = "nothing" if not text.strip() else f"{shown(text)}"
        where = f"column {column}" if names is None else f"column {shown(names[column])}"
        raise ValueError(f"{path}, row {row}, {where}: {given}, expected a number; commas separate columns")
    return float(text)


def _npz(path: Path) -> NamedSamples:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as npz: {one_line(error)}") from None
    return _of_arrays(path, arrays)


def _parquet(path: Path) -> NamedSamples:
    arrow = arrow_library()
    try:
        table = arrow.parquet.read_table(path)
    except ValueError as error:  # what pyarrow raises stands below it
        raise ValueError(f"{path} cannot be read as parquet: {one_line(error)}") from None
    return _of_arrays(path, {name: table[name].to_numpy() for name in table.column_names})


def arrow_library() -> Any:
    """pyarrow with its part for Parquet; ``ValueError`` where it is not installed."""
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ValueError(PARQUET_MEND) from None


def _of_arrays(path: Path, arrays: dict[str, np.ndarray]) -> NamedSamples:
    """A table (samples, columns), or its columns (samples,) by name."""
    ids = arrays.pop(ID, None)
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{path}: {shown(name)} holds {array.dtype}, expected numbers")
    parts = list(arrays.values())
    lengths = {array.shape[:1] for array in [*parts, *([] if ids is None else [ids])]}
    if not parts or len(lengths) != 1 or (len(parts) > 1 and any(array.ndim != 1 for array in parts)):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no array"
        raise ValueError(f"{path} holds {shapes}: expected one array (samples, columns), or (samples,) for each column")
    return NamedSamples(ids, parts[0] if parts[0].ndim == 2 else np.column_stack(parts))


def _check(path: Path, found: NamedSamples, columns: int) -> None:
    table = found.table
    if table.ndim != 2 or table.shape[1] != columns:
        raise ValueError(
            f"{path} has {table.shape[-1]} columns of numbers, but the data set of the run has {columns}: give those, "
            f"and 'id' beside them if you like"
        )
    if not len(table):
        raise ValueError(f"{path} has no samples: expected a row for each")
    broken = np.argwhere(~np.isfinite(table))
    if len(broken):
        row, column = broken[0].tolist()
        raise ValueError(f"{path}, sample {row}, column {column}: {table[row, column]}, expected a finite number")


READERS: dict[str, Callable[[Path], NamedSamples]] = {".csv": _csv, ".npz": _npz, ".parquet": _parquet}
