"""The communication graph: agents in the colours of their ranks, edges, where features enter and what is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.edges import edge_lengths, edge_paths
from hdnn_dist.plots.layout import WIDTH, agent_diameter, closest, place_agents
from hdnn_dist.plots.style import EDGE, INK, PALETTE, Array, save, short_name, square_figure

NUMBERED = 64  # more names than this cannot be read
FIT, LONGEST_NAME = 3, 14  # characters that fit into an agent, and that are drawn below it


def draw_graph(
    graph: CommunicationGraph,
    path: str | Path,
    *,
    owner: ArrayLike | None = None,
    inputs: Sequence[int] | None = None,
    readout: Sequence[int] | None = None,
) -> Path:
    """Draw the communication graph at its positions, or in a layout of our own where it has none.

    ``owner``: (agents,) the rank of each agent, shown as its colour. ``inputs``, ``readout``: the agents where
    features enter, ringed, and those that are read, boxed. Labels, or numbers, are drawn where agents are few, long
    ones shortened. Raises ``ValueError`` when ``owner`` does not hold one rank an agent, or a marked agent does not
    exist.
    """
    ranks = _ranks(owner, graph.agents)
    entered, read = _known("inputs", inputs, graph.agents), _known("readout", readout, graph.agents)
    names = list(map(graph.label, range(graph.agents)))
    where = place_agents(graph)
    diameter = agent_diameter(where)

    figure, axes = square_figure(f"{graph.name}\n{_count(graph.agents, 'agent')}, {_count(len(graph.edges), 'edge')}")
    axes.set_axis_off()
    _draw_edges(axes, where, graph.edges, diameter)
    dots = _draw_agents(axes, where, ranks, diameter)
    _draw_mark(axes, where[entered], 1.35 * diameter + 2, "input enters", marker="o", color=PALETTE[5])
    _draw_mark(axes, where[read], 1.6 * diameter + 2, "read out", marker="s", color=INK)
    _fit_square(axes)
    _explain(figure, axes, dots, ranks, diameter)
    if graph.agents <= NUMBERED and max(map(len, names)) <= FIT:
        _name_within(axes, where, names, dots.to_rgba(ranks), min(0.45 * diameter, 9.0))
    elif graph.agents <= NUMBERED:
        _name_below(axes, where, names, diameter)
    return save(figure, path)


def _ranks(owner: ArrayLike | None, agents: int) -> Array:
    ranks = np.zeros(agents, dtype=int) if owner is None else np.asarray(owner)
    if ranks.shape != (agents,):
        raise ValueError(f"owner has shape {ranks.shape}: expected one rank for each of {agents} agents")
    return ranks


def _known(name: str, agents: Sequence[int] | None, count: int) -> Array:
    numbers = np.asarray([] if agents is None else agents, dtype=int)
    strangers = numbers[(numbers < 0) | (numbers >= count)]
    if strangers.size:
        raise ValueError(f"{name} names agent {strangers[0]}: the graph has agents 0 to {count - 1}")
    return numbers


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _draw_edges(axes: Axes, where: Array, edges: Array, diameter: float) -> None:
    """Very long ones faint."""
    if not len(edges):
        return
    length = edge_lengths(where, edges)
    width = float(np.clip(40.0 / np.sqrt(len(edges)), 0.3, 1.6))
    alpha = np.where(length > 4.0 * np.median(length), 0.4, min(0.9, 20.0 / np.sqrt(len(edges))))
    paths = edge_paths(where, edges, diameter)
    axes.add_collection(LineCollection(paths, colors=EDGE, linewidths=width, alpha=alpha))


def _draw_agents(axes: Axes, where: Array, ranks: Array, diameter: float) -> PathCollection:
    last = int(ranks.max())
    colours: Colormap = ListedColormap(PALETTE[: last + 1]) if last < len(PALETTE) else matplotlib.colormaps["viridis"]
    rim: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.6 if diameter > 6 else 0.0}
    x, y = where.T
    return axes.scatter(x, y, diameter**2, ranks, cmap=colours, vmin=0, vmax=last, **rim, zorder=3, clip_on=False)


def _draw_mark(axes: Axes, where: Array, size: float, words: str, **look: Any) -> None:
    if len(where):
        label = f"{words} ({_count(len(where), 'agent')})"
        axes.plot(
            *where.T,
            **look,
            label=label,
            linestyle="none",
            markersize=size,
            markeredgewidth=2.0 if size > 10 else 1.0,
            markerfacecolor="none",
            zorder=4,
            clip_on=False,
        )


def _fit_square(axes: Axes) -> None:
    """Fit a square around all that is drawn, also where that is a line or a point."""
    low, high = np.array(axes.dataLim.min), np.array(axes.dataLim.max)
    half = 0.56 * float((high - low).max() or 1.0)
    x, y = (low + high) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")


def _explain(figure: Figure, axes: Axes, dots: PathCollection, ranks: Array, diameter: float) -> None:
    """What marks and colours mean."""
    small: dict[str, Any] = {"frameon": False, "fontsize": 9}
    if axes.get_legend_handles_labels()[1]:
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 2}
        axes.legend(markerscale=8.0 / (1.5 * diameter + 2), **below, **small)
    if ranks.max() >= len(PALETTE):
        figure.colorbar(dots, ax=axes, label="rank", shrink=0.7, aspect=30)
    elif ranks.max() > 0:
        handles, labels = dots.legend_elements(num=np.unique(ranks).tolist(), fmt="rank {x:.0f}")
        row: dict[str, Any] = {"ncols": len(PALETTE), "columnspacing": 1.0, "handletextpad": 0.0}
        figure.legend(handles, labels, loc="outside lower center", **row, **small)


def _name_within(axes: Axes, where: Array, names: Sequence[str], colours: Array, size: float) -> None:
    """White on dark and black on light ``colours`` (agents, 4)."""
    light = colours[:, :3] @ [0.299, 0.587, 0.114] > 0.6
    style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "weight": "bold", "parse_math": False}
    for (x, y), name, pale in zip(where, names, light, strict=True):
        axes.text(x, y, name, color=INK if pale else "white", fontsize=size, zorder=5, **style)


def _name_below(axes: Axes, where: Array, names: Sequence[str], diameter: float) -> None:
    """As much of each as there is room for."""
    size = 7.0
    longest = int(np.clip(WIDTH * closest(where) / (0.62 * size), FIT + 1, LONGEST_NAME))
    style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": size, "color": INK, "parse_math": False}
    rim = [withStroke(linewidth=2.0, foreground="white")]
    for place, name in zip(where, names, strict=True):
        below: dict[str, Any] = {
            "xytext": (0, -0.5 * diameter - 1),
            "textcoords": "offset points",
            "path_effects": rim,
            "zorder": 5,
        }
        axes.annotate(short_name(name, longest), tuple(place), **below, **style)
