"""Many graphs that one network is trained on: the agents of all share its weights, each batch is a union of graphs.

Every batch is a network of its own, with the weights of the first one. Samples are drawn anew whenever one asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.data.distances import INPUTS, OF_GRAPHS, WITH_SOURCE, Values, draw_samples
from hdnn_dist.exchange.placement import place
from hdnn_dist.exchange.world import World
from hdnn_dist.experiments.graph_head import GraphHead
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.families import draw_graphs
from hdnn_dist.graph.pairs import IntArray
from hdnn_dist.graph.union import Union, union
from hdnn_dist.model.network import HDNN
from hdnn_dist.training.build import DTYPES
from hdnn_dist.training.config import Config

DRAWN = "drawn"
UNIT = 10.0  # hops; what is learned is a distance in this unit
SAMPLES = 4  # of every graph in a step, where they differ by their sources
NEIGHBOURS = 5  # an agent knows how many it has, up to this number
TEST = 4  # every so many rounds through the families, one is for test
LESSONS = 8  # in which graphs grow to their full size


@dataclass(frozen=True)
class Batch:
    """Graphs that pass through the network together, and what is asked of them.

    ``head``: the readout at every agent, the same for all, from its state (features,) to one number, or, for what is
    told of a graph, from all of its agents' states.
    """

    task: str
    graphs: Sequence[CommunicationGraph]
    joined: Union
    net: HDNN
    head: GraphHead

    @property
    def asked(self) -> IntArray:
        """Of which graph each number that is predicted is: (agents,) or, of a task about graphs, (graphs,)."""
        of_agents = self.joined.of_agents()
        return np.unique(of_agents) if self.task in OF_GRAPHS else of_agents

    def draw(self, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Inputs (samples, features of all agents) and targets (samples, asked), in hops.

        The two numbers of an agent, and 1 in the place of how many neighbours it has, are the first ones of both of
        its halves; zeros follow.
        """
        samples = SAMPLES if self.task in WITH_SOURCE else 1
        drawn = [draw_samples(self.task, graph, samples, random) for graph in self.graphs]
        known, targets = (np.concatenate(part, axis=1) for part in zip(*drawn, strict=True))
        known = np.concatenate([known, np.broadcast_to(self._degrees, (samples, *self._degrees.shape))], axis=2)
        x = self.net.trained_weights.new_zeros(*known.shape[:2], 2, self.head.features // 2)
        x[..., : known.shape[-1]] = torch.as_tensor(known)[:, :, np.newaxis]
        wanted = targets[:, self.joined.starts[:-1]] if self.task in OF_GRAPHS else targets
        return x.flatten(1), torch.as_tensor(wanted).to(x)

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """The mean absolute error, a scalar, in ``UNIT``; shapes as of ``draw``."""
        return (self._told(x) - targets / UNIT).abs().mean()

    def predict(self, x: Tensor) -> Tensor:
        """(samples, asked), in hops."""
        with torch.no_grad():
            return self._told(x) * UNIT

    def _told(self, x: Tensor) -> Tensor:
        y = self.net(x).unflatten(1, (-1, self.head.features))
        return self.head(y, torch.as_tensor(self.joined.of_agents()) if self.task in OF_GRAPHS else None)

    @cached_property
    def _degrees(self) -> Values:
        """(agents, NEIGHBOURS) one-hot."""
        degrees = np.concatenate([graph.degree for graph in self.graphs])
        return np.eye(NEIGHBOURS)[np.minimum(degrees, NEIGHBOURS) - 1]


class GraphSet:
    """The graphs of a config in batches, those of one round through the families in four for ``test``.

    ``config``: ``graph`` is "drawn:LEAST,MOST", the diameters; ``data.samples``, how many graphs, and ``batch_size``,
    how many in a batch. "drawn:LEAST,MOST,FIRST" trains with others before, from FIRST on: ``lessons``, in which the
    largest diameter grows to MOST. Raises ``ValueError`` for what cannot be built.
    """

    def __init__(self, config: Config, world: World, families: int) -> None:
        self._config, self._world = config, world
        least, most, first = diameters(config.graph)
        graphs = draw_graphs(_count(config, families), config.seed, (least, most))
        rounds = np.arange(len(graphs)) // families
        self._head = _head(config)
        self._first: Batch | None = None
        self.train = self._batches([g for g, n in zip(graphs, rounds, strict=True) if n % TEST < TEST - 1])
        self.test = self._batches([g for g, n in zip(graphs, rounds, strict=True) if n % TEST == TEST - 1])
        count = max(families, len(graphs) // (LESSONS * families) * families)
        self.lessons = [] if first is None else list(self._lessons(count, first, most))

    def _lessons(self, count: int, first: int, most: int) -> Iterator[list[Batch]]:
        for number in range(1, LESSONS + 1):
            bounds = first, first + (most - first) * number // LESSONS
            yield self._batches(draw_graphs(count, self._config.seed + number, bounds))

    def _batches(self, graphs: Sequence[CommunicationGraph]) -> list[Batch]:
        size = self._config.batch_size
        return [self._batch(graphs[start : start + size]) for start in range(0, len(graphs), size)]

    def _batch(self, graphs: Sequence[CommunicationGraph]) -> Batch:
        joined = union(graphs)
        agents, chosen = place(joined.graph, self._world, "contiguous"), self._config.network
        known = None if self._first is None else self._first.net.shared
        net = HDNN(
            agents, chosen.features, chosen.layers, chosen.step, chosen.architecture, self._config.seed,
            activation=chosen.activation, initial=chosen.initial, courant=chosen.courant, jitter=chosen.jitter,
            pattern=joined.pattern, shared=True if known is None else known, normalisation=chosen.normalisation,
            dtype=DTYPES[self._config.dtype], kernel=chosen.kernel,
        )  # fmt: skip
        batch = Batch(self._config.data.name, graphs, joined, net, self._head)
        self._first = self._first or batch
        return batch


def _head(config: Config) -> GraphHead:
    features = config.network.features
    if not isinstance(features, int):
        raise ValueError(f"network.features is {features}, but all agents share weights: give one number for all")
    if features < 2 * (INPUTS + NEIGHBOURS):
        raise ValueError(
            f"network.features is {features}, but an agent sees {INPUTS + NEIGHBOURS} numbers in each of its halves: "
            f"give {2 * (INPUTS + NEIGHBOURS)} at least"
        )
    return GraphHead(features, config.seed, DTYPES[config.dtype])


def diameters(spec: str) -> tuple[int, int, int | None]:
    """Least and largest of ``drawn:LEAST,MOST[,FIRST]``, and the least to begin with. ``ValueError`` for another."""
    name, _, numbers = spec.partition(":")
    bounds = numbers.split(",")
    if name != DRAWN or len(bounds) not in (2, 3) or not all(part.strip().isdecimal() for part in bounds):
        raise ValueError(
            f"graph is {spec!r}: expected {DRAWN}:LEAST,MOST or {DRAWN}:LEAST,MOST,FIRST, diameters, such as "
            f"{DRAWN}:17,40"
        )
    least, most, *first = (int(part) for part in bounds)
    return least, most, first[0] if first else None


def _count(config: Config, families: int) -> int:
    count, least = config.data.samples or 0, families * TEST
    if count < least:
        raise ValueError(
            f"data.samples is {config.data.samples}: expected the number of graphs, {least} at least, so that all "
            f"{families} families are trained with and one round in {TEST} is for test"
        )
    return count
