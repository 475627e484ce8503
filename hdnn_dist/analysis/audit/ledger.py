"""The ledger of an audit: the counts of all ranks together, part by part, and whether the parts make the whole.

Counts are arrays (edges, 2, 2): of each edge, from its lower agent and from its higher one, messages and bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.markdown import Row


@dataclass(frozen=True, eq=False)
class Part:
    """``name``: of a part of a step; ``times``: how often a step has it; ``counts``: (edges, 2, 2) of it once."""

    name: str
    times: int
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class Accounts:
    """``parts`` of one step, ``whole``: (edges, 2, 2) one forward and backward pass with its readout, as it was run.

    ``steps``: (edges, 2, 2), all that were audited, ``number`` of them; ``wire``: messages and bytes
    between ranks in these. Counts are of all replicas; ``each``: (replicas, edges, 2, 2) the steps of each one,
    ``copied``: bytes that ranks gave into sums with their copies in these.
    """

    graph: CommunicationGraph
    parts: list[Part]
    whole: np.ndarray
    steps: np.ndarray
    number: int
    wire: tuple[int, int]
    off_graph_messages: int
    each: np.ndarray
    copied: int

    @property
    def rest(self) -> np.ndarray:
        """(edges, 2, 2) of one step beside the pass: clipping, checks, the projection of the weights."""
        return self.steps // self.number - self.whole

    @property
    def add_up(self) -> bool:
        """Whether layers and readout, each run alone, are the whole pass, and the steps so many of one."""
        pass_ = sum((part.times * part.counts for part in self.parts), np.zeros_like(self.whole))
        return bool((pass_ == self.whole).all() and (self.rest >= 0).all() and not (self.steps % self.number).any())

    def between(self, owner: Sequence[int], ranks: tuple[int, int]) -> tuple[int, int]:
        """Messages and bytes of all steps between the agents of two ranks; ``owner``: of each agent, in its replica."""
        (replica, one), (other_replica, other) = (divmod(rank, max(owner) + 1) for rank in ranks)
        ends = np.sort(np.array(owner)[self.graph.edges], axis=1)
        between = (ends == sorted((one, other))).all(axis=1) & (replica == other_replica)
        chosen = self.each[replica][between].sum(axis=(0, 1))
        return int(chosen[0]), int(chosen[1])

    def totals(self) -> list[Row]:
        """A row for each part, over all edges."""
        rest = Part("clipping, checks, projection", 1, self.rest)
        step = Part("a whole step", 1, self.steps // self.number)
        shown = [*self.parts, *([rest] if rest.counts.any() else []), step]
        return [{"part": part.name, "times": part.times, **_messages(part.counts.sum(axis=(0, 1)))} for part in shown]

    def edges(self) -> list[Row]:
        """A row for each part, edge and direction that carries anything."""
        parts = [*self.parts, Part("clipping, checks, projection", 1, self.rest)]
        return [row for part in parts for row in self._edges_of(part)]

    def _edges_of(self, part: Part) -> Iterator[Row]:
        label = self.graph.label
        for edge, way in np.argwhere(part.counts.any(axis=2)).tolist():
            ends = self.graph.edges[edge].tolist()
            sender, receiver = ends if way == 0 else ends[::-1]
            about: Row = {"part": part.name, "times": part.times, "from": label(sender), "to": label(receiver)}
            yield {**about, **_messages(part.counts[edge, way])}


def accounts(
    graph: CommunicationGraph, number: int, stepped: Sequence[Any], told: Sequence[Any], replicas: int = 1
) -> Accounts:
    """Of what all ranks say: ``number`` of steps, ``stepped`` and ``told``, one of each rank, replica after replica."""
    counts = np.array([own["steps"] for own in stepped], dtype=np.int64)
    each = counts.reshape(replicas, -1, *counts.shape[1:]).sum(axis=1)
    parts = [*_layers(told), Part("readout", 1, _sum([own["readout"] for own in told]))]
    return Accounts(
        graph,
        parts,
        _sum([own["pass"] for own in told]),
        each.sum(axis=0),
        number,
        (sum(own["wire_messages"] for own in stepped), sum(own["wire_bytes"] for own in stepped)),
        sum(own["off_graph_messages"] for own in told),
        each,
        sum(own["copied"] for own in stepped),
    )


def _layers(told: Sequence[Any]) -> Iterator[Part]:
    which, again = np.array(told[0]["which"]), np.array(told[0]["again"], dtype=np.int64)
    for layout in range(which.max() + 1):
        layers = np.flatnonzero(which == layout)
        forward, backward = (_sum([own["layouts"][layout][way] for own in told]) for way in ("forward", "backward"))
        repeated = again[which[again] == layout]
        yield Part(f"{_span(layers)}, forward", len(layers), forward)
        if len(repeated):
            yield Part(f"{_span(repeated)}, forward again", len(repeated), forward)
        yield Part(f"{_span(layers)}, backward", len(layers), backward)


def _sum(counts: Sequence[Any]) -> np.ndarray:
    return np.sum(np.array(counts, dtype=np.int64), axis=0)


def _span(layers: np.ndarray) -> str:
    """Numbers of layers, from 1: "layers 1 to 4, 7"."""
    runs = np.split(layers + 1, np.flatnonzero(np.diff(layers) > 1) + 1)
    numbers = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"{'layers' if len(layers) > 1 else 'layer'} {numbers}"


def _messages(count: np.ndarray) -> Row:
    return {"messages": int(count[0]), "bytes": int(count[1])}
