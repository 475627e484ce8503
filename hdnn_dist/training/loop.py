"""The training loop: the same lines on every rank, in step with each other through the exchanges alone."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from hdnn_dist.data.dataset import shuffled
from hdnn_dist.exchange.ledger import Traffic
from hdnn_dist.model.metrics import Metrics
from hdnn_dist.model.trained import parameters
from hdnn_dist.support.rows import Rows
from hdnn_dist.training.divergence import DivergenceError, all_finite, diverged, refuse_growth
from hdnn_dist.training.gradients import GradientRecord, StepGradients
from hdnn_dist.training.job import Job, Samples
from hdnn_dist.training.optimizers import make_optimizer, make_schedule
from hdnn_dist.training.pace import Pace, pace
from hdnn_dist.training.replicas import Shares
from hdnn_dist.training.step import Step
from hdnn_dist.training.stopping import Patience

EVALUATION_BATCH = 500
RECENT = 50  # steps


class Results:
    """Of batches, one after another: how many samples, their mean loss and how many were right, on their device.

    ``sizes`` and ``told``, (batches, 2) as the method gives it: of those that are known already.
    """

    def __init__(self, sizes: Sequence[int] = (), told: torch.Tensor | None = None) -> None:
        self.sizes, self._told = list(sizes), Rows()
        if told is not None:
            self._told.append(told)

    def __len__(self) -> int:
        return len(self.sizes)

    def append(self, size: int, loss: torch.Tensor, correct: torch.Tensor) -> None:
        """One more batch; ``loss`` and ``correct`` are scalars."""
        self.sizes.append(size)
        self._told.append(torch.stack([loss.detach().double(), correct.double()]).unsqueeze(0))

    def told(self) -> torch.Tensor:
        """(batches, 2) float64: mean loss and right samples."""
        return self._told.all()

    def totals(self) -> tuple[float, float]:
        """Loss and right samples, summed over samples, read from the device once."""
        means, corrects = self.told().T
        return float(means @ means.new_tensor(self.sizes)), float(corrects.sum())


@dataclass(frozen=True)
class Score:
    """Mean loss and metrics over a set of samples, the same on every rank.

    ``accuracy``: None where numbers are learned. ``metrics``: by name, see ``model.metrics``, the accuracy among them.
    """

    loss: float
    accuracy: float | None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """What one epoch gives; a line of metrics.jsonl. ``loss`` and ``train_accuracy`` are means over its batches.

    ``metrics``: of the test samples, see ``Score``; accuracies are None where numbers are learned. ``gradients``: of
    its steps, lines of gradients.jsonl; none unless the config asks for them. ``validation``: loss and metrics of
    the validation samples, where there are some. The last three are those of ``Pace``.
    """

    epoch: int
    loss: float
    train_accuracy: float | None
    test_loss: float
    test_accuracy: float | None
    learning_rate: float
    seconds: float
    drift: float | None
    gradients: Sequence[StepGradients] = ()
    metrics: Metrics = field(default_factory=dict)
    validation: Metrics | None = None
    samples_per_second: float = 0.0
    bytes_per_second: float = 0.0
    waiting: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What training gives, on this rank: its traffic is that of its own agents, training steps only.

    ``waited``: of the ``seconds``, those in which it has waited for other ranks; ``copied``: bytes of what it has
    averaged with its copies in other replicas; ``resumed``: of the ``steps``, those that an earlier process has done,
    which ``traffic``, ``waited`` and ``copied`` do not know of.
    """

    epochs: list[Epoch]
    steps: int
    seconds: float
    traffic: Traffic
    waited: float
    copied: int = 0
    resumed: int = 0

    @property
    def measured(self) -> int:
        """The steps of which ``traffic``, ``waited`` and ``copied`` know, at least 1."""
        return max(self.steps - self.resumed, 1)


