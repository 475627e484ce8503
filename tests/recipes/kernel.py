"""Recipe: a kernel. Two files: this one, and the table that names it. It counts passes, and the portable one serves."""

from __future__ import annotations

from torch import Tensor

from hdnn_dist.propagation.stepper import Propagator, Saved, Stepper
from hdnn_dist.propagation.system import System, Weights

MOST_LAYERS = 8
passes: list[str] = []


def misfit(system: System) -> str | None:
    layers = len(system.layers)
    return None if layers <= MOST_LAYERS else f"it counts up to {MOST_LAYERS} layers, not {layers}"


def make(system: System, portable: Stepper, name: str) -> Propagator:
    return Counting(portable, name)


class Counting:
    def __init__(self, portable: Stepper, kernel: str) -> None:
        self.kernel, self.tangent, self._backward = kernel, portable.tangent, portable.backward
        self._forward = portable.forward

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        passes.append("forward")
        return self._forward(x, weights, layers, store)

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True):
        passes.append("backward")
        return self._backward(saved, grad_y, of_input)
