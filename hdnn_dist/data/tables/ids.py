"""Sample ids: whole numbers (int64) or texts (bytes of UTF-8), sorted, so that rows of any file find their sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from hdnn_dist.data.tables.cells import INTEGER
from hdnn_dist.data.tables.formats import TableFile, arrow

WIDEST = 20  # characters of a whole number


def ids_of(file: TableFile, column: Any, start: int) -> np.ndarray:
    """(rows,) the ids of a chunk, whole numbers where all are; ``ValueError`` for a row without one."""
    pa, pc, types = arrow(), arrow(".compute"), arrow(".types")
    column = column.dictionary_decode() if types.is_dictionary(column.type) else column
    if types.is_integer(column.type) and not column.null_count:
        whole: np.ndarray = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return whole
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    empty = pc.fill_null(pc.equal(texts, ""), True).to_numpy(zero_copy_only=False)
    if empty.any():
        raise file.error(f"has no id in row {start + int(np.flatnonzero(empty)[0]) + 1}: give each sample one")
    if pc.all(pc.match_substring_regex(texts, INTEGER)).as_py() is not False:
        numbers: np.ndarray = texts.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return numbers
    return np.array([text.encode() for text in texts.to_pylist()])


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """(samples,) the ids of all chunks, whole numbers where all are."""
    if not parts:
        return np.empty(0, dtype=np.int64)
    if all(part.dtype.kind == "i" for part in parts):
        return np.concatenate(parts)
    return np.concatenate([as_texts(part) for part in parts])


def as_texts(ids: np.ndarray) -> np.ndarray:
    """(samples,) as bytes of UTF-8."""
    return ids.astype(f"S{WIDEST}") if ids.dtype.kind == "i" else ids


def positions(known: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(rows,) where each id stands among the known, sorted ones (samples,); -1 for those that do not."""
    if known.dtype.kind != ids.dtype.kind:
        if known.dtype.kind == "i":  # some of these are no numbers
            return np.array([int(positions(known, _number(text))[0]) for text in ids.tolist()], dtype=np.int64)
        ids = as_texts(ids)
    if not len(known):
        return np.full(len(ids), -1)
    if known.dtype.kind == "i" and known[-1] - known[0] == len(known) - 1:  # without gaps: nothing to search
        return np.where((ids >= known[0]) & (ids <= known[-1]), ids - known[0], -1)
    at = np.searchsorted(known, ids)
    at[at == len(known)] = 0
    return np.where(known[at] == ids, at, -1)


def told(one: Any) -> str:
    """An id in a message."""
    return one.decode(errors="replace") if isinstance(one, bytes) else str(one)


def refuse_repeated(file: TableFile, ids: np.ndarray) -> None:
    """``ValueError`` where sorted ids (samples,) have one twice."""
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if len(again):
        raise file.error(f"has the id {told(ids[again[0]])} twice: give each sample one row")


def _number(text: bytes) -> np.ndarray:
    try:
        value = int(text)
        return np.array([value if str(value).encode() == text and abs(value) < 2**62 else -(2**63)], dtype=np.int64)
    except ValueError:
        return np.array([-(2**63)], dtype=np.int64)
