"""From a config to what one rank holds of it: its agents, its network, its head, its columns of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.data import Columns, Description, describe, load, local_features
from hdnn_dist.graph import CommunicationGraph
from hdnn_dist.network import HDNN
from hdnn_dist.patterns import Pattern
from hdnn_dist.placement import Agents, place
from hdnn_dist.readout import Readout
from hdnn_dist.regularization import SpectralProjection
from hdnn_dist.training.agreement import agreed
from hdnn_dist.training.config import Config, DataConfig
from hdnn_dist.transport import World

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Samples:
    """``inputs``: (samples, local features); ``labels``: (samples,) on the root's rank, ``None`` elsewhere."""

    inputs: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The samples of an index vector."""
        return self.inputs[index], None if self.labels is None else self.labels[index]


@dataclass(frozen=True)
class Job:
    """Everything one rank trains with. ``project``: keeps ``penalties.bound``, where the config has one."""

    config: Config
    about: Description
    agents: Agents
    net: HDNN
    head: Readout
    columns: Columns
    train: Samples
    test: Samples
    project: SpectralProjection | None = None

    @property
    def is_root(self) -> bool:
        """Whether this rank has the labels, writes the files and shows the progress."""
        return self.head.everyone.is_root

    def inputs(self, table: np.ndarray) -> Tensor:
        """This rank's inputs for samples that are given in full, (samples, columns of the data set)."""
        local = local_features(table, self.columns.index(self.agents.local))
        return torch.as_tensor(local, dtype=self.net.weights.dtype, device=self.net.weights.device)


def build(config: Config, graph: CommunicationGraph, world: World) -> Job:
    """Check everything and build it; raises ``ValueError`` on every rank for what is wrong on any."""
    about = describe(config.data.name, root=config.data.root)
    agents = place(graph, world, config.placement)
    net = _network(config, agents)
    project = _projection(config, net)
    head = Readout(
        agents,
        net,
        classes=about.classes,
        loss=config.readout.loss,
        at=readers(config, graph),
        root=config.readout.root,
    )
    if not head.criterion.integer:
        raise ValueError(
            f"readout.loss {config.readout.loss!r} needs targets that are numbers, but the data set {about.name} has "
            f"{about.classes} classes: use 'cross_entropy'"
        )
    columns = columns_of(config.data, about, net.features)
    with agreed(head.everyone):
        train, test = _samples(config, net, columns.index(agents.local), labels=head.everyone.is_root)
    return Job(config, about, agents, net, head, columns, train, test, project)


def _network(config: Config, agents: Agents) -> HDNN:
    chosen = config.network
    pattern = None if chosen.pattern is None else Pattern.from_pairs(agents.graph.agents, chosen.pattern)
    return HDNN(
        agents,
        features=chosen.features,
        layers=chosen.layers,
        step=chosen.step,
        architecture=chosen.architecture,
        seed=config.seed,
        initial=chosen.initial,
        pattern=pattern,
        scheme=chosen.scheme,
        activation=chosen.activation,
        coupling=chosen.coupling,
        damping=chosen.damping,
        store_every=chosen.store_every,
        dtype=DTYPES[config.dtype],
    )


def _projection(config: Config, net: HDNN) -> SpectralProjection | None:
    """The projection that the config asks for, applied to the first weights already."""
    if config.penalties.bound is None:
        return None
    project = SpectralProjection(net, config.penalties.bound)
    project()
    return project


def readers(config: Config, graph: CommunicationGraph) -> list[int] | None:
    """The agents of ``readout.at``; None for all."""
    if config.readout.at == "all":
        return None
    return [graph.centre] if config.readout.at == "centre" else list(config.readout.at)


def columns_of(chosen: DataConfig, about: Description, features: np.ndarray) -> Columns:
    """Which columns of the data set enter at which agent."""
    if chosen.columns is not None and chosen.patch is not None:
        raise ValueError("data.columns and data.patch are both given: each says where columns enter; keep one")
    if chosen.columns is not None:
        return Columns.from_mapping(chosen.columns, about.columns, features.tolist())
    if chosen.patch is not None:
        return Columns.patches(about.image, chosen.patch, features.tolist())
    return Columns.spread(about.columns, features.tolist())


def _samples(config: Config, net: HDNN, index: np.ndarray, labels: bool) -> tuple[Samples, Samples]:
    chosen = config.data
    data = load(
        chosen.name,
        seed=config.seed,
        index=index,
        samples=chosen.samples,
        noise=chosen.noise,
        root=chosen.root,
        labels=labels,
    )
    like = net.weights

    def on_device(inputs: np.ndarray, classes: np.ndarray | None) -> Samples:
        known = None if classes is None else torch.as_tensor(classes, device=like.device)
        return Samples(torch.as_tensor(inputs, dtype=like.dtype, device=like.device), known)

    return on_device(data.train.inputs, data.train.labels), on_device(data.test.inputs, data.test.labels)
