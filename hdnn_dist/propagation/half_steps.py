"""The half-steps of a layer with what carries them out at one width: vector fields, couplings, buffers of the state."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.couplings import BlockCoupling, Canonical, Coupling, Identity
from hdnn_dist.propagation.system import System
from hdnn_dist.propagation.vector_fields import VectorField


class Stage(NamedTuple):
    """A half-step with what carries it out at one width."""

    half: HalfStep
    field: VectorField
    coupling: Coupling
    scale: float


class HalfSteps:
    """The half-steps of one layout, by its number, at one width, and the buffers of the state for them."""

    def __init__(self, system: System, number: int, width: int, dtype: torch.dtype) -> None:
        self._system, self._number, self._width, self._dtype = system, number, width, dtype
        self._layout = system.layers.layouts[number]
        self.stages = [self._stage(half) for half in system.architecture.layer]

    @cached_property
    def narrow(self) -> dict[str, HaloBuffer]:
        """A buffer for every part."""
        return {part: self._layout.halo.buffer(self._width, self._dtype) for part in self._system.rows}

    @cached_property
    def wide(self) -> dict[str, HaloBuffer]:
        """The same, wide enough for the reverse of the half-step that reads the part."""
        width = {stage.half.source: stage.field.source_width for stage in self.stages}
        return {part: self._layout.halo.buffer(width.get(part, self._width), self._dtype) for part in self._system.rows}

    def _stage(self, half: HalfStep) -> Stage:
        field = half.field(self._layout, self._system.activation, self._width, self._dtype)
        return Stage(half, field, self._coupling(half), half.scale(self._system.step))

    def _coupling(self, half: HalfStep) -> Coupling:
        spec = self._system.coupling
        if half.coupled is None or spec.kind == "identity":
            return Identity()
        if spec.kind == "canonical":
            like = torch.empty((), dtype=self._dtype, device=self._layout.device)
            return Canonical(self._system.features, like, spec.damping)
        layout = spec.layouts[self._number]
        return BlockCoupling(layout, spec.coefficients(half), self._width, self._dtype, spec.damping)
