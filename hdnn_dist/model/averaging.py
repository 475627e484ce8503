"""Averaging of gradients over replicas: copies of the same agents, each with its share of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hdnn_dist.exchange.world import World
from hdnn_dist.model.trained import SharedParameter
from hdnn_dist.support.arguments import is_number, require_type, shown


def average_gradients(
    parameters: nn.Parameter | Iterable[nn.Parameter], world: World, weight: float | None = None
) -> None:
    """Make every gradient, of any shape, the weighted mean of those of its copies in all replicas, in place.

    ``weight``: of this replica, the share that its samples have in the whole batch; by default all count alike. Every
    rank has to call it, between backward and the step of the optimiser; gradients are then the same bits in all
    replicas. ``ValueError`` for a weight that is no number.
    """
    require_type("world", world, World, "what hdnn_dist.connect() returns")
    weight = 1 / world.replicas if weight is None else weight
    if not is_number(weight):
        raise ValueError(f"weight is {shown(weight)}: expected a finite number, the share of this replica")
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if given and world.replicas > 1:
        average(given, world, weight, [])


def average(parameters: Sequence[Tensor], world: World, weight: float, numbers: Sequence[Tensor]) -> Tensor:
    """As ``average_gradients``, in one sum; (replicas, numbers) what every replica has for these scalars besides.

    Parameters that ranks share are added up apart: in a sum as long on every rank, so that all get the same bits.
    """
    with_one = [parameter for parameter in parameters if parameter.grad is not None]
    shared, own = ([p.grad for p in with_one if isinstance(p, SharedParameter) == of_all] for of_all in (True, False))
    like = parameters[0].detach()
    _average(like, shared, world, weight, [])
    return _average(like, own, world, weight, numbers)


def _average(like: Tensor, gradients: Sequence[Any], world: World, weight: float, numbers: Sequence[Tensor]) -> Tensor:
    sizes = [gradient.numel() for gradient in gradients]
    both = like.new_zeros(sum(sizes) + world.replicas * len(numbers))
    *parts, told = both.split([*sizes, world.replicas * len(numbers)])
    told = told.view(world.replicas, len(numbers))
    for part, gradient in zip(parts, gradients, strict=True):
        torch.mul(gradient, weight, out=part.view_as(gradient))
    for at, number in enumerate(numbers):
        told[world.replica, at] = number
    if len(both):
        world.add_copies(both)
    for part, gradient in zip(parts, gradients, strict=True):
        gradient.copy_(part.view_as(gradient))
    return told
