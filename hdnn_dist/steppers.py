"""The integrators: how half-steps run forward through the layers, how gradients come back, and how tangents follow.

- ``SplitStepper`` serves every scheme whose half-steps read one half and write the other: semi-implicit Euler
  and Verlet. Its backward pass undoes each half-step while it computes the gradient, so no state is stored.
- ``EulerStepper`` is forward Euler, which is not explicitly invertible: it stores every k-th state.

States are (local features, width), width = samples times positions. Legend as in the forms: u = h C^T g is the
gradient that enters a half-step, f = F(source), v = dF^T u the one that leaves it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.activations import Activation
from hdnn_dist.architectures import Architecture, HalfStep
from hdnn_dist.blocks import BlockLayout
from hdnn_dist.couplings import BlockCoupling, Canonical, Coupling, Identity, SkewCoupling
from hdnn_dist.forms import Blocks, Form
from hdnn_dist.halo import Field
from hdnn_dist.transport import TransportError

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class CouplingPlan:
    """What kind of coupling a network has: ``kind`` "identity", "canonical", "block" or "skew".

    ``layout``: of its blocks, if it has any.
    """

    kind: str = "identity"
    layout: BlockLayout | None = None
    damping: float = 0.0
    trained: bool = False


@dataclass(frozen=True)
class Scheme:
    """What a stepper integrates: the architecture on one rank, its activation and its step size h.

    ``rows``: the rows of every part in a state; ``features``: (local agents,).
    """

    architecture: Architecture
    layout: BlockLayout
    activation: Activation
    step: float
    features: np.ndarray
    rows: dict[str, Tensor]
    coupling: CouplingPlan
    store_every: int = 1


class Weights(NamedTuple):
    """``blocks``: (layers, operators, size); ``coupling``: (1 or layers, size), or (0, 0) where it has none."""

    blocks: Tensor
    coupling: Tensor


class LayerViews:
    """Views of the weights by layer, made for some layers at a time.

    One call makes the views of many layers; those of all layers at once would take memory that grows with depth.
    """

    CHUNK = 32

    def __init__(self, scheme: Scheme, weights: Weights) -> None:
        self._layout = scheme.layout
        self._coupling_layout = scheme.coupling.layout
        self._weights = weights
        self._chunk = -1
        self._views: list[list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]] = []

    def __len__(self) -> int:
        return len(self._weights.blocks)

    def of(self, layer: int, half: HalfStep) -> Blocks:
        """K and b of a half-step."""
        chunk, place = divmod(layer, self.CHUNK)
        if chunk != self._chunk:
            self._chunk = chunk
            part = self._weights.blocks[chunk * self.CHUNK : (chunk + 1) * self.CHUNK]
            self._views = [self._cut(operator) for operator in part.unbind(1)]
        K, biases = self._views[half.operator][place]
        return Blocks(K, biases[half.bias])

    def coupling(self, layer: int) -> tuple[Tensor, ...]:
        """The blocks of the coupling, which is one for all layers or one for each."""
        if self._coupling_layout is None:
            return ()
        given = self._weights.coupling[layer if len(self._weights.coupling) > 1 else 0]
        return tuple(group.matrices(given) for group in self._coupling_layout.groups)

    def _cut(self, operator: Tensor) -> list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
        layout = self._layout
        K = zip(*(group.matrices(operator).unbind(0) for group in layout.groups), strict=True)
        biases = (layout.size - layout.entries) // layout.halo.rows
        b = zip(*(layout.bias(operator, number).unbind(0) for number in range(biases)), strict=True)
        return list(zip(K, b, strict=True))


class Move(NamedTuple):
    """A half-step with what carries it out at one width."""

    half: HalfStep
    form: Form
    coupling: Coupling
    scale: float


class Stepper(ABC):
    """Propagates one width; holds the buffers of that width, the backward ones from the first backward pass on."""

    def __init__(self, scheme: Scheme, width: int, dtype: torch.dtype) -> None:
        self.scheme = scheme
        self.width = width
        self.dtype = dtype
        self._moves = [self._move(half) for half in scheme.architecture.layer]
        self._at = ""

    def forward(self, x: Tensor, weights: Weights, store: bool) -> tuple[Tensor, list[Tensor]]:
        """The state after the last layer, and what ``backward`` needs beside it when ``store`` is set."""
        with self._named("forward pass"):
            return self._forward(x, LayerViews(self.scheme, weights), store)

    def backward(
        self, y: Tensor, grad_y: Tensor, weights: Weights, stored: list[Tensor]
    ) -> tuple[Tensor, Weights, Tensor | None]:
        """Gradients of the input and of the weights, and the rebuilt input where states are rebuilt."""
        grad = Weights(*(torch.zeros_like(part) for part in weights))
        layers, grad_layers = LayerViews(self.scheme, weights), LayerViews(self.scheme, grad)
        with self._named("backward pass"):
            grad_x, rebuilt = self._backward(y, grad_y, layers, grad_layers, stored)
        return grad_x, grad, rebuilt

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """(y, dy/dx dx): the Jacobian-vector product, with the same exchanges; all linearised at x."""
        with self._named("tangent pass"):
            layers = LayerViews(self.scheme, weights)
            state, change = self._tangent_state(x), self._split(dx)
            for number in range(len(layers)):
                self._tangent_layer(number, layers, state, change)
            return self._join({part: state[part].local[:, : self.width] for part in state}), self._join(change)

    @abstractmethod
    def _forward(self, x: Tensor, layers: LayerViews, store: bool) -> tuple[Tensor, list[Tensor]]: ...

    @abstractmethod
    def _backward(
        self, y: Tensor, grad_y: Tensor, layers: LayerViews, grad_layers: LayerViews, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]: ...

    @abstractmethod
    def _tangent_layer(self, number: int, layers: LayerViews, state: dict[str, Field], change: Parts) -> None: ...

    def _move(self, half: HalfStep) -> Move:
        form = half.form(self.scheme.layout, self.scheme.activation, self.width, self.dtype)
        return Move(half, form, self._coupling(half), 1.0 if half.replaces else half.factor * self.scheme.step)

    def _coupling(self, half: HalfStep) -> Coupling:
        plan = self.scheme.coupling
        like = torch.empty((), dtype=self.dtype, device=self.scheme.layout.device)
        if half.coupled is None or plan.kind == "identity":
            return Identity()
        if plan.kind == "canonical":
            return Canonical(self.scheme.features, like, plan.damping)
        assert plan.layout is not None
        if plan.kind == "skew":
            return SkewCoupling(plan.layout, self.width, self.dtype, plan.damping)
        return BlockCoupling(plan.layout, self.width, self.dtype, half.coupled == "CT", plan.damping)

    def _state(self, doubled: bool) -> dict[str, Field]:
        """A field for every part; wide enough for the reverse of the half-step that reads it if ``doubled``."""
        width = {move.half.source: move.form.source_width for move in self._moves} if doubled else {}
        return {
            part: self.scheme.layout.halo.field(width.get(part, self.width), self.dtype) for part in self.scheme.rows
        }

    @cached_property
    def _forward_state(self) -> dict[str, Field]:
        return self._state(doubled=False)

    @cached_property
    def _backward_state(self) -> dict[str, Field]:
        return self._state(doubled=True)

    def _tangent_state(self, x: Tensor) -> dict[str, Field]:
        state = self._backward_state
        self._fill(state, self._split(x))
        return state

    def _fill(self, state: dict[str, Field], parts: Parts) -> None:
        for part, rows in parts.items():
            state[part].local[:, : self.width].copy_(rows)

    def _split(self, whole: Tensor) -> Parts:
        """The parts of a state, as new tensors."""
        return {part: whole.index_select(0, rows) for part, rows in self.scheme.rows.items()}

    def _join(self, parts: Parts) -> Tensor:
        """A new state from its parts."""
        like = next(iter(parts.values()))
        whole = like.new_empty(sum(len(rows) for rows in self.scheme.rows.values()), self.width)
        for part, rows in self.scheme.rows.items():
            whole.index_copy_(0, rows, parts[part])
        return whole

    def _enter(self, number: int, move: Move) -> None:
        self._at = f"layer {number}, half-step {move.half.source} -> {move.half.target}"

    @contextmanager
    def _named(self, direction: str) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            raise TransportError(f"{direction}, {self._at}: {error}") from error


class SplitStepper(Stepper):
    """Semi-implicit Euler and Verlet: each half-step moves one half by a function of the other.

    Undoing a half-step is the same half-step with a minus sign, from the same f that the gradient needs.
    """

    def _forward(self, x: Tensor, layers: LayerViews, store: bool) -> tuple[Tensor, list[Tensor]]:
        state = self._forward_state
        self._fill(state, self._split(x))
        for number in range(len(layers)):
            for move in self._moves:
                self._enter(number, move)
                f = move.form.forward(layers.of(number, move.half), state[move.half.source])
                move.coupling.add_(state[move.half.target].local, f, move.scale, layers.coupling(number))
        return self._join({part: field.local for part, field in state.items()}), []

    def _backward(
        self, y: Tensor, grad_y: Tensor, layers: LayerViews, grad_layers: LayerViews, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        fields = self._backward_state
        self._fill(fields, self._split(y))
        state = {part: field.local[:, : self.width] for part, field in fields.items()}
        grad = self._split(grad_y)
        trained = self.scheme.coupling.trained
        for number in reversed(range(len(layers))):
            at_coupling = layers.coupling(number)
            for move in reversed(self._moves):
                half, g = move.half, grad[move.half.target]
                self._enter(number, move)
                source = fields[half.source]
                move.coupling.transpose(g, move.scale, at_coupling, out=move.form.entering(source))
                at, grad_at = layers.of(number, half), grad_layers.of(number, half)
                f, v = move.form.reverse(at, source, grad_at, rebuild=True)
                assert f is not None
                move.coupling.add_(state[half.target], f, -move.scale, at_coupling)
                if trained and half.coupled:
                    move.coupling.accumulate(grad_layers.coupling(number), f, g, move.scale)
                grad[half.source].add_(v)
        return self._join(grad), self._join(state)

    def _tangent_layer(self, number: int, layers: LayerViews, state: dict[str, Field], change: Parts) -> None:
        for move in self._moves:
            half, at_coupling = move.half, layers.coupling(number)
            self._enter(number, move)
            move.form.entering(state[half.source]).copy_(change[half.source])
            f, df = move.form.tangent(layers.of(number, half), state[half.source])
            move.coupling.add_(state[half.target].local[:, : self.width], f, move.scale, at_coupling)
            move.coupling.add_(change[half.target], df, move.scale, at_coupling)


class EulerStepper(Stepper):
    """Forward Euler: all half-steps read the state before the layer.

    Keeps the state before every ``store_every``-th layer and computes those between once more. Memory for N layers:
    (ceil(N / k) + k - 1) states, with k = ``store_every``.
    """

    def _forward(self, x: Tensor, layers: LayerViews, store: bool) -> tuple[Tensor, list[Tensor]]:
        stored = []
        self._fill(self._forward_state, self._split(x))
        for number in range(len(layers)):
            if store and number % self.scheme.store_every == 0:
                stored.append(self._now())
            self._advance(number, layers)
        return self._now(), stored

    def _now(self) -> Tensor:
        return self._join({part: field.local for part, field in self._forward_state.items()})

    def _advance(self, number: int, layers: LayerViews) -> None:
        state = self._forward_state
        after = {part: field.local.clone() for part, field in state.items()}
        for move in self._moves:
            self._enter(number, move)
            f = move.form.forward(layers.of(number, move.half), state[move.half.source])
            self._apply(move, after, f, layers.coupling(number))
        self._fill(state, after)

    def _apply(self, move: Move, after: Parts, f: Tensor, at_coupling: Sequence[Tensor]) -> None:
        if move.half.replaces:
            after[move.half.target].zero_()
        move.coupling.add_(after[move.half.target], f, move.scale, at_coupling)

    def _backward(
        self, y: Tensor, grad_y: Tensor, layers: LayerViews, grad_layers: LayerViews, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        grad = self._split(grad_y)
        for segment in reversed(range(len(stored))):
            first = segment * self.scheme.store_every
            for number, before in self._segment(first, stored[segment], layers):
                grad = self._reverse_layer(number, before, grad, layers, grad_layers)
        return self._join(grad), None

    def _reverse_layer(
        self, number: int, before: Tensor, grad: Parts, layers: LayerViews, grad_layers: LayerViews
    ) -> Parts:
        fields, at_coupling = self._backward_state, layers.coupling(number)
        self._fill(fields, self._split(before))
        replaced = {move.half.target for move in self._moves if move.half.replaces}
        leaving = {part: torch.zeros_like(g) if part in replaced else g.clone() for part, g in grad.items()}
        for move in self._moves:
            half, g = move.half, grad[move.half.target]
            self._enter(number, move)
            source = fields[half.source]
            move.coupling.transpose(g, move.scale, at_coupling, out=move.form.entering(source))
            trained = self.scheme.coupling.trained and half.coupled is not None
            at, grad_at = layers.of(number, half), grad_layers.of(number, half)
            f, v = move.form.reverse(at, source, grad_at, rebuild=trained)
            if trained:
                assert f is not None
                move.coupling.add_(torch.zeros_like(g), f, move.scale, at_coupling)  # for the blocks of f that C reads
                move.coupling.accumulate(grad_layers.coupling(number), f, g, move.scale)
            leaving[half.source].add_(v)
        return leaving

    def _segment(self, first: int, start: Tensor, layers: LayerViews) -> list[tuple[int, Tensor]]:
        """(layer, state before it) of one segment, last layer first."""
        before = [(first, start)]
        last = min(first + self.scheme.store_every, len(layers)) - 1
        if last > first:
            self._fill(self._forward_state, self._split(start))
        for number in range(first, last):
            self._advance(number, layers)
            before.append((number + 1, self._now()))
        return before[::-1]

    def _tangent_layer(self, number: int, layers: LayerViews, state: dict[str, Field], change: Parts) -> None:
        now = {part: field.local[:, : self.width] for part, field in state.items()}
        after, after_change = ({part: rows.clone() for part, rows in parts.items()} for parts in (now, change))
        for move in self._moves:
            half, at_coupling = move.half, layers.coupling(number)
            self._enter(number, move)
            move.form.entering(state[half.source]).copy_(change[half.source])
            f, df = move.form.tangent(layers.of(number, half), state[half.source])
            f = f.clone()  # the coupling may use the buffers that f and df share
            self._apply(move, after, f, at_coupling)
            self._apply(move, after_change, df, at_coupling)
        self._fill(state, after)
        change.update(after_change)
