"""Products with one agent's blocks on a tile of samples.

A tile is (rows, T): T samples side by side, few enough that the rows at hand stay in cache. A block of any size is cut
into pieces whose sums fit into registers. Loops over samples are innermost and vectorised by the compiler where they
are not vector code already.
"""

from __future__ import annotations

from numba import njit

from hdnn_dist.kernels.cpu.registers import LARGEST, SQUARE, WIDE, added_rows, new_rows, summed_products
from hdnn_dist.support.compiled.functions import FAST


def _by_pieces(most, four, two, one):
    """The compiled product of any number of rows, from those of ``LARGEST``, 4, 2 and one.

    B is given by ``terms[first : last]``: one (row of x, entry of A) for every column of B. The entry is that of the
    column's first row; those of its next rows are ``down`` further each.
    """

    @njit(**FAST)
    def product(out, o, rows, x, terms, first, last, A, down, *rest):
        r, wide = 0, out.shape[1] * out.itemsize >= WIDE
        while wide and rows - r >= LARGEST:
            most(out, o + r, x, terms, first, last, A, r * down, down, *rest)
            r += LARGEST
        if wide and rows - r >= 4:
            four(out, o + r, x, terms, first, last, A, r * down, down, *rest)
            r += 4
        if wide and rows - r >= 2:
            two(out, o + r, x, terms, first, last, A, r * down, down, *rest)
            r += 2
        while rows > r:
            one(out, o + r, x, terms, first, last, A, r * down, down, *rest)
            r += 1

    return product


# add_product(..., scale): out[o : o + rows] += scale B x
# put_product(..., share, b, at): out[o : o + rows] = share b[at + o : at + o + rows] + B x
add_product = _by_pieces(*map(added_rows, (LARGEST, 4, 2, 1)))
put_product = _by_pieces(*map(new_rows, (LARGEST, 4, 2, 1)))


_square, _column, _row, _entry = (summed_products(rows, columns) for rows in (SQUARE, 1) for columns in (SQUARE, 1))


@njit(**FAST)
def outer(G, rows, columns, q, p, x, terms, first, scale):
    """G_i += scale q[p : p + rows] x^T, summed over the tile and over the parts of q and x, tuples of as many each.

    The rows of x and the entries of G_i are those of the terms from ``first`` on, as in the products.
    """
    k, wide = terms[first, 1], q[0].shape[1] * q[0].itemsize >= WIDE
    tall, broad = (rows - rows % SQUARE, columns - columns % SQUARE) if wide else (0, 0)
    for r in range(0, tall, SQUARE):
        for c in range(0, broad, SQUARE):
            _square(G, k + r * columns + c, columns, q, p + r, x, terms, first + c, scale)
        for c in range(broad, columns):
            _column(G, k + r * columns + c, columns, q, p + r, x, terms, first + c, scale)
    for r in range(tall, rows):
        for c in range(0, broad, SQUARE):
            _row(G, k + r * columns + c, columns, q, p + r, x, terms, first + c, scale)
        for c in range(broad, columns):
            _entry(G, k + r * columns + c, columns, q, p + r, x, terms, first + c, scale)
