"""Forms whose work between two exchanges is one compiled call, for agents that are spread over ranks.

Formulas, exchanges and results are those of the forms they derive from.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.architectures import Architecture
from hdnn_dist.forms import Blocks, Direct, Form, Gradient
from hdnn_dist.halo import Field
from hdnn_dist.kernels.compiled_activations import CODES
from hdnn_dist.kernels.passes import SERIAL
from hdnn_dist.kernels.tables import Tables, no_tables, schedule_of, tables_of


def given(truth: bool) -> bool | None:
    """What compiled code takes for true and false, so that it can leave out what is false."""
    return True if truth else None


class Compiled(Form):
    """The tables and buffers of the compiled calls."""

    @cached_property
    def _tables(self) -> Tables:
        return tables_of(self.layout)

    @cached_property
    def _steps(self) -> np.ndarray:
        return schedule_of(self._tables, 1).steps

    @cached_property
    def _responses(self) -> np.ndarray:
        """The steps without the settling of blocks, which a form that is not a gradient does not need going forward."""
        return self._steps[self._steps >= 0]

    @cached_property
    def _s(self) -> Tensor:
        return self._rows(self.layout.halo.rows)

    @cached_property
    def _q(self) -> Tensor:
        return self._rows(self.layout.halo.rows)

    def _rows(self, count: int) -> Tensor:
        return torch.zeros(count, self.width, dtype=self.dtype)

    def _respond(self, at: Blocks, x: Tensor, f: Tensor) -> None:
        """s = s(K x + b), and K^T s added to f."""
        steps, bias = self._steps if self.gradient else self._responses, self.layout.bias_at(at.bias)
        SERIAL.local_forward(steps, self._tables, at.flat.numpy(), bias, given(self.gradient),
                             given(not self.gradient), CODES[self.activation.name], x.numpy(), self._s.numpy(),
                             f.numpy())  # fmt: skip

    def _respond_both(
        self, at: Blocks, grad: Blocks, rebuild: bool, x: Tensor, u: Tensor, f: Tensor, v: Tensor
    ) -> None:
        """s and q, their share in the gradients, K^T s added to f (if ``rebuild``), and K^T q added to v."""
        bias = self.layout.bias_at(at.bias)
        SERIAL.local_reverse(self._steps, self._tables, at.flat.numpy(), grad.flat.numpy(), bias,
                             given(self.gradient), given(not self.gradient), CODES[self.activation.name], rebuild,
                             x.numpy(), u.numpy(), self._s.numpy(), self._q.numpy(), f.numpy(), v.numpy())  # fmt: skip


class CompiledGradient(Compiled, Gradient):
    """K^T s(K x + b)."""

    def forward(self, at: Blocks, x: Field) -> Tensor:
        f = self._result
        x.gather()
        f.data.zero_()
        self._respond(at, x.data, f.data)
        f.scatter_add()
        return f.local

    def reverse(self, at: Blocks, x: Field, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        fv = self._results if rebuild else self._result
        x.gather()
        state, entering, f, v = self._parts
        state.copy_(x.data[:, : self.width])
        entering.copy_(x.data[:, self.width :])
        f.zero_()
        v.zero_()
        self._respond_both(at, grad, rebuild, state, entering, f, v)
        fv.data[:, -self.width :] = v
        if rebuild:
            fv.data[:, : self.width] = f
        fv.scatter_add()
        return fv.local[:, : self.width] if rebuild else None, fv.local[:, -self.width :]

    @cached_property
    def _result(self) -> Field:
        return self._field(self.width)

    @cached_property
    def _results(self) -> Field:
        return self._field(2 * self.width)

    @cached_property
    def _parts(self) -> list[Tensor]:
        """x, u, f and v one by one: the exchanges want them side by side."""
        return [self._rows(self.layout.halo.rows + self.layout.halo.halo_rows) for _ in range(4)]


class CompiledDirect(Compiled, Direct):
    """s(K x + b)."""

    def forward(self, at: Blocks, x: Field) -> Tensor:
        x.gather()
        self._respond(at, x.data, self._s)
        return self._s

    def reverse(self, at: Blocks, x: Field, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        x.gather()
        v = self._leaving
        v.data.zero_()
        self._respond_both(at, grad, False, x.data, self._entering.data, self._s, v.data)
        v.scatter_add()
        return self._s, v.local


COMPILED: dict[type[Form], type[Form]] = {Gradient: CompiledGradient, Direct: CompiledDirect}


def compiled(architecture: Architecture) -> Architecture:
    """The same architecture with compiled forms, where there are such."""
    layer = tuple(replace(half, form=COMPILED.get(half.form, half.form)) for half in architecture.layer)
    return replace(architecture, layer=layer)


def compile_forms(gradient: bool, dtype: torch.dtype) -> None:
    """Compile the calls of one kind of form for one type, or read them from the cache, by one over no agent."""
    none, tables = np.zeros(0, dtype=np.int64), no_tables()
    row, rows = torch.zeros(1, dtype=dtype).numpy(), torch.zeros(1, 1, dtype=dtype).numpy()
    SERIAL.local_forward(none, tables, row, 0, given(gradient), given(not gradient), 0, rows, rows, rows)
    SERIAL.local_reverse(
        none, tables, row, row, 0, given(gradient), given(not gradient), 0, True, rows, rows, rows, rows, rows, rows
    )
