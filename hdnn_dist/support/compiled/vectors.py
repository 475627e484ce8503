"""Vector code for numba: what its compiler cannot make of loops, written as LLVM instructions on whole vectors.

A compiled function calls an *intrinsic*, a Python function that writes instructions when it is compiled; ``intrinsic``
makes one of a function of ``Code`` and of what it is called with. Vectors are as wide as this machine's; LLVM splits
them where they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from inspect import Parameter, Signature, signature
from typing import Any

from llvmlite import binding, ir
from numba import extending
from numba.core import cgutils, types

_FEATURES = binding.get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
REGISTERS = 16 if VECTOR_BYTES == 32 else 32

INDEX = ir.IntType(64)
BYTE = ir.IntType(8).as_pointer()


def intrinsic(write: Callable[..., None]) -> Callable[..., None]:
    """The compiled function of which ``write(code, *arguments)`` writes the instructions; it returns nothing.

    Arguments that are arrays come as ``Array``, tuples as lists, numbers as values, whole ones as ``INDEX``.
    """

    def typed(context: Any, *arguments: Any) -> Any:
        return types.void(*arguments), lower

    def lower(context: Any, builder: Any, called: Any, values: Any) -> Any:
        code = Code(builder)
        write(code, *(_argument(context, code, kind, value) for kind, value in zip(called.args, values, strict=True)))
        return context.get_dummy_value()

    names = [Parameter("context", Parameter.POSITIONAL_ONLY), *list(signature(write).parameters.values())[1:]]
    typed.__signature__ = Signature(names)  # type: ignore[attr-defined]
    typed.__name__ = write.__name__
    return extending.intrinsic(typed)  # type: ignore[no-any-return]


def _argument(context: Any, code: Code, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        return Array(context, code, kind, value)
    if isinstance(kind, (types.UniTuple, types.Tuple)):
        parts = cgutils.unpack_tuple(code.builder, value)
        return [_argument(context, code, inner, part) for inner, part in zip(kind.types, parts, strict=True)]
    return context.cast(code.builder, value, kind, types.intp) if isinstance(kind, types.Integer) else value


class Code:
    """Instructions at one place of a function. Indices are ``INDEX`` values or Python's whole numbers."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def index(self, number: Any) -> Any:
        """A value of a whole number."""
        return ir.Constant(INDEX, number) if isinstance(number, int) else number

    def add(self, a: Any, b: Any) -> Any:
        """a + b, of indices."""
        return self.builder.add(self.index(a), self.index(b))

    def sub(self, a: Any, b: Any) -> Any:
        """a - b, of indices."""
        return self.builder.sub(self.index(a), self.index(b))

    def mul(self, a: Any, b: Any) -> Any:
        """a b, of indices."""
        return self.builder.mul(self.index(a), self.index(b))

    @contextmanager
    def loop(self, count: Any) -> Iterator[Any]:
        """The instructions inside are repeated for 0, ..., count - 1."""
        with cgutils.for_range(self.builder, self.index(count)) as loop:
            yield loop.index

    def blocks(self, size: int, width: Any, write: Callable[[Any, Any], None]) -> None:
        """``write(j, done)`` for every block of ``size`` of at least as many columns, from column j on.

        ``done``: how many of its first columns are done; ``None`` except for a last block that begins early to fit.
        """
        number = self.builder.sdiv(self.index(width), self.index(size))
        with self.loop(number) as block:
            write(self.mul(block, size), None)
        whole, last = self.mul(number, size), self.sub(width, size)
        with self.builder.if_then(self.builder.icmp_signed("<", whole, width)):
            write(last, self.sub(whole, last))

    def either(self, condition: Any, write: Callable[[int], None], one: int, other: int) -> None:
        """``write(one)`` where the condition holds, else ``write(other)``."""
        with self.builder.if_else(condition) as (then, otherwise):
            with then:
                write(one)
            with otherwise:
                write(other)

    def variables(self, vector: Any, *shape: int) -> Any:
        """Nested lists of variables, zero at first; LLVM keeps them in registers as long as there are enough."""
        if shape:
            return [self.variables(vector, *shape[1:]) for _ in range(shape[0])]
        variable = cgutils.alloca_once(self.builder, vector)
        self.builder.store(ir.Constant(vector, [0.0] * vector.count), variable)
        return variable

    def accumulate(self, variable: Any, a: Any, b: Any) -> None:
        """variable += a b."""
        self.builder.store(self.multiply_add(a, b, self.builder.load(variable)), variable)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once where the machine can."""
        return self.builder.fadd(self.builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])

    def sum(self, vectors: Iterable[Any]) -> Any:
        """Of some vectors."""
        return reduce(self.builder.fadd, vectors)

    def splat(self, number: Any, lanes: int) -> Any:
        """A vector of one number."""
        nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, nothing, [0] * lanes)

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """A vector of some lanes of a and of b, whose lanes are counted on from those of a."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))

    def new(self, done: Any, begin: int, a: Any, b: Any = None) -> Any:
        """The vector a where its lanes, counted from ``begin``, are not among those done; there b, or zero."""
        if done is None:
            return a
        lanes = a.type.count
        lane = ir.Constant(ir.VectorType(INDEX, lanes), list(range(begin, begin + lanes)))
        chosen = self.builder.icmp_signed(">=", lane, self.splat(done, lanes))
        return self.builder.select(chosen, a, ir.Constant(a.type, [0.0] * lanes) if b is None else b)

    def totals(self, vectors: Sequence[Any]) -> list[Any]:
        """The sum over the lanes of every one of 2^n vectors, by adding neighbouring lanes of two vectors at a time."""
        lanes = parts = vectors[0].type.count
        while parts > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else [(vectors[0], vectors[0])]
            lanes = lanes if len(vectors) > 1 else lanes // 2
            even, parts = range(0, 2 * lanes, 2), parts // 2
            vectors = [
                self.builder.fadd(self.shuffle(a, b, even), self.shuffle(a, b, [lane + 1 for lane in even]))
                for a, b in pairs
            ]
        return [self.builder.extract_element(v, ir.Constant(ir.IntType(32), n)) for v in vectors for n in range(lanes)]

    def gathered(self, numbers: Sequence[Any]) -> Any:
        """A vector of some numbers."""
        vector = ir.Constant(ir.VectorType(numbers[0].type, len(numbers)), ir.Undefined)
        for lane, number in enumerate(numbers):
            vector = self.builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
        return vector

    def transposed(self, vectors: Sequence[Any]) -> list[Any]:
        """2^n vectors of 2^n lanes, rows of a matrix, as those of its transpose."""
        size = len(vectors)
        low = [lane // 2 + size * (lane % 2) for lane in range(size)]
        high = [lane + size // 2 for lane in low]
        rows = list(vectors)
        for _ in range(size.bit_length() - 1):
            pairs = zip(rows[: size // 2], rows[size // 2 :], strict=True)
            rows = [self.shuffle(a, b, lanes) for a, b in pairs for lanes in (low, high)]
        return rows


class Array:
    """An array of numbers whose last dimension is contiguous. ``number``: their type, ``lanes``: of a whole vector."""

    def __init__(self, context: Any, code: Code, kind: Any, value: Any) -> None:
        given = context.make_array(kind)(context, code.builder, value)
        self._code, self._builder = code, code.builder
        self._data = self._builder.bitcast(given.data, BYTE)
        self._strides = cgutils.unpack_tuple(self._builder, given.strides)
        self.shape = cgutils.unpack_tuple(self._builder, given.shape)
        self.number = context.get_value_type(kind.dtype)
        self._bytes = kind.dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self._bytes

    def vector(self, lanes: int) -> Any:
        """The type of so many of its numbers."""
        return ir.VectorType(self.number, lanes)

    def at_least(self, vectors: int) -> Any:
        """Whether its rows have so many whole vectors."""
        return self._builder.icmp_signed(">=", self.shape[-1], self._code.index(vectors * self.lanes))

    def load(self, *place: Any, lanes: int | None = None) -> Any:
        """The number at a place, or the vector that begins there."""
        return self._builder.load(self._at(place, lanes), align=self._bytes)

    def store(self, value: Any, *place: Any) -> None:
        """A vector to a place."""
        self._builder.store(value, self._at(place, value.type.count), align=self._bytes)

    def _at(self, place: Sequence[Any], lanes: int | None) -> Any:
        address = self._data
        for index, stride in zip(place, self._strides, strict=True):
            address = self._builder.gep(address, [self._code.mul(index, stride)])
        return self._builder.bitcast(address, (self.vector(lanes) if lanes else self.number).as_pointer())
