"""The pictures of a report, each drawn from what the run folder holds; nothing where it holds nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from hdnn_dist.data.source import CLASSIFICATION, REGRESSION
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.plots.decision import draw_decision
from hdnn_dist.plots.scatter import draw_predictions
from hdnn_dist.plots.sensitivity import draw_gradient_norms, draw_norms, draw_singular_values
from hdnn_dist.plots.series import Panel, Points, draw_series
from hdnn_dist.plots.sparsity import draw_sparsity
from hdnn_dist.plots.surface import draw_surface
from hdnn_dist.propagation.architectures import architecture
from hdnn_dist.runs.pictures import LARGEST_MASK
from hdnn_dist.runs.record import Record, Row
from hdnn_dist.runs.report.pages import Card, picture, rendered
from hdnn_dist.training.build import pattern_of

METRICS = (
    ("Error", "error of a test prediction", ("rmse", "mae")),
    ("Share of variance explained", "r2 of the test samples", ("r2",)),
    ("Scores", "score of the test samples", ("f1", "auc")),
)
MOST_NAMED = 30  # classes of a table that can be read


def curves(run: Record) -> Iterator[Card]:
    """Loss, accuracy, learning rate and pace over the epochs."""
    if not run.rows:
        return
    for panel in panels(run):
        yield picture(partial(draw_series, panel))


def _metrics(rows: Sequence[Row]) -> Iterator[Panel]:
    """Accuracy, or errors, and beside them what lies between 0 and 1."""
    known = {name for row in rows for name in row.get("metrics", {})}
    if any(row.get("test_accuracy") is not None for row in rows):
        right = {"training": column(rows, "train_accuracy"), "test": column(rows, "test_accuracy")}
        yield Panel("Accuracy", right, "share of samples right")
    for title, y, names in METRICS:
        if shown := {name: metric(rows, name) for name in names if name in known}:
            yield Panel(title, shown, y, log=title == "Error")


def metric(rows: Sequence[Row], name: str) -> Points:
    """(epochs, values) of one of the metrics of the test samples."""
    return [row["epoch"] for row in rows], [row.get("metrics", {}).get(name) for row in rows]


def column(rows: Sequence[Row], key: str) -> Points:
    """(epochs, values) of one column of the metrics."""
    return [row["epoch"] for row in rows], [row.get(key) for row in rows]


def panels(run: Record) -> Iterator[Panel]:
    """What is drawn over the epochs."""
    rows = run.rows
    losses = {"training": column(rows, "loss"), "test": column(rows, "test_loss")}
    yield Panel("Loss", losses, "mean loss of a sample", log=True)
    yield from _metrics(rows)
    rates = {"learning rate": column(rows, "learning_rate")}
    yield Panel("Learning rate", rates, "learning rate, last step of the epoch")
    pace = {"samples a second": column(rows, "samples_per_second")}
    yield Panel("Pace", pace, "training samples a second")


def sparsity(run: Record) -> Card:
    """Which blocks of K may be there."""
    config, graph = run.config, run.graph
    pattern: Pattern = pattern_of(config, graph) or graph.pattern()
    kind, features = architecture(config.network.architecture), np.asarray(config.network.features)
    sizes = kind.block_sizes(np.broadcast_to(features, graph.agents))
    small = sizes.sum() <= LARGEST_MASK
    sizes = sizes if small else np.ones_like(sizes)
    starts = (np.cumsum(sizes) - sizes).tolist()
    names = list(map(graph.label, range(graph.agents)))
    title = f"Pattern of {' and '.join(operator.name for operator in kind.operators)}, in every layer"
    return picture(
        partial(draw_sparsity, pattern.mask(sizes), block_starts=starts, names=names, title=title), kind="pattern"
    )


def results(run: Record) -> Iterator[Card]:
    """Decision regions, and who was taken for what, or numbers against those that are true."""
    if run.decided:
        yield _decision(run.decided, numbers=run.judged.get("task") == REGRESSION)
    if run.judged.get("task") == CLASSIFICATION:
        yield _counts(np.asarray(run.judged["counts"]))
    elif run.judged:
        yield from _predictions(run.judged)


def gradients(run: Record) -> Iterator[Card]:
    """Norms of gradients by layer and step, and of sensitivity by depth where it was analysed."""
    if run.gradients:
        steps, norms = zip(*run.gradients, strict=True)
        yield picture(partial(draw_gradient_norms, steps, norms))
    if run.analysis:
        table = run.analysis["table"]
        about = f"{run.analysis['layers']} layers, at {run.analysis['at']}"
        yield picture(partial(draw_norms, table, about=about))
        yield picture(partial(draw_singular_values, table, about=about))


def _decision(found: dict[str, np.ndarray], numbers: bool) -> Card:
    first, second = (str(name) for name in found["axes"])
    x, y, decided, points, labels = (found[name] for name in ("x", "y", "decided", "points", "labels"))
    draw = draw_surface if numbers else draw_decision
    title = f"{'What it predicts' if numbers else 'Decision regions'}\nPoints: test samples"
    drawn = partial(draw, x, y, decided, points, labels, title=title, axes_show=(first, second))
    return picture(drawn, kind="" if numbers else "regions")


def _counts(counts: np.ndarray) -> Card:
    title = "Classes of the test samples"
    note = f"A row for each true class, a column for each predicted one; {_right(counts)}."
    if len(counts) > MOST_NAMED:
        return Card(title, _most_confused(counts), f"The pairs that are taken for each other most; {_right(counts)}.")
    rows = [
        [_cell(true, other, count, total) for other, count in enumerate(row)]
        for true, (row, total) in enumerate(zip(counts.tolist(), counts.sum(axis=1).tolist(), strict=True))
    ]
    return Card(title, rendered("counts.html", names=range(len(counts)), rows=rows), note)


def _right(counts: np.ndarray) -> str:
    return f"{np.trace(counts)} of {counts.sum()} are right"


def _cell(true: int, predicted: int, count: int, total: int) -> dict[str, Any]:
    return {
        "count": count,
        "share": round(70 * count / max(total, 1)),
        "colour": "var(--c0)" if true == predicted else "var(--c1)",
        "words": f"{count} of class {true} were taken for class {predicted}",
    }


def _most_confused(counts: np.ndarray) -> Any:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(wrong, axis=None)[::-1][:15]
    pairs = [divmod(int(at), len(counts)) for at in order if wrong.flat[at]]
    rows = [(true, other, int(wrong[true, other])) for true, other in pairs]
    return rendered("table.html", head=("true class", "taken for", "samples"), rows=rows)


def _predictions(judged: Row) -> Iterator[Card]:
    true, predicted = (np.asarray(judged[name]) for name in ("true", "predicted"))
    for output, name in enumerate(judged["outputs"]):
        title = f"Predicted against true, {name}\n{len(true)} test samples"
        yield picture(partial(draw_predictions, true[:, output], predicted[:, output], title=title))
