"""How gradients grow and vanish: norms of the BSMs with their bounds, singular values, gradients of the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hdnn_dist.plots.style import PALETTE, dress, save

SIZE = (7.2, 4.8)  # inches
FLOOR = 1e-30  # what is smaller is drawn here
ROOM = 1e4  # bounds leave the picture where they are so many times the largest norm
HIGHEST = 200.0  # power of 10 that an axis can take
BOUNDS = ("log10_upper_bound", "log10_continuous_bound")
Rows = Sequence[Mapping[str, Any]]


def draw_norms(rows: Rows, path: str | Path, *, title: str = "Norm of the BSM") -> Path:
    """Draw the norm of d y_N / d y_{N-j} against j, with its bounds.

    ``rows``: the table of the analysis, with ``j``, ``norm``, ``lower_bound`` (or None), ``log10_upper_bound`` and
    ``log10_continuous_bound`` (or None). A bound is drawn as far as it stays near the norms; its last value is named.
    """
    figure, axes = _log_figure(title, "layers back from the output, j", "2-norm")
    j, norm = _column(rows, "j"), _column(rows, "norm")
    axes.plot(j, np.maximum(norm, FLOOR), "o-", color=PALETTE[0], markersize=4, label=f"norm, last {norm[-1]:.3g}")
    if rows[-1]["lower_bound"] is not None:
        axes.axhline(rows[-1]["lower_bound"], color=PALETTE[2], linewidth=1.2, label="lower bound 1")
    _draw_bound(axes, rows, "log10_upper_bound", "upper bound", PALETTE[1], "--")
    _draw_bound(axes, rows, "log10_continuous_bound", "exp(Q t), continuous time", PALETTE[6], ":")
    axes.set_ylim(max(min(norm.min(), 1.0), FLOOR) / 3, _highest(rows))
    _legend_below(figure)
    return save(figure, path)


def draw_singular_values(rows: Rows, path: str | Path, *, title: str = "Singular values of the BSM") -> Path:
    """Draw the singular values of d y_N / d y_{N-j} against j: all where the rows have ``singular_values``, else the
    largest, ``norm``, and the ``smallest_singular_value`` (or None).

    Those that are None are lost in rounding: they are not drawn.
    """
    figure, axes = _log_figure(title, "layers back from the output, j", "singular value")
    for row in rows:
        every = row.get("singular_values") or (row["norm"], row["smallest_singular_value"])
        values = [value for value in every if value is not None]
        axes.plot(np.full(len(values), row["j"]), np.maximum(values, FLOOR), "_", color=PALETTE[0], markersize=9)
    for key, name, colour in (
        ("norm", "largest", PALETTE[1]),
        ("smallest_singular_value", "smallest, above rounding", PALETTE[2]),
    ):
        known = [row for row in rows if row[key] is not None]
        if known:
            axes.plot(
                _column(known, "j"), np.maximum(_column(known, key), FLOOR), color=colour, linewidth=1.2, label=name
            )
    axes.axhline(1.0, color=PALETTE[6], linewidth=0.8, linestyle=":")
    _legend_below(figure)
    return save(figure, path)


def draw_gradient_norms(
    steps: ArrayLike, norms: ArrayLike, path: str | Path, *, title: str = "Gradient norm of every layer"
) -> Path:
    """Draw ``norms`` (steps, layers) as a heat map with a logarithmic colour scale; zeros are left blank.

    ``steps``: (steps,) their numbers, evenly spaced. Raises ``ValueError`` for other shapes, or without any entry.
    """
    numbers, values = np.asarray(steps, dtype=float), np.asarray(norms, dtype=float)
    if values.ndim != 2 or values.size == 0 or numbers.shape != values.shape[:1]:
        raise ValueError(
            f"gradient norms have shape {values.shape}, steps {numbers.shape}: expected (steps, layers) and (steps,)"
        )
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    dress(axes, title)
    positive = values[values > 0]
    scale = LogNorm(positive.min(), positive.max()) if positive.size and positive.min() < positive.max() else None
    apart = numbers[1] - numbers[0] if len(numbers) > 1 else 1.0
    extent = (numbers[0] - apart / 2, numbers[-1] + apart / 2, -0.5, values.shape[1] - 0.5)
    image = axes.imshow(
        np.where(values > 0, values, np.nan).T,
        extent=extent,
        origin="lower",
        aspect="auto",
        norm=scale,
        cmap="viridis",
        interpolation="nearest",
    )
    figure.colorbar(image, ax=axes, label="2-norm")
    axes.set(xlabel="training step", ylabel="layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return save(figure, path)


def draw_counterexample(t: ArrayLike, y: ArrayLike, bsm: ArrayLike, path: str | Path, *, eps: float) -> Path:
    """Draw y (times, 2) and the entries of its BSM (times, 2, 2) against t (times,), one above the other."""
    figure = Figure(figsize=(SIZE[0], 6.4), layout="constrained")
    top, *rest = figure.subplots(3, 1, sharex=True)
    states, entries = np.asarray(y), np.asarray(bsm)
    for number in range(2):
        top.plot(t, states[:, number], color=PALETTE[number], linewidth=0.9, label=f"$y_{number + 1}$")
    dress(top, f"y' = {eps:g} J tanh(y): the state goes round for ever ...")
    for column, axes in enumerate(rest):
        for row in range(2):
            label = f"$M_{{{row + 1}{column + 1}}}$"
            axes.plot(t, entries[:, row, column], color=PALETTE[row], linewidth=0.9, label=label)
        dress(axes, "... and all entries of M = d y(t) / d y(0) grow without bound" if column == 0 else "")
    rest[1].sharey(rest[0])
    rest[1].set_xlabel("t")
    for axes in (top, *rest):
        axes.grid(color="#E3E5E8", linewidth=0.8)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


def draw_depth(norms: Mapping[str, Sequence[float]], depths: Sequence[int], path: str | Path) -> Path:
    """Draw the norm of d y_N / d y_0 against the depth N, a line for each name in ``norms``."""
    figure, axes = _log_figure("Gradients against depth", "layers N", "2-norm of d y_N / d y_0")
    floor = 1.0
    for number, (name, values) in enumerate(norms.items()):
        drawn = np.maximum(values, FLOOR)
        floor = min(floor, drawn.min())
        label = f"{name}, last {values[-1]:.3g}"
        axes.plot(depths, drawn, "o-", color=PALETTE[number % len(PALETTE)], markersize=4, label=label)
    axes.axhline(1.0, color=PALETTE[6], linewidth=1.0, linestyle=":", label="lower bound of H2")
    if floor <= FLOOR:
        axes.annotate("1e-30 or less", (depths[-1], FLOOR), xytext=(0, 6), textcoords="offset points", ha="right")
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    _legend_below(figure)
    return save(figure, path)


def _log_figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    dress(axes, title)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.grid(color="#E3E5E8", linewidth=0.8)
    return figure, axes


def _column(rows: Rows, key: str) -> np.ndarray:
    return np.array([row[key] for row in rows], dtype=float)


def _legend_below(figure: Figure) -> None:
    """Under the axes, where it cannot cover anything."""
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)


def _highest(rows: Rows) -> float:
    """Where the picture ends: above the bounds, or where they have left the norms far behind."""
    largest = max(_column(rows, "norm").max(), 1.0)
    bounds = [row[key] for row in rows for key in BOUNDS if row[key] is not None]
    return float(min(largest * ROOM, 3 * max(largest, 10.0 ** min(max(bounds, default=0.0), HIGHEST))))


def _draw_bound(axes: Axes, rows: Rows, key: str, name: str, colour: str, style: str) -> None:
    known = [row for row in rows if row[key] is not None]
    if known:
        exponents = _column(known, key)
        bound = 10.0 ** np.clip(exponents, -HIGHEST, HIGHEST)
        last = f"{bound[-1]:.3g}" if exponents[-1] < 6 else f"1e{exponents[-1]:.0f}"
        axes.plot(_column(known, "j"), bound, style, color=colour, linewidth=1.4, label=f"{name}, last {last}")
