"""How gradients grow and vanish: norms of the BSMs with their bounds, singular values, gradients of the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.markers import CARETUP
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from hdnn_dist.plots.style import GRID, PALETTE, dress, legend_below, new_figure, save

SIZE = (7.2, 4.8)  # inches
FLOOR = 1e-30  # what is smaller is drawn here
ROOM = 1e2  # bounds leave the picture where they are so many times the largest norm
HIGHEST = 200.0  # power of 10 that an axis can take
BOUNDS = ("log10_upper_bound", "log10_continuous_bound")
BSM = "backward sensitivity matrix (BSM), M_j = d y_N / d y_(N-j)"
BACK = "j, layers back from the output"
Rows = Sequence[Mapping[str, Any]]


def draw_norms(rows: Rows, path: str | Path, *, about: str = "") -> Path:
    """Draw the norm of M_j = d y_N / d y_{N-j} against j, with its bounds.

    ``rows``: the table of the analysis, with ``j``, ``norm``, ``lower_bound`` (or None), ``log10_upper_bound`` and
    ``log10_continuous_bound`` (or None). A bound is drawn as far as it stays near the norms: where it leaves the
    picture there is an arrow, and its last value is named. ``about``: of what, under the title.
    """
    figure, axes = _log_figure(f"Norm of the {BSM}", about, BACK, "2-norm of M_j")
    j, norm = _column(rows, "j"), _column(rows, "norm")
    last = f"{norm[-1]:.3g} at j = {j[-1]:g}"
    axes.plot(j, _within(norm), "o-", color=PALETTE[0], markersize=4, label=f"measured norm, {last}")
    axes.set_ylim(max(min(norm.min(), 1.0), FLOOR) / 3, _highest(rows))
    if rows[-1]["lower_bound"] is not None:
        axes.axhline(rows[-1]["lower_bound"], color=PALETTE[2], linewidth=1.2, label="lower bound, 1: never vanishes")
    _draw_bound(axes, rows, "log10_upper_bound", "upper bound", color=PALETTE[1], linestyle="--")
    _draw_bound(axes, rows, "log10_continuous_bound", "upper bound in continuous time", color=PALETTE[6], linestyle=":")
    _name_ends(axes, norm, j)
    _number_powers(axes, j)
    legend_below(figure)
    return save(figure, path)


def draw_singular_values(rows: Rows, path: str | Path, *, about: str = "") -> Path:
    """Draw the singular values of M_j = d y_N / d y_{N-j} against j: all where the rows have ``singular_values``, else
    the largest, ``norm``, and the ``smallest_singular_value`` (or None).

    Those that are None are lost in rounding: they are not drawn. ``about``: of what, under the title.
    """
    figure, axes = _log_figure(f"Singular values of the {BSM}", about, BACK, "singular value of M_j")
    label = "each singular value: how M_j stretches one direction"
    for row in rows:
        every = row.get("singular_values") or (row["norm"], row["smallest_singular_value"])
        values = _within([value for value in every if value is not None])
        places = np.full(len(values), row["j"])
        axes.plot(places, values, "_", color=PALETTE[0], markersize=9, label=label)
    for key, name, colour in (
        ("norm", "largest (the 2-norm): gradients grow at most so much", PALETTE[1]),
        ("smallest_singular_value", "smallest above rounding: they shrink at most so much", PALETTE[2]),
    ):
        known = [row for row in rows if row[key] is not None]
        if known:
            values = _within(_column(known, key))
            axes.plot(_column(known, "j"), values, color=colour, linewidth=1.2, label=name)
    axes.axhline(1.0, color=PALETTE[6], linewidth=0.8, linestyle=":", label="1: lengths are kept")
    _number_powers(axes, _column(rows, "j"))
    legend_below(figure)
    return save(figure, path)


def draw_gradient_norms(
    steps: ArrayLike,
    norms: ArrayLike,
    path: str | Path,
    *,
    title: str = "Gradient of the loss by the weights of a layer",
) -> Path:
    """Draw ``norms`` (steps, layers) as a heat map with a logarithmic colour scale; zeros are left blank.

    ``steps``: (steps,) their numbers, evenly spaced. Raises ``ValueError`` for other shapes, or without any entry.
    """
    numbers, values = np.asarray(steps, dtype=float), np.asarray(norms, dtype=float)
    if values.ndim != 2 or values.size == 0 or numbers.shape != values.shape[:1]:
        raise ValueError(
            f"gradient norms have shape {values.shape}, steps {numbers.shape}: expected (steps, layers) and (steps,)"
        )
    figure = new_figure(SIZE)
    axes = figure.subplots()
    dress(axes, title if (values > 0).all() else f"{title}\nblank where it is zero or not finite")
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
    figure.colorbar(image, ax=axes, label="2-norm of the gradient")
    axes.set(xlabel="training step", ylabel="layer, from the input (0) to the output")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return save(figure, path)


def draw_counterexample(t: ArrayLike, y: ArrayLike, bsm: ArrayLike, path: str | Path, *, eps: float) -> Path:
    """Draw y (times, 2) and the entries of its BSM (times, 2, 2) against t (times,), one above the other."""
    figure = new_figure((SIZE[0], 6.4))
    top, *rest = figure.subplots(3, 1, sharex=True)
    states, entries = np.asarray(y), np.asarray(bsm)
    for number in range(2):
        top.plot(t, states[:, number], color=PALETTE[number], linewidth=0.9, label=f"$y_{number + 1}$")
    dress(top, f"y' = {eps:g} J tanh(y), J = [0 -1; 1 0]: the state goes round for ever ...")
    top.set_ylabel("state y")
    for column, axes in enumerate(rest):
        for row in range(2):
            label = f"$M_{{{row + 1}{column + 1}}}$"
            axes.plot(t, entries[:, row, column], color=PALETTE[row], linewidth=0.9, label=label)
        sensitivity = "... and all entries of its sensitivity matrix M = d y(t) / d y(0) grow without bound"
        dress(axes, sensitivity if column == 0 else "")
        axes.set_ylabel(f"column {column + 1} of M")
    rest[1].sharey(rest[0])
    rest[1].set_xlabel("time t")
    for axes in (top, *rest):
        axes.grid(color=GRID, linewidth=0.8)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


def draw_depth(
    norms: Mapping[str, Sequence[float]], depths: Sequence[int], path: str | Path, *, about: str = ""
) -> Path:
    """Draw the norm of d y_N / d y_0 against the depth N, a line for each name in ``norms``.

    ``about``: of what, under the title.
    """
    title = "How far the last state y_N depends on the first, y_0"
    figure, axes = _log_figure(title, about, "number of layers, N", "2-norm of d y_N / d y_0")
    for number, (name, values) in enumerate(norms.items()):
        label = f"{name}, {values[-1]:.3g} at N = {depths[-1]}"
        look: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "marker": "o^s"[number % 3], "markersize": 4}
        axes.plot(depths, _within(values), label=label, **look)
        _name_ends(axes, values, depths)
    axes.axhline(1.0, color=PALETTE[6], linewidth=1.0, linestyle=":", label="lower bound of H2, 1")
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.xaxis.set_minor_locator(NullLocator())
    legend_below(figure)
    return save(figure, path)


def _log_figure(title: str, about: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = new_figure(SIZE)
    axes = figure.subplots()
    dress(axes, f"{title}\n{about}")
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.grid(color=GRID, linewidth=0.8)
    return figure, axes


def _column(rows: Rows, key: str) -> np.ndarray:
    return np.array([row[key] for row in rows], dtype=float)


def _within(values: ArrayLike) -> np.ndarray:
    """What an axis can show of them."""
    return np.clip(np.asarray(values, dtype=float), FLOOR, 10.0**HIGHEST)


def _number_powers(axes: Axes, j: np.ndarray) -> None:
    """1, 2, 4, ... and the last j."""
    powers = 2 ** np.arange(int(np.log2(j.max())) + 1)
    ticks = [*powers[powers < 0.75 * j.max()].tolist(), int(j.max())]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _name_ends(axes: Axes, values: ArrayLike, at: ArrayLike) -> None:
    """Where ``values`` are drawn higher, or lower, than they are."""
    given = np.asarray(values, dtype=float)
    ends = (given <= FLOOR, FLOOR, "less", 6), (given >= 10.0**HIGHEST, 10.0**HIGHEST, "more", -14)
    for beyond, height, word, above in ends:
        (which,) = np.nonzero(beyond)
        if len(which):
            where = float(np.asarray(at)[which[-1]]), height
            axes.annotate(f"{height:g} or {word}", where, xytext=(0, above), textcoords="offset points", ha="right")


def _highest(rows: Rows) -> float:
    """Where the picture ends: above the bounds, or where they have left the norms far behind."""
    largest = max(_within(_column(rows, "norm")).max(), 1.0)
    bounds = [row[key] for row in rows for key in BOUNDS if row[key] is not None]
    return float(min(largest * ROOM, 3 * max(largest, 10.0 ** min(max(bounds, default=0.0), HIGHEST))))


def _draw_bound(axes: Axes, rows: Rows, key: str, name: str, **look: Any) -> None:
    """Up to the top of the picture, in a straight line on its axes, and there an arrow."""
    known = [row for row in rows if row[key] is not None]
    if not known:
        return
    j, exponents = _column(known, "j"), _column(known, key)
    top = float(np.log10(axes.get_ylim()[1]))
    last = f"{10.0 ** exponents[-1]:.3g}" if exponents[-1] < 6 else f"1e{exponents[-1]:.0f}"
    label = f"{name}, {last} at j = {j[-1]:g}"
    if exponents.max() > top:
        out = int(np.argmax(exponents > top))
        leaves = j[0] if out == 0 else 2 ** np.interp(top, exponents[out - 1 : out + 1], np.log2(j[out - 1 : out + 1]))
        j, exponents = np.append(j[:out], leaves), np.append(exponents[:out], top)
        axes.plot(leaves, 10.0**top, marker=CARETUP, color=look["color"], markersize=9, linestyle="none", zorder=5)
        label += " (▲ beyond the picture)"
    axes.plot(j, 10.0**exponents, linewidth=1.4, label=label, **look)
