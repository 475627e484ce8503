"""Graphs in files: a table of formats by suffix, each with what reads it and, for some, what writes it."""

from __future__ import annotations

import os
from pathlib import Path

import networkx as nx

from hdnn_dist.graph.edge_lists import keeps_labels, read_csv, read_edge_list, write_edge_list
from hdnn_dist.graph.matpower import read_matpower
from hdnn_dist.graph.node_files import read_gml, read_graphml, read_json, read_pajek, write_graphml, write_json
from hdnn_dist.graph.source import Format, Source, say
from hdnn_dist.support.files import write_whole

EDGE_LIST = Format(read_edge_list, write_edge_list)
FORMATS = {
    ".edges": EDGE_LIST,
    ".txt": EDGE_LIST,
    ".edgelist": EDGE_LIST,
    ".graphml": Format(read_graphml, write_graphml),
    ".json": Format(read_json, write_json),
    ".csv": Format(read_csv),
    ".gml": Format(read_gml),
    ".net": Format(read_pajek),
    ".m": Format(read_matpower),
}
WRITTEN = [suffix for suffix, form in FORMATS.items() if form.write is not None]
# What reads the formats of other programs, for which there is no reader here.
CONVERTERS = {
    ".gexf": "networkx.read_gexf",
    ".dot": "networkx.nx_pydot.read_dot",
    ".gv": "networkx.nx_pydot.read_dot",
    ".adjlist": "networkx.read_adjlist",
    ".g6": "networkx.read_graph6",
    ".s6": "networkx.read_sparse6",
    ".leda": "networkx.read_leda",
    ".gpickle": "pickle.load",
    ".tsv": "networkx.read_edgelist",
    ".mtx": "scipy.io.mmread and networkx.from_scipy_sparse_array",
    ".mat": "scipy.io.loadmat and networkx.from_numpy_array",
    ".npy": "numpy.load and networkx.from_numpy_array",
    ".xlsx": "pandas.read_excel and networkx.from_pandas_edgelist",
    ".shp": "momepy.gdf_to_nx",
}


def is_file(spec: str) -> bool:
    """Whether a graph spec means a file: it has a slash or the suffix of a known format."""
    suffix = Path(spec.strip()).suffix.lower()
    return "/" in spec or os.sep in spec or suffix in FORMATS or suffix in CONVERTERS


def read(path: Path, merge: bool = False) -> Source:
    """Read a graph by suffix. ValueError with file, line and mend on a file that is missing or malformed.

    ``merge``: take links of either direction, and several between two agents, as one edge, and leave out links of an
    agent with itself, which are refused otherwise.
    """
    form = _known(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"graph file {path} does not exist; correct the path or save a graph there") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"graph file {path} cannot be read: {reason}; name a readable file") from None
    try:
        return form.read(path, data, merge)
    except RecursionError:
        raise ValueError(f"{path}: its parts are nested too deeply for a graph; save the graph anew") from None


def write(path: Path, graph: nx.Graph) -> None:
    """Write a graph whose nodes are 0..M-1, whole or not at all."""
    write_text = _known(path).write
    if write_text is None:
        raise ValueError(f"graph file {path}: suffix {path.suffix!r} is only read; write one of {', '.join(WRITTEN)}")
    try:
        write_whole(path, write_text(graph))
    except OSError as error:
        raise ValueError(
            f"graph file {path} cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from None
    labels = list(nx.get_node_attributes(graph, "label").values())
    if labels and write_text is write_edge_list and not keeps_labels(labels):
        say(f"{path}: an edge list holds no such labels, agents have numbers there; .graphml and .json keep labels")


def _known(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return FORMATS[suffix]
    reader = CONVERTERS.get(suffix)
    with_what = f"{reader}, then networkx.write_graphml" if reader else "networkx, whose write_graphml makes .graphml"
    raise ValueError(
        f"graph file {path} has suffix {suffix!r}, expected one of {', '.join(FORMATS)}; rename it, or convert it with "
        f"{with_what}"
    )
