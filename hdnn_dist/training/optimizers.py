"""Optimisers and learning-rate schedules of the config, all torch's own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import lr_scheduler

from hdnn_dist.training.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD, each as torch computes it in one kernel a step for all parameters of the rank."""
    given = [parameter for parameter in parameters if parameter.numel()]
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(given, lr=rate, momentum=config.momentum, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(given, lr=rate, weight_decay=decay, fused=True)


def make_schedule(
    config: OptimizerConfig, optimizer: torch.optim.Optimizer, epochs: int, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """The learning rate of every step: a cycle up to its peak and down, half a cosine, decay per epoch, constant."""
    steps = max(epochs * steps_per_epoch, 1)
    if config.schedule == "one_cycle":
        # momentum stays as it is: cycling it would need a different meaning for Adam and SGD
        return lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1, cycle_momentum=False)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rate = config.decay if config.schedule == "exponential" else 1.0
    return lr_scheduler.LambdaLR(optimizer, lambda step: rate ** (step // steps_per_epoch))
