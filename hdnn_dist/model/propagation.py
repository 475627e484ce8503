"""The pass through all layers as one node of autograd, and the steppers that carry it out, one pass at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hdnn_dist.exchange.agreement import collected
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.kernels.registry import alone, propagator
from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved
from hdnn_dist.propagation.system import System, Weights

CACHED_WIDTHS = 4
LARGE_DRIFT = 1e-2


class DriftWarning(UserWarning):
    """The states rebuilt by the backward pass have drifted from those of the forward pass."""


class Drift:
    """How far the states rebuilt by the last backward pass were from the input; warns, once, where that is too far."""

    def __init__(self) -> None:
        self._last: Tensor | float | None = None
        self._warned = False

    @property
    def value(self) -> float | None:
        """A number; ``None`` before the first backward pass, and where no state is rebuilt."""
        return None if self._last is None else float(self._last)

    def watch(self, drift: Tensor | float) -> None:
        """Keep a number, or a tensor of one. On a GPU it is only kept: reading it would wait for the pass to end."""
        self._last = drift
        on_host = not isinstance(drift, Tensor) or drift.device.type == "cpu"
        if on_host and not self._warned and not drift <= LARGE_DRIFT:
            self._warned = True
            warnings.warn(
                f"rebuilding the input from the output missed it by {self.value:.1e} (relative): gradients are "
                "unreliable; lower the step, scale K down (initial='scaled', smoothness), or use float64",
                DriftWarning,
                stacklevel=2,
            )


class Identity:
    """Carries out the passes through no layer, and those of no sample: nothing is computed or exchanged."""

    kernel = "none"

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``: y is a copy of x."""
        return Saved(x, x.clone(), weights, layers, [])

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``: the gradient of the input is that of the output, that of the weights zero."""
        return Gradients(grad_y, Weights(*(torch.zeros_like(part) for part in saved.weights)), None)

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights, layers: range) -> tuple[Tensor, Tensor]:
        """As ``Stepper.tangent``: copies."""
        return x.clone(), dx.clone()


class Passes:
    """The steppers of a system, made for each width and kept for the last few; their buffers serve one pass at a time.

    ``tree``: of all agents, asked for where there are other ranks. A copy has steppers of its own.
    """

    def __init__(self, system: System, kernel: str, tree: Callable[[], SumTree]) -> None:
        self.system, self.kernel, self._tree = system, kernel, tree
        self.device = next(iter(system.rows.values())).device.type
        self.drift = Drift()
        self.lock = RLock()
        self.stepper = lru_cache(maxsize=CACHED_WIDTHS)(self._make)

    def of(self, x: Tensor, layers: range) -> Propagator:
        """What leads an input (batch, local features[, positions...]) through these layers."""
        return self.stepper(x.numel() // x.shape[1], x.dtype) if layers and x.numel() else Identity()

    def one(self) -> AbstractContextManager[object]:
        """One pass at a time, whatever the thread, in the types of its tensors.

        Buffers that are made in it can be written to outside inference mode too.
        """
        apart = torch.is_inference_mode_enabled() or torch.is_autocast_enabled(self.device)
        return self._apart() if apart else self.lock

    @contextmanager
    def _apart(self) -> Iterator[None]:
        with self.lock, torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device, enabled=False):
            yield

    def _make(self, width: int, dtype: torch.dtype) -> Propagator:
        return propagator(self.system, width, dtype, self.kernel, self._collect)

    def _collect(self, numbers: Sequence[float]) -> Tensor:
        """(ranks, n) those of every rank."""
        return torch.tensor([numbers]) if alone(self.system) else collected(self._tree(), numbers)

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return Passes(self.system, self.kernel, self._tree)


class Propagation(torch.autograd.Function):
    """The pass through all layers as one node: autograd sees no exchange, so it cannot prune or reorder any."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, coupling: Tensor, passes: Passes, layers: range, grad: bool
    ) -> Tensor:
        """y for x, of its shape; ``grad``: whether gradients are enabled."""
        store = grad and any(ctx.needs_input_grad)  # needs_input_grad knows nothing of no_grad
        with passes.one():
            stepper = passes.of(x, layers)
            saved = stepper.forward(x, Weights(weights, coupling), layers, store)
        ctx.stepper, ctx.layers, ctx.passes = stepper, layers, passes
        ctx.save_for_backward(x, saved.y, weights, coupling, *saved.stored)
        return saved.y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The gradients of x, of the weights and of the coupling, each of its shape; ``None`` for the rest."""
        x, y, weights, coupling, *stored = ctx.saved_tensors
        saved = Saved(x, y, Weights(weights, coupling), ctx.layers, stored)
        with ctx.passes.one():
            grad = ctx.stepper.backward(saved, grad_y, ctx.needs_input_grad[0])
        if grad.drift is not None:
            ctx.passes.drift.watch(grad.drift)
        return grad.x, grad.weights.blocks, grad.weights.coupling, None, None, None
