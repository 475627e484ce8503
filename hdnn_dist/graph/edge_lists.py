"""Edge lists: one edge ``i k`` a line, or a row of a table (CSV).

``#`` begins a comment, and ``# agents: 8`` says that the numbers are those of 8 agents, counted from 0 (needed for a
graph of one agent). Without it, nodes may have any numbers: they are labels unless they are 0..M-1. What stands behind
the two numbers, a weight or what networkx writes (``{'weight': 2}``), is left out.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import networkx as nx
import numpy as np

from hdnn_dist.graph.labels import clean, is_whole
from hdnn_dist.graph.source import Source, by_name, by_number, merged, say, text
from hdnn_dist.graph.topologies import Topology

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_EDGE = re.compile(rf"\s*([0-9]{{1,10}})\s+([0-9]{{1,10}})((?:\s+{_NUMBER})*)\s*(\{{.*\}})?\s*")
_HEADER = re.compile(r"#\s*agents:\s*(.*?)\s*")
_ENDS = (("source", "target"), ("from", "to"))
_LONGEST_NUMBER = 10  # digits


def read_edge_list(path: Path, data: bytes, merge: bool = False) -> Source:
    """Pairs of numbers, line by line."""
    agents, pairs, lines, weighted = 0, [], [], False
    for number, line in enumerate(text(path, data).splitlines(), start=1):
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
        weighted |= bool(edge[3]) or edge[4] not in (None, "{}")
    if not pairs and not agents:
        raise ValueError(f"{path}: no edges; write one a line, or '# agents: 1' for a graph of one agent")
    if weighted:
        say(f"{path} has more behind its edges, such as weights: they are left out, a graph has none")
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    topology = Topology(path.stem, agents, edges) if agents else by_number(path, edges)
    return Source(merged(topology), []) if merge else Source(topology, lines)


def _header_agents(place: str, given: str, earlier: int) -> int:
    if earlier:
        raise ValueError(f"{place}: the number of agents was given before ({earlier}); keep one '# agents:' line")
    if not re.fullmatch("0*[1-9][0-9]{0,9}", given):
        raise ValueError(f"{place}: {given!r} is no number of agents; write for example '# agents: 8'")
    return int(given)


def write_edge_list(graph: nx.Graph) -> str:
    """Labels stay where reading numbers gives the same agents: whole numbers, ascending, each with an edge."""
    labels = [attributes.get("label", str(node)) for node, attributes in graph.nodes(data=True)]
    if not keeps_labels(labels):
        return "".join([f"# agents: {len(graph)}\n", *(f"{i} {k}\n" for i, k in graph.edges)])
    return "".join(f"{labels[i]} {labels[k]}\n" for i, k in graph.edges)


def keeps_labels(labels: list[str]) -> bool:
    """Whether an edge list can hold these labels, which are not 0..M-1."""
    whole = len(labels) > 1 and all(is_whole(label) and len(label) <= _LONGEST_NUMBER for label in labels)
    numbers = [int(label) for label in labels] if whole else []
    return whole and numbers == sorted(numbers) and numbers != list(range(len(numbers)))


def read_csv(path: Path, data: bytes, merge: bool = False) -> Source:
    """A table with commas, semicolons or tabs; its columns source and target, or from and to, or the first two."""
    try:
        table = [(number, row) for number, row in _rows(text(path, data)) if not _is_comment(row)]
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV ({error}); save the table anew") from None
    if not table:
        raise ValueError(f"{path}: no edges; write one a line, such as Berlin,Paris")
    one, other, headed = _columns(table)
    if (more := max(len(row) for _, row in table) - 2) > 0:
        say(f"{path} has {more} column{'s' * (more > 1)} beside its links, such as weights: left out, a graph has none")
    rows = table[headed:]
    pairs = [_pair(f"{path}, line {number}", row, one, other) for number, row in rows]
    if not pairs:
        raise ValueError(f"{path}: no edges below the header; write one a line, such as Berlin,Paris")
    whole = all(is_whole(name) and len(name) <= _LONGEST_NUMBER for pair in pairs for name in pair)
    topology = by_number(path, np.array(pairs).astype(np.int64)) if whole else by_name(path, pairs)
    return Source(merged(topology), []) if merge else Source(topology, [number for number, _ in rows])


def _rows(content: str) -> list[tuple[int, list[str]]]:
    lines = content.splitlines()
    filled = [line for line in lines if line.strip()]
    first = next((line for line in filled if not line.startswith("#")), "".join(filled[:1]))
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return [(reader.line_num, row) for row in reader]


def _is_comment(row: list[str]) -> bool:
    """An empty row, or one cell behind a ``#``, which is no link."""
    cells = [cell for cell in row if cell.strip()]
    return not cells or (len(row) == 1 and row[0].startswith("#"))


def _columns(table: list[tuple[int, list[str]]]) -> tuple[int, int, bool]:
    """The columns of the two ends, and whether the first row is a header.

    It is one where it names them, and where it is text above numbers.
    """
    first = [cell.strip().lower() for cell in table[0][1]]
    for ends in _ENDS:
        if set(ends) <= set(first):
            return first.index(ends[0]), first.index(ends[1]), True
    below = [cell.strip() for _, row in table[1:] for cell in row[:2]]
    return 0, 1, bool(below) and all(map(is_whole, below)) and not any(map(is_whole, first[:2]))


def _pair(place: str, row: list[str], one: int, other: int) -> tuple[str, str]:
    ends = [clean(row[column]) if column < len(row) else "" for column in (one, other)]
    if not all(ends):
        raise ValueError(f"{place}: {row!r} is not an edge; write the names of two nodes, such as Berlin,Paris")
    return ends[0], ends[1]
