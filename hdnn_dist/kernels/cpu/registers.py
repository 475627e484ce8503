"""Sums that stay in registers until they are whole: the two products that a half-step and its gradient are made of.

A compiler that is given their loops reads and writes every row of the result once for each few columns of K. Here a few
rows of it by two vectors of samples, or a few of its entries, are kept in registers through the whole sum, so that the
multiplications are what limits them.

Rows are (rows, T), T samples side by side; ``terms``: (n, 2), each a row of x and an entry of A. What works on several
rows at a time needs ``WIDE`` bytes in each, what works on one takes any T.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from hdnn_dist.support.compiled.vectors import REGISTERS, VECTOR_BYTES, intrinsic

VECTORS = 2  # of samples that are worked on side by side
WIDE = VECTORS * VECTOR_BYTES
LARGEST = REGISTERS // 4  # rows by VECTORS at a time: half of the registers
SQUARE = 4  # rows and columns of A whose entries are summed at a time


def added_rows(rows: int) -> Callable[..., None]:
    """The compiled function that adds weighted sums of rows of x to a fixed number of rows of ``out``.

    out[o + r] += scale * sum of A[at + entry + r * down] x[row] over ``terms[first : last]``, in their order.
    """

    @intrinsic
    def add(code: Any, out: Any, o: Any, x: Any, terms: Any, first: Any, last: Any, A: Any, at: Any, down: Any,
            scale: Any) -> None:  # fmt: skip
        def after(r: int, total: Any, before: Any) -> Any:
            return code.multiply_add(code.splat(scale, total.type.count), total, before)

        _weighted_rows(code, rows, out, o, x, terms, first, last, A, at, down, after)

    return add


def new_rows(rows: int) -> Callable[..., None]:
    """The compiled function that puts weighted sums of rows of x into a fixed number of rows of ``out``.

    out[o + r] = share * b[b_at + o + r] + the sum of ``added_rows``.
    """

    @intrinsic
    def put(code: Any, out: Any, o: Any, x: Any, terms: Any, first: Any, last: Any, A: Any, at: Any, down: Any,
            share: Any, b: Any, b_at: Any) -> None:  # fmt: skip
        start = [code.builder.fmul(share, b.load(code.add(code.add(b_at, o), r))) for r in range(rows)]

        def after(r: int, total: Any, before: Any) -> Any:
            return code.builder.fadd(code.splat(start[r], total.type.count), total)

        _weighted_rows(code, rows, out, o, x, terms, first, last, A, at, down, after)

    return put


def _weighted_rows(code: Any, rows: int, out: Any, o: Any, x: Any, terms: Any, first: Any, last: Any, A: Any, at: Any,
                   down: Any, after: Callable[[int, Any, Any], Any]) -> None:  # fmt: skip
    """out[o + r] = ``after(r, total, before)`` of the sum of ``added_rows`` and of what is there; vectors each."""

    def sums(j: Any, lanes: int, vectors: int) -> Any:
        totals = code.variables(x.vector(lanes), rows, vectors)
        with code.loop(code.sub(last, first)) as n:
            row, entry = (terms.load(code.add(first, n), which) for which in (0, 1))
            x_j = [x.load(row, code.add(j, v * lanes), lanes=lanes) for v in range(vectors)]
            for r, each in enumerate(totals):
                place = code.add(code.add(at, entry), code.mul(down, r))
                weight = code.splat(A.load(place), lanes)
                for total, x_v in zip(each, x_j, strict=True):
                    code.accumulate(total, weight, x_v)
        return totals

    def columns(lanes: int) -> None:
        vectors = VECTORS if lanes > 1 else 1

        def block(j: Any, done: Any) -> None:
            for r, each in enumerate(sums(j, lanes, vectors)):
                for v, total in enumerate(each):
                    place = code.add(o, r), code.add(j, v * lanes)
                    before = out.load(*place, lanes=lanes)
                    result = after(r, code.builder.load(total), before)
                    out.store(code.new(done, v * lanes, result, before), *place)

        code.blocks(lanes * vectors, out.shape[1], block)

    if rows > 1:
        columns(x.lanes)
    else:
        code.either(x.at_least(VECTORS), columns, x.lanes, 1)


def summed_products(rows: int, columns: int) -> Callable[..., None]:
    """The compiled function that adds sums over the samples to ``rows`` by ``columns`` entries of G.

    G[at + r * width + c] += scale * sum of q[p + r] x[row of terms[first + c]], the sum over the samples and over the
    pairs of ``qs`` and ``xs``, tuples of as many q and x.
    """

    @intrinsic
    def add(code: Any, G: Any, at: Any, width: Any, qs: Any, p: Any, xs: Any, terms: Any, first: Any,
            scale: Any) -> None:  # fmt: skip
        read = [terms.load(code.add(first, c), 0) for c in range(columns)]
        side_by_side = VECTORS if rows * columns <= SQUARE else 1  # one sum alone would wait for itself

        def samples(lanes: int) -> None:
            vectors = side_by_side if lanes > 1 else 1
            entries = code.variables(G.vector(lanes), rows, columns, vectors)

            def block(j: Any, done: Any) -> None:
                for q, x in zip(qs, xs, strict=True):
                    for v in range(vectors):
                        j_v = code.add(j, v * lanes)
                        x_j = [x.load(row, j_v, lanes=lanes) for row in read]
                        for r, each in enumerate(entries):
                            q_r = code.new(done, v * lanes, q.load(code.add(p, r), j_v, lanes=lanes))
                            for entry, x_c in zip(each, x_j, strict=True):
                                code.accumulate(entry[v], q_r, x_c)

            code.blocks(lanes * vectors, qs[0].shape[1], block)
            totals = code.totals([code.sum(code.builder.load(part) for part in entry) for entry in chain(*entries)])
            for r in range(rows):
                place = code.add(at, code.mul(width, r))
                share = code.gathered(totals[r * columns : (r + 1) * columns])
                before = G.load(place, lanes=columns)
                G.store(code.multiply_add(code.splat(scale, columns), share, before), place)

        if rows * columns > 1:
            samples(G.lanes)
        else:
            code.either(qs[0].at_least(side_by_side), samples, G.lanes, 1)

    return add
