"""A layer as arrays, as compiled passes want it: its half-steps, its blocks and its coupling."""

from __future__ import annotations

import numpy as np
import torch

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.kernels.block_tables import Tables, tables_of
from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.state import canonical_rows
from hdnn_dist.propagation.system import System
from hdnn_dist.weights.blocks import BlockLayout

# A half-step. ``source``, ``target``: parts; ``bias``: where it begins; F(x) = K^T s(K x + b) if ``gradient``, else
# s(L x + b) with L = alpha K + beta K^T; C = forth A + back A^T - damping I.
HALF_STEP = np.dtype(
    [(name, np.int64) for name in ["source", "target", "operator", "bias", "replaces", "gradient"]]
    + [(name, np.float64) for name in ["scale", "alpha", "beta", "forth", "back", "damping"]]
)


class LayerTables:
    """One kind of layer of a system, that of its layout ``number``.

    ``half_steps``: (half-steps,) ``HALF_STEP``; ``coupling``: the tables of C, ``None`` where it is the identity;
    ``weights``: (1, size) of C where it has none of its own, that is J1 in blocks.
    """

    def __init__(self, system: System, number: int, dtype: torch.dtype) -> None:
        self.system, self.layout = system, system.layers.layouts[number]
        self.tables = tables_of(self.layout)
        self.coupling: Tables | None = None
        self.weights: torch.Tensor | None = None
        spec = system.coupling
        if spec.kind == "canonical":
            blocks, self.weights = _canonical_blocks(self.layout.halo, dtype)
            self.coupling = tables_of(blocks)
        elif spec.layouts:
            self.coupling = tables_of(spec.layouts[number])
        self.half_steps = np.array([self._row(half) for half in system.architecture.layer], dtype=HALF_STEP)

    def _row(self, half: HalfStep) -> tuple[float, ...]:
        system, field, parts = self.system, half.field, list(self.system.rows)
        return (
            parts.index(half.source), parts.index(half.target), half.operator, self.layout.bias_at(half.bias),
            half.replaces, field.gradient, half.scale(system.step), *field.coefficients,
            *system.coupling.coefficients(half), system.coupling.damping,
        )  # fmt: skip


def _canonical_blocks(halo: Halo, dtype: torch.dtype) -> tuple[BlockLayout, torch.Tensor]:
    """J1 = [0 -I; I 0] on the halves of each agent, as blocks on the diagonal: their layout and (1, entries)."""
    pattern = Pattern.diagonal(len(halo.sizes))
    layout = BlockLayout(Halo(halo.agents, pattern, halo.sizes), pattern, biases=0)
    rows, columns, _ = layout.positions()
    partner, sign = canonical_rows(halo.sizes)  # as many as features: such a system has one part
    values = np.where(columns == partner[rows], sign[rows], 0.0)
    return layout, torch.as_tensor(values[np.newaxis], dtype=dtype)
