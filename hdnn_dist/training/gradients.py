"""The gradient norm of every layer, step by step: what shows where in a network learning stops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.network import HDNN

MOST_STEPS = 2000  # of a run; a picture shows no more


@dataclass(frozen=True)
class StepGradients:
    """``norms``: (layers,) of the gradient of all weights of a layer, before it is clipped; ``step`` counts from 1."""

    step: int
    norms: list[float]


class GradientRecord:
    """Records ``steps`` steps of training; of more than ``MOST_STEPS`` the first of every 2, 3, ... alike.

    Each rank keeps the sums of squares of its own agents, which are summed along the tree when they are taken.
    """

    def __init__(self, net: HDNN, tree: SumTree, steps: int) -> None:
        self._net, self._tree = net, tree
        self._every = max(math.ceil(steps / MOST_STEPS), 1)
        self._step = 0
        self._squares: dict[int, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """``steps`` (n,), int64, and ``squares`` (n, layers) of this rank, of those that were not taken yet."""
        layers = torch.zeros(0, self._net.layers, dtype=torch.float64)
        squares = torch.stack([row.cpu() for row in self._squares.values()]) if self._squares else layers
        return {"steps": torch.tensor(list(self._squares), dtype=torch.int64), "squares": squares}

    def restore(self, done: int, steps: Tensor, squares: Tensor) -> None:
        """After ``done`` steps, go on from ``state``: (n,) and (n, layers), which of all ranks are summed."""
        self._step = done
        rows = squares.to(self._net.trained_weights.device)
        self._squares = dict(zip(steps.tolist(), rows, strict=True))

    def add(self) -> None:
        """Look at the gradient of one more step. Needs no message, and does not wait for an accelerator."""
        gradient = self._net.trained_weights.grad
        assert gradient is not None
        if self._step % self._every == 0:
            self._squares[self._step + 1] = layer_squares(self._net, gradient)
        self._step += 1

    def take(self) -> list[StepGradients]:
        """Those since the last time, the same on every rank, which all have to call it: one sum along the tree."""
        if not self._squares:
            return []
        norms = self._tree.sum(torch.stack(list(self._squares.values()))).sqrt().tolist()
        taken = [StepGradients(step, row) for step, row in zip(self._squares, norms, strict=True)]
        self._squares.clear()
        return taken


def layer_squares(net: HDNN, gradient: Tensor) -> Tensor:
    """(layers,) sums of squares of this rank's share of a gradient, float64; one of shared weights is the root's."""
    if net.shared is not None:
        return gradient.double().square().sum((1, 2)) * net.tree.is_root
    return torch.cat([run.weights.sum((1, 2)) for run in net.stack.runs(gradient.double().square())])
