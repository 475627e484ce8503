"""Samples into tiles and back, compiled: a transposition, done in blocks that stay in cache.

The user has (batch, features, positions); a tile is (features, T), T of its batch * positions columns. ``rows``:
(features,) the row of the tile for each feature.
"""

from __future__ import annotations

from numba import njit

from hdnn_dist.kernels.tiles import FAST

SAMPLES, FEATURES = 8, 16


@njit(**FAST)
def load(tile, x, rows, start):
    """The columns from ``start`` on into a tile; beyond the last one, that again."""
    batch, features, positions = x.shape
    count = min(tile.shape[1], batch * positions - start)
    if positions == 1:
        for j in range(0, count, SAMPLES):
            for i in range(0, features, FEATURES):
                for feature in range(i, min(i + FEATURES, features)):
                    for n in range(j, min(j + SAMPLES, count)):
                        tile[rows[feature], n] = x[start + n, feature, 0]
    else:
        for feature in range(features):
            sample, position = start // positions, start % positions
            for n in range(count):
                tile[rows[feature], n] = x[sample, feature, position]
                position += 1
                if position == positions:
                    sample, position = sample + 1, 0
    for row in range(features):
        for n in range(count, tile.shape[1]):
            tile[row, n] = tile[row, count - 1]


@njit(**FAST)
def store(x, tile, rows, start):
    """The columns of a tile to where they belong, from ``start`` on."""
    batch, features, positions = x.shape
    count = min(tile.shape[1], batch * positions - start)
    if positions == 1:
        for j in range(0, count, SAMPLES):
            for i in range(0, features, FEATURES):
                for n in range(j, min(j + SAMPLES, count)):
                    for feature in range(i, min(i + FEATURES, features)):
                        x[start + n, feature, 0] = tile[rows[feature], n]
    else:
        for feature in range(features):
            sample, position = start // positions, start % positions
            for n in range(count):
                x[sample, feature, position] = tile[rows[feature], n]
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
    """``missed`` becomes the larger of itself and (largest |x - rebuilt|, largest |x|); NaN where there is one."""
    for row in range(x.shape[0]):
        for n in range(x.shape[1]):
            difference, size = abs(x[row, n] - rebuilt[row, n]), abs(x[row, n])
            if difference > missed[0] or difference != difference:
                missed[0] = difference
            if size > missed[1]:
                missed[1] = size
