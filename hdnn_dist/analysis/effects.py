"""What the controls of explosion act on, measured: the BSM of the whole network, its bound, the weights behind them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hdnn_dist.analysis.bounds import bounds
from hdnn_dist.analysis.sensitivity import exact
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.network import HDNN


def effects(net: HDNN, x: Tensor) -> dict[str, float]:
    """Figures of a small network at the inputs x (samples, local features).

    ``norm``: the largest ||d y_N / d y_0|| among them; ``log10_upper_bound``: of that norm; ``differences``: the sum
    over layers of ||K_{j+1} - K_j||_F^2 + ||b_{j+1} - b_j||^2; ``weights``: of ||K_j||_F^2 + ||b_j||^2. Every rank has
    to call it, and gets the same.
    """
    weights = net.weights.detach().double()  # of every agent, also where they share them
    own = torch.stack([net.stack.differences(weights).square().sum(), weights.square().sum()])
    differences, size = SumTree(net.agents).sum(own).tolist()
    matrices = [M for sample in x.split(1) for _, M in exact(net, sample, [net.layers])]
    return {
        "norm": max(float(torch.linalg.matrix_norm(M, 2)) for M in matrices),
        "log10_upper_bound": bounds(net).log_upper(net.layers) / math.log(10),
        "differences": differences,
        "weights": size,
    }
