"""The loss against the learning rate, and the rate that is suggested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hdnn_dist.plots.series import HEIGHT, WIDTH, Panel, draw_panel
from hdnn_dist.plots.style import PALETTE, legend_below, new_figure, save


def draw_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggested: float | None,
    path: str | Path,
) -> Path:
    """Draw the losses of a sweep and their smoothed course against the rates; ``suggested`` as an upright line."""
    figure = new_figure((WIDTH, HEIGHT))
    axes = figure.subplots()
    lines = {"loss of a step": (rates, losses), "smoothed": (rates, smoothed)}
    draw_panel(axes, Panel("Loss while the learning rate rises", lines, "loss of a step", log=True, last=False))
    if suggested is not None:
        axes.axvline(suggested, color=PALETTE[2], linestyle="--", label=f"suggested: {suggested:.2g}")
    axes.set(xscale="log", xlabel="learning rate")
    legend_below(figure)
    return save(figure, path)
