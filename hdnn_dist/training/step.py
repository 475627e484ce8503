"""One step of the optimiser: batches, their gradients, what is added to these, and the move."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hdnn_dist.model.clipping import clip_grad_norm_
from hdnn_dist.training.divergence import all_finite, diverged
from hdnn_dist.training.gradients import GradientRecord
from hdnn_dist.training.job import Job
from hdnn_dist.training.regularization import add_smoothness_gradient, add_weight_penalty_gradient
from hdnn_dist.training.replicas import Shares


class Step:
    """Called with the samples of a step, an index (samples,); every rank has to.

    Its mean loss, and the number of samples that were right, scalars. ``at``: how an error names the step; ``last``:
    input and output of the last batch; ``rate``: the learning rate of the last step.
    """

    def __init__(
        self, job: Job, shares: Shares, optimizer: Optimizer, schedule: LRScheduler, record: GradientRecord | None
    ) -> None:
        self._job, self._shares, self._parameters = job, shares, job.parameters
        self._optimizer, self._schedule, self._record = optimizer, schedule, record
        self._seen: list[Tensor] = []
        self.at = "a step"

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The samples are passed batch by batch; of each batch a replica takes its share."""
        job, clip = self._job, self._job.config.optimizer.clip
        for parameter in self._parameters:
            parameter.grad = None
        self._seen.clear()
        batches = index.split(job.config.batch_size)
        losses, corrects = zip(*[self._batch(part, len(part) / len(index)) for part in batches], strict=True)
        loss, correct = self._shares.add_up(sum(losses[1:], losses[0]), sum(corrects[1:], corrects[0]))
        self._add_penalties()
        if job.config.check_finite:
            self._check(batches, [*self._seen, loss])
        if self._record is not None:
            self._record.add()
        if clip is not None:
            clip_grad_norm_(self._parameters, clip, job.head.everyone)
        self.rate = float(self._optimizer.param_groups[0]["lr"])
        self._optimizer.step()
        if job.project is not None:
            job.project()
        self._schedule.step()
        return loss, correct

    def _batch(self, index: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Add the gradients of a batch that is this share of its step; its share of the loss, and right samples."""
        job, (index, share) = self._job, self._shares.of(index)
        x, labels = job.train.batch(index)
        y = job.forward(x)
        weight *= share
        loss, correct = job.head.backward(y, labels, weight), job.head.correct
        self.last = x, y.detach()
        if job.config.check_finite:
            self._seen.append(self.last[1])
        return (loss, correct) if weight == 1 else (loss * weight, correct * (weight > 0))

    def _check(self, batches: Sequence[Tensor], seen: Sequence[Tensor]) -> None:
        """The thorough check, before the weights move."""
        job, gradients = self._job, [parameter.grad for parameter in self._parameters]
        if not all_finite(job.head.everyone, *seen, *gradients):
            raise diverged(job, (job.train.batch(self._shares.of(index)[0])[0] for index in batches), self.at)

    def _add_penalties(self) -> None:
        """To the gradients, those of the penalties that the config asks for."""
        job, penalties = self._job, self._job.config.penalties
        if penalties.smoothness:
            add_smoothness_gradient(job.net, penalties.smoothness, penalties.smoothness_scale)
        if penalties.weights:
            add_weight_penalty_gradient(job.net, penalties.weights)
        if penalties.readout:
            add_weight_penalty_gradient(job.head, penalties.readout)
