"""From a config to the job of one rank: everything is checked, and built."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch

from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import describe, load
from hdnn_dist.data.source import Description, Split
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.common_facts import same_in_world
from hdnn_dist.exchange.connect import ALONE, connect
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.edge_labels import EdgeLabels
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.kernels.registry import AUTO
from hdnn_dist.model.head import Head
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.support.arguments import concerning
from hdnn_dist.training.config import EACH, Config, shared_keys
from hdnn_dist.training.inputs import as_inputs, as_labels, column_index, columns_of, positions_of, targets_here
from hdnn_dist.training.job import Job, Samples
from hdnn_dist.training.objective import balance, check_objective, make_head
from hdnn_dist.training.regularization import SpectralProjection
from hdnn_dist.training.stopping import check_watched
from hdnn_dist.training.tables import TABLE, opened_table, table_samples
from hdnn_dist.training.transfer import named_source

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build(config: Config, graph: CommunicationGraph, world: World) -> Job:
    """Check everything and build it; raises ``ValueError`` on every rank for what is wrong on any."""
    same_in_world(world, shared_keys(config))
    if world.replicas > config.batch_size:
        raise ValueError(
            f"batch_size is {config.batch_size}, but there are {world.replicas} replicas: each needs a sample of a "
            "batch at least; raise batch_size, or take fewer --replicas"
        )
    agents = place(graph, world, config.placement)
    table = opened_table(config, agents)
    about = described(config, graph) if table is None else table.about
    net, head, columns, project, lift = model(config, about, agents)
    with agreed(head.everyone):
        if config.network.kernel != AUTO:
            net.kernel_for(1)  # refused before a file is written, where what was asked for by name does not serve
        if table is None:
            train, test = _samples(config, net, columns, about, labels=head.everyone.is_root)
            balance(head, config.readout, train, about)
    if table is not None:
        train, validation, test, statistics = table_samples(table, config, net, columns)
        with agreed(head.everyone):
            balance(head, config.readout, train, about)
        return Job(config, about, agents, net, head, columns, train, test, project, lift, validation, statistics)
    return Job(config, about, agents, net, head, columns, train, test, project, lift)


def described(config: Config, graph: CommunicationGraph) -> Description:
    """The data of a config, as they are known before they are read, on one rank alone; ``ValueError`` as ``build``."""
    if config.data.source == TABLE:
        table = opened_table(config, place(graph, connect(ALONE)))
        assert table is not None
        return table.about
    return describe(named_source(config, graph), root=config.data.root, graph=graph)


class Model(NamedTuple):
    """The parts of a ``Job`` that need no data, as they are named there."""

    net: HDNN
    head: Head
    columns: Columns | None
    project: SpectralProjection | None
    lift: ConvolutionalLift | None


def model(config: Config, about: Description, agents: Agents) -> Model:
    """Build all that needs no data; raises ``ValueError`` for what cannot be built."""
    check_objective(config.readout, about)
    check_watched(config, about)
    net = _network(config, agents)
    project = _projection(config, net)
    columns = columns_of(config, about, agents.graph, net.features)
    lift = None if config.network.lift is None else ConvolutionalLift(net)
    at, root = readers(config, about, agents.graph), _root(config, agents.graph)
    head = make_head(config.readout, about, net, at, root, positions_of(config, about))
    return Model(net, head, columns, project, lift)


def _network(config: Config, agents: Agents) -> HDNN:
    chosen = config.network
    return HDNN(
        agents,
        features=chosen.features,
        layers=chosen.layers,
        step=chosen.step,
        architecture=chosen.architecture,
        seed=config.seed,
        initial=chosen.initial,
        courant=chosen.courant,
        jitter=chosen.jitter,
        pattern=pattern_of(config, agents.graph),
        shared=chosen.shared,
        normalisation=chosen.normalisation,
        edge_labels=edge_labels_of(config, agents.graph),
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


def readers(config: Config, about: Description, graph: CommunicationGraph) -> list[int] | None:
    """The agents of ``readout.at``; None for all."""
    if config.readout.at == EACH:
        return sorted(about.targets or ())
    if config.readout.at == "all":
        return None
    if config.readout.at == "centre":
        return [graph.centre]
    with concerning("readout.at"):
        return _each_once(graph, [graph.agent(given) for given in config.readout.at])


def _each_once(graph: CommunicationGraph, agents: list[int]) -> list[int]:
    for agent, times in Counter(agents).items():
        if times > 1:
            raise ValueError(f"{graph.named(agent)} is there {times} times: name each agent once")
    return agents


def _root(config: Config, graph: CommunicationGraph) -> int | None:
    with concerning("readout.root"):
        return None if config.readout.root is None else graph.agent(config.readout.root)


def pattern_of(config: Config, graph: CommunicationGraph) -> Pattern | None:
    """The pairs of ``network.pattern``; None for the graph."""
    if config.network.pattern is None:
        return None
    with concerning("network.pattern"):
        pairs = [(graph.agent(reader), graph.agent(read)) for reader, read in config.network.pattern]
    return Pattern.from_pairs(graph.agents, pairs)


def edge_labels_of(config: Config, graph: CommunicationGraph) -> EdgeLabels:
    """What ``network.edge_labels`` says of pairs of agents."""
    given = config.network.edge_labels
    if given is None or isinstance(given, str):
        return given
    with concerning("network.edge_labels"):
        return {(graph.agent(reader), graph.agent(read)): label for reader, read, label in given}


def _samples(
    config: Config, net: HDNN, columns: Columns | None, about: Description, labels: bool
) -> tuple[Samples, Samples]:
    chosen = config.data
    data = load(
        named_source(config, net.agents.graph),
        seed=config.seed,
        index=column_index(columns, about, net.agents),
        samples=chosen.samples,
        noise=chosen.noise,
        root=chosen.root,
        labels=labels,
        targets=targets_here(about, net.agents),
        graph=net.agents.graph,
    )
    positions = positions_of(config, about)

    def on_device(split: Split) -> Samples:
        return Samples(as_inputs(split.inputs, positions, net), as_labels(split.labels, split.targets, net))

    return on_device(data.train), on_device(data.test)
