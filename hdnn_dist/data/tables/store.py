"""The aligned samples of a rank on the disk: written whole or not at all, and found again while nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hdnn_dist.data.tables.scaling import Scale

ROWS, ORDER, ABOUT = "rows.f32", "order.npy", "about.json"
FORMAT = 1


class Stored(NamedTuple):
    """What a folder holds: ``order`` (samples,), which of the reference's samples each row is; how many rows are for
    training, validation and test, one after another; and the scale of each column.
    """

    folder: Path
    order: np.ndarray
    counts: tuple[int, int, int]
    scales: list[Scale]

    @property
    def rows(self) -> Path:
        """The file of rows."""
        return self.folder / ROWS


def key_of(facts: Any) -> str:
    """The name of a folder, for facts that have a representation."""
    return hashlib.sha256(repr([FORMAT, facts]).encode()).hexdigest()[:16]


def stamp(path: Path) -> int:
    """What changes with a file: 47 bits of its path, size and time of change; ``ValueError`` where there is none."""
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    facts = f"{path.resolve()} {about.st_size} {about.st_mtime_ns}"
    return int(hashlib.sha256(facts.encode()).hexdigest()[:12], 16) >> 1


def find(folder: Path, width: int) -> Stored | None:
    """What a folder holds; None where there is none, or not all of it."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        order = np.load(folder / ORDER, allow_pickle=False)
        scales = [Scale(**scale) for scale in about["scales"]]
        counts = tuple(map(int, about["counts"]))
        size = (folder / ROWS).stat().st_size
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if len(scales) != width or len(counts) != 3 or size != 4 * width * len(order) or sum(counts) != len(order):
        return None
    return Stored(folder, order, counts, scales)


@contextmanager
def whole_folder(folder: Path, fits: Callable[[], bool]) -> Iterator[Path]:
    """Where to write: a folder beside it, which takes its name at the end of the block, or is removed.

    One that fits and has come there in the meantime, from a job or rank with the same agents, stays.
    """
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    partial.mkdir(parents=True)
    try:
        yield partial
        if not fits():
            shutil.rmtree(folder, ignore_errors=True)
        _rename(partial, folder, fits)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path, fits: Callable[[], bool]) -> None:
    try:
        os.rename(partial, folder)
    except OSError:
        if not fits():
            raise


def write_about(folder: Path, order: np.ndarray, counts: tuple[int, int, int], scales: list[Scale]) -> None:
    """All but the rows; ``order``: (samples,) as in ``Stored``."""
    np.save(folder / ORDER, order)
    about = {"counts": counts, "scales": [asdict(scale) for scale in scales]}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
