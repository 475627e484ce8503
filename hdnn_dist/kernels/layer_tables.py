"""A layer as the compiled passes want it: half-steps and blocks in tables, and its exchanges counted."""

from __future__ import annotations

import numpy as np
import torch

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.kernels.block_tables import Tables, tables_of
from hdnn_dist.kernels.cpu.passes import HALF_STEP
from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.state import canonical_rows
from hdnn_dist.propagation.system import System
from hdnn_dist.weights.blocks import BlockLayout


class LayerProgram:
    """One kind of layer of a scheme whose agents all live here.

    ``half_steps``: as ``kernels.passes`` reads them; ``coupling``: the tables of C, ``None`` where it is the identity;
    ``weights``: of C where it has none of its own, that is J1 in blocks.
    """

    def __init__(self, system: System, layout: BlockLayout, dtype: torch.dtype) -> None:
        self.system, self.layout = system, layout
        self.tables = tables_of(layout)
        self.coupling: Tables | None = None
        self.weights: torch.Tensor | None = None
        plan = system.coupling
        if plan.kind == "canonical":
            blocks, self.weights = _canonical_blocks(system, layout.halo, dtype)
            self.coupling = tables_of(blocks)
        elif plan.layout is not None:
            self.coupling = tables_of(plan.layout)
        self.half_steps = np.array([self._row(half) for half in system.architecture.layer], dtype=HALF_STEP)

    def _row(self, half: HalfStep) -> tuple[float, ...]:
        system, field = self.system, half.field
        parts = list(system.rows)
        forth, back = system.coupling.coefficients(half)
        scale = 1.0 if half.replaces else half.factor * system.step
        bias = self.layout.bias_at(half.bias)
        return (
            parts.index(half.source), parts.index(half.target), half.operator, bias, half.replaces,
            scale, *field.coefficients, forth, back, system.coupling.damping,
        )  # fmt: skip

    def record(self, layers: int, row_bytes: int, reverse: bool, passes: int = 1) -> None:
        """Tell the ledger of the exchanges of passes through some layers; ``passes`` below zero take some back."""
        self._record(passes * layers, row_bytes, reverse)
        if reverse and (again := self.system.again(layers)):
            self._record(passes * again, row_bytes, reverse=False)

    def _record(self, layers: int, row_bytes: int, reverse: bool) -> None:
        for half in self.system.architecture.layer:
            self._record_form(half, layers, row_bytes, reverse)
            if half.coupled and self.system.coupling.layout is not None:
                self._record_coupling(half, layers, row_bytes, reverse)

    def _record_form(self, half: HalfStep, layers: int, row_bytes: int, reverse: bool) -> None:
        halo, field = self.layout.halo, half.field
        if reverse and field.gradient:
            halo.gather_route.record(2 * row_bytes, 0, 0, layers)
            halo.scatter_route.record((2 if self._rebuilds(half) else 1) * row_bytes, 0, 0, layers)
            return
        L = field.coefficients
        gathers, scatters = L.gathers, L.scatters + field.gradient
        if reverse:  # L as in the forward pass, and its adjoint
            gathers = scatters = L.gathers + L.scatters
        halo.gather_route.record(row_bytes, 0, 0, gathers * layers)
        halo.scatter_route.record(row_bytes, 0, 0, scatters * layers)

    def _rebuilds(self, half: HalfStep) -> bool:
        """Whether the reverse of this half-step needs F once more."""
        trained = self.system.coupling.trained and half.coupled is not None
        return trained or not self.system.architecture.simultaneous

    def _record_coupling(self, half: HalfStep, layers: int, row_bytes: int, reverse: bool) -> None:
        assert self.system.coupling.layout is not None
        halo = self.system.coupling.layout.halo
        C = self.system.coupling.coefficients(half)
        applied = int(not reverse or self._rebuilds(half))
        halo.gather_route.record(row_bytes, 0, 0, (applied * C.gathers + reverse * C.scatters) * layers)
        halo.scatter_route.record(row_bytes, 0, 0, (applied * C.scatters + reverse * C.gathers) * layers)


def _canonical_blocks(system: System, halo: Halo, dtype: torch.dtype) -> tuple[BlockLayout, torch.Tensor]:
    """J1 = [0 -I; I 0] on the halves of each agent, as blocks on the diagonal: their layout and (1, entries)."""
    pattern = Pattern.diagonal(len(halo.sizes))
    layout = BlockLayout(Halo(halo.agents, pattern, halo.sizes), pattern, biases=0)
    rows, columns, _ = layout.positions()
    partner, sign = canonical_rows(system.features)
    values = np.where(columns == partner[rows], sign[rows], 0.0)
    return layout, torch.as_tensor(values[np.newaxis], dtype=dtype)
