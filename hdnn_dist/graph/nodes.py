"""Graphs of networkx as numbered agents, with their labels and positions."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from hdnn_dist.graph.labels import clean, shortened, usable
from hdnn_dist.graph.source import say
from hdnn_dist.graph.topologies import Topology
from hdnn_dist.support.arguments import concerning


def topology_of(path: Path, graph: nx.Graph, merge: bool) -> Topology:
    """What a file holds, whose nodes are often texts: those that are numbers are sorted, others keep their order."""
    if any(_weighs(about.get(name)) for *_, about in graph.edges(data=True) for name in ("weight", "value")):
        say(f"{path} has weights of its links: they are left out, a graph has none")
    if merge:
        graph = nx.Graph(graph)
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    elif graph.is_multigraph() and not _repeated(graph):
        graph = nx.DiGraph(graph) if graph.is_directed() else nx.Graph(graph)
    whole = _as_numbers(graph)
    with concerning(str(path)):
        topology = numbered(graph, list(graph) if whole is None else sorted(whole, key=whole.__getitem__), f"{path}: ")
    return topology._replace(name=topology.name or path.stem)


def numbered(graph: nx.Graph, nodes: list[Any] | None = None, said: str = "") -> Topology:
    """The topology of a networkx graph; ``nodes``: in this order, else sorted, or as they are where they have none.

    A node attribute ``pos`` of two coordinates becomes the position. What is said of a graph begins with ``said``.
    ValueError on a directed graph and on a multigraph.
    """
    if graph.is_directed() or graph.is_multigraph():
        raise ValueError(_not_simple(graph))
    nodes = _ordered(graph) if nodes is None else nodes
    agent = {node: number for number, node in enumerate(nodes)}
    edges = np.array([(agent[one], agent[other]) for one, other in graph.edges], dtype=np.int64).reshape(-1, 2)
    name = graph.graph.get("name")
    labels, positions = _labels(graph, nodes, said), _positions(graph, nodes, said)
    return Topology(name if isinstance(name, str) else "", len(nodes), edges, positions, labels)


def _not_simple(graph: nx.Graph) -> str:
    links = list(graph.edges())
    if graph.is_directed():
        kind, which = "directed", [f"{_short(one)} to {_short(other)}" for one, other in links[:2]]
    else:
        kind = "a multigraph (or an edge is given twice)"
        which = [f"{_short(one)} and {_short(other)}" for one, other in _repeated(graph)[:2]]
    first = f", not like {', '.join(which)}" if which else ""
    return (
        f"the graph is {kind}, expected undirected and simple{first}; convert it with networkx.Graph(graph), or a file "
        "with hdnn-dist topology FILE --merge --save NEW.graphml"
    )


def _short(node: Any) -> str:
    return shortened(clean(node))


def _repeated(graph: nx.Graph) -> list[tuple[Any, Any]]:
    return [link for link, times in Counter(graph.edges()).items() if times > 1]


def _ordered(graph: nx.Graph) -> list[Any]:
    nodes = list(graph)
    one_type = len({type(node) for node in nodes}) == 1 or all(isinstance(node, int | np.integer) for node in nodes)
    with contextlib.suppress(TypeError):
        return sorted(nodes) if one_type else nodes
    return nodes


def _as_numbers(graph: nx.Graph) -> dict[Any, int] | None:
    """The number of each node, where all are different ones, or texts of such."""
    texts = {node: str(node) for node in graph}
    if not all(text.isascii() and text.isdecimal() for text in texts.values()):
        return None
    whole = {node: int(text) for node, text in texts.items()}
    return whole if len(set(whole.values())) == len(whole) else None


def _counted(nodes: list[Any]) -> bool:
    """Whether nodes are numbers behind one word, as programs write them: n0, n1 or node1, node2."""
    found = [re.fullmatch(r"([A-Za-z]+)[0-9]+", str(node)) for node in nodes]
    return len({match and match[1] for match in found}) == 1 and None not in found


def _weighs(weight: Any) -> bool:
    """Whether it is a number other than the 1 that programs write where there is no weight."""
    try:
        return float(weight) != 1
    except (TypeError, ValueError):
        return False


def _labels(graph: nx.Graph, nodes: list[Any], said: str) -> tuple[str, ...] | None:
    """The attribute ``label`` of nodes that are only counted, where it tells them apart; the nodes themselves else."""
    own = tuple(clean(graph.nodes[node].get("label", "")) for node in nodes)
    if usable(own) and (_as_numbers(graph) is not None or _counted(nodes)):
        return own
    ids = tuple(map(clean, nodes))
    if usable(ids):
        return ids
    say(f"{said}the names of nodes do not tell them apart: agents have numbers, in the order of the nodes")
    return None


def _positions(graph: nx.Graph, nodes: list[Any], said: str) -> NDArray[np.float64] | None:
    """(nodes, 2), or None, which is said, where not every node has two finite numbers: positions are cosmetic."""
    given = nx.get_node_attributes(graph, "pos")
    if not given:
        return None
    places = [_place(given.get(node)) for node in nodes]
    wrong = [node for node, place in zip(nodes, places, strict=True) if place is None]
    if not wrong:
        return np.array(places, dtype=np.float64)
    say(
        f"{said}positions are left out: {len(wrong)} of {len(nodes)} nodes, such as {clean(wrong[0])!r}, have none "
        "that is two numbers; the picture places the agents itself"
    )
    return None


def _place(given: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in given)
    except (TypeError, ValueError):
        return None
    return (x, y) if np.isfinite([x, y]).all() else None
