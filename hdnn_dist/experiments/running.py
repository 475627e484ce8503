"""Training the cells of an experiment: in this process one after the other, or several at the same time in others."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hdnn_dist.exchange.connect import connect
from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Result
from hdnn_dist.experiments.records import Records
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.training.build import build
from hdnn_dist.training.config import Config
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import DivergenceError, Outcome, Trainer

Measure = Callable[[Job], Mapping[str, float]]
Trace = Callable[[Outcome], Mapping[str, float]]


@dataclass(frozen=True)
class Task:
    """One training: a cell, a seed, the config of both; what is measured then, and how else it is trained."""

    cell: Cell
    seed: int
    config: Config
    measure: Measure | None = None
    trace: Trace | None = None
    train: Callable[[Config], Result] | None = None


def tasks(experiment: Experiment, seeds: int, root: str | None) -> list[Task]:
    """All trainings, seed after seed. Raises ``ConfigError``."""
    return [
        Task(cell, seed, cell.settings(seed, root), experiment.measure, experiment.trace, experiment.train)
        for seed in range(seeds)
        for cell in experiment.cells
    ]


def missing(wanted: Sequence[Task], records: Records) -> list[Task]:
    """The trainings that have no result yet."""
    return [task for task in wanted if records.find(task.config) is None]


def train_all(wanted: Sequence[Task], records: Records, jobs: int, on_result: Callable[[Task, Result], None]) -> None:
    """Train what has no result yet, ``jobs`` at the same time, and put each result on record as soon as it is there."""
    todo = missing(wanted, records)
    for task, result in _here(todo) if jobs == 1 else _elsewhere(todo, jobs):
        records.add(task.cell.labels, task.config, result)
        on_result(task, result)


def findings(experiment: Experiment, wanted: Sequence[Task], records: Records) -> list[Finding]:
    """The cells with the results of all their seeds, where these are on record."""
    results: dict[int, list[Result | None]] = {}
    for task in wanted:
        results.setdefault(id(task.cell), []).append(records.find(task.config))
    found = ((cell, [result for result in results[id(cell)] if result is not None]) for cell in experiment.cells)
    return [Finding(cell, tuple(there)) for cell, there in found if len(there) == len(results[id(cell)])]


def train(config: Config, measure: Measure | None = None, trace: Trace | None = None) -> Result:
    """Train one config, all agents in this process, and measure. Raises ``ValueError`` for what cannot be built.

    A loss that is no longer finite is a result too.
    """
    with connect("local") as world:
        trainer = Trainer(build(config, CommunicationGraph.parse(config.graph), world))
        began = time.perf_counter()
        try:
            outcome = trainer.run(lambda epoch, step: None, lambda row: None)
        except DivergenceError:
            return Result(None, time.perf_counter() - began, 0.0, 0.0)
        figures = {} if measure is None else dict(measure(trainer.job))
        figures |= {} if trace is None else trace(outcome)
        return _result(outcome, trainer.evaluate(trainer.job.test).accuracy, figures)


def _result(outcome: Outcome, accuracy: float | None, figures: dict[str, float]) -> Result:
    steps = max(outcome.steps, 1)
    traffic = outcome.traffic
    return Result(accuracy, outcome.seconds, traffic.messages / steps, traffic.bytes / steps, figures)


def _trained(task: Task) -> Result:
    if task.train is not None:
        return task.train(task.config)
    wanted = {"measure": task.measure, "trace": task.trace}
    return train(task.config, **{name: figures for name, figures in wanted.items() if figures is not None})  # type: ignore[arg-type]


def _here(todo: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
    for task in todo:
        torch.set_num_threads(task.config.threads)
        yield task, _trained(task)


def _elsewhere(todo: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Result]]:
    with _pool(jobs) as pool:
        waiting = {pool.submit(_trained, task): task for task in todo}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _one_thread() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    torch.set_num_threads(1)


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, which end at once when this one is interrupted or a training fails."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_one_thread) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise ChildProcessError(
                    "a process that trained a cell ended before it had a result (out of memory?): try fewer --jobs"
                ) from None
            raise
