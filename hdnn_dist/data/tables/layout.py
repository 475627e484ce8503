"""From columns to rows: scaled by what the training samples say, in the order of the parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hdnn_dist.data.tables.filling import Column
from hdnn_dist.data.tables.plan import Seen
from hdnn_dist.data.tables.scaling import Scale, measured
from hdnn_dist.data.tables.scratch import Scratch
from hdnn_dist.data.tables.spec import MEAN, Table
from hdnn_dist.data.tables.store import ROWS

BLOCK = 32_768  # rows


def scale_of(table: Table, scratch: Scratch, column: Column, train: np.ndarray) -> Scale:
    """Of a column, from the training samples (samples,); ``ValueError`` where none of them has a value."""
    standardise = table.standardise_targets if column.target else table.standardise
    if not standardise and table.missing_values != MEAN:
        return Scale()
    found = measured(lambda: scratch.parts(column.place, train))
    if found is None:
        raise column.file.error(f"has no value in column {column.name!r} of any training sample: leave the column out")
    return found if standardise else Scale(fill=found.fill)


def blocks(
    scratch: Scratch, order: np.ndarray, columns: Sequence[Column], scales: Sequence[Scale]
) -> Iterator[np.ndarray]:
    """float32 (rows, columns), block after block, of the samples of an ``order`` (samples,)."""
    for start in range(0, len(order), BLOCK):
        at = order[start : start + BLOCK]
        block = np.empty((len(at), len(columns)), dtype=np.float32)
        for place, (column, scale) in enumerate(zip(columns, scales, strict=True)):
            with np.errstate(over="ignore"):
                block[:, place] = scale.apply(scratch.take(place, at))
            if not np.isfinite(block[:, place]).all():
                raise column.file.error(f"has numbers in column {column.name!r} that are too large: set standardise")
        yield block


def in_memory(parts: Iterator[np.ndarray], samples: int, columns: int) -> np.ndarray:
    """(samples, columns), from blocks (rows, columns)."""
    table, row = np.empty((samples, columns), dtype=np.float32), 0
    for block in parts:
        table[row : row + len(block)] = block
        row += len(block)
    return table


def write_rows(folder: Path, parts: Iterator[np.ndarray]) -> None:
    """The file of rows, from blocks (rows, columns)."""
    with (folder / ROWS).open("wb") as file:
        for block in parts:
            file.write(block.tobytes())


def statistics_of(
    table: Table, seen: Sequence[Seen], columns: Sequence[Column], scales: Sequence[Scale]
) -> dict[int, dict[str, np.ndarray]]:
    """By agent, (columns,) each, as in ``TableData``."""
    found: dict[int, dict[str, np.ndarray]] = {}
    own = iter(scales)
    for agent, names in [(each.agent, each.inputs) for each in seen]:
        taken = [next(own) for _ in names]
        if table.standardise and taken:
            found.setdefault(agent, {}).update(moments(taken))
        elif table.missing_values == MEAN and taken:
            found.setdefault(agent, {})["fill"] = np.array([scale.fill for scale in taken])
    for agent, names in [(each.agent, each.targets) for each in seen]:
        taken = [next(own) for _ in names]
        if table.standardise_targets and taken:
            found.setdefault(agent, {}).update(moments(taken, "target_"))
    return found


def moments(scales: Sequence[Scale], prefix: str = "") -> dict[str, np.ndarray]:
    """(columns,) each."""
    mean, std = ([getattr(scale, name) for scale in scales] for name in ("mean", "std"))
    return {f"{prefix}mean": np.array(mean), f"{prefix}std": np.array(std)}
