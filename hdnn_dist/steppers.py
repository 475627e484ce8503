"""The integrators: how half-steps run forward through the layers, and how gradients come back.

- ``SplitStepper`` serves every scheme whose half-steps read one half and write the other: semi-implicit Euler
  and Verlet. Its backward pass undoes each half-step while it computes the gradient, so no state is stored.
- ``EulerStepper`` is forward Euler, which is not explicitly invertible: it stores every k-th state.

States are (local features, width), width = samples times positions. Legend as in the kernels: u = h C^T g is
the gradient that enters a half-step, f = F(source), v = dF^T u.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hdnn_dist.activations import Activation
from hdnn_dist.architectures import Architecture, HalfStep
from hdnn_dist.blocks import BlockLayout
from hdnn_dist.couplings import Coupling
from hdnn_dist.halo import Field
from hdnn_dist.kernels.torch_kernel import TorchKernel
from hdnn_dist.transport import TransportError

Blocks = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # of one operator in one layer: K and b of every group


@dataclass(frozen=True)
class Scheme:
    """What a stepper integrates: the architecture on one rank, its activation and its step size h."""

    architecture: Architecture
    layout: BlockLayout
    activation: Activation
    step: float
    rows: dict[str, Tensor]
    couplings: dict[HalfStep, Coupling]
    store_every: int = 1


class LayerViews:
    """Views of ``weights`` (layers, operators, size) by layer and operator, made for some layers at a time.

    One call makes the views of many layers; those of all layers at once would take memory that grows with depth.
    """

    CHUNK = 32

    def __init__(self, scheme: Scheme, weights: Tensor) -> None:
        self._scheme = scheme
        self._weights = weights
        self._chunk = -1
        self._views: dict[str, list[Blocks]] = {}

    def __len__(self) -> int:
        return len(self._weights)

    def of(self, layer: int, operator: str) -> Blocks:
        """K and b of every group."""
        chunk, place = divmod(layer, self.CHUNK)
        if chunk != self._chunk:
            self._chunk, self._views = chunk, self._cut(chunk * self.CHUNK)
        return self._views[operator][place]

    def _cut(self, start: int) -> dict[str, list[Blocks]]:
        groups = self._scheme.layout.groups
        views = {}
        chunk = self._weights[start : start + self.CHUNK]
        for name, weights in zip(self._scheme.architecture.operators, chunk.unbind(1), strict=True):
            K = zip(*(group.matrices(weights).unbind(0) for group in groups), strict=True)
            b = zip(*(group.biases(weights).unbind(0) for group in groups), strict=True)
            views[name] = list(zip(K, b, strict=True))
        return views


class Stepper(ABC):
    """Propagates one width; holds the buffers of that width, the backward ones from the first backward pass on."""

    def __init__(self, scheme: Scheme, width: int, dtype: torch.dtype) -> None:
        self.scheme = scheme
        self.width = width
        self.dtype = dtype
        self._halves = [(half, scheme.couplings[half], half.factor * scheme.step) for half in scheme.architecture.layer]
        self._at = ""

    def forward(self, x: Tensor, weights: Tensor, store: bool) -> tuple[Tensor, list[Tensor]]:
        """The state after the last layer, and what ``backward`` needs beside it when ``store`` is set."""
        try:
            return self._forward(x, LayerViews(self.scheme, weights), store)
        except TransportError as error:
            raise TransportError(f"forward pass, {self._at}: {error}") from error

    def backward(
        self, y: Tensor, grad_y: Tensor, weights: Tensor, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of the input and of the weights, and the rebuilt input where states are rebuilt."""
        grad_weights = torch.zeros_like(weights)
        layers, grad_layers = LayerViews(self.scheme, weights), LayerViews(self.scheme, grad_weights)
        try:
            grad_x, rebuilt = self._backward(y, grad_y, layers, grad_layers, stored)
        except TransportError as error:
            raise TransportError(f"backward pass, {self._at}: {error}") from error
        return grad_x, grad_weights, rebuilt

    @abstractmethod
    def _forward(self, x: Tensor, layers: LayerViews, store: bool) -> tuple[Tensor, list[Tensor]]: ...

    @abstractmethod
    def _backward(
        self,
        y: Tensor,
        grad_y: Tensor,
        layers: LayerViews,
        grad_layers: LayerViews,
        stored: list[Tensor],
    ) -> tuple[Tensor, Tensor | None]: ...

    def _field(self, width: int) -> Field:
        return self.scheme.layout.halo.field(width, self.dtype)

    def _kernel(self, width: int, returned: int) -> TorchKernel:
        return TorchKernel(self.scheme.layout, self.scheme.activation, width, returned, self.dtype)

    def _advance(self, layer: int, layers: LayerViews, state: dict[str, Field], f: Field) -> None:
        """One layer: every half-step in turn."""
        for half, coupling, scale in self._halves:
            self._at = f"layer {layer}, half-step {half.source} -> {half.target}"
            state[half.source].gather()
            self._forward_kernel.forward(*layers.of(layer, half.operator), state[half.source].data, f.data)
            f.scatter_add()
            coupling.add_(state[half.target].local, f.local, scale)

    @cached_property
    def _forward_kernel(self) -> TorchKernel:
        return self._kernel(self.width, self.width)

    @cached_property
    def _forward_fields(self) -> tuple[dict[str, Field], Field]:
        return {part: self._field(self.width) for part in self.scheme.rows}, self._field(self.width)

    def _split(self, whole: Tensor, parts: dict[str, Tensor]) -> None:
        """Copy the rows of a state into its parts."""
        for part, rows in self.scheme.rows.items():
            parts[part].copy_(whole.index_select(0, rows))

    def _join(self, parts: dict[str, Tensor]) -> Tensor:
        """A new state from its parts."""
        like = next(iter(parts.values()))
        whole = like.new_empty(sum(len(rows) for rows in self.scheme.rows.values()), self.width)
        for part, rows in self.scheme.rows.items():
            whole.index_copy_(0, rows, parts[part])
        return whole


