"""Samples into tiles and back, compiled: a transposition, done in squares that stay in registers.

The user has (batch, features, positions); a tile is (features, T), T of its batch * positions columns. ``place``:
(features,) the row of the tile for each feature.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from hdnn_dist.support.compiled.functions import FAST
from hdnn_dist.support.compiled.vectors import VECTOR_BYTES, intrinsic


@intrinsic
def _load_square(code: Any, tile: Any, column: Any, x: Any, sample: Any, place: Any, feature: Any) -> None:
    """As many features of as many samples as a vector has numbers, into as many rows of a tile."""
    square = [x.load(code.add(sample, n), feature, 0, lanes=x.lanes) for n in range(x.lanes)]
    for n, row in enumerate(code.transposed(square)):
        tile.store(row, place.load(code.add(feature, n)), column)


@intrinsic
def _store_square(code: Any, x: Any, sample: Any, tile: Any, column: Any, place: Any, feature: Any) -> None:
    """And back."""
    rows = [place.load(code.add(feature, n)) for n in range(x.lanes)]
    square = [tile.load(row, column, lanes=x.lanes) for row in rows]
    for n, features in enumerate(code.transposed(square)):
        x.store(features, code.add(sample, n), feature, 0)


@njit(**FAST)
def _squares(x, count, first, last):
    """The side of the squares that samples and features are moved in, 0 where they are too few or not side by side."""
    side = VECTOR_BYTES // x.itemsize
    return side if x.shape[2] == 1 and count >= side and last - first >= side else 0


@njit(**FAST)
def load(tile, x, place, start, first, last):
    """Features first, ..., last - 1 of the columns from ``start`` on into a tile; beyond the last one, that again."""
    batch, _, positions = x.shape
    count = min(tile.shape[1], batch * positions - start)
    side = _squares(x, count, first, last)
    if side:
        for sample in range(0, count, side):
            j = min(sample, count - side)  # the last squares begin early, and move a few once more
            for feature in range(first, last, side):
                _load_square(tile, j, x, start + j, place, min(feature, last - side))
    else:
        for feature in range(first, last):
            row, sample, position = place[feature], start // positions, start % positions
            for n in range(count):
                tile[row, n] = x[sample, feature, position]
                position += 1
                if position == positions:
                    sample, position = sample + 1, 0
    for feature in range(first, last):
        row = place[feature]
        for n in range(count, tile.shape[1]):
            tile[row, n] = tile[row, count - 1]


@njit(**FAST)
def store(x, tile, place, start, first, last):
    """Features first, ..., last - 1 of a tile to where they belong, from column ``start`` on."""
    batch, _, positions = x.shape
    count = min(tile.shape[1], batch * positions - start)
    side = _squares(x, count, first, last)
    if side:
        for sample in range(0, count, side):
            j = min(sample, count - side)
            for feature in range(first, last, side):
                _store_square(x, start + j, tile, j, place, min(feature, last - side))
    else:
        for feature in range(first, last):
            row, sample, position = place[feature], start // positions, start % positions
            for n in range(count):
                x[sample, feature, position] = tile[row, n]
                position += 1
                if position == positions:
                    sample, position = sample + 1, 0


@njit(**FAST)
def blank(tile, start):
    """Zero in the columns from ``start`` on."""
    for row in range(tile.shape[0]):
        for n in range(start, tile.shape[1]):
            tile[row, n] = 0


@njit(**FAST)
def miss(missed, x, rebuilt):
    """``missed`` (2, T), the largest |x - rebuilt| and |x| of every column, goes on with these; NaN is kept."""
    for row in range(x.shape[0]):
        for n in range(x.shape[1]):
            difference, size = abs(x[row, n] - rebuilt[row, n]), abs(x[row, n])
            apart, largest = missed[0, n], missed[1, n]
            missed[0, n] = difference if difference > apart or difference != difference else apart
            missed[1, n] = size if size > largest or size != size else largest
