"""The raw ping-pong of shared memory: rows are copied into a box, a number behind them says that they are there.

The number is stored with release and loaded with acquire order, so that whoever sees it sees the rows.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WORD, LINE = 8, 64  # bytes
LOOKS = 200  # before other processes on this core are given way
MOST_LOOKS = 10**8  # the other rank has died
give_way = ctypes.CDLL(None).sched_yield
give_way.argtypes, give_way.restype = (), ctypes.c_int


@intrinsic  # type: ignore[untyped-decorator]
def load(typing, address):
    """The number at an address, with acquire order."""

    def code(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "acquire", WORD)

    return types.int64(types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def store(typing, address, number):
    """Write a number to an address, with release order."""

    def code(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", WORD)
        return context.get_dummy_value()

    return types.none(types.intp, types.int64), code


@njit
def _send(rows, box, flag, number):
    for i in range(len(rows)):
        box[i] = rows[i]
    store(flag, number)


@njit
def _receive(rows, box, flag, number):
    looks = 0
    while load(flag) < number:
        looks += 1
        if looks > MOST_LOOKS:
            raise TimeoutError("the other rank of a raw ping-pong has not answered")
        if looks > LOOKS:
            give_way()
    for i in range(len(rows)):
        rows[i] = box[i]


@njit(nogil=True)
def trade(rows, boxes, flags, rank, done, times):
    """Round trips of one rank, after ``done`` others.

    ``rows``: (words,); ``boxes``: (2, words), of rank 0 and of rank 1; ``flags``: (2,) addresses.
    """
    for number in range(done + 1, done + times + 1):
        if rank == 0:
            _send(rows, boxes[0], flags[0], number)
            _receive(rows, boxes[1], flags[1], number)
        else:
            _receive(rows, boxes[0], flags[0], number)
            _send(rows, boxes[1], flags[1], number)


def round_trips(path: str, rank: int, size: int) -> Callable[[int], None]:
    """A function that makes so many, of one of the two ranks; ``path``: to zeros, of two messages and 128 bytes."""
    with open(path, "r+b") as file:
        memory = np.frombuffer(mmap.mmap(file.fileno(), 0), dtype=np.int64)
    lines = memory.ctypes.data + LINE * np.arange(2)
    boxes = memory[2 * LINE // WORD :].reshape(2, -1)[:, : size // WORD]
    rows, done = np.zeros(size // WORD, dtype=np.int64), 0

    def run(times: int) -> None:
        nonlocal done
        trade(rows, boxes, lines, rank, done, times)
        done += times

    return run
