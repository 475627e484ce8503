"""Predictions in a file: CSV, NPZ or Parquet, by its suffix."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hdnn_dist.runs.predictions import Predictions
from hdnn_dist.runs.sample_files import ID, arrow_library
from hdnn_dist.support.files import whole_file

ByName = dict[str, np.ndarray]


def check_output(path: Path, overwrite: bool) -> None:
    """``ValueError`` for a place where predictions cannot be written, or where a file is already."""
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{path} has suffix {path.suffix!r}: predictions are written as {', '.join(WRITERS)}")
    refuse_existing(path, overwrite)
    if path.suffix.lower() == ".parquet":
        arrow_library()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """``ValueError`` for a file that would be lost, for a folder in its place, and where there is no folder for it."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: name a file in a folder that exists")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: choose another file, or pass --overwrite")


def write_predictions(path: Path, ids: np.ndarray | None, found: Predictions) -> Path:
    """Write a row for each sample, its id (samples,) or its number before what was predicted; whole or not at all."""
    numbered = np.arange(len(found)) if ids is None else _as_text(ids)
    with whole_file(path) as partial:
        partial.write_bytes(WRITERS[path.suffix.lower()]({ID: numbered, **found.columns()}))
    return path


def _as_text(ids: np.ndarray) -> np.ndarray:
    """(samples,) whole numbers as they are, bytes as texts."""
    return np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids


def _csv(columns: ByName) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*(column.tolist() for column in map(_exact, columns.values())), strict=True))
    return text.getvalue().encode()


def _exact(column: np.ndarray) -> np.ndarray:
    """(samples,) numbers as short texts that give the same float32 again."""
    return column.astype(str) if column.dtype == np.float32 else column


def _npz(columns: ByName) -> bytes:
    content = io.BytesIO()
    np.savez(content, **{name: _plain(column) for name, column in columns.items()})  # type: ignore[arg-type]
    return content.getvalue()


def _plain(column: np.ndarray) -> np.ndarray:
    """(samples,) of a type that needs no pickle."""
    return column.astype(str) if column.dtype.kind == "O" else column


def _parquet(columns: ByName) -> bytes:
    content, arrow = io.BytesIO(), arrow_library()
    arrow.parquet.write_table(arrow.table({name: _plain(column) for name, column in columns.items()}), content)
    return content.getvalue()


WRITERS: dict[str, Callable[[ByName], bytes]] = {".csv": _csv, ".npz": _npz, ".parquet": _parquet}
