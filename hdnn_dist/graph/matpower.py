"""Power grids as MATPOWER writes them (``.m``): buses are agents, the branches in service are edges.

Of ``mpc.bus`` the first column is read, the numbers of the buses, which become labels; of ``mpc.branch`` the first two,
the buses that it joins, and the eleventh, its status.
"""

from __future__ import annotations

import re
from pathlib import Path

import networkx as nx

from hdnn_dist.graph.nodes import topology_of
from hdnn_dist.graph.source import Source, say, text

STATUS = 10  # column of mpc.branch


def read_matpower(path: Path, data: bytes, merge: bool = False) -> Source:
    """The buses and branches of a case."""
    content = re.sub(r"%.*", "", text(path, data))
    buses, branches = _table(path, content, "bus", 1), _table(path, content, "branch", 2)
    in_service = [row for row in branches if len(row) <= STATUS or row[STATUS] != 0]
    if off := len(branches) - len(in_service):
        say(f"{path}: {off} of {len(branches)} branches are out of service (status 0) and left out")
    graph = nx.MultiGraph()
    graph.add_nodes_from(int(row[0]) for row in buses)
    different = len(graph)
    graph.add_edges_from((int(row[0]), int(row[1])) for row in in_service)
    if not different == len(graph) == len(buses):
        raise ValueError(
            f"{path}: mpc.bus has {len(buses)} rows, but buses and branches name {len(graph)} different buses; give "
            "each bus one row"
        )
    return Source(topology_of(path, graph, merge), [])


def _table(path: Path, content: str, name: str, columns: int) -> list[list[float]]:
    found = re.search(rf"\bmpc\.{name}\s*=\s*\[([^\]]*)\]", content)
    if not found:
        raise ValueError(f"{path}: no table mpc.{name} = [...]; save the case with MATPOWER's savecase")
    rows = [row.replace(",", " ").split() for row in re.split(r"[;\n]", found[1].replace("...", " "))]
    return [_numbers(path, name, row, columns) for row in rows if row]


def _numbers(path: Path, name: str, row: list[str], columns: int) -> list[float]:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        numbers = []
    ends = numbers[:columns]
    if len(ends) < columns or not all(end.is_integer() and end >= 0 for end in ends):
        raise ValueError(f"{path}: mpc.{name} has the row {' '.join(row[:4])!r}: expected numbers, of buses first")
    return numbers
