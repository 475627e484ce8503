"""Clipping of the gradient of the whole network, whose parts lie on many ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from hdnn_dist.exchange.sum_tree import SumTree


def clip_grad_norm_(parameters: Iterable[nn.Parameter], max_norm: float, tree: SumTree) -> None:
    """Scale all gradients, of any shape, so that their norm over all agents is at most ``max_norm``.

    In place of ``torch.nn.utils.clip_grad_norm_``, which knows this rank's alone. ``tree``: ``net.tree``; one sum along
    it, every rank has to call it.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    square = tree.sum(norms.dot(norms))
    if not square.is_cpu:  # looking would wait for the device
        torch._foreach_mul_(gradients, (max_norm / square.sqrt()).clamp_(max=1))
    elif not (norm := math.sqrt(square.item())) <= max_norm:  # NaN too, so that it spreads
        torch._foreach_mul_(gradients, max_norm / norm)
