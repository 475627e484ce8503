"""Graphs in files: edge lists, GraphML, networkx node-link JSON; and graphs of networkx as numbered agents.

An edge list has one edge ``i k`` a line, agents counted from 0. ``#`` begins a comment, and ``# agents: 8`` gives
the number of agents (needed for a graph of one agent; without it the largest number in the edges decides).
Edge lists hold no positions; GraphML holds them as node attributes ``x`` and ``y``, JSON as ``pos``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from hdnn_dist.graph.topologies import Topology
from hdnn_dist.support.arguments import one_line
from hdnn_dist.support.files import write_whole

EDGE_LISTS = (".edges", ".txt", ".edgelist")
SUFFIXES = (*EDGE_LISTS, ".graphml", ".json")
GRAPHML = "http://graphml.graphdrawing.org/xmlns"

_EDGE = re.compile(r"\s*([0-9]{1,10})\s+([0-9]{1,10})\s*")
_HEADER = re.compile(r"#\s*agents:\s*(.*?)\s*")
_MALFORMED = (nx.NetworkXException, SyntaxError, LookupError, TypeError, ValueError, AttributeError)


class Source(NamedTuple):
    """What was read: the graph, and the line of every edge where the file has lines."""

    topology: Topology
    lines: list[int]


def is_file(spec: str) -> bool:
    """Whether a graph spec means a file: it has a slash or a known suffix."""
    return "/" in spec or os.sep in spec or Path(spec).suffix.lower() in SUFFIXES


def read(path: Path, merge: bool = False) -> Source:
    """Read a graph by suffix. ValueError with file, line and mend on a file that is missing or malformed.

    ``merge``: take links of either direction, and several between two agents, as one edge, and leave out links of an
    agent with itself, which are refused otherwise.
    """
    suffix = _known_suffix(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"graph file {path} does not exist; correct the path or save a graph there") from None
    except OSError as error:
        raise ValueError(f"graph file {path} cannot be read: {error.strerror}; name a readable file") from None
    if suffix in EDGE_LISTS:
        source = _parse_edge_list(path, data)
        return Source(_merged_pairs(source.topology), []) if merge else source
    graph = _parse_json(path, data, merge) if suffix == ".json" else _parse_graphml(path, data)
    if merge:
        graph = nx.Graph(graph)
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    try:
        topology = numbered(_with_whole_labels(graph))
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    return Source(topology._replace(name=topology.name or path.stem), [])


def write(path: Path, graph: nx.Graph) -> None:
    """Write a graph whose nodes are 0..M-1, whole or not at all."""
    suffix = _known_suffix(path)
    text = _edge_list(graph) if suffix in EDGE_LISTS else _TEXTS[suffix](graph)
    try:
        write_whole(path, text)
    except OSError as error:
        raise ValueError(
            f"graph file {path} cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from None


def numbered(graph: nx.Graph) -> Topology:
    """The topology of a networkx graph: nodes in sorted order, or in the graph's where they cannot be sorted.

    A node attribute ``pos`` of two coordinates becomes the position. ValueError on a directed graph, on a
    multigraph, and where only some nodes have a ``pos``.
    """
    if graph.is_directed() or graph.is_multigraph():
        raise ValueError(_not_simple(graph))
    nodes = _ordered(graph)
    agent = {node: number for number, node in enumerate(nodes)}
    edges = np.array([(agent[one], agent[other]) for one, other in graph.edges], dtype=np.int64).reshape(-1, 2)
    name = graph.graph.get("name")
    return Topology(name if isinstance(name, str) else "", len(nodes), edges, _positions(graph, nodes))


def _not_simple(graph: nx.Graph) -> str:
    links = list(graph.edges())
    if graph.is_directed():
        kind, which = "directed", [f"{one!r} to {other!r}" for one, other in links]
    else:
        kind = "a multigraph (or an edge is given twice)"
        which = [f"{one!r} and {other!r}" for (one, other), times in Counter(links).items() if times > 1]
    first = f", not like {', '.join(which[:2])}" if which else ""
    return (
        f"the graph is {kind}, expected undirected and simple{first}; convert it with networkx.Graph(graph), or a file "
        "with hdnn-dist topology FILE --merge --save NEW.edges"
    )


def _merged_pairs(topology: Topology) -> Topology:
    low, high = topology.edges.min(axis=1, initial=topology.agents), topology.edges.max(axis=1, initial=-1)
    return topology._replace(edges=np.unique(np.column_stack([low, high])[low < high], axis=0))


def _ordered(graph: nx.Graph) -> list[Any]:
    nodes = list(graph)
    one_type = len({type(node) for node in nodes}) == 1 or all(isinstance(node, int | np.integer) for node in nodes)
    with contextlib.suppress(TypeError):
        return sorted(nodes) if one_type else nodes
    return nodes


def _positions(graph: nx.Graph, nodes: list[Any]) -> NDArray[np.float64] | None:
    given = nx.get_node_attributes(graph, "pos")
    if not given:
        return None
    missing = [node for node in nodes if node not in given]
    if missing:
        raise ValueError(
            f"node {missing[0]!r} has no position ('pos'), but {len(given)} of {len(nodes)} nodes have; "
            "give it to all or to none"
        )
    try:
        return np.array([given[node] for node in nodes], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("a position ('pos') of a node is not a pair of numbers; write x and y for each") from None


def _with_whole_labels(graph: nx.Graph) -> nx.Graph:
    """Files often hold labels as text: '10' becomes 10, other text keeps the file's order (n9 before n10)."""
    if not all(isinstance(node, str) for node in graph):
        return graph
    whole = {node: int(node) for node in graph if node.isdecimal()}
    if len(set(whole.values())) == len(graph):
        return nx.relabel_nodes(graph, whole)
    return nx.convert_node_labels_to_integers(graph)


