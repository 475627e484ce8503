"""What a stepper works with: the scheme, the operands of each layer, and where the state stands for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.architectures import Architecture, HalfStep
from hdnn_dist.propagation.couplings import BlockCoupling, Canonical, Coupling, Identity, SkewCoupling
from hdnn_dist.propagation.vector_fields import Blocks, Form
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers, LayerViews

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class CouplingPlan:
    """What kind of coupling a network has: ``kind`` "identity", "canonical", "block" or "skew".

    ``layouts``: of its blocks, if it has any, beside each layout of the layers, whose graph it keeps to.
    """

    kind: str = "identity"
    layouts: tuple[BlockLayout, ...] = ()
    damping: float = 0.0
    trained: bool = False

    @property
    def layout(self) -> BlockLayout | None:
        """The layout of the first layer, and of all where the coupling is one for all layers."""
        return self.layouts[0] if self.layouts else None


@dataclass(frozen=True)
class Scheme:
    """What a stepper integrates: the architecture on one rank, its layers, its activation and its step size h.

    ``rows``: the rows of every part in a state; ``features``: (local agents,).
    """

    architecture: Architecture
    layers: Layers
    activation: Activation
    step: float
    features: np.ndarray
    rows: dict[str, Tensor]
    coupling: CouplingPlan
    store_every: int = 1

    @property
    def whole(self) -> bool:
        """Whether all agents live here and all layers are alike, so that a pass needs no exchange and one layout."""
        return self.layers.alike and self.layers.layouts[0].halo.agents.world.size == 1

    def again(self, layers: int) -> int:
        """How many layers a backward pass through so many computes once more, between the states that are stored."""
        return layers - -(-layers // self.store_every) if self.architecture.simultaneous else 0


class Weights(NamedTuple):
    """``blocks``: all K and b, as ``Layers`` says; ``coupling``: (1 or layers, size), or (0, 0) where it has none.

    ``size``: of the largest layout of the coupling; in layers with a smaller one, zeros follow.
    """

    blocks: Tensor
    coupling: Tensor


class Operands:
    """What the half-steps of a layer work with, as views of the weights or of their gradients."""

    def __init__(self, scheme: Scheme, weights: Weights) -> None:
        self._views = LayerViews(scheme.layers, weights.blocks)
        self._scheme = scheme
        self._coupling = weights.coupling

    def of(self, layer: int, half: HalfStep) -> Blocks:
        """K and b of a half-step."""
        K, biases, flat = self._views.of(layer, half.operator)
        return Blocks(K, biases[half.bias], flat, half.bias)

    def coupling(self, layer: int) -> tuple[Tensor, ...]:
        """The blocks of the coupling, which is one for all layers or one for each."""
        layouts = self._scheme.coupling.layouts
        if not layouts:
            return ()
        given = self._coupling[layer if len(self._coupling) > 1 else 0]
        return tuple(group.matrices(given) for group in layouts[self._scheme.layers.which[layer]].groups)


class Move(NamedTuple):
    """A half-step with what carries it out at one width."""

    half: HalfStep
    form: Form
    coupling: Coupling
    scale: float


class Station:
    """The half-steps of one layout, by its number, at one width, and the fields of the state for them."""

    def __init__(self, scheme: Scheme, number: int, width: int, dtype: torch.dtype) -> None:
        self._scheme, self._number, self._width, self._dtype = scheme, number, width, dtype
        self._layout = scheme.layers.layouts[number]
        self.moves = [self._move(half) for half in scheme.architecture.layer]

    @cached_property
    def narrow(self) -> dict[str, HaloBuffer]:
        """A field for every part."""
        return {part: self._layout.halo.buffer(self._width, self._dtype) for part in self._scheme.rows}

    @cached_property
    def wide(self) -> dict[str, HaloBuffer]:
        """The same, wide enough for the reverse of the half-step that reads the part."""
        width = {move.half.source: move.form.source_width for move in self.moves}
        return {part: self._layout.halo.buffer(width.get(part, self._width), self._dtype) for part in self._scheme.rows}

    def _move(self, half: HalfStep) -> Move:
        form = half.form(self._layout, self._scheme.activation, self._width, self._dtype)
        return Move(half, form, self._coupling(half), 1.0 if half.replaces else half.factor * self._scheme.step)

    def _coupling(self, half: HalfStep) -> Coupling:
        plan = self._scheme.coupling
        like = torch.empty((), dtype=self._dtype, device=self._layout.device)
        if half.coupled is None or plan.kind == "identity":
            return Identity()
        if plan.kind == "canonical":
            return Canonical(self._scheme.features, like, plan.damping)
        layout = plan.layouts[self._number]
        if plan.kind == "skew":
            return SkewCoupling(layout, self._width, self._dtype, plan.damping)
        return BlockCoupling(layout, self._width, self._dtype, half.coupled == "CT", plan.damping)


class State:
    """A state in the fields of the station that works on it; ``parts``: its rows there, (rows, width) each."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.fields: dict[str, HaloBuffer] = {}
        self.parts: Parts = {}

    def put(self, parts: Parts) -> None:
        """Copy rows into the fields where the state is."""
        for part, rows in parts.items():
            self.parts[part].copy_(rows)

    def move(self, fields: dict[str, HaloBuffer], start: Parts | None) -> None:
        """Go to other fields, from ``start`` if that is given; costs nothing if the state is there already."""
        if fields is not self.fields:
            before = start or self.parts
            self.fields, self.parts = fields, {part: f.local[:, : self._width] for part, f in fields.items()}
            self.put(before)
