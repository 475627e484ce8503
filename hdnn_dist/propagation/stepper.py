"""The integrators: how half-steps lead forward through the layers, how gradients come back, and how tangents follow.

- ``SemiImplicitStepper`` serves every architecture whose half-steps read one half and write the other: semi-implicit
  Euler and Verlet. Its backward pass undoes each half-step while it computes the gradient, so no state is stored.
- ``ForwardEulerStepper`` is forward Euler, which is not explicitly invertible: it stores every k-th state.

Inside, states are (local features, width), width = samples times positions. Legend as in the vector fields:
u = h C^T g is the gradient that enters a half-step, f = F(source), v = dF^T u the one that leaves it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.half_steps import HalfSteps, Stage
from hdnn_dist.propagation.state import Parts, State, drift_of, feature_major, join, sample_major, split
from hdnn_dist.propagation.system import LayerWeights, System, Weights

CACHED_LAYOUTS = 16


class Saved(NamedTuple):
    """What a forward pass returns, and its backward pass is given: the output ``y`` for the input ``x``, of its shape.

    ``stored``: the states that are kept besides, (local features, width) or as the kernel has them.
    """

    x: Tensor
    y: Tensor
    weights: Weights
    layers: range
    stored: list[Tensor]


class Gradients(NamedTuple):
    """What a backward pass gives: gradients of the input and the weights, of their shapes, and the drift.

    ``drift``: how far the rebuilt input is from the input, the largest difference relative to the largest entry of the
    input, or to 1, a number or a tensor of one; ``None`` where states are stored.
    """

    x: Tensor | None
    weights: Weights
    drift: Tensor | float | None


class Propagator(Protocol):
    """What carries the passes out, by the ``kernel`` of that name. States are (batch, local features, positions...)."""

    kernel: str

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``."""
        ...

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``."""
        ...

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights, layers: range) -> tuple[Tensor, Tensor]:
        """As ``Stepper.tangent``."""
        ...


class Stepper(ABC):
    """Propagates one width; holds the buffers of that width, the backward ones from the first backward pass on."""

    kernel = "torch"

    def __init__(self, system: System, width: int, dtype: torch.dtype) -> None:
        self.system = system
        self.width = width
        self.dtype = dtype
        self._half_steps = lru_cache(maxsize=CACHED_LAYOUTS)(self._make_half_steps)
        self._at = 0, system.architecture.layer[0]

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """The pass of x (batch, local features, positions...) through these layers.

        What ``backward`` needs besides is kept when ``store`` is set.
        """
        with self._named("forward pass"):
            y, stored = self._forward(feature_major(x), LayerWeights(self.system, weights), layers, store)
        return Saved(x, sample_major(y, x.shape), weights, layers, stored)

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """The gradients, given that of the output, of its shape.

        That of the input, (batch, local features, positions...), may be ``None`` where it is not asked for.
        """
        grad = Weights(*(torch.zeros_like(part) for part in saved.weights))
        at, grad_at = LayerWeights(self.system, saved.weights), LayerWeights(self.system, grad)
        with self._named("backward pass"):
            grad_x, rebuilt = self._backward(saved, feature_major(grad_y), at, grad_at)
        drift = None if rebuilt is None else drift_of(feature_major(saved.x), rebuilt)
        return Gradients(sample_major(grad_x, saved.x.shape), grad, drift)

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights, layers: range) -> tuple[Tensor, Tensor]:
        """(y, dy/dx dx), of the same shape as x and dx: the Jacobian-vector product at x, with the same exchanges."""
        start = feature_major(x)
        with self._named("tangent pass"):
            at, state, change = LayerWeights(self.system, weights), State(self.width), self._split(feature_major(dx))
            for number in layers:
                self._wide(number, state, start)
                self._tangent_layer(number, at, state, change)
            y = self._join(state.parts) if layers else start
            return sample_major(y, x.shape), sample_major(self._join(change), x.shape)

    @abstractmethod
    def _forward(self, x: Tensor, at: LayerWeights, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]: ...

    @abstractmethod
    def _backward(
        self, saved: Saved, grad_y: Tensor, at: LayerWeights, grad_at: LayerWeights
    ) -> tuple[Tensor, Tensor | None]: ...

    @abstractmethod
    def _tangent_layer(self, number: int, at: LayerWeights, state: State, change: Parts) -> None: ...

    def _make_half_steps(self, layout: int) -> HalfSteps:
        return HalfSteps(self.system, layout, self.width, self.dtype)

    def _narrow(self, number: int, state: State, start: Tensor) -> HalfSteps:
        """The half-steps of a layer, with the state in its narrow buffers; a new state starts from ``start``."""
        half_steps = self._half_steps(self.system.layers.which[number])
        self._arrive(state, half_steps.narrow, start)
        return half_steps

    def _wide(self, number: int, state: State, start: Tensor) -> HalfSteps:
        """The same in its wide buffers."""
        half_steps = self._half_steps(self.system.layers.which[number])
        self._arrive(state, half_steps.wide, start)
        return half_steps

    def _arrive(self, state: State, buffers: dict[str, HaloBuffer], start: Tensor) -> None:
        state.enter(buffers, None if state.buffers else self._split(start))

    def _split(self, whole: Tensor) -> Parts:
        """The parts of a state, as new tensors."""
        return split(whole, self.system.rows)

    def _join(self, parts: Parts) -> Tensor:
        """A new state from its parts."""
        return join(parts, self.system.rows)

    def _enter(self, number: int, stage: Stage) -> None:
        self._at = number, stage.half

    def _named(self, direction: str) -> AbstractContextManager[None]:
        return located(direction, lambda: self._at)


@contextmanager
def located(direction: str, at: Callable[[], tuple[int, HalfStep]]) -> Iterator[None]:
    """An exchange that fails says in which pass it was, and ``at`` which layer and half-step."""
    try:
        yield
    except TransportError as error:
        number, half = at()
        where = f"layer {number}, half-step {half.source} -> {half.target}"
        raise TransportError(f"{direction}, {where}: {error}") from error