class SplitStepper(Stepper):
    """Semi-implicit Euler and Verlet: each half-step moves one half by a function of the other.

    Undoing a half-step is the same half-step with a minus sign, from the same f that the gradient needs.
    """

    def _forward(self, x: Tensor, layers: LayerViews, store: bool) -> tuple[Tensor, list[Tensor]]:
        state, f = self._forward_fields
        self._split(x, {part: field.local for part, field in state.items()})
        for number in range(len(layers)):
            self._advance(number, layers, state, f)
        return self._join({part: field.local for part, field in state.items()}), []

    def _backward(
        self,
        y: Tensor,
        grad_y: Tensor,
        layers: LayerViews,
        grad_layers: LayerViews,
        stored: list[Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        fields, fv = self._backward_fields
        state = {part: field.local[:, : self.width] for part, field in fields.items()}
        entering = {part: field.local[:, self.width :] for part, field in fields.items()}
        f, v = fv.local[:, : self.width], fv.local[:, self.width :]
        grad = {part: torch.empty_like(u) for part, u in entering.items()}
        self._split(y, state)
        self._split(grad_y, grad)
        for number in reversed(range(len(layers))):
            for half, coupling, scale in reversed(self._halves):
                self._at = f"layer {number}, half-step {half.source} -> {half.target}"
                coupling.transpose(grad[half.target], scale, out=entering[half.source])
                fields[half.source].gather()
                self._backward_kernel.reverse(
                    *layers.of(number, half.operator),
                    fields[half.source].data,
                    fv.data,
                    *grad_layers.of(number, half.operator),
                )
                fv.scatter_add()
                coupling.add_(state[half.target], f, -scale)
                grad[half.source].add_(v)
        return self._join(grad), self._join(state)

    @cached_property
    def _backward_kernel(self) -> TorchKernel:
        return self._kernel(2 * self.width, 2 * self.width)

    @cached_property
    def _backward_fields(self) -> tuple[dict[str, Field], Field]:
        return {part: self._field(2 * self.width) for part in self.scheme.rows}, self._field(2 * self.width)


class EulerStepper(Stepper):
    """Forward Euler: keeps the state before every ``store_every``-th layer and computes those between once more.

    Memory for N layers: (ceil(N / k) + k - 1) states, with k = ``store_every``.
    """

    def _forward(self, x: Tensor, layers: LayerViews, store: bool) -> tuple[Tensor, list[Tensor]]:
        (state, f), stored = self._forward_fields, []
        y = state["y"].local.copy_(x)
        for number in range(len(layers)):
            if store and number % self.scheme.store_every == 0:
                stored.append(y.clone())
            self._advance(number, layers, state, f)
        return y.clone(), stored

    def _backward(
        self,
        y: Tensor,
        grad_y: Tensor,
        layers: LayerViews,
        grad_layers: LayerViews,
        stored: list[Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        field, v = self._backward_fields
        state, entering = field.local[:, : self.width], field.local[:, self.width :]
        ((half, coupling, scale),) = self._halves
        grad = grad_y.clone()
        for segment in reversed(range(len(stored))):
            first = segment * self.scheme.store_every
            for number, before in self._segment(first, stored[segment], layers):
                self._at = f"layer {number}, half-step y -> y"
                state.copy_(before)
                coupling.transpose(grad, scale, out=entering)
                field.gather()
                self._backward_kernel.reverse(
                    *layers.of(number, half.operator), field.data, v.data, *grad_layers.of(number, half.operator)
                )
                v.scatter_add()
                grad.add_(v.local)
        return grad, None

    def _segment(self, first: int, start: Tensor, layers: LayerViews) -> list[tuple[int, Tensor]]:
        """(layer, state before it) of one segment, last layer first."""
        (state, f), before = self._forward_fields, [(first, start)]
        last = min(first + self.scheme.store_every, len(layers)) - 1
        state["y"].local.copy_(start)
        for number in range(first, last):
            self._advance(number, layers, state, f)
            before.append((number + 1, state["y"].local.clone()))
        return before[::-1]

    @cached_property
    def _backward_kernel(self) -> TorchKernel:
        return self._kernel(2 * self.width, self.width)

    @cached_property
    def _backward_fields(self) -> tuple[Field, Field]:
        return self._field(2 * self.width), self._field(self.width)
