"""Control of explosion: penalties on the weights, and a projection that bounds the sensitivity of the whole network.

The penalties are sums over agents, so none needs a message: each rank adds those of its own. Of weights that all agents
share each number counts once, and every rank adds the same to the gradient that all hold.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.kernels.registry import compiled_function
from hdnn_dist.model.head import Head
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.norms import RowNorms, coupling_norm, operator_norms
from hdnn_dist.support.arguments import unknown
from hdnn_dist.weights.layers import AddDifferences, add_differences

SCALES = ("multiply", "divide")
MARGIN = 1 - 1e-6  # so that rounding to float32 does not lift a norm above its limit


def smoothness(net: HDNN, alpha: float, scale: str = "multiply") -> Tensor:
    """(alpha h / 2) sum over layers of ||K_{j+1} - K_j||_F^2 + ||b_{j+1} - b_j||^2, this rank's share, a scalar.

    Keeps the weights a smooth function of depth, as the discretised ODE wants it (Haber and Ruthotto, Inverse
    Problems 34, 2018; Galimberti et al., IEEE TAC 68(5), 2023). ``scale``: "multiply" by h as above, or "divide":
    alpha / (2 h), the integral of the squared derivative, which does not fade as the step shrinks.
    ``ValueError`` for another scale.
    """
    shared = net.shared is not None
    differences = net.trained_weights.diff(dim=0) if shared else net.stack.differences(net.weights)
    return _smoothness_factor(net, alpha, scale) / 2 * differences.square().sum()


def add_smoothness_gradient(net: HDNN, alpha: float, scale: str = "multiply") -> None:
    """Add the gradient of ``smoothness`` to that of the weights: what its backward pass would, for less."""
    held, factor = net.trained_weights, _smoothness_factor(net, alpha, scale)
    grad, weights = held.grad, held.detach()
    assert grad is not None
    if net.shared is None:
        net.stack.add_differences(grad, weights, factor, _compiled_differences(net))
    else:
        add_differences(grad, weights, factor)


def _compiled_differences(net: HDNN) -> AddDifferences | None:
    function = compiled_function("add_differences", net.kernel, net.trained_weights)
    return None if function is None else lambda grad, weights, scale: function(grad.numpy(), weights.numpy(), scale)


def _smoothness_factor(net: HDNN, alpha: float, scale: str) -> float:
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    return alpha * net.step if scale == "multiply" else alpha / net.step


def weight_penalty(module: HDNN | Head, alpha: float) -> Tensor:
    """(alpha / 2) ||weights||^2, this rank's share, a scalar."""
    return (alpha / 2) * module.trained_weights.square().sum()


def add_weight_penalty_gradient(module: HDNN | Head, alpha: float) -> None:
    """Add the gradient of ``weight_penalty`` to that of the weights, where there is one on this rank."""
    held = module.trained_weights
    if held.grad is not None:
        held.grad.add_(held.detach(), alpha=alpha)


class SpectralProjection:
    """Scales the rows of K down until the sensitivity of the network is bounded: ||d y_N / d y_0||_2 <= ``bound``.

    Each half-step's Jacobian has norm at most 1 + h c ||K||^2, for F(x) = K^T s(K x + b) behind a coupling of norm c,
    or 1 + h ||K||; the product over all half-steps bounds the network's. Each of them gets an equal share of ``bound``,
    which gives one limit for ||K|| in every layer: ``limits``, (operators,). What is guaranteed after a call, for all
    inputs: that product is at most ``bound``. It is much more than is needed to keep the Jacobian itself below it.

    Agents need their neighbours only, in one scatter-add and one gather of a number for each K: every agent divides its
    rows by the worst excess among the blocks that it reads, see ``model.norms``. Biases are left alone.
    ``ValueError`` for a bound that is not above 1, and for a trained coupling.
    """

    def __init__(self, net: HDNN, bound: float) -> None:
        if not 1 < bound < math.inf:
            raise ValueError(f"bound is {bound}: expected a finite number above 1, since the norm of H2 is at least 1")
        if net.coupling_spec.trained:
            raise ValueError(
                "penalties.bound needs a coupling of fixed norm, but this one is trained: fix it, or drop the bound"
            )
        self.net = net
        self.limits = net.trained_weights.new_tensor(_limits(net, bound, coupling_norm(net)), dtype=torch.float64)
        self._rows = RowNorms(net)

    @torch.no_grad()
    def __call__(self) -> None:
        """Project the weights in place. Every rank has to call it, after each step of the optimiser.

        Where agents share them, all rows are divided by the worst excess of any.
        """
        if self.net.shared is not None:
            blocks = self.net.shared.blocks(self.net.shared.roles)
            scale = (self.limits / operator_norms(self.net)).clamp_(max=1)
            blocks.mul_(scale.unsqueeze(-1).to(blocks.dtype))
            return
        for run, squares in self._rows.parts():
            scale = (self.limits[:, None] / squares.sqrt()).clamp_(max=1).to(run.weights.dtype)
            for group in run.layout.groups:
                here = scale[..., np.searchsorted(run.layout.halo.agents.local, group.agents)]
                group.matrices(run.weights).mul_(here[..., None, None])


def _limits(net: HDNN, bound: float, coupling: float) -> list[float]:
    """The largest ||K|| of each operator with which every half-step of every layer keeps to its share of the bound."""
    halves = net.architecture.layer
    excess = math.expm1(math.log(bound) / (net.layers * len(halves)))
    limits = [math.inf] * len(net.architecture.operators)
    for half in halves:
        stretch = 1 + excess if half.replaces else excess / net.step
        limit = half.largest_norm(stretch, coupling, net.activation.slope) * MARGIN
        limits[half.operator] = min(limits[half.operator], limit)
    return limits
