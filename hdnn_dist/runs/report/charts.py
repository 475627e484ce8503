"""The pictures of a report, each drawn from what the run folder holds; nothing where it holds nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.plots.decision import draw_decision
from hdnn_dist.plots.scatter import draw_predictions
from hdnn_dist.plots.sensitivity import draw_gradient_norms, draw_norms, draw_singular_values
from hdnn_dist.plots.series import Panel, Points, draw_series
from hdnn_dist.plots.sparsity import draw_sparsity
from hdnn_dist.propagation.architectures import architecture
from hdnn_dist.runs.pictures import LARGEST_MASK
from hdnn_dist.runs.record import Record, Row
from hdnn_dist.runs.report.pages import Card, picture, rendered
from hdnn_dist.training.build import pattern_of

MOST_OUTPUTS = 6  # of regression that are drawn
MOST_NAMED = 30  # classes of a table that can be read


def curves(run: Record) -> Iterator[Card]:
    """Loss, accuracy, learning rate and pace over the epochs."""
    if not run.rows:
        return
    for panel in panels(run):
        yield picture(partial(draw_series, panel))


def column(rows: Sequence[Row], key: str) -> Points:
    """(epochs, values) of one column of the metrics."""
    return [row["epoch"] for row in rows], [row.get(key) for row in rows]


def panels(run: Record) -> Iterator[Panel]:
    """What is drawn over the epochs."""
    rows = run.rows
    losses = {"training": column(rows, "loss"), "test": column(rows, "test_loss")}
    yield Panel("Loss", losses, "mean loss of a sample", log=True)
    right = {"training": column(rows, "train_accuracy"), "test": column(rows, "test_accuracy")}
    yield Panel("Accuracy", right, "share of samples right")
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
        yield _decision(run.decided)
    if run.judged.get("task") == "classification":
        yield _counts(np.asarray(run.judged["counts"]))
    elif run.judged:
        yield from _predictions(np.asarray(run.judged["true"]), np.asarray(run.judged["predicted"]))


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


def _decision(found: dict[str, np.ndarray]) -> Card:
    decided = found["decided"]
    decided = decided.astype(float) if np.issubdtype(decided.dtype, np.floating) else decided
    shown = "Decision regions\nPoints: test samples"
    first, second = (str(name) for name in found["axes"])
    grid = found["x"], found["y"], decided, found["points"], found["labels"]
    return picture(lambda path: draw_decision(*grid, path, title=shown, axes_show=(first, second)), kind="regions")


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


def _predictions(true: np.ndarray, predicted: np.ndarray) -> Iterator[Card]:
    """(samples, outputs) both."""
    for output in range(min(true.shape[1], MOST_OUTPUTS)):
        which = f", output {output}" if true.shape[1] > 1 else ""
        title = f"Predicted against true{which}\n{len(true)} test samples"
        yield picture(partial(draw_predictions, true[:, output], predicted[:, output], title=title))
