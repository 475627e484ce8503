"""The learning rate that a network can take: the loss of steps whose rate rises from far too low to far too high.

Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3; the rate at which the smoothed loss
falls fastest is suggested.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice

import numpy as np
import torch

from hdnn_dist.data.dataset import shuffled
from hdnn_dist.model.propagation import DriftWarning
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer

KEPT = 0.8  # how much of the recent loss the next step leaves of it
WORSE = 4.0  # times the least recent loss, and the sweep is over
WIDTH = 0.06  # of the sweep: how far the loss of a step is spread when it is smoothed


@dataclass
class Sweep:
    """``rates``, ``losses``: of every step; ``steps``: how many were wanted."""

    steps: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _recent: float = math.inf
    _least: float = math.inf

    def add(self, rate: float, loss: float) -> bool:
        """Take a step; whether the loss has left all bounds, and no more are wanted."""
        if not math.isfinite(loss):
            return True
        self.rates.append(rate)
        self.losses.append(loss)
        self._recent = KEPT * self._recent + (1 - KEPT) * loss if len(self.losses) > 1 else loss
        self._least = min(self._least, self._recent)
        return self._recent > WORSE * self._least

    @property
    def smoothed(self) -> list[float]:
        """The losses, each a mean of those around it; an explosion counts as no more than twice the first loss."""
        if not self.losses:
            return []
        at, wide = np.arange(len(self.losses)), self.steps * WIDTH
        weights = np.exp(-0.5 * ((at[:, None] - at) / wide) ** 2)
        values = np.minimum(self.losses, 2 * self.losses[0])
        return [float(value) for value in weights @ values / weights.sum(axis=1)]

    @property
    def suggested(self) -> float | None:
        """The rate where the smoothed loss falls fastest, before it is least; None where it does not fall."""
        smoothed, settled = np.array(self.smoothed), math.ceil(self.steps * WIDTH)
        least = int(smoothed.argmin()) if len(smoothed) else 0
        if least <= settled:
            return None
        return self.rates[settled + int(np.gradient(smoothed)[settled : least + 1].argmin())]


def sweep(job: Job, lowest: float, highest: float, steps: int) -> Sweep:
    """Train so many steps, with rates from ``lowest`` to ``highest``, then put the weights back as they were.

    Every rank has to call it; the same is found on all. Raises ``ValueError`` for rates that do not rise, or fewer than
    10 steps.
    """
    if not 0 < lowest < highest or steps < 10:
        raise ValueError(
            f"a sweep from {lowest:g} to {highest:g} in {steps} steps: expected rates that rise, and 10 steps or more"
        )
    found = Sweep(steps)
    with _untouched(job):
        trainer = Trainer(_steady(job, lowest))
        groups = trainer.optimizer.param_groups
        factors = [group["lr"] / lowest for group in groups]
        for rate, index in zip(np.geomspace(lowest, highest, steps).tolist(), _batches(job, steps), strict=True):
            for group, factor in zip(groups, factors, strict=True):
                group["lr"] = rate * factor
            loss, _ = trainer.step(index)
            if found.add(rate, float(loss)):
                break
    return found


def _steady(job: Job, rate: float) -> Job:
    """The same job with a rate that nothing else changes."""
    optimizer = job.config.optimizer.model_copy(update={"learning_rate": rate, "schedule": "constant"})
    changed = {"optimizer": optimizer, "check_finite": False, "record_gradients": False}
    return replace(job, config=job.config.model_copy(update=changed))


def _batches(job: Job, steps: int) -> Iterator[torch.Tensor]:
    """(samples,) the indices of so many steps, epoch after epoch, as training would take them."""
    size, device = job.config.batch_size * job.config.accumulate, job.net.trained_weights.device
    orders = (torch.as_tensor(shuffled(len(job.train), job.config.seed, epoch), device=device) for epoch in count())
    return islice((index for order in orders for index in order.split(size)), steps)


@contextmanager
def _untouched(job: Job) -> Iterator[None]:
    """Parameters are what they were before, and hold no gradient; large rates do not warn of drift."""
    kept = [parameter.detach().clone() for parameter in job.parameters]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DriftWarning)
            yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(job.parameters, kept, strict=True):
                parameter.copy_(value)
                parameter.grad = None
