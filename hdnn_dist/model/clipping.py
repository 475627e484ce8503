"""Clipping of the gradient of the whole network, whose parts lie on many ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.trained import SharedParameter
from hdnn_dist.support.arguments import positive_number, require_type, shown


def clip_grad_norm_(parameters: nn.Parameter | Iterable[nn.Parameter], max_norm: float, tree: SumTree) -> None:
    """Scale all gradients, of any shape, so that their norm over all agents is at most ``max_norm``.

    In place of ``torch.nn.utils.clip_grad_norm_``, which knows this rank's alone; of shared parameters one copy counts.
    ``tree``: ``net.tree``; one sum along it, every rank has to call it. ``ValueError`` for no parameters and unless
    ``max_norm`` is greater than 0.
    """
    max_norm = positive_number("max_norm", max_norm)
    require_type("tree", tree, SumTree, "net.tree")
    given = _listed(parameters)
    if not given or not all(isinstance(parameter, Tensor) for parameter in given):
        raise ValueError(f"parameters is {shown(parameters)}: expected tensors of this rank, such as net.parameters()")
    gradients = [parameter.grad for parameter in given if parameter.grad is not None]
    held = [parameter for parameter in given if tree.is_root or not isinstance(parameter, SharedParameter)]
    counted = [parameter.grad for parameter in held if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(counted)) if counted else given[0].new_zeros(1)
    square = tree.sum(norms.dot(norms))
    if not gradients:
        return
    if not square.is_cpu:  # looking would wait for the device
        torch._foreach_mul_(gradients, (max_norm / square.sqrt()).clamp_(max=1))
    elif not (norm := math.sqrt(square.item())) <= max_norm:  # NaN too, so that it spreads
        torch._foreach_mul_(gradients, max_norm / norm)


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        return [parameters]
    return list(parameters) if isinstance(parameters, Iterable) else []
