"""``bench loop``: a full training step beside the forward and backward pass alone."""

from __future__ import annotations

import time

from hdnn_dist.bench.cases import LOOP, Case, Options
from hdnn_dist.bench.networks import fixed_pair, training_step
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import Step, Timing, seconds_of, threads
from hdnn_dist.exchange.connect import connect
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.training.build import build
from hdnn_dist.training.config import Config, DataConfig, NetworkConfig, OptimizerConfig
from hdnn_dist.training.loop import Epoch, Trainer

STEPS_PER_EPOCH = 16


def loop(options: Options, tell: Tell) -> Report:
    """A training step is data, loss, smoothness and weight penalties, clipping and Adam."""
    with threads(options.threads):
        return Report([_row(case, options, tell) for case in options.cases(LOOP)])


class _Alternating:
    """Called after each training step: takes its time, and then that of the pass alone."""

    def __init__(self, alone: Step) -> None:
        self._alone = alone
        self._began: float | None = None
        self.whole: list[float] = []
        self.alone: list[float] = []

    def on_step(self, epoch: int, step: int) -> None:
        now = time.perf_counter()
        if epoch and self._began is not None:  # the first epoch warms up
            self.whole.append(now - self._began)
            self.alone.append(seconds_of(self._alone))
        self._began = time.perf_counter()

    def on_epoch(self, row: Epoch) -> None:
        self._began = None  # what lies between two epochs belongs to no step


def _row(case: Case, options: Options, tell: Tell) -> Row:
    tell(f"loop {case}")
    job = build(_config(case, options), CommunicationGraph.ring(case.agents), connect("local"))
    turns = _Alternating(training_step(job.net, *fixed_pair(case)))
    Trainer(job).run(turns.on_step, turns.on_epoch)
    whole, alone = Timing(turns.whole), Timing(turns.alone)
    return {
        **case.columns(options.threads),
        "milliseconds": whole.milliseconds,
        "spread_milliseconds": whole.spread,
        "propagation_milliseconds": alone.milliseconds,
        "propagation_spread_milliseconds": alone.spread,
        "ratio": whole.milliseconds / alone.milliseconds,
        "kernel": job.net.kernel_for(case.batch),
    }


def _config(case: Case, options: Options) -> Config:
    """As ``hdnn-dist train`` with gradients clipped; half of the samples are for testing."""
    return Config(
        epochs=1 + options.effort.rounds,
        batch_size=case.batch,
        threads=options.threads,
        graph=f"ring:{case.agents}",
        network=NetworkConfig(features=case.features, layers=case.layers, step=1.0 / case.layers, initial="scaled"),
        data=DataConfig(samples=2 * STEPS_PER_EPOCH * case.batch),
        optimizer=OptimizerConfig(clip=1.0),
    )
