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
    axes.set_ylim(max(min(norm.min(), 1.0), FLOOR) / 3, max(norm.max(), 1.0) * ROOM)
    axes.legend(frameon=False, fontsize=9, loc="best")
    return save(figure, path)


def draw_singular_values(rows: Rows, path: str | Path, *, title: str = "Singular values of the BSM") -> Path:
    """Draw the singular values of d y_N / d y_{N-j} against j: all where the rows have ``singular_values``, else the
    largest, ``norm``, and the ``smallest_singular_value`` (or None)."""
    figure, axes = _log_figure(title, "layers back from the output, j", "singular value")
    for row in rows:
        values = row.get("singular_values") or [v for v in (row["norm"], row["smallest_singular_value"]) if v]
        axes.plot(np.full(len(values), row["j"]), np.maximum(values, FLOOR), "_", color=PALETTE[0], markersize=9)
    for key, name, colour in (("norm", "largest", PALETTE[1]), ("smallest_singular_value", "smallest", PALETTE[2])):
        known = [row for row in rows if row[key] is not None]
        if known:
            axes.plot(
                _column(known, "j"), np.maximum(_column(known, key), FLOOR), color=colour, linewidth=1.2, label=name
            )
    axes.axhline(1.0, color=PALETTE[6], linewidth=0.8, linestyle=":")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
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
    figure = Figure(figsize=(SIZE[0], 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    states, entries = np.asarray(y), np.asarray(bsm).reshape(len(np.asarray(t)), 4)
    for number in range(2):
        upper.plot(t, states[:, number], color=PALETTE[number], linewidth=0.9, label=f"$y_{number + 1}$")
    for number in range(4):
        label = f"$M_{{{number // 2 + 1}{number % 2 + 1}}}$"
        lower.plot(t, entries[:, number], color=PALETTE[(0, 1, 2, 5)[number]], linewidth=0.9, label=label)
    dress(upper, f"y' = {eps:g} J tanh(y): the state goes round for ever ...")
    dress(lower, "... and the entries of M = d y(t) / d y(0) grow without bound")
    lower.set_xlabel("t")
    for axes in (upper, lower):
        axes.grid(color="#E3E5E8", linewidth=0.8)
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.2 * (high - low), high)  # a line of room for the legend
        axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower left")
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
    axes.legend(frameon=False, fontsize=9, loc="best")
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


def _draw_bound(axes: Axes, rows: Rows, key: str, name: str, colour: str, style: str) -> None:
    known = [row for row in rows if row[key] is not None]
    if known:
        exponents = _column(known, key)
        label = f"{name}, last 1e{exponents[-1]:.0f}"
        bound = 10.0 ** np.clip(exponents, -300, 300)
        axes.plot(_column(known, "j"), bound, style, color=colour, linewidth=1.4, label=label)
