"""The network of a run, without the data that it was trained with: for samples of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import local_features
from hdnn_dist.data.source import Description
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.connect import ALONE, connect
from hdnn_dist.exchange.placement import place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.head import Head
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.trained import TrainedModule
from hdnn_dist.runs.checkpoint import Statistics
from hdnn_dist.runs.description import description_of
from hdnn_dist.runs.opened import Opened, local_statistics, placed_on, read_run_together, read_weights
from hdnn_dist.runs.outputs import at_root
from hdnn_dist.runs.predictions import Predictions, predictions
from hdnn_dist.runs.scaling import scaling, target_scaling
from hdnn_dist.support.rows import joined
from hdnn_dist.training.build import model
from hdnn_dist.training.config import Config
from hdnn_dist.training.inputs import as_inputs, column_index, positions_of
from hdnn_dist.training.job import Job, Samples
from hdnn_dist.training.loop import EVALUATION_BATCH


@dataclass(frozen=True)
class SavedRun:
    """What a run has learnt, on one rank.

    ``net``, ``head``, ``lift``: with the weights of the run, those of this rank's agents. ``about``: its data;
    ``columns``: which agent sees which of them, ``None`` before a lift. ``statistics``: by which local agents
    standardise their columns, agent -> "mean" and "std" -> (columns of the agent,); none where they do not.
    """

    config: Config
    about: Description
    net: HDNN
    head: Head
    columns: Columns | None
    lift: ConvolutionalLift | None = None
    statistics: Statistics = field(default_factory=dict)

    @property
    def others(self) -> list[TrainedModule]:
        """What is trained beside the network."""
        return [self.head] if self.lift is None else [self.head, self.lift]

    def logits(self, table: ArrayLike) -> Tensor:
        """(samples, columns of the data set) -> (samples, outputs) on the root's rank, (samples, 0) on the others.

        Every rank has to call it, with the same samples. ``ValueError``, on every rank, for another number of columns,
        and for numbers that are not finite.
        """
        samples = self.samples(table)
        return self.outputs(samples, torch.arange(len(samples), device=self.net.trained_weights.device))

    def samples(self, table: ArrayLike) -> Samples:
        """Samples (samples, columns of the data set) as this rank takes them, without labels; errors as ``logits``."""
        with agreed(self.head.everyone):
            return Samples(self._inputs(checked_samples(table, self.about.columns)), None)

    def outputs(self, samples: Samples, index: Tensor) -> Tensor:
        """What the head makes of the samples of an index (samples,): as ``logits``. Every rank has to call it."""
        with torch.no_grad():
            return joined(self._output(samples.batch(part)[0]) for part in index.split(EVALUATION_BATCH))

    def predict(self, table: ArrayLike) -> Predictions | None:
        """What the network says of samples (samples, columns of the data set): on the root's rank; as ``logits``."""
        logits = self.values(self.logits(table))
        return self.told(logits) if self.head.everyone.is_root else None

    def values(self, logits: Tensor) -> Tensor:
        """Outputs (samples, outputs) in the units of the data; every rank has to call it where targets were scaled."""
        mean, std = target_scaling(self.head, self.statistics)
        return logits if not logits.shape[1] else logits * logits.new_tensor(std) + logits.new_tensor(mean)

    def _inputs(self, table: np.ndarray) -> Tensor:
        index = column_index(self.columns, self.about, self.net.agents)
        mean, std = scaling(self.statistics, self.columns, self.about.columns)
        table = (table - mean) / std if self.statistics else table
        return as_inputs(local_features(table, index), positions_of(self.config, self.about), self.net)

    def _output(self, inputs: Tensor) -> Tensor:
        state = inputs if self.lift is None else self.lift(inputs)
        return at_root(self.head, self.head(self.net(state)))

    def told(self, logits: Tensor) -> Predictions:
        """What logits (samples, outputs) say, on the root's rank, in the units of the data."""
        return predictions(self.head, logits, self.about.class_names)


def load(path: str | Path, world: World | None = None) -> SavedRun:
    """The network of a run folder with its weights, in this process alone or on the ranks of a world.

    On any number of ranks, whatever the run had; the data of the run are not looked at. Raises ``ValueError``, on every
    rank, for a folder that is no run, and for weights that are missing, damaged, or of another network.
    """
    world = connect(ALONE) if world is None else world
    return load_opened(read_run_together(Path(path), world), world)


def load_opened(opened: Opened, world: World) -> SavedRun:
    """The same for a run folder that has been read; every rank has to call it."""
    saved = bare(opened.config, opened.graph, description_of(opened), world)
    with agreed(saved.head.everyone):
        read_weights(saved.net, saved.others, opened.path)
        own = local_statistics(opened.path, saved.net.agents)
        scaling(own, saved.columns, saved.about.columns)
    return replace(saved, statistics=own)


def bare(config: Config, graph: CommunicationGraph, about: Description, world: World) -> SavedRun:
    """The network of a config with the weights that a training starts with; every rank has to call it."""
    config = placed_on(config, world)
    net, head, columns, _, lift = model(config, about, place(graph, world, config.placement))
    return SavedRun(config, about, net, head, columns, lift)


def saved_of(job: Job) -> SavedRun:
    """The network of a job."""
    return SavedRun(job.config, job.about, job.net, job.head, job.columns, job.lift, job.statistics)


def checked_samples(table: ArrayLike, columns: int) -> np.ndarray:
    """(samples, columns) as floating-point numbers; ``ValueError`` for another shape, text, and NaN or infinity."""
    given = np.asarray(table)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"samples are {given.dtype}: expected numbers (samples, {columns})")
    if given.ndim != 2 or given.shape[1] != columns:
        raise ValueError(
            f"samples have shape {given.shape}: expected (samples, {columns}), the columns of the data set"
        )
    if not len(given):
        raise ValueError("there are no samples: give one or more")
    broken = np.argwhere(~np.isfinite(given))
    if len(broken):
        row, column = broken[0].tolist()
        raise ValueError(f"samples have {given[row, column]} in row {row}, column {column}: expected finite numbers")
    return given if given.dtype.kind == "f" else given.astype(np.float64)
