"""Penalties on the weights. All are sums over agents, so none needs a message: each rank adds those of its own."""

from __future__ import annotations

from torch import Tensor

from hdnn_dist.network import HDNN
from hdnn_dist.readout import Readout


def smoothness(net: HDNN, alpha: float) -> Tensor:
    """(alpha h / 2) sum over layers of ||K_{j+1} - K_j||_F^2 + ||b_{j+1} - b_j||^2, this rank's share.

    Keeps the weights a smooth function of depth, as the discretised ODE wants it (Haber and Ruthotto, Inverse
    Problems 34, 2018; Galimberti et al., IEEE TAC 68(5), 2023).
    """
    return (alpha * net.step / 2) * net.plan.differences(net.weights).square().sum()


def weight_penalty(module: HDNN | Readout, alpha: float) -> Tensor:
    """(alpha / 2) ||weights||^2, this rank's share."""
    return (alpha / 2) * module.weights.square().sum()
