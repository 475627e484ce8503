"""Passes of a stepper on a GPU as CUDA graphs: captured once for a shape, then replayed without Python or launches.

For networks that are too large, or of another kind, than the kernels in Triton serve. Only passes through all layers
are captured; slices of them, and tangents, are left to the stepper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hdnn_dist.kernels.exchange_counts import ExchangeCounts
from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved, Stepper
from hdnn_dist.propagation.system import System, Weights

WARM_UPS = 2  # passes before the capture, in which buffers are made and libraries choose their algorithms
Function = Callable[..., list[Tensor]]


class Captured:
    """A function of tensors on a GPU as a CUDA graph; ``like``: tensors of the same shape as those of a call.

    What a call gets is copied into memory of the graph, what it returns out of it, so that calls may overlap: a
    second forward pass does not touch what the first one has kept for its backward pass.
    """

    def __init__(self, function: Function, like: Sequence[Tensor]) -> None:
        self._inputs = [part.detach().clone() for part in like]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        for own, part in zip(self._inputs, given, strict=True):
            own.copy_(part)
        self._graph.replay()
        return [part.clone() for part in self._outputs]


def make(system: System, portable: Stepper, name: str) -> Propagator:
    """As ``Kernel`` says."""
    return GraphedStepper(system, portable, name)


class Graphable(Propagator, Protocol):
    """What leads ``width`` columns through the layers by torch's operations alone."""

    width: int


class GraphedStepper:
    """The passes of ``portable`` through all layers, replayed.

    Where states are stored (H1, MS2), they are so in the graphs of both passes too, and take three times the memory.
    """

    def __init__(self, system: System, portable: Graphable, kernel: str) -> None:
        self.system, self.portable, self.kernel = system, portable, kernel
        self.tangent = portable.tangent
        self._counts = ExchangeCounts(system)
        self._all = range(len(system.layers))
        self._graphs: dict[tuple[object, ...], Captured] = {}

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``. Captures the backward pass too, because that is called on a thread of its own."""
        if layers != self._all:
            return self.portable.forward(x, weights, layers, store)
        with torch.cuda.device_of(x), torch.no_grad():
            y, *stored = self._forward(x, weights, store)(x, *weights)
            if store:
                self._backward(x, y, y, weights, stored)
        self._record(1, x, reverse=False)
        return Saved(x, y, weights, layers, stored)

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``; the gradient of the input comes in any case."""
        x, y, weights, layers, stored = saved
        if layers != self._all:
            return self.portable.backward(saved, grad_y)
        with torch.cuda.device_of(x), torch.no_grad():
            graph = self._backward(x, y, grad_y, weights, stored)
            grad_x, blocks, coupling, *drift = graph(x, y, grad_y, *weights, *stored)
        self._record(1, x, reverse=True)
        return Gradients(grad_x, Weights(blocks, coupling), drift[0] if drift else None)

    def _forward(self, x: Tensor, weights: Weights, store: bool) -> Captured:
        def passes(x: Tensor, *weights: Tensor) -> list[Tensor]:
            saved = self.portable.forward(x, Weights(*weights), self._all, store)
            return [saved.y, *saved.stored]

        return self._captured((x.shape, store), passes, [x, *weights], reverse=False)

    def _backward(self, x: Tensor, y: Tensor, grad_y: Tensor, weights: Weights, stored: list[Tensor]) -> Captured:
        def passes(x: Tensor, y: Tensor, grad_y: Tensor, blocks: Tensor, C: Tensor, *stored: Tensor) -> list[Tensor]:
            grad = self.portable.backward(Saved(x, y, Weights(blocks, C), self._all, list(stored)), grad_y)
            return [part for part in (grad.x, *grad.weights, grad.drift) if isinstance(part, Tensor)]

        return self._captured((x.shape,), passes, [x, y, grad_y, *weights, *stored], reverse=True)

    def _captured(self, key: tuple[object, ...], function: Function, like: list[Tensor], reverse: bool) -> Captured:
        if key not in self._graphs:
            self._graphs[key] = Captured(function, like)
            self._record(-WARM_UPS - 1, like[0], reverse)  # the ledger has seen the passes of the capture
        return self._graphs[key]

    def _record(self, passes: int, x: Tensor, reverse: bool) -> None:
        """Tell the ledger of the exchanges, which a replay makes without its knowledge."""
        self._counts.record(self._all, self.portable.width * x.element_size(), reverse, passes)