def _parse_edge_list(path: Path, data: bytes) -> Source:
    agents, pairs, lines = 0, [], []
    for number, line in enumerate(_text(path, data).splitlines(), start=1):
        if header := _HEADER.fullmatch(line.strip()):
            agents = _header_agents(f"{path}, line {number}", header[1], agents)
        content = line.partition("#")[0]
        if not content.strip():
            continue
        edge = _EDGE.fullmatch(content)
        if not edge:
            raise ValueError(
                f"{path}, line {number}: {content.strip()!r} is not an edge; write two agent numbers, for example '0 1'"
            )
        pairs.append((int(edge[1]), int(edge[2])))
        lines.append(number)
    if not pairs and not agents:
        raise ValueError(f"{path}: no edges; write one a line, or '# agents: 1' for a graph of one agent")
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Source(Topology(path.stem, agents or int(edges.max()) + 1, edges), lines)


def _header_agents(place: str, text: str, earlier: int) -> int:
    if earlier:
        raise ValueError(f"{place}: the number of agents was given before ({earlier}); keep one '# agents:' line")
    if not re.fullmatch("0*[1-9][0-9]{0,9}", text):
        raise ValueError(f"{place}: {text!r} is no number of agents; write for example '# agents: 8'")
    return int(text)


def _parse_json(path: Path, data: bytes, merge: bool) -> nx.Graph:
    try:
        content = json.loads(_text(path, data))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg}); save the graph anew") from None
    older = isinstance(content, dict) and not content.get("edges") and ("links" in content or "edges" not in content)
    edges = "links" if older else "edges"  # networkx < 3.4 wrote links, other programs both
    try:
        graph = nx.node_link_graph(content, directed=False, multigraph=False, edges=edges)
        nodes, links = len(content["nodes"]), len(content[edges])
    except _MALFORMED as error:
        raise ValueError(_no_graph(path, "node-link JSON", error)) from None
    _check_count(path, nodes, graph)
    if links != graph.number_of_edges() and not merge:
        raise ValueError(f"{path}: {links - graph.number_of_edges()} of {links} edges repeat others; keep one of each")
    return graph


def _parse_graphml(path: Path, data: bytes) -> nx.Graph:
    try:
        tags = Counter(element.tag for element in ElementTree.fromstring(data).iter())
        if "graph" in tags:
            raise ValueError(f"its elements have no namespace: write <graphml xmlns={GRAPHML!r}>")
        if (graphs := tags[f"{{{GRAPHML}}}graph"]) > 1:
            raise ValueError(f"it holds {graphs} graphs: keep one of them")
        graph = nx.read_graphml(io.BytesIO(data))
        nodes = tags[f"{{{GRAPHML}}}node"]
    except _MALFORMED as error:
        raise ValueError(_no_graph(path, "GraphML", error)) from None
    _check_count(path, nodes, graph)
    for _, attributes in graph.nodes(data=True):
        if "x" in attributes and "y" in attributes:
            attributes["pos"] = (attributes["x"], attributes["y"])
    return graph


def _check_count(path: Path, declared: int, graph: nx.Graph) -> None:
    """networkx merges repeated nodes and adds those that only an edge names."""
    if declared != len(graph):
        raise ValueError(
            f"{path}: {declared} nodes are declared, but nodes and edges name {len(graph)} different ones; "
            "declare every node once"
        )


def _no_graph(path: Path, kind: str, error: Exception) -> str:
    return f"{path}: not a graph in {kind} ({type(error).__name__}: {one_line(error)}); save the graph anew"


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}, byte {error.start}); save the graph anew") from None


def _known_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"graph file {path} has suffix {suffix!r}, expected one of {', '.join(SUFFIXES)}; rename it")
    return suffix


def _edge_list(graph: nx.Graph) -> str:
    return "".join([f"# agents: {len(graph)}\n", *(f"{i} {k}\n" for i, k in graph.edges)])


def _json(graph: nx.Graph) -> str:
    return json.dumps(nx.node_link_data(graph, edges="edges"), indent=1) + "\n"


def _graphml(graph: nx.Graph) -> str:
    plain = nx.Graph(**graph.graph)
    plain.add_nodes_from((node, _coordinates(attributes)) for node, attributes in graph.nodes(data=True))
    plain.add_edges_from(graph.edges)
    return "\n".join(nx.generate_graphml(plain)) + "\n"


def _coordinates(attributes: dict[str, Any]) -> dict[str, float]:
    return dict(zip("xy", attributes["pos"], strict=True)) if "pos" in attributes else {}


_TEXTS: dict[str, Callable[[nx.Graph], str]] = {".json": _json, ".graphml": _graphml}
