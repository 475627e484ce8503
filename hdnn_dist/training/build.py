"""From a config to what one rank holds of it: its agents, its network, its head, its columns of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hdnn_dist.data import Columns, Description, describe, load, local_features
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.readout import Readout
from hdnn_dist.training.config import Config
from hdnn_dist.training.regularization import SpectralProjection

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Samples:
    """``inputs``: (samples, local features), or (samples, 1, height, width) before a lift; ``labels``: (samples,).

    Labels are on the root's rank, ``None`` elsewhere.
    """

    inputs: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The samples of an index vector."""
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return self.inputs.index_select(0, index), labels


@dataclass(frozen=True)
class Job:
    """Everything one rank trains with.

    ``columns``: who sees what; ``None`` where there is a ``lift``, before which every agent sees whole images.
    ``project``: keeps ``penalties.bound``, where the config has one.
    """

    config: Config
    about: Description
    agents: Agents
    net: HDNN
    head: Readout
    columns: Columns | None
    train: Samples
    test: Samples
    project: SpectralProjection | None = None
    lift: ConvolutionalLift | None = None

    @property
    def is_root(self) -> bool:
        """Whether this rank has the labels, writes the files and shows the progress."""
        return self.head.everyone.is_root

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained on this rank."""
        parts = [self.net, self.head] if self.lift is None else [self.net, self.head, self.lift]
        return [parameter for part in parts for parameter in part.parameters()]

    @property
    def entered(self) -> list[int]:
        """The agents that the data enter, ascending."""
        return list(range(self.agents.graph.agents)) if self.columns is None else sorted(self.columns.assignment)

    def inputs(self, table: np.ndarray) -> Tensor:
        """This rank's inputs for samples that are given in full, (samples, columns of the data set)."""
        index = _index(self.columns, self.about, self.agents)
        return _inputs(local_features(table, index), positions_of(self.config, self.about), self.net)

    def state(self, inputs: Tensor) -> Tensor:
        """(batch, local features[, positions...]) before the first layer."""
        return inputs if self.lift is None else self.lift(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """The state after the last layer, which the head reads. Every rank has to call it."""
        y: Tensor = self.net(self.state(inputs))
        return y


def build(config: Config, graph: CommunicationGraph, world: World) -> Job:
    """Check everything and build it; raises ``ValueError`` on every rank for what is wrong on any."""
    about = describe(config.data.name, root=config.data.root)
    agents = place(graph, world, config.placement)
    net, head, columns, project, lift = model(config, about, agents)
    with agreed(head.everyone):
        train, test = _samples(config, net, columns, about, labels=head.everyone.is_root)
    return Job(config, about, agents, net, head, columns, train, test, project, lift)


class Model(NamedTuple):
    """The parts of a ``Job`` that need no data, as they are named there."""

    net: HDNN
    head: Readout
    columns: Columns | None
    project: SpectralProjection | None
    lift: ConvolutionalLift | None


def model(config: Config, about: Description, agents: Agents) -> Model:
    """Build all that needs no data; raises ``ValueError`` for what cannot be built."""
    net = _network(config, agents)
    project = _projection(config, net)
    columns = columns_of(config, about, net.features)
    lift = None if config.network.lift is None else ConvolutionalLift(net)
    head = Readout(
        agents,
        net,
        classes=about.classes,
        loss=config.readout.loss,
        at=readers(config, agents.graph),
        root=config.readout.root,
        positions=positions_of(config, about),
    )
    if not head.criterion.integer:
        raise ValueError(
            f"readout.loss {config.readout.loss!r} needs targets that are numbers, but the data set {about.name} has "
            f"{about.classes} classes: use 'cross_entropy'"
        )
    return Model(net, head, columns, project, lift)


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
        kernel=chosen.kernel,
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


def columns_of(config: Config, about: Description, features: np.ndarray) -> Columns | None:
    """Which columns of the data set enter at which agent; ``None`` where a lift shows whole images to every agent."""
    chosen = config.data
    if config.network.lift is not None:
        _check_lift(config, about)
        return None
    if chosen.columns is not None and chosen.patch is not None:
        raise ValueError("data.columns and data.patch are both given: each says where columns enter; keep one")
    if chosen.columns is not None:
        return Columns.from_mapping(chosen.columns, about.columns, features.tolist())
    if chosen.patch is not None:
        return Columns.patches(about.image, chosen.patch, features.tolist())
    return Columns.spread(about.columns, features.tolist())


def positions_of(config: Config, about: Description) -> tuple[int, ...]:
    """(height, width) of the images at whose every pixel the layers act; () without a lift."""
    return () if config.network.lift is None or about.image is None else about.image


def _check_lift(config: Config, about: Description) -> None:
    lift = config.network.lift
    if about.image is None:
        raise ValueError(
            f"network.lift {lift!r} needs images, but the data set {about.name} has none: take 'mnist' or 'digits', or "
            "leave network.lift out"
        )
    for key in ("columns", "patch"):
        if getattr(config.data, key) is not None:
            raise ValueError(
                f"network.lift {lift!r} and data.{key} are both given: before a lift every agent sees the whole image; "
                "keep one"
            )


def _index(columns: Columns | None, about: Description, agents: Agents) -> np.ndarray:
    """The columns of the data set that this rank reads, -1 for a zero."""
    return np.arange(about.columns) if columns is None else columns.index(agents.local)


def _inputs(values: np.ndarray, positions: tuple[int, ...], net: HDNN) -> Tensor:
    """(samples, columns) as the network takes them: as they are, or as images of one channel."""
    inputs = torch.as_tensor(values, dtype=net.weights.dtype, device=net.weights.device)
    return inputs.reshape(-1, 1, *positions) if positions else inputs


def _samples(
    config: Config, net: HDNN, columns: Columns | None, about: Description, labels: bool
) -> tuple[Samples, Samples]:
    chosen = config.data
    data = load(
        chosen.name,
        seed=config.seed,
        index=_index(columns, about, net.agents),
        samples=chosen.samples,
        noise=chosen.noise,
        root=chosen.root,
        labels=labels,
    )
    positions = positions_of(config, about)

    def on_device(inputs: np.ndarray, classes: np.ndarray | None) -> Samples:
        known = None if classes is None else torch.as_tensor(classes, device=net.weights.device)
        return Samples(_inputs(inputs, positions, net), known)

    return on_device(data.train.inputs, data.train.labels), on_device(data.test.inputs, data.test.labels)
