"""``hdnn-dist check``: what a config's graph, patterns and depth decide, without its data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from hdnn_dist.analysis.conditions import Conditions, check
from hdnn_dist.analysis.cost import LayerCost, cost_of
from hdnn_dist.data.columns import Columns
from hdnn_dist.data.source import Description
from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.placement import owners, place
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.pairs import pair_text
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.first_weights import WAVE, layers_across
from hdnn_dist.model.readers import check_readers
from hdnn_dist.model.stack_builder import require_weights
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.propagation.architectures import architecture as named
from hdnn_dist.propagation.state import features_per_agent
from hdnn_dist.training.build import described, model, pattern_of, readers
from hdnn_dist.training.config import Config
from hdnn_dist.training.inputs import columns_of, positions_of
from hdnn_dist.training.objective import check_objective

NAMED_AGENTS = 5
NAMED_PAIRS = 3
LISTED_AGENTS = 40


@dataclass(frozen=True, eq=False)
class Checked:
    """The conditions of a config, and the agents whose input the readout cannot see.

    ``inputs``: (inputs,) the agents that columns of the data enter; ``readers``: (readers,) those that are read;
    ``unreached``: (n,) the inputs that reach none of these.
    """

    config: Config
    graph: CommunicationGraph
    conditions: Conditions
    inputs: np.ndarray
    readers: np.ndarray
    unreached: np.ndarray

    @property
    def distance(self) -> int:
        """Edges from the farthest input to the nearest agent that is read."""
        return int(self.graph.hops(self.readers)[self.inputs].max(initial=0))

    @property
    def warning(self) -> str | None:
        """That a wave has too few layers to come from the farthest input to the readout; None if it has enough."""
        chosen = self.config.network
        if chosen.initial != WAVE or chosen.layers >= (needed := layers_across(self.distance, chosen.courant)):
            return None
        return (
            f"the farthest input is {self.distance} edges from the readout, which a wave of courant {chosen.courant:g} "
            f"needs {needed} layers for: raise network.layers (now {chosen.layers})"
        )

    @property
    def failure(self) -> str | None:
        """Why this config cannot be trained to use all of its inputs by neighbours alone; None if it can."""
        if self.conditions.refusal is not None:
            return self.conditions.refusal
        if not len(self.unreached):
            return None
        return (
            f"the readout cannot see the input of {len(self.unreached)} of {len(self.inputs)} agents: "
            f"{_some(self.graph, self.unreached)}; raise network.layers (now {self.config.network.layers}), read more "
            "agents with readout.at, or add edges"
        )

    def rows(self) -> dict[str, str]:
        """The report: what was looked at, and what was found."""
        found, graph, chosen = self.conditions, self.graph, self.config.network
        rows = {
            "graph": f"{graph.name}, {graph.agents} agents, {len(graph.edges)} edges, diameter {extent(graph)[0]}",
            "network": f"{chosen.architecture}, {chosen.layers} layers",
            **agents_by_name(graph),
            "neighbours alone": "yes: K and the coupling lie inside the graph" if found.distributed else "no",
            "single exchange": _single_exchange(found, graph),
            "reach": _reach(found, len(self.inputs), graph.agents),
            "readout": f"at {len(self.readers)} agents; sees {len(self.inputs) - len(self.unreached)} of "
            f"{len(self.inputs)} agents with an input",
        }
        rows |= self._farthest()
        if found.cost is not None:
            rows |= {"forward, a layer": str(found.cost.forward), "backward, a layer": str(found.cost.backward)}
        return rows

    def _farthest(self) -> dict[str, str]:
        chosen, text = self.config.network, f"{self.distance} edges from the readout"
        if chosen.initial == WAVE and self.distance:
            text += (
                f"; a wave of courant {chosen.courant:g} needs {layers_across(self.distance, chosen.courant)} layers"
            )
        return {"farthest input": text}


def extent(graph: CommunicationGraph) -> tuple[str, str]:
    """Diameter and centre, or that they take too long to compute."""
    if not graph.surveyable:
        return ("not computed for so many agents",) * 2
    return str(graph.diameter), graph.label(graph.centre)


def agents_by_name(graph: CommunicationGraph) -> dict[str, str]:
    """A row for each agent with its label and its degree, of a graph with labels; of many, the first ones."""
    if graph.labels is None:
        return {}
    listed = range(min(graph.agents, LISTED_AGENTS))
    rows = {f"agent {agent}": f"{graph.label(agent)}, degree {graph.degree[agent]}" for agent in listed}
    return rows if len(listed) == graph.agents else {**rows, "...": f"{graph.agents - len(listed)} more agents"}


def check_config(config: Config, graph: CommunicationGraph) -> Checked:
    """Check a config; ``ValueError`` for what ``train`` refuses before it reads data.

    A pattern that leaves the graph is no error: the result tells of it, and nothing is built.
    """
    chosen = config.network
    known = named(chosen.architecture, chosen.scheme)
    _check_placement(config, graph)
    features = features_per_agent(chosen.features, graph.agents)
    known.check_features(features)
    T = pattern_of(config, graph)
    about = described(config, graph)
    check_objective(config.readout, about)
    cost = _cost(config, graph, T, about)  # first: it refuses what does not fit into the memory
    enters = _enters(known, features, columns_of(config, about, graph, features))
    found = check(
        graph,
        T,
        _coupled(chosen.coupling, graph),
        chosen.layers,
        architecture=chosen.architecture,
        scheme=chosen.scheme,
        enters=enters,
        cost=cost,
    )
    read = check_readers(readers(config, about, graph), graph.agents)
    inputs = np.flatnonzero(enters.any(axis=0))
    return Checked(config, graph, found, inputs, read, found.unreached(read, inputs))


def _enters(known: Architecture, features: np.ndarray, columns: Columns | None) -> np.ndarray:
    """(parts, agents) bool, whether a column of the data enters a part of an agent's state."""
    filled, owner = _filled(columns, features), np.repeat(np.arange(len(features)), features)
    each = [np.bincount(owner[rows], filled[rows], len(features)) > 0 for rows in known.part_rows(features)]
    return np.stack(each)


