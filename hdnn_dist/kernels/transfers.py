"""Samples into tiles and back, compiled: a transposition, done in blocks that stay in cache.

The user has (batch, features, positions); a tile is (features, T), T of its batch * positions columns. ``place``:
(features,) the row of the tile for each feature.
"""

from __future__ import annotations

from numba import njit

from hdnn_dist.kernels.tiles import FAST

SAMPLES = 8  # a line of cache of each stays in the first cache while they are read side by side


@njit(**FAST)
def load(tile, x, place, start, first, last):
    """Features first, ..., last - 1 of the columns from ``start`` on into a tile; beyond the last one, that again."""
    batch, _, positions = x.shape
    count = min(tile.shape[1], batch * positions - start)
    whole = count - count % SAMPLES if positions == 1 else 0
    for j in range(0, whole, SAMPLES):
        for feature in range(first, last):
            row = place[feature]
            for n in range(SAMPLES):
                tile[row, j + n] = x[start + j + n, feature, 0]
    for feature in range(first, last):
        row = place[feature]
        sample, position = (start + whole) // positions, (start + whole) % positions
        for n in range(whole, count):
            tile[row, n] = x[sample, feature, position]
            position += 1
            if position == positions:
                sample, position = sample + 1, 0
        for n in range(count, tile.shape[1]):
            tile[row, n] = tile[row, count - 1]


@njit(**FAST)
def store(x, tile, place, start, first, last):
    """Features first, ..., last - 1 of a tile to where they belong, from column ``start`` on."""
    batch, _, positions = x.shape
    count = min(tile.shape[1], batch * positions - start)
    whole = count - count % SAMPLES if positions == 1 else 0
    for j in range(0, whole, SAMPLES):
        for feature in range(first, last):
            row = place[feature]
            for n in range(SAMPLES):
                x[start + j + n, feature, 0] = tile[row, j + n]
    for feature in range(first, last):
        row = place[feature]
        sample, position = (start + whole) // positions, (start + whole) % positions
        for n in range(whole, count):
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
def miss(x, rebuilt, first, last):
    """(largest |x - rebuilt|, largest |x|) in some rows; NaN where there is one."""
    worst, largest = x.dtype.type(0), x.dtype.type(0)
    for row in range(first, last):
        for n in range(x.shape[1]):
            difference, size = abs(x[row, n] - rebuilt[row, n]), abs(x[row, n])
            if difference > worst or difference != difference:
                worst = difference
            if size > largest:
                largest = size
    return worst, largest
