"""Vector fields whose work between two exchanges is compiled, for agents that are spread over ranks.

Formulas, exchanges and results are those of the fields they derive from.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.kernels.block_tables import Schedule, Tables, no_tables, schedule_of, tables_of
from hdnn_dist.kernels.cpu.activations import CODES
from hdnn_dist.kernels.cpu.passes import SERIAL
from hdnn_dist.propagation.stepper import Propagator, Stepper
from hdnn_dist.propagation.system import System
from hdnn_dist.propagation.vector_fields import Blocks, Gradient, Pointwise, VectorField


class Compiled(VectorField):
    """The tables of the compiled calls."""

    @cached_property
    def _tables(self) -> Tables:
        return tables_of(self.layout)

    def _rows(self, count: int) -> Tensor:
        return torch.zeros(count, self.width, dtype=self.dtype)

    @cached_property
    def _code(self) -> int:
        return CODES[self.activation.name]


class CompiledGradient(Compiled, Gradient):
    """K^T s(K x + b)."""

    @cached_property
    def _schedule(self) -> Schedule:
        return schedule_of(self._tables, 1)

    @cached_property
    def _responses(self) -> Tensor:
        """s, and q in reverse, in the rows of the schedule."""
        return torch.zeros(2, int(self._schedule.rows[0]), self.width, dtype=self.dtype)

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """As ``VectorField.forward``."""
        f = self._result
        x.gather()
        f.data.zero_()
        SERIAL.local_forward(self._schedule, self._tables, at.flat.numpy(), self.layout.bias_at(at.bias), self._code,
                             x.data.numpy(), self._responses[0].numpy(), f.data.numpy())  # fmt: skip
        f.scatter_add()
        return f.local

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        """As ``VectorField.reverse``."""
        fv = self._results if rebuild else self._result
        x.gather()
        state, entering, f, v = self._parts
        state.copy_(x.data[:, : self.width])
        entering.copy_(x.data[:, self.width :])
        f.zero_()
        v.zero_()
        SERIAL.local_reverse(self._schedule, self._tables, at.flat.numpy(), grad.flat.numpy(),
                             self.layout.bias_at(at.bias), self._code, rebuild, state.numpy(), entering.numpy(),
                             *self._responses.numpy(), f.numpy(), v.numpy())  # fmt: skip
        fv.data[:, -self.width :] = v
        if rebuild:
            fv.data[:, : self.width] = f
        fv.scatter_add()
        return fv.local[:, : self.width] if rebuild else None, fv.local[:, -self.width :]

    @cached_property
    def _result(self) -> HaloBuffer:
        return self._buffer(self.width)

    @cached_property
    def _results(self) -> HaloBuffer:
        return self._buffer(2 * self.width)

    @cached_property
    def _parts(self) -> list[Tensor]:
        """x, u, f and v one by one: the exchanges want them side by side."""
        return [self._rows(self.layout.halo.rows + self.layout.halo.halo_rows) for _ in range(4)]


class CompiledPointwise(Compiled, Pointwise):
    """s(L x + b) with L = alpha K + beta K^T: x is gathered for K, rows of K^T x are returned to their owners.

    In reverse L^T takes the same way, with alpha and beta swapped.
    """

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        """As ``VectorField.forward``."""
        SERIAL.local_response(self._tables, self._code, self._linear_rows(at, x), self._returned)
        return self._s

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        """As ``VectorField.reverse``."""
        q, v, G = self._entering, self._leaving, grad.flat.numpy()
        SERIAL.local_slope(self._tables, G, self.layout.bias_at(at.bias), self._code, self._linear_rows(at, x),
                           self._returned, q.local.numpy())  # fmt: skip
        if self.coefficients.beta:
            q.gather()
        SERIAL.local_adjoint(self._tables, at.flat.numpy(), G, *self.coefficients, x.data.numpy(), q.data.numpy(),
                             v.data.numpy())  # fmt: skip
        if self.coefficients.alpha:
            v.scatter_add()
        return self._s, v.local

    def _linear_rows(self, at: Blocks, x: HaloBuffer) -> np.ndarray:
        """alpha K x + b; what comes back of beta K^T x stands in ``_returned``."""
        w, s = self._leaving, self._s.numpy()
        if self.coefficients.alpha:
            x.gather()
        if self.coefficients.beta:
            w.data.zero_()
        SERIAL.local_linear(self._tables, at.flat.numpy(), self.layout.bias_at(at.bias), *self.coefficients,
                            x.data.numpy(), s, w.data.numpy())  # fmt: skip
        if self.coefficients.beta:
            w.scatter_add()
        return s

    @cached_property
    def _leaving(self) -> HaloBuffer:
        """Rows of K^T x on their way to their owners; in reverse v."""
        return self._buffer(self.width)

    @cached_property
    def _s(self) -> Tensor:
        return self._rows(self.layout.halo.rows)

    @cached_property
    def _returned(self) -> np.ndarray:
        """Those rows; none where nothing is returned."""
        return (
            self._leaving.local.numpy()
            if self.coefficients.beta
            else np.empty((0, self.width), dtype=self._s.numpy().dtype)
        )


def compiled(field: type[VectorField]) -> type[VectorField]:
    """The same field in compiled code; ``field`` is in closed form."""
    kind: type[VectorField] = CompiledGradient if field.gradient else CompiledPointwise
    return type(f"Compiled{field.__name__}", (kind, field), {})


def make(system: System, portable: Stepper, name: str) -> Propagator:
    """The portable stepper with compiled fields."""
    layer = system.architecture.layer
    for gradient in {half.field.gradient for half in layer}:
        _compile(gradient, portable.dtype)
    fields = tuple(replace(half, field=compiled(half.field)) for half in layer)
    spread = replace(system, architecture=replace(system.architecture, layer=fields))
    stepper = type(portable)(spread, portable.width, portable.dtype)
    stepper.kernel = name
    return stepper


def _compile(gradient: bool, dtype: torch.dtype) -> None:
    """Compile the calls of one kind of field for one type, or read them from the cache, by one over no agent."""
    tables = no_tables()
    schedule = schedule_of(tables, 1)
    row, rows = torch.zeros(1, dtype=dtype).numpy(), torch.zeros(1, 1, dtype=dtype).numpy()
    if gradient:
        SERIAL.local_forward(schedule, tables, row, 0, 0, rows, rows, rows)
        SERIAL.local_reverse(schedule, tables, row, row, 0, 0, True, rows, rows, rows, rows, rows, rows)
        return
    SERIAL.local_linear(tables, row, 0, 1.0, 0.0, rows, rows, rows)
    SERIAL.local_response(tables, 0, rows, rows)
    SERIAL.local_slope(tables, row, 0, 0, rows, rows, rows)
    SERIAL.local_adjoint(tables, row, row, 1.0, 0.0, rows, rows, rows)
