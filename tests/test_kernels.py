"""Vector code against NumPy, for vectors as wide as several machines have them and for tiles of any width."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba is not installed: the torch kernel serves")
from hdnn_dist.kernels.cpu import registers, transfers  # noqa: E402
from hdnn_dist.kernels.cpu.tiles import add_product, outer  # noqa: E402
from hdnn_dist.support.compiled import vectors  # noqa: E402

WIDTHS = [1, 5, 16, 32, 37, 64, 95]  # less than a vector, whole blocks, and blocks that overlap
WIDE = [32, 37, 64, 95]  # of those the ones that all vectors fit in twice
TYPES = [np.float32, np.float64]
RANDOM = np.random.default_rng(5)


def normal(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.allclose(found, expected, rtol=0, atol=200 * np.finfo(found.dtype).eps))


@pytest.fixture(params=[16, 32, 64])
def _vector_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled from here on is compiled for vectors of another width."""
    monkeypatch.setattr(vectors, "VECTOR_BYTES", request.param)


@pytest.mark.usefixtures("_vector_bytes")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_weighted_rows(rows: int, dtype: type) -> None:
    """out += scale B x, and out = b + B x, rows of x and entries of B as the terms say; nothing else is touched."""
    add, put = registers.added_rows(rows), registers.new_rows(rows)

    @numba.njit
    def run(out, new, x, terms, A, down, scale):  # type: ignore[no-untyped-def]
        add(out, 1, x, terms, 1, 6, A, 2, down, scale)
        put(new, 1, x, terms, 1, 6, A, 2, down, scale, A, 69)

    terms = np.column_stack([[9, 0, 3, 1, 6, 2, 9], [0, 5, 1, 4, 2, 7, 0]])
    A = normal(80, dtype=dtype)
    for width in WIDTHS if rows == 1 else WIDE:
        out, x = normal(rows + 2, width, dtype=dtype), normal(7, width, dtype=dtype)
        B = np.array([[A[2 + entry + r * 9] for _, entry in terms[1:6]] for r in range(rows)])
        expected, new = out.copy(), out.copy()
        expected[1:-1] += dtype(0.5) * B @ x[terms[1:6, 0]]
        run(out, new, x, terms, A, 9, dtype(0.5))
        assert close(out, expected), width
        assert (out[[0, -1]] == expected[[0, -1]]).all()
        expected[1:-1] = dtype(0.5) * A[70 : 70 + rows, np.newaxis] + B @ x[terms[1:6, 0]]
        assert close(new, expected), width
        assert (new[[0, -1]] == expected[[0, -1]]).all()


@pytest.mark.usefixtures("_vector_bytes")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (4, 1), (4, 4)])
def test_summed_products(rows: int, columns: int, dtype: type) -> None:
    """G += scale (q x^T + s u^T), a sum over all samples, each of them once."""
    add = registers.summed_products(rows, columns)

    @numba.njit
    def run(G, q, s, x, u, terms, scale):  # type: ignore[no-untyped-def]
        add(G, 3, 6, (q, s), 1, (x, u), terms, 2, scale)

    terms = np.column_stack([[8, 8, 4, 0, 3, 1], np.zeros(6, dtype=np.int64)])
    for width in WIDTHS if rows == columns == 1 else WIDE:
        q, s, x, u = (normal(6, width, dtype=dtype) for _ in range(4))
        G = normal(40, dtype=dtype)
        read, expected = terms[2 : 2 + columns, 0], G.copy()
        share = q[1 : 1 + rows] @ x[read].T + s[1 : 1 + rows] @ u[read].T
        for r in range(rows):
            expected[3 + 6 * r : 3 + 6 * r + columns] += dtype(0.25) * share[r]
        run(G, q, s, x, u, terms, dtype(0.25))
        assert close(G, expected), width


@pytest.mark.parametrize("dtype", TYPES)
def test_blocks_of_any_size(dtype: type) -> None:
    """Cut into pieces: K x, K^T y by the same terms turned round, and the gradient of K."""

    @numba.njit
    def run(z, f, G, y, x, reads, returns, K, columns):  # type: ignore[no-untyped-def]
        add_product(z, 0, len(y), x, reads, 0, columns, K, columns, dtype(1))
        add_product(f, 0, columns, y, returns, 0, len(y), K, 1, dtype(-2))
        outer(G, len(y), columns, (y,), 0, (x,), reads, 0, dtype(3))

    for rows, columns, width in product((1, 3, 7, 8, 13), (3, 4, 9, 24), (3, 32, 50)):
        K, x, y = (normal(*shape, dtype=dtype) for shape in ((rows, columns), (columns, width), (rows, width)))
        z, f, G = np.zeros_like(y), np.zeros_like(x), np.zeros_like(K)
        reads = np.column_stack([np.arange(columns), np.arange(columns)])
        returns = np.column_stack([np.arange(rows), columns * np.arange(rows)])
        run(z, f, G.reshape(-1), y, x, reads, returns, K.reshape(-1), columns)
        assert close(z, K @ x)
        assert close(f, -2 * K.T @ y)
        assert close(G, 3 * y @ x.T)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("positions", [1, 3])
def test_samples_go_into_a_tile_and_back(positions: int, dtype: type) -> None:
    """Every feature to its row, by squares and one by one; columns beyond the last sample repeat it."""

    @numba.njit
    def run(tile, x, y, place, start):  # type: ignore[no-untyped-def]
        transfers.load(tile, x, place, start, 0, 1)
        transfers.load(tile, x, place, start, 1, len(place))
        transfers.store(y, tile, place, start, 0, len(place))

    for batch, features in [(1, 2), (16, 16), (37, 21), (90, 40)]:
        x, place = normal(batch, features, positions, dtype=dtype), RANDOM.permutation(features)
        y = np.zeros_like(x)
        whole = x.transpose(1, 0, 2).reshape(features, -1)
        for start in range(0, whole.shape[1], 64):
            tile = np.zeros((features, 64), dtype=dtype)
            run(tile, x, y, place, start)
            assert (tile[place] == whole[:, np.minimum(np.arange(start, start + 64), whole.shape[1] - 1)]).all()
        assert (y == x).all()