class Trainer:
    """Minibatch training of a job. ``on_step(epoch, step)`` and ``on_epoch(row)`` are called on every rank.

    ``step``: one step of the optimiser; ``rows``: of the epochs that are finished; ``results``: of the steps of the
    next one; ``first_loss``: of the first batch; ``aside``: traffic of ``on_step``, which is none of training.
    ``progress`` takes them out and puts them back.
    """

    def __init__(self, job: Job) -> None:
        config = job.config
        self.job = job
        self.parameters = job.parameters
        self.shares = Shares(job.agents, self.parameters)
        self.steps_per_epoch = math.ceil(len(job.train) / (config.batch_size * config.accumulate))
        self.optimizer = make_optimizer(config.optimizer, self.parameters, parameters([job.head]))
        self.schedule = make_schedule(config.optimizer, self.optimizer, config.epochs, self.steps_per_epoch)
        self._traffic = job.agents.ledger.traffic()
        self.aside = self._traffic - self._traffic
        self.rows: list[Epoch] = []
        self.results = Results()
        self.first_loss = math.nan
        self.seconds, self._waited, self._copied = 0.0, 0.0, 0
        steps = config.epochs * self.steps_per_epoch
        self.record = GradientRecord(job.net, job.head.everyone, steps) if config.record_gradients else None
        self.step = Step(job, self.shares, self.optimizer, self.schedule, self.record)
        self._losses: deque[torch.Tensor] = deque(maxlen=RECENT)

    @property
    def steps(self) -> int:
        """Those of the optimiser that are done."""
        return len(self.rows) * self.steps_per_epoch + len(self.results)

    def run(self, on_step: Callable[[int, int], None], on_epoch: Callable[[Epoch], None]) -> Outcome:
        """Train for the epochs of the config, or what is left of them, or fewer where it says when to stop.

        Raises ``DivergenceError`` on every rank when an epoch, or with ``check_finite`` a step, ends in numbers that
        are not finite, ``ValueError`` where replicas do not start alike.
        """
        self.shares.refuse_other_copies(self.job.head.everyone)
        self._meet_batches()
        start, spent = self._traffic, self._traffic - self._traffic
        resumed = self.steps
        while not self._ends():
            start = self.job.agents.ledger.traffic()
            row = self._epoch(len(self.rows), on_step, start)
            spent += self._traffic - start
            self.rows.append(row)
            self.results = Results()
            on_epoch(row)
        return Outcome(self.rows, self.steps, self.seconds, spent - self.aside, self._waited, self._copied, resumed)

    def _ends(self) -> bool:
        """Whether all epochs are done, or what is watched has not become better for too long."""
        stop, rows = self.job.config.stop, self.rows
        return len(rows) == self.job.config.epochs or Patience(stop).over_all(map(vars, rows))

    @property
    def recent_loss(self) -> float:
        """The mean of the last steps, NaN before the first; an accelerator has to finish them."""
        return float(torch.stack(list(self._losses)).mean()) if self._losses else math.nan

    def evaluate(self, samples: Samples) -> Score:
        """Loss and metrics of the network as it is. Every rank has to call it."""
        results, metrics = Results(), self.job.head.metrics()
        with torch.no_grad():
            for index in torch.arange(len(samples), device=self.job.net.trained_weights.device).split(EVALUATION_BATCH):
                x, labels = samples.batch(index)
                loss = self.job.head.loss(self.job.forward(x), labels)
                results.append(len(index), loss, self.job.head.correct)
                known = None if labels is None else samples.original(labels)
                metrics.add(samples.original(self.job.head.predicted), known)
        told = metrics.told()
        loss_sum, correct, *values = self.shares.agreed(*results.totals(), *told.values())
        return Score(loss_sum / len(samples), self._share(correct, samples), dict(zip(told, values, strict=True)))

    def _share(self, correct: float, samples: Samples) -> float | None:
        """The accuracy, where there is one."""
        return correct / len(samples) if self.job.head.criterion.integer else None

    def _meet_batches(self) -> None:
        """Pass a batch of every size forward: what ranks compare at first sight is no traffic of a training step."""
        samples, size = len(self.job.train), self.job.config.batch_size
        with torch.no_grad():
            for count in {min(samples, size), samples % size} - {0}:
                index, _ = self.shares.of(torch.arange(count, device=self.job.net.trained_weights.device))
                self.job.forward(self.job.train.batch(index)[0])

    def _validated(self) -> Metrics | None:
        """Loss and metrics of the validation samples, where there are some."""
        if self.job.validation is None:
            return None
        score = self.evaluate(self.job.validation)
        return {"loss": score.loss, **score.metrics}

    def _epoch(self, epoch: int, on_step: Callable[[int, int], None], start: Traffic) -> Epoch:
        loss_sum, correct, speed = self._steps(epoch, on_step, start)
        if epoch == 0:
            self.first_loss = float(self.results.told()[0, 0])
        gradients = [] if self.record is None else self.record.take()
        score = self.evaluate(self.job.test)
        self._check_epoch(epoch, loss_sum / len(self.job.train), score.loss)
        return Epoch(
            epoch=epoch + 1,
            loss=loss_sum / len(self.job.train),
            train_accuracy=self._share(correct, self.job.train),
            test_loss=score.loss,
            test_accuracy=score.accuracy,
            learning_rate=self.step.rate,
            seconds=self.seconds,
            drift=self.job.net.drift,
            gradients=gradients,
            metrics=score.metrics,
            validation=self._validated(),
            **vars(speed),
        )

    def _steps(self, epoch: int, on_step: Callable[[int, int], None], start: Traffic) -> tuple[float, float, Pace]:
        """What is left of an epoch: the loss and the right samples, summed over all of it, and how fast it went."""
        config, agents, device = self.job.config, self.job.agents, self.job.net.trained_weights.device
        done, before, waited, copied = len(self.results), self.seconds, agents.waited, agents.world.copied
        began = time.perf_counter()
        order = torch.as_tensor(shuffled(len(self.job.train), config.seed, epoch), device=device)
        for step, index in enumerate(order.split(config.batch_size * config.accumulate)[done:], done):
            self.step.at = f"epoch {epoch + 1}, step {step + 1}"
            loss, right = self.step(index)
            self.results.append(len(index), loss, right)
            self._losses.append(loss)
            self.seconds = before + time.perf_counter() - began
            on_step(epoch, step)
        loss_sum, correct = self.results.totals()
        seconds, waited, copied = time.perf_counter() - began, agents.waited - waited, agents.world.copied - copied
        self.seconds, self._waited, self._copied = before + seconds, self._waited + waited, self._copied + copied
        self._traffic = agents.ledger.traffic()
        sent, here = self._traffic.bytes - start.bytes, sum(self.results.sizes[done:])
        return loss_sum, correct, pace(self.job.head.everyone, here, seconds, waited, sent)

    def _check_epoch(self, epoch: int, *losses: float) -> None:
        """The cheap check. ``losses``: of this epoch and of the test set, where its last step shows; they may read
        some agents only, so the last output and the weights are looked at too.
        """
        job, (x, y) = self.job, self.step.last
        if not (math.isfinite(sum(losses)) and all_finite(job.head.everyone, y, *self.parameters)):
            hint = "" if job.config.check_finite else "; check_finite=true stops at the step where it begins"
            raise DivergenceError(f"{diverged(job, self._suspects(x), f'epoch {epoch + 1}')}{hint}")
        refuse_growth(max(losses), self.first_loss, f"epoch {epoch + 1}")

    def _suspects(self, last: torch.Tensor) -> Iterator[torch.Tensor]:
        """The last batch, then the test set."""
        yield last
        for index in torch.arange(len(self.job.test), device=last.device).split(EVALUATION_BATCH):
            yield self.job.test.batch(index)[0]