def _coupled(coupling: str | None, graph: CommunicationGraph) -> Pattern | None:
    """R where the config says what the coupling is."""
    blocks = {"J1": Pattern.diagonal(graph.agents), "J2": graph.pattern(), "trained": graph.pattern()}
    return None if coupling is None else blocks.get(coupling)


def _filled(columns: Columns | None, features: np.ndarray) -> np.ndarray:
    """(features of all agents,) whether a column enters there; a lift fills all."""
    agents = range(len(features))
    return np.ones(features.sum(), dtype=bool) if columns is None else columns.index(agents) >= 0


def _check_placement(config: Config, graph: CommunicationGraph) -> None:
    """A name has to serve for one rank, a list for as many as it names."""
    given = config.placement
    ranks = given.values() if isinstance(given, dict) else [0] if isinstance(given, str) else given
    owners(graph, max([0, *ranks]) + 1, given)


def _cost(config: Config, graph: CommunicationGraph, T: Pattern | None, about: Description) -> LayerCost | None:
    """Of one layer of the network, which is built with all that ``train`` builds around it."""
    if T is not None:
        try:
            T.check_inside(graph)
        except ValueError:
            return None
    shallow = config.model_copy(update={"network": config.network.model_copy(update={"layers": 1})})
    net = model(shallow, about, place(graph, connect("local"))).net
    require_weights(config.network.layers, config.network.layers * prod(net.stack.shape))
    return cost_of(net, config.batch_size * prod(positions_of(config, about)))


def _single_exchange(found: Conditions, graph: CommunicationGraph) -> str:
    if found.single_exchange:
        return "would do"
    breaking = found.breaking
    pairs = ", ".join(pair_text(pair, graph.labels) for pair in breaking[:NAMED_PAIRS])
    listed = pairs + (", ..." if len(breaking) > NAMED_PAIRS else "")
    return f"would not do: it needs {len(breaking)} pairs of agents that are not neighbours: {listed}"


def _reach(found: Conditions, inputs: int, agents: int) -> str:
    after = f"after {found.settled} of {found.layers} layers"
    if found.pairs[-1] == inputs * agents:
        return f"every input can change every agent {after}"
    return f"{found.pairs[-1]:,} of {inputs * agents:,} pairs (input, agent) {after}"


def _some(graph: CommunicationGraph, agents: np.ndarray) -> str:
    first = agents[:NAMED_AGENTS].tolist()
    listed = map(str, first) if graph.labels is None else map(graph.named, first)
    return ", ".join(listed) + (", ..." if len(agents) > NAMED_AGENTS else "")
