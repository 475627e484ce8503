"""``bench checkpoint``: how long training stands still for a checkpoint, beside a copy in memory of what is kept."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from hdnn_dist.bench.cases import CHECKPOINT, Case, Options
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import Timing, seconds_of, threads
from hdnn_dist.exchange.connect import connect
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.runs.checkpointing import Checkpointer
from hdnn_dist.runs.resume import about
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.build import build
from hdnn_dist.training.config import CheckpointConfig, Config, DataConfig, NetworkConfig, OptimizerConfig
from hdnn_dist.training.loop import Epoch, Trainer
from hdnn_dist.training.progress import moments

MEGABYTE = 1e6


def checkpoint(options: Options, tell: Tell) -> Report:
    """Weights and the moments of Adam; steps are timed alone, and while the thread writes."""
    with threads(options.threads):
        return Report([_row(case, options, tell) for case in options.cases(CHECKPOINT)])


class _Turns:
    """Called after each training step: a step alone; a checkpoint, a copy of memory; a step while it is written."""

    def __init__(self, trainer: Trainer, checkpoints: Checkpointer) -> None:
        self._trainer, self._checkpoints = trainer, checkpoints
        self._began: float | None = None
        self._copies: list[torch.Tensor] = []
        self.alone: list[float] = []
        self.still: list[float] = []
        self.copied: list[float] = []
        self.beside: list[float] = []

    @property
    def kept(self) -> list[torch.Tensor]:
        """Each (shape of a weight,): the weights, and what the optimiser keeps of them."""
        weights = [parameter.detach() for parameter in self._trainer.parameters]
        return weights + [value for each in moments(self._trainer).values() for value in each.values()]

    def on_step(self, epoch: int, step: int) -> None:
        if self._began is None:
            self._warm_up()
        elif step % 2:
            self.alone.append(time.perf_counter() - self._began)
            self.still.append(seconds_of(self._checkpoints.make))
            self.copied.append(seconds_of(self._copy))
        else:
            self.beside.append(time.perf_counter() - self._began)
            self._checkpoints.finish_writing()
        self._began = time.perf_counter()

    def on_epoch(self, row: Epoch) -> None:
        self._began = time.perf_counter()

    def _warm_up(self) -> None:
        self._copies = [torch.empty_like(value).fill_(0) for value in self.kept]
        self._checkpoints.make()
        self._checkpoints.finish_writing()

    def _copy(self) -> None:
        for into, value in zip(self._copies, self.kept, strict=True):
            into.copy_(value)


def _row(case: Case, options: Options, tell: Tell) -> Row:
    tell(f"checkpoint {case}")
    trainer = Trainer(build(_config(case, options), CommunicationGraph.ring(case.agents), connect("local")))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpointer(trainer, Path(folder), about(trainer.job), {}, Asked())
        turns = _Turns(trainer, checkpoints)
        trainer.run(turns.on_step, turns.on_epoch)
    still, copied = Timing(turns.still), Timing(turns.copied)
    return {
        **case.columns(options.threads),
        "weights_megabytes": _megabytes([parameter.detach() for parameter in trainer.parameters]),
        "kept_megabytes": _megabytes(turns.kept),
        "stands_still_milliseconds": still.milliseconds,
        "copy_milliseconds": copied.milliseconds,
        "ratio": still.milliseconds / copied.milliseconds,
        "step_milliseconds": Timing(turns.alone).milliseconds,
        "step_while_writing_milliseconds": Timing(turns.beside).milliseconds,
        "kernel": trainer.job.net.kernel_for(case.batch),
    }


def _megabytes(tensors: list[torch.Tensor]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MEGABYTE


def _config(case: Case, options: Options) -> Config:
    """Half of the samples are for testing; no checkpoint but those that are measured."""
    steps = 1 + 2 * options.effort.rounds
    return Config(
        epochs=1,
        batch_size=case.batch,
        threads=options.threads,
        graph=f"ring:{case.agents}",
        network=NetworkConfig(features=case.features, layers=case.layers, step=1.0 / case.layers, initial="scaled"),
        data=DataConfig(samples=2 * steps * case.batch),
        optimizer=OptimizerConfig(),
        checkpoint=CheckpointConfig(every_minutes=0.0),
    )
