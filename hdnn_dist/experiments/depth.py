"""Findings as lines against depth, for a picture."""

from __future__ import annotations

from hdnn_dist.experiments.cells import Findings
from hdnn_dist.experiments.table import grouped
from hdnn_dist.plots.lines import Line


def depth_lines(findings: Findings, name: str) -> list[Line]:
    """A line of medians against ``layers`` for each value of the label ``name``."""
    return [
        Line(str(value), [finding.cell.labels["layers"] for finding in line], [finding.median for finding in line])
        for (value,), line in grouped(findings, [name]).items()
    ]


def depth_panels(findings: Findings, panel: str, name: str) -> dict[str, list[Line]]:
    """Those lines, apart for each value of the label ``panel``, which is the title."""
    return {
        str(value).replace("_", " "): depth_lines(group, name) for (value,), group in grouped(findings, [panel]).items()
    }


def accuracy_axis(findings: Findings) -> str:
    """What the height of these lines is."""
    seeds = len(findings[0].results)
    return "test accuracy, " + ("a single seed" if seeds == 1 else f"median of {seeds} seeds")
