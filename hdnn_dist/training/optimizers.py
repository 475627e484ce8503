"""Optimisers and learning-rate schedules of the config, all torch's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from hdnn_dist.training.config import OptimizerConfig

GUARDED = "add_param_group", "zero_grad", "state_dict", "load_state_dict"


def _unguarded(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The same without what keeps torch.compile out of it and imports it for that: 1.5 s of the start of every rank."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in GUARDED}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


KINDS = {
    "adam": _unguarded(torch.optim.Adam),
    "adamw": _unguarded(torch.optim.AdamW),
    "sgd": _unguarded(torch.optim.SGD),
}


def make_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], readout: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD, each as torch computes it in one kernel a step for all parameters of the rank.

    ``readout``: which of them are the head's. Where these have a rate of their own they are the second group, on every
    rank, be there any or not.
    """
    given = _groups(config, [parameter for parameter in parameters if parameter.numel()], readout)
    own = {"momentum": config.momentum} if config.name == "sgd" else {}
    kind: Any = KINDS[config.name]
    optimizer: torch.optim.Optimizer = kind(
        given, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True, **own
    )
    return optimizer


def make_schedule(
    config: OptimizerConfig, optimizer: torch.optim.Optimizer, epochs: int, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """The learning rate of every step: a cycle up to its peak and down, half a cosine, decay per epoch, constant."""
    steps = max(epochs * steps_per_epoch, 1)
    if config.schedule == "one_cycle":
        # momentum stays as it is: cycling it would need a different meaning for Adam and SGD
        peaks = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps + 1, cycle_momentum=False)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rate = config.decay if config.schedule == "exponential" else 1.0
    return lr_scheduler.LambdaLR(optimizer, lambda step: rate ** (step // steps_per_epoch))


def _groups(
    config: OptimizerConfig, given: list[nn.Parameter], readout: Iterable[nn.Parameter]
) -> list[dict[str, Any]]:
    if config.readout_factor == 1:
        return [{"params": given}]
    of_head = set(readout)
    return [
        {"params": [parameter for parameter in given if parameter not in of_head]},
        {
            "params": [parameter for parameter in given if parameter in of_head],
            "lr": config.readout_factor * config.learning_rate,
        },
    ]
