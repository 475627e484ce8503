"""The communication graph of a run, its edges in the colour of the bytes that a training step sends along them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from rich.filesize import decimal

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.edges import edge_paths
from hdnn_dist.plots.graph import FIT, LONGEST_NAME, NUMBERED
from hdnn_dist.plots.layout import WIDTH, agent_diameter, closest, place_agents
from hdnn_dist.plots.style import PALETTE, short_name
from hdnn_dist.runs.pictures import GRAPH
from hdnn_dist.runs.record import Record
from hdnn_dist.runs.report.pages import Card, rendered

SIDE, MARGIN = 1000.0, 90.0  # units of the picture
MOST_EDGES = 5000  # of an SVG that a phone still scrolls
MOST_LABELS = 32  # bytes beside edges
MOST_RANKS = 16  # in the legend


def graph_card(run: Record) -> Card | None:
    """None of a run that left no counts, and has no picture."""
    graph = run.graph
    title = f"{graph.name}: {graph.agents} agents, {len(graph.edges)} edges"
    if not run.edges or len(graph.edges) > MOST_EDGES:
        return _as_it_was_drawn(run, title)
    sizes = np.array([size for *_, size in run.edges["edges"]])
    note = "Colour and width of an edge: bytes that its agents exchange in a training step, both ways together."
    return Card(title, rendered("graph.html", **_drawn(run, graph, sizes)), note)


def _as_it_was_drawn(run: Record, title: str) -> Card | None:
    path = run.path / GRAPH
    if not path.is_file():
        return None
    image = b64encode(path.read_bytes()).decode()
    return Card(title, Markup('<img alt="the communication graph" src="data:image/png;base64,{}">').format(image))


def _drawn(run: Record, graph: CommunicationGraph, sizes: np.ndarray) -> dict[str, Any]:
    where = place_agents(graph)
    diameter = agent_diameter(where)
    span = np.maximum(where.max(axis=0), 1e-9)
    places = _placed(where, span[1])
    paths = [_placed(path, span[1]) for path in edge_paths(where, graph.edges, diameter)]
    owner = np.asarray(run.edges["owner"])
    radius = 0.5 * diameter / WIDTH * (SIDE - 2 * MARGIN)
    return {
        "width": f"{2 * MARGIN + span[0] * (SIDE - 2 * MARGIN):.0f}",
        "height": f"{2 * MARGIN + span[1] * (SIDE - 2 * MARGIN):.0f}",
        "about": f"{graph.name}, edges by bytes",
        "edges": [
            _edge(graph, ends, path, size, share)
            for ends, path, size, share in zip(graph.edges, paths, sizes, _shares(sizes), strict=True)
        ],
        "agents": _agents(run, graph, places, owner, where),
        "labels": _labels(graph, paths, sizes),
        "radius": round(radius, 1),
        "size": 26,
        "most": f"{decimal(int(sizes.max()))} a step" if len(sizes) else "",
        "entered": bool(_marked(run.edges["inputs"], graph)),
        "read": bool(_marked(run.edges["readout"], graph)),
        "ranks": _ranks(owner),
    }


def _placed(points: np.ndarray, height: float) -> np.ndarray:
    """(n, 2) in units of the picture, y downwards."""
    flipped = np.column_stack([points[:, 0], height - points[:, 1]])
    return np.asarray(MARGIN + flipped * (SIDE - 2 * MARGIN))


def _shares(sizes: np.ndarray) -> np.ndarray:
    """(edges,) of the most; from 0, so that small differences look small."""
    return np.asarray(sizes / max(sizes.max(initial=0), 1))


def _edge(graph: CommunicationGraph, ends: np.ndarray, path: np.ndarray, size: float, share: float) -> dict[str, Any]:
    a, b = (graph.named(int(agent)) for agent in ends)
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in path),
        "width": round((4 + 7 * share) * min(1.0, 12 / len(graph.edges) ** 0.5), 1),
        "colour": f"color-mix(in oklab, var(--high) {100 * share:.0f}%, var(--low))",
        "words": f"{a} and {b}: {decimal(int(size))} a step",
    }


def _agents(
    run: Record, graph: CommunicationGraph, places: np.ndarray, owner: np.ndarray, where: np.ndarray
) -> list[dict[str, Any]]:
    names = list(map(graph.label, range(graph.agents)))
    few, short = graph.agents <= NUMBERED, max(map(len, names)) <= FIT
    longest = int(np.clip(50 * closest(where), FIT + 1, LONGEST_NAME))
    entered, read = (_marked(run.edges[mark], graph) for mark in ("inputs", "readout"))
    return [
        {
            "x": round(x, 1),
            "y": round(y, 1),
            "words": f"{graph.named(agent)}, rank {owner[agent]}, {graph.degree[agent]} neighbours",
            "colour": _colour(int(owner[agent])),
            "enters": agent in entered,
            "read": agent in read,
            "within": names[agent] if few and short else "",
            "below": short_name(names[agent], longest) if few and not short else "",
        }
        for agent, (x, y) in enumerate(places.tolist())
    ]


def _marked(agents: list[int], graph: CommunicationGraph) -> set[int]:
    """Those agents; none where all are marked."""
    return set(agents) if len(agents) < graph.agents else set()


def _labels(graph: CommunicationGraph, paths: Sequence[np.ndarray], sizes: np.ndarray) -> list[dict[str, Any]]:
    """Bytes in the middle of each edge, where edges are few and do not cross much."""
    if len(paths) > min(MOST_LABELS, 2 * graph.agents):
        return []
    middles = [path[len(path) // 2] if len(path) > 2 else path.mean(axis=0) for path in paths]
    return [
        {"x": round(float(x), 1), "y": round(float(y), 1), "words": decimal(int(size))}
        for (x, y), size in zip(middles, sizes, strict=True)
    ]


def _ranks(owner: np.ndarray) -> list[dict[str, Any]]:
    ranks = np.unique(owner).tolist()
    return [{"number": rank, "colour": _colour(rank)} for rank in ranks] if 1 < len(ranks) <= MOST_RANKS else []


def _colour(rank: int) -> str:
    return f"var(--c{rank % len(PALETTE)})"
