"""Files of nodes and links, read into graphs of networkx: GraphML, node-link JSON, GML and Pajek."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx

from hdnn_dist.graph.nodes import topology_of
from hdnn_dist.graph.source import Source, text
from hdnn_dist.support.arguments import one_line

GRAPHML = "http://graphml.graphdrawing.org/xmlns"
_MALFORMED = (nx.NetworkXException, SyntaxError, LookupError, TypeError, ValueError, AttributeError)


def read_json(path: Path, data: bytes, merge: bool = False) -> Source:
    """Node-link JSON; positions are the attribute ``pos``, labels ``label`` or the ``id`` itself."""
    try:
        content = json.loads(text(path, data))
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
    return Source(topology_of(path, graph, merge), [])


def read_graphml(path: Path, data: bytes, merge: bool = False) -> Source:
    """GraphML; positions are the attributes ``x`` and ``y``, labels ``label`` or the ``id`` itself.

    Attributes are read as text, whatever type they declare: programs write types that others do not know.
    """
    try:
        tree = ElementTree.fromstring(data)
        tags = Counter(element.tag for element in tree.iter())
        if "graph" in tags:
            raise ValueError(f"its elements have no namespace: write <graphml xmlns={GRAPHML!r}>")
        if (graphs := tags[f"{{{GRAPHML}}}graph"]) > 1:
            raise ValueError(f"it holds {graphs} graphs: keep one of them")
        for key in tree.iter(f"{{{GRAPHML}}}key"):
            key.set("attr.type", "string")
        graph = nx.read_graphml(io.BytesIO(ElementTree.tostring(tree)))
        nodes = tags[f"{{{GRAPHML}}}node"]
    except _MALFORMED as error:
        raise ValueError(_no_graph(path, "GraphML", error)) from None
    _check_count(path, nodes, graph)
    _place(graph)
    return Source(topology_of(path, graph, merge), [])


def read_gml(path: Path, data: bytes, merge: bool = False) -> Source:
    """GML, as networkx reads it; labels are ``label``, where it tells nodes apart, or the ``id``."""
    content = re.sub(r"\bgraph\s*\[", "graph [ multigraph 1 ", text(path, data), count=1)  # repeats are told by us
    try:
        graph = nx.parse_gml(content.splitlines(), label="id")
    except _MALFORMED as error:
        raise ValueError(_no_graph(path, "GML", error)) from None
    for _, attributes in graph.nodes(data=True):
        if isinstance(graphics := attributes.get("graphics"), dict):
            attributes.update({axis: graphics[axis] for axis in "xy" if axis in graphics})
    _place(graph)
    return Source(topology_of(path, graph, merge), [])


def read_pajek(path: Path, data: bytes, merge: bool = False) -> Source:
    """Pajek: ``*Vertices``, then ``*Edges`` or ``*Arcs``, a link a line or (``list``) a node with its neighbours."""
    graph, section = nx.MultiGraph(), ""
    for number, line in enumerate(text(path, data).splitlines(), start=1):
        content = line.strip()
        if not content or content.startswith("%"):
            continue
        try:
            if content.startswith("*"):
                section = content[1:].split()[0].lower()
                _begin(graph, section, content)
            else:
                graph = _with_direction(graph) if section.startswith("arcs") else graph
                _PAJEK[section](graph, content)
        except _MALFORMED:
            raise ValueError(
                f"{path}, line {number}: {content[:80]!r} is not Pajek; expected *Vertices with their number, then "
                "*Edges or *Arcs, save the graph anew"
            ) from None
    return Source(topology_of(path, graph, merge), [])


def _begin(graph: nx.Graph, section: str, line: str) -> None:
    """Vertices without a line of their own are there too."""
    if section == "vertices":
        graph.add_nodes_from(range(1, int(line.split()[1]) + 1))
    elif section not in _PAJEK and section != "network":
        raise ValueError(section)


def _with_direction(graph: nx.Graph) -> nx.Graph:
    """From the first arc on: programs write an empty ``*Arcs`` beside the edges."""
    return graph if graph.is_directed() else nx.MultiDiGraph(graph)


def _vertex(graph: nx.Graph, line: str) -> None:
    number, *about = _words(line)
    attributes = graph.nodes[int(number)]
    attributes.update({"label": about[0]} if about else {})
    if len(about) > 2 and all(re.fullmatch(r"[-+0-9.eE]+", coordinate) for coordinate in about[1:3]):
        attributes["pos"] = (about[1], about[2])


def _words(line: str) -> list[str]:
    """The words of a line, or what stands between double quotes; an apostrophe is a letter."""
    words = shlex.shlex(line, posix=True)
    words.whitespace_split, words.commenters, words.quotes = True, "", '"'
    return list(words)


def _link(graph: nx.Graph, line: str) -> None:
    one, other, *about = line.split()
    _join(graph, int(one), int(other), *about[:1])


def _links(graph: nx.Graph, line: str) -> None:
    one, *others = map(int, line.split())
    for other in others:
        _join(graph, one, other)


def _join(graph: nx.Graph, one: int, other: int, weight: object = 1) -> None:
    if one not in graph or other not in graph:
        raise ValueError(f"{one} {other}")
    graph.add_edge(one, other, weight=weight)


_PAJEK = {"vertices": _vertex, "edges": _link, "arcs": _link, "edgeslist": _links, "arcslist": _links}


def _place(graph: nx.Graph) -> None:
    for _, attributes in graph.nodes(data=True):
        if "x" in attributes or "y" in attributes:
            attributes["pos"] = (attributes.get("x"), attributes.get("y"))


def _check_count(path: Path, declared: int, graph: nx.Graph) -> None:
    """networkx merges repeated nodes and adds those that only an edge names."""
    if declared != len(graph):
        raise ValueError(
            f"{path}: {declared} nodes are declared, but nodes and edges name {len(graph)} different ones; "
            "declare every node once"
        )


def _no_graph(path: Path, kind: str, error: Exception) -> str:
    return f"{path}: not a graph in {kind} ({type(error).__name__}: {one_line(error)}); save the graph anew"


def write_json(graph: nx.Graph) -> str:
    """Node-link JSON, with positions as ``pos`` and labels as ``label``."""
    return json.dumps(nx.node_link_data(graph, edges="edges"), indent=1) + "\n"


def write_graphml(graph: nx.Graph) -> str:
    """GraphML, with positions as ``x`` and ``y`` and labels as ``label``."""
    plain = nx.Graph(**graph.graph)
    plain.add_nodes_from((node, _attributes(about)) for node, about in graph.nodes(data=True))
    plain.add_edges_from(graph.edges)
    return "\n".join(nx.generate_graphml(plain)) + "\n"


def _attributes(about: dict[str, Any]) -> dict[str, Any]:
    places = dict(zip("xy", about["pos"], strict=True)) if "pos" in about else {}
    return places | ({"label": about["label"]} if "label" in about else {})
