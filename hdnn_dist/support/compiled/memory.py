"""Memory that other processes see too: words that are read and written in order, copies of bytes, and ways to wait.

Addresses are whole numbers. What one process has written before it stores a word with *release*, another one sees after
it has loaded that word with *acquire*.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

WORD = ir.IntType(64)
MONOTONIC_CLOCK = 1
PAUSES = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": ("llvm.aarch64.hint", [1])}  # 1: yield


def _pointer(builder: Any, address: Any, to: Any = WORD) -> Any:
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def load(context: Any, address: Any) -> Any:
    """The word there, which no other process writes."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        return builder.load(_pointer(builder, values[0]))

    return types.int64(types.int64), lower


@intrinsic
def store(context: Any, address: Any, value: Any) -> Any:
    """Write a word that no other process reads."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        builder.store(values[1], _pointer(builder, values[0]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), lower


@intrinsic
def load_acquire(context: Any, address: Any) -> Any:
    """The word there; nothing that follows is read before it."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        return builder.load_atomic(_pointer(builder, values[0]), "acquire", 8)

    return types.int64(types.int64), lower


@intrinsic
def store_release(context: Any, address: Any, value: Any) -> Any:
    """Write a word; everything before it is written before."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        builder.store_atomic(values[1], _pointer(builder, values[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), lower


@intrinsic
def copy_bytes(context: Any, to: Any, origin: Any, count: Any) -> Any:
    """Copy bytes from one address to another; they must not overlap."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        byte = ir.IntType(8)
        to, origin, count = values
        cgutils.raw_memcpy(builder, _pointer(builder, to, byte), _pointer(builder, origin, byte), count, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), lower


@intrinsic
def number_at(context: Any, address: Any, like: Any) -> Any:
    """The number there, of the type of those of the array ``like``."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        return builder.load(_pointer(builder, values[0], context.get_value_type(like.dtype)))

    return like.dtype(types.int64, like), lower


@intrinsic
def address_of(context: Any, array: Any, row: Any) -> Any:
    """Where a row of a matrix begins."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        given = context.make_array(called.args[0])(context, builder, values[0])
        stride = cgutils.unpack_tuple(builder, given.strides)[0]
        start = builder.ptrtoint(given.data, WORD)
        return builder.add(start, builder.mul(context.cast(builder, values[1], row, types.int64), stride))

    return types.int64(array, row), lower


def _extern(name: str, result: Any, *arguments: Any) -> Callable[[Any], Any]:
    """The function of that name of C's library or of LLVM."""

    def of(builder: Any) -> Any:
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)

    return of


_sched_yield = _extern("sched_yield", ir.IntType(32))
_clock_gettime = _extern("clock_gettime", ir.IntType(32), ir.IntType(32), WORD.as_pointer())


@intrinsic
def pause(context: Any) -> Any:
    """Tell the core that this thread spins."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        if platform.machine() in PAUSES:
            name, given = PAUSES[platform.machine()]
            arguments = [ir.Constant(ir.IntType(32), value) for value in given]
            builder.call(_extern(name, ir.VoidType(), *[value.type for value in arguments])(builder), arguments)
        return context.get_dummy_value()

    return types.void(), lower


@intrinsic
def give_way(context: Any) -> Any:
    """Let another thread have this core, if one waits for it."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        builder.call(_sched_yield(builder), [])
        return context.get_dummy_value()

    return types.void(), lower


@intrinsic
def nanoseconds(context: Any) -> Any:
    """Of a clock that only goes forward."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        time = cgutils.alloca_once(builder, WORD, 2)
        builder.call(_clock_gettime(builder), [ir.Constant(ir.IntType(32), MONOTONIC_CLOCK), time])
        seconds, rest = builder.load(time), builder.load(builder.gep(time, [ir.Constant(WORD, 1)]))
        return builder.add(builder.mul(seconds, ir.Constant(WORD, 10**9)), rest)

    return types.int64(), lower


@intrinsic
def rows_from(context: Any, array: Any, first: Any) -> Any:
    """``array[first:]``, for a place that is inside it, in few instructions."""

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        kind = called.args[0]
        make = context.make_array(kind)
        given, view = make(context, builder, values[0]), make(context, builder)
        strides, shape = (cgutils.unpack_tuple(builder, part) for part in (given.strides, given.shape))
        place = context.cast(builder, values[1], first, types.intp)
        length = builder.sub(shape[0], place)
        arrayobj.populate_array(
            view,
            data=cgutils.pointer_add(builder, given.data, builder.mul(place, strides[0]), given.data.type),
            shape=cgutils.pack_array(builder, [length, *shape[1:]]),
            strides=given.strides,
            itemsize=given.itemsize,
            meminfo=None,
        )
        return view._getvalue()

    return array(array, first), lower
