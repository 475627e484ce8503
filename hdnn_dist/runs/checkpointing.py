"""When checkpoints are made, and when a job that was asked to leave does: decided by all ranks at one step boundary.

Ranks speak about it along the tree where a checkpoint is due, and about once a second besides: the root says how many
steps it is until they do so again. So a signal that reaches only one rank is heard by all, and no step waits for it.
A checkpoint that is due while the last one is on its way to the disk is made as soon as that has arrived.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hdnn_dist.runs.keeping import Kept
from hdnn_dist.runs.snapshot import Snapshot
from hdnn_dist.runs.stages import IDLE, Facts, Writing
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.loop import Epoch, Trainer
from hdnn_dist.training.stopping import watched

PERIOD = 1.0  # seconds between two talks of the ranks, about


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; training goes on."""


class Left(Exception):
    """Raised on every rank: the job was asked to leave, by the signal ``number``, and has."""

    def __init__(self, number: int, told: str) -> None:
        super().__init__(told)
        self.name = signal.Signals(number).name


class Checkpointer:
    """Listens to a trainer: ``on_step`` and ``on_epoch``, then ``finish``; every rank has one.

    ``folder``: of all checkpoints; ``about``: what an index says of the run, ``done`` checkpoints: step -> score, that
    are there. ``asked``: the signals of this process. Raises ``Left``.
    """

    def __init__(self, trainer: Trainer, folder: Path, about: Facts, done: dict[int, float | None], asked: Asked):
        job = trainer.job
        self.config = job.config.checkpoint
        kept = Kept(folder, job.agents.world.rank, job.is_root, self.config.keep, self.config.best)
        kept.steps = done
        snapshot = Snapshot(trainer, job.statistics)
        self.writing = Writing(trainer, snapshot, about, kept, _warn)
        self._trainer, self._asked, self._tree = trainer, asked, job.head.everyone
        self._owed, self._score = False, None
        self._gap = self._left = 1
        self._spoke = self._made = time.monotonic()
        self._taken = -1

    def on_step(self, epoch: int, step: int) -> None:
        """After a step; the last one of an epoch belongs to ``on_epoch``, which comes behind its evaluation."""
        if step + 1 < self._trainer.steps_per_epoch:
            with self._aside():
                self._boundary(None)

    def on_epoch(self, row: Epoch) -> None:
        """After an epoch, when what it gave was recorded. The best is made at once, its score is of this moment."""
        if self.writing.kept.is_better(self._score_of(row)):
            self.make(self._score_of(row))
        self._boundary(row)

    def finish(self) -> None:
        """After the last epoch: what is due is made, and on the disk when this returns."""
        self.finish_writing()
        if (self._wanted or self.writing.kept.steps) and self._trainer.steps > self._newest:
            self.make()
            self.finish_writing()

    def _boundary(self, row: Epoch | None) -> None:
        due = self._due(row)
        self._left -= 1
        if due and not self._owed:
            self._owed, self._gap, self._left = True, 1, 0
        if self._left <= 0:
            self._talk(None if row is None else self._score_of(row))

    def _due(self, row: Epoch | None) -> bool:
        """What every rank knows by itself."""
        config, trainer = self.config, self._trainer
        by_steps = config.every_steps > 0 and trainer.steps % config.every_steps == 0
        if row is None:
            return by_steps
        by_epochs = config.every_epochs > 0 and row.epoch % config.every_epochs == 0
        return by_steps or by_epochs

    def _talk(self, score: float | None) -> None:
        stop = self._exchange()
        if stop:
            self._asked.heeded()
            self._leave(stop, score)
        if self._owed and self.writing.stage == IDLE:
            self._owed = not self._make(score)

    def _exchange(self) -> int:
        """Say and hear how things stand, and let the checkpoint go on; the signal that any rank was sent, or 0."""
        writing, root, world = self.writing, self._trainer.job.is_root, self._tree.agents.world
        late, gap = (self._late(), self._next_gap()) if root else (False, 0)
        busy, failed = writing.busy, writing.failed
        own = [*self._asked.flags(), float(busy), float(failed), float(late), float(gap)]
        vector = torch.tensor(own, dtype=torch.float64, device=world.device)
        *flags, busy_ranks, failures, due, told = world.of_replicas(self._tree.sum(vector)).sum(0).tolist()
        self._gap = self._left = int(told)
        self._owed |= due > 0
        if not busy_ranks:
            writing.advance(failures > 0)
        return self._asked.told_by(flags)

    def _late(self) -> bool:
        minutes = self.config.every_minutes
        return minutes > 0 and time.monotonic() - self._made >= 60 * minutes

    def _next_gap(self) -> int:
        """Steps until ranks speak again, after ``gap`` steps since the last time; not much more than before."""
        now = time.monotonic()
        seconds, self._spoke = max(now - self._spoke, 1e-9), now
        period = min(PERIOD, 15 * self.config.every_minutes or PERIOD)
        return max(1, min(2 * self._gap, int(self._gap * period / seconds)))

    def _make(self, score: float | None) -> bool:
        started = self.writing.begin(score)
        if started:
            self._made, self._taken = time.monotonic(), self._trainer.steps
        return started

    def make(self, score: float | None = None) -> None:
        """Make one of this moment; what is on its way to the disk is waited for, and so is memory."""
        self.finish_writing()
        while not self._make(score):
            self.finish_writing()

    def finish_writing(self) -> None:
        """Wait until no checkpoint is on its way."""
        while self.writing.stage != IDLE:
            self.writing.finish()
            self._exchange()

    def _leave(self, number: int, score: float | None) -> None:
        self.finish_writing()
        if self._trainer.steps > self._newest:
            self.make(score)
            self.finish_writing()
        raise Left(number, self.writing.kept.told())

    @property
    def _newest(self) -> int:
        return max(self.writing.kept.steps, default=-1)

    @property
    def _wanted(self) -> bool:
        """Whether the config asks for checkpoints of a run of any length."""
        return bool(self.config.every_steps or self.config.every_epochs or self.config.best)

    def _score_of(self, row: Epoch) -> float | None:
        return None if self.config.best is None else watched(vars(row), self.config.best)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """What ranks say here is no traffic of training."""
        ledger, before = self._tree.agents.ledger, None
        if self._left <= 1 or self._due(None):
            before = ledger.traffic()
        yield
        if before is not None:
            self._trainer.aside += ledger.traffic() - before


def _warn(line: str) -> None:
    warnings.warn(line, CheckpointWarning, stacklevel=2)
