"""Training one network on many graphs, and its errors on others."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from hdnn_dist.data.dataset import shuffled
from hdnn_dist.exchange.connect import connect
from hdnn_dist.experiments.cells import Result
from hdnn_dist.experiments.graph_batches import UNIT, Batch, GraphSet
from hdnn_dist.graph.families import FAMILIES
from hdnn_dist.model.clipping import clip_grad_norm_
from hdnn_dist.training.config import Config
from hdnn_dist.training.divergence import DivergenceError

TAUGHT = 0.5  # the share of the steps in which lessons are taught, if there are any
TRAINING, TESTING, KNOWN = range(3)  # what is drawn

Errors = dict[str, float]


def train_on_graphs(config: Config) -> Result:
    """Train one config, all agents in this process. ``ValueError`` for what cannot be built.

    Figures: mean absolute errors on the graphs for test, in hops, "H2" of all and "H2 FAMILY" of each family; and
    "constant" for the median of the targets that were trained with.
    """
    with connect("local") as world:
        graphs = GraphSet(config, world, len(FAMILIES))
        began = time.perf_counter()
        try:
            median = _train(graphs, config)
        except DivergenceError:
            return Result(None, time.perf_counter() - began, 0.0, 0.0)
        seconds = time.perf_counter() - began
        traffic = [batch.net.agents.ledger.traffic() for batch in graphs.train]
        steps = config.epochs * len(graphs.train)
        messages, size = sum(one.messages for one in traffic), sum(one.bytes for one in traffic)
        return Result(None, seconds, messages / steps, size / steps, errors(graphs.test, config.seed, median))


def _train(graphs: GraphSet, config: Config) -> float:
    """Train for all epochs, from a readout that tells the median of the targets; that median, in hops."""
    median = _median(graphs.train, config.seed)
    net, head = graphs.train[0].net, graphs.train[0].head
    parameters = [*net.parameters(), *head.parameters()]
    nn.init.constant_(head.last.bias, median / UNIT)
    steps = config.epochs * len(graphs.train)
    optimizer = torch.optim.Adam(parameters, config.optimizer.learning_rate)
    schedule = OneCycleLR(optimizer, config.optimizer.learning_rate, total_steps=steps + 1, pct_start=0.2)
    for batch, random in _steps(graphs, config.seed, steps):
        x, targets = batch.draw(random)
        loss = batch.loss(x, targets)
        if not loss.isfinite():
            raise DivergenceError(f"the loss is {float(loss)}: take a lower learning rate")
        optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip is not None:
            clip_grad_norm_(parameters, config.optimizer.clip, batch.net.tree)
        optimizer.step()
        schedule.step()
    return median


def _median(batches: list[Batch], seed: int) -> float:
    drawn = (batch.draw(np.random.default_rng([seed, KNOWN, number]))[1] for number, batch in enumerate(batches))
    return float(torch.cat([targets.flatten() for targets in drawn]).median())


def _steps(graphs: GraphSet, seed: int, steps: int) -> Iterator[tuple[Batch, np.random.Generator]]:
    """The batch of each step, with what draws its samples: of the lessons, one lesson after the other, then of all."""
    for step in range(steps):
        lesson = int(step / (TAUGHT * steps) * len(graphs.lessons)) if graphs.lessons else 0
        batches = graphs.lessons[lesson] if lesson < len(graphs.lessons) else graphs.train
        epoch, place = divmod(step, len(batches))
        number = int(shuffled(len(batches), seed, epoch)[place])
        yield batches[number], np.random.default_rng([seed, TRAINING, step])


def errors(batches: list[Batch], seed: int, constant: float) -> Errors:
    """Mean absolute errors in hops, as ``train_on_graphs`` has them, each prediction with the same weight."""
    wrong: dict[str, list[Tensor]] = {"H2": [], "constant": [], **{f"H2 {family}": [] for family in FAMILIES}}
    for number, batch in enumerate(batches):
        x, targets = batch.draw(np.random.default_rng([seed, TESTING, number]))
        each = (batch.predict(x) - targets).abs()
        wrong["H2"].append(each.flatten())
        wrong["constant"].append((constant - targets).abs().flatten())
        for own, graph in enumerate(batch.graphs):
            wrong[f"H2 {graph.name}"].append(each[:, batch.asked == own].flatten())
    return {name: float(torch.cat(parts).mean()) for name, parts in wrong.items()}
