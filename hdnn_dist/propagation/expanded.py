"""Passes with weights that agents share, by what knows only weights of each agent: they are expanded before a pass."""

from __future__ import annotations

from torch import Tensor

from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved
from hdnn_dist.propagation.system import Weights
from hdnn_dist.weights.sharing import Sharing


class Expanded:
    """``inner`` with weights (layers, operators, entries) in place of those of each agent."""

    def __init__(self, inner: Propagator, sharing: Sharing) -> None:
        self.kernel, self._inner, self._sharing = inner.kernel, inner, sharing

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``; the expanded weights are kept for the backward pass."""
        expanded = self._expanded(weights)
        saved = self._inner.forward(x, expanded, layers, store)
        kept = [expanded.blocks, *saved.stored] if store else []
        return saved._replace(weights=weights, stored=kept)

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``; the gradient of the weights is that of the agents here."""
        blocks, *stored = saved.stored
        inside = saved._replace(weights=saved.weights._replace(blocks=blocks), stored=stored)
        grad = self._inner.backward(inside, grad_y, of_input)
        own = grad.weights._replace(blocks=self._sharing.collect(grad.weights.blocks))
        return grad._replace(weights=own)

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights, layers: range) -> tuple[Tensor, Tensor]:
        """As ``Stepper.tangent``."""
        return self._inner.tangent(x, dx, self._expanded(weights), layers)

    def _expanded(self, weights: Weights) -> Weights:
        return weights._replace(blocks=self._sharing.expand(weights.blocks))
