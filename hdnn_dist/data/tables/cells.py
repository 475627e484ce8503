"""Cells of a chunk as numbers, with their gaps, and errors that name file, agent, row and column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.tables.formats import TableFile, arrow
from hdnn_dist.support.arguments import shown

Numbers = npt.NDArray[np.float64]
INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"


def numbers(file: TableFile, name: str, column: Any, ids: Any, start: int) -> Numbers:
    """(rows,) with NaN for what is missing; ``ids``: of the rows; ``start``: rows of the file before these.

    ``ValueError`` for text, dates and infinite numbers.
    """
    pa, types = arrow(), arrow(".types")
    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)):
        if not types.is_null(kind):
            first = shown(column[0].as_py()) if len(column) else str(kind)
            raise file.error(
                f"has {kind} in column {shown(name)}, such as {first} in row {start + 1}: expected numbers"
            )
        return np.full(len(column), np.nan)
    given = column.cast(pa.int8()) if types.is_boolean(kind) else column
    values: Numbers = given.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    broken = np.flatnonzero(np.isinf(values))
    if len(broken):
        raise _at(file, name, ids, start, int(broken[0]), f"has {values[broken[0]]}", "a finite number")
    return values


def refuse_gaps(file: TableFile, name: str, values: Numbers, ids: Any, start: int, mend: str) -> None:
    """``ValueError`` for the first NaN of (rows,); ``mend`` says what else may be done."""
    gaps = np.flatnonzero(np.isnan(values))
    if len(gaps):
        raise _at(file, name, ids, start, int(gaps[0]), "has no value", f"a number{mend}")


def refuse_cell(file: TableFile, name: str, ids: Any, start: int, place: int, given: object, expected: str) -> None:
    """``ValueError`` for one cell, ``place`` of those (rows,) that ``ids`` names."""
    raise _at(file, name, ids, start, place, f"has {shown(given)}", expected)


def _at(file: TableFile, name: str, ids: Any, start: int, place: int, given: str, expected: str) -> ValueError:
    return file.error(
        f"{given} in row {start + place + 1} (id {ids[place]}), column {shown(name)}: expected {expected}"
    )


def exact_in_float32(kind: Any) -> bool:
    """Whether numbers of a type of pyarrow lose nothing in float32."""
    types = arrow(".types")
    small = types.is_int8(kind) or types.is_int16(kind) or types.is_uint8(kind) or types.is_uint16(kind)
    return bool(types.is_boolean(kind) or small or types.is_float32(kind) or types.is_float16(kind))
