"""What one rank trains with: its agents, its network, its head, its columns of the data."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import local_features
from hdnn_dist.data.source import Description
from hdnn_dist.data.tables.parts import Statistics
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.model.head import Head
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.trained import TrainedModule, parameters
from hdnn_dist.training.config import Config
from hdnn_dist.training.inputs import as_inputs, column_index, positions_of
from hdnn_dist.training.regularization import SpectralProjection
from hdnn_dist.training.stored import StoredRows


@dataclass(frozen=True)
class Samples:
    """``inputs``: (samples, local features), or (samples, 1, height, width) before a lift.

    ``labels``: what the head's loss takes on this rank: on the root's rank class numbers (samples,) or numbers
    (samples, outputs), ``None`` elsewhere; where agents have targets of their own, (samples, outputs of the local
    agents), agent after agent, on every rank with such agents. Both may be rows on the disk. ``unit``: mean and
    standard deviation (outputs of this rank,) of numbers that were standardised. ``ids``: (samples,) on the root's
    rank, where the data have some.
    """

    inputs: Tensor | StoredRows
    labels: Tensor | StoredRows | None
    unit: tuple[Tensor, Tensor] | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs and labels of the samples of an index (batch,): their rows."""
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return self.inputs.index_select(0, index), labels

    def whole(self) -> tuple[Tensor, Tensor]:
        """All inputs (samples, ...) and labels (samples[, outputs]), in memory, on a rank with labels."""
        assert self.labels is not None
        return self.inputs[:], self.labels[:]

    def class_counts(self, classes: int) -> Tensor:
        """(classes,) how many samples have each, on the rank with the labels."""
        assert isinstance(self.labels, Tensor)  # classes are kept in memory
        return self.labels.bincount(minlength=classes)

    def original(self, values: Tensor) -> Tensor:
        """Labels or predictions (batch, outputs of this rank) in their own unit, from before they were standardised."""
        return values if self.unit is None else values * self.unit[1] + self.unit[0]


@dataclass(frozen=True)
class Job:
    """Everything one rank trains with.

    ``columns``: who sees what; ``None`` where there is a ``lift``, before which every agent sees whole images.
    ``project``: keeps ``penalties.bound``, where the config has one. ``validation``: what decides when to stop and what
    is best, where the data have it. ``statistics``: of this rank's data, agent -> name, such as "mean" and "std" ->
    (columns,), where inputs or targets were scaled.
    """

    config: Config
    about: Description
    agents: Agents
    net: HDNN
    head: Head
    columns: Columns | None
    train: Samples
    test: Samples
    project: SpectralProjection | None = None
    lift: ConvolutionalLift | None = None
    validation: Samples | None = None
    statistics: Statistics = field(default_factory=dict)

    @property
    def is_root(self) -> bool:
        """Whether this rank, of the first replica, has the root's labels, writes the files and shows the progress."""
        return self.head.everyone.is_root and self.agents.world.replica == 0

    @property
    def others(self) -> list[TrainedModule]:
        """What is trained beside the network."""
        return [self.head] if self.lift is None else [self.head, self.lift]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained on this rank."""
        return parameters([self.net, *self.others])

    @property
    def entered(self) -> list[int]:
        """The agents that the data enter, ascending."""
        return list(range(self.agents.graph.agents)) if self.columns is None else sorted(self.columns.assignment)

    def inputs(self, table: np.ndarray) -> Tensor:
        """This rank's inputs for samples that are given in full, (samples, columns of the data set)."""
        index = column_index(self.columns, self.about, self.agents)
        return as_inputs(local_features(table, index), positions_of(self.config, self.about), self.net)

    def state(self, inputs: Tensor) -> Tensor:
        """(batch, local features[, positions...]) before the first layer."""
        return inputs if self.lift is None else self.lift(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, local features[, positions...]) after the last layer, for the head. Every rank has to call it."""
        y: Tensor = self.net(self.state(inputs))
        return y
