"""What a graph file is read as, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from hdnn_dist.graph.topologies import Topology


class GraphFileWarning(UserWarning):
    """A graph file holds more than a graph has, or counts its agents in another way."""


class Source(NamedTuple):
    """What was read: the graph, and the line of every edge where the file has lines."""

    topology: Topology
    lines: list[int]


class Format(NamedTuple):
    """``read``: the file's path, its content, and whether links are merged; ``write``: a graph as text, or None.

    ``read`` raises ValueError that begins with the path.
    """

    read: Callable[[Path, bytes, bool], Source]
    write: Callable[[nx.Graph], str] | None = None


def say(message: str) -> None:
    """Warn of what is left out or renamed in a file."""
    warnings.warn(message, GraphFileWarning, stacklevel=2)


def text(path: Path, data: bytes) -> str:
    """The text of a file; ValueError unless it is UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}, byte {error.start}); save the graph anew") from None


def merged(topology: Topology) -> Topology:
    """Links (E, 2) of either direction, and several between two agents, as one edge, without those to itself."""
    low, high = topology.edges.min(axis=1, initial=topology.agents), topology.edges.max(axis=1, initial=-1)
    return topology._replace(edges=np.unique(np.column_stack([low, high])[low < high], axis=0))


def by_number(path: Path, pairs: NDArray[np.int64]) -> Topology:
    """Links (E, 2) of nodes that a file numbers as it likes: agents are counted in ascending order, which is told."""
    numbers, edges = np.unique(pairs, return_inverse=True)
    edges, first, last = edges.reshape(-1, 2), int(numbers[0]), int(numbers[-1])
    if last == len(numbers) - 1:
        return Topology(path.stem, len(numbers), edges)
    counted = f"from {first}" if last - first == len(numbers) - 1 else f"from {first} to {last} with gaps"
    say(
        f"{path} numbers its {len(numbers)} nodes {counted}: they are agents 0 to {len(numbers) - 1} in this order, "
        "and their numbers are labels, which configs name"
    )
    return Topology(path.stem, len(numbers), edges, None, tuple(map(str, numbers.tolist())))


def by_name(path: Path, pairs: list[tuple[str, str]]) -> Topology:
    """Links between nodes that a file names: agents are counted in the order in which they come."""
    agent = {name: number for number, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair))}
    edges = np.array([(agent[one], agent[other]) for one, other in pairs], dtype=np.int64).reshape(-1, 2)
    return Topology(path.stem, len(agent), edges, None, tuple(agent))
