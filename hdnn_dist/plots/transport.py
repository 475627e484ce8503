"""How far a change at one agent goes: hops from it against layers, in colours, with the cone that it cannot leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from hdnn_dist.plots.style import INK, PALETTE, PAPER, Array, dress, head, legend_below, new_figure, save

PANEL, BESIDE, HEIGHT = 2.9, 1.2, 4.3  # inches
LEAST, MOST = 1e-4, 1e2  # where the colours end, so that they mean the same in all pictures
SHADES = "viridis"  # its colours differ in lightness, which everybody sees
FRONT: Any = {"color": PALETTE[1], "linewidth": 1.8, "path_effects": [withStroke(linewidth=3.2, foreground="white")]}
WAVE: Any = {
    "color": "white",
    "linewidth": 1.4,
    "linestyle": (0, (2, 2)),
    "path_effects": [withStroke(linewidth=3, foreground=INK)],
}


@dataclass(frozen=True)
class Panel:
    """``norms``: (layers + 1, hops + 1), 0 where nothing comes; ``cone``, ``front``: (layers + 1,) hops.

    ``front``: -1 where there is none; ``speed``: hops a layer of the wave that the weights carry, where they do.
    """

    name: str
    norms: Array
    cone: Array
    front: Array
    speed: float | None = None


def draw_transport(panels: Sequence[Panel], path: str | Path, *, title: str, arrived: float) -> Path:
    """Draw a panel for each kind of weights, all with one scale. ``arrived``: the norm that the front has at least.

    Raises ``ValueError`` for panels of different shapes, or without any.
    """
    shapes = {panel.norms.shape for panel in panels}
    if len(shapes) != 1:
        raise ValueError(f"norms have the shapes {sorted(shapes)}: expected (layers + 1, hops + 1), one for all panels")
    figure = new_figure((PANEL * len(panels) + BESIDE, HEIGHT))
    every = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    head(figure, title)
    images = [_draw_panel(axes, panel, arrived) for axes, panel in zip(every, panels, strict=True)]
    every[0].set_ylabel("hops from the agent that is changed")
    figure.colorbar(images[0], ax=list(every), extend="both", label="norm of the change, 1 at first", aspect=30)
    legend_below(figure)
    return save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, arrived: float) -> AxesImage:
    dress(axes, panel.name)
    layers, hops = (size - 1 for size in panel.norms.shape)
    shown = np.nan_to_num(panel.norms, nan=np.inf).clip(max=10 * MOST)  # what is beyond all numbers is not nothing
    image = axes.imshow(
        np.where(panel.norms == 0, np.nan, shown).T,
        extent=(-0.5, layers + 0.5, -0.5, hops + 0.5),
        origin="lower",
        aspect="auto",
        norm=LogNorm(LEAST, MOST),
        cmap=SHADES,
        interpolation="nearest",
    )
    axes.set_facecolor(PAPER)
    at, inside = np.arange(layers + 1), panel.cone < hops
    edge = np.where(
        np.append(True, inside[:-1]), panel.cone + 0.5, np.nan
    )  # of the cells, until it is that of the picture
    axes.plot(
        at, edge, drawstyle="steps-mid", label="light cone: beyond it there can be nothing", color=INK, linewidth=1.2
    )
    if panel.speed is not None:
        made = np.where(panel.speed * at <= hops, panel.speed * at, np.nan)
        axes.plot(at, made, label=f"wave: {panel.speed:.3g} hops a layer", **WAVE)
    front = np.where(panel.front >= 0, panel.front, np.nan)
    axes.plot(at, front, label=f"front: {100 * arrived:g} % of the change", **FRONT)
    axes.set(xlabel="layer", xlim=(-0.5, layers + 0.5), ylim=(-0.5, hops + 0.5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    return image
