"""Findings as Markdown tables, one line a cell or a column for each value of a label, and in a few words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from hdnn_dist.experiments.cells import Finding, Findings
from hdnn_dist.support.markdown import plain_table

DIVERGED = "diverged"


def accuracy(value: float) -> str:
    """Four digits, or that the training diverged."""
    return f"{value:.4f}" if math.isfinite(value) else DIVERGED


def error(value: float) -> str:
    """Three digits, or that the training diverged."""
    return f"{value:.3g}" if math.isfinite(value) else DIVERGED


def seconds(value: float) -> str:
    """Seconds with two digits or more."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def median_and_worst(finding: Finding) -> str:
    """``0.9990 (0.9875)``; the accuracy alone where there is one seed."""
    worst = f" ({accuracy(finding.worst)})" if len(finding.results) > 1 else ""
    return f"{accuracy(finding.median)}{worst}"


def median_figure(finding: Finding, name: str, worst: bool = True) -> str:
    """Of an error that was measured: three digits, with the largest of the seeds where there are several."""
    errors = finding.figure(name)
    shown = error(statistics.median(errors))
    return f"{shown} ({error(max(errors))})" if worst and len(errors) > 1 else shown


def median_range(findings: Findings) -> str:
    """``0.9716 to 0.9793``: the lowest and the highest median; one of them where they read the same."""
    medians = [finding.median for finding in findings]
    return " to ".join(dict.fromkeys(accuracy(value) for value in (min(medians), max(medians))))


def listed(findings: Findings, labels: Sequence[str]) -> str:
    """One line a cell: its labels, accuracy, bytes a step and seconds."""
    accuracies = ["median", "worst"] if len(findings[0].results) > 1 else ["accuracy"]
    header = [*labels, *accuracies, "bytes a step", "seconds"]
    return plain_table(
        header, [[*(str(finding.cell.labels[name]) for name in labels), *_numbers(finding)] for finding in findings]
    )


def pivoted(
    findings: Findings, rows: Sequence[str], column: str, show: Callable[[Finding], str] = median_and_worst
) -> str:
    """A column for each value of the label ``column``, a line for each combination of the labels ``rows``.

    The last column has the seconds of one training of each cell, in the same order.
    """
    values = distinct(findings, column)
    header = [*rows, *(f"{column} {value}" for value in values), "seconds"]
    lines = []
    for key, line in grouped(findings, rows).items():
        shown = {finding.cell.labels[column]: show(finding) for finding in line}
        times = ", ".join(seconds(finding.seconds) for finding in line)
        lines.append([*map(str, key), *(shown.get(value, "") for value in values), times])
    return plain_table(header, lines)


def distinct(findings: Findings, label: str) -> list[Any]:
    """The values of a label, in the order in which they come."""
    return list(dict.fromkeys(finding.cell.labels[label] for finding in findings))


def grouped(findings: Findings, labels: Sequence[str]) -> dict[tuple[Any, ...], list[Finding]]:
    """The findings by their values of these labels, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault(tuple(finding.cell.labels[label] for label in labels), []).append(finding)
    return groups


def _numbers(finding: Finding) -> list[str]:
    return [
        accuracy(finding.median),
        *([accuracy(finding.worst)] if len(finding.results) > 1 else []),
        f"{finding.bytes_per_step:,.0f}",
        seconds(finding.seconds),
    ]
