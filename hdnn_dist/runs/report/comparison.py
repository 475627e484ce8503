"""Several runs side by side: which keys differ, what came of it, and their curves together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.filesize import decimal

from hdnn_dist.plots.series import Panel, draw_series
from hdnn_dist.runs.record import Record
from hdnn_dist.runs.report.charts import column, metric
from hdnn_dist.runs.report.pages import Section, page, picture, table
from hdnn_dist.support.markdown import plain_table
from hdnn_dist.training.config import known_keys, value_of

UNKNOWN = "-"
RESULTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "test loss": lambda found: f"{found['test_loss']:.4g}",
    "training loss": lambda found: f"{found['loss']:.4g}",
    "epochs": lambda found: str(found["epochs"]),
    "seconds": lambda found: f"{found['seconds']:.4g}",
    "seconds a step": lambda found: f"{found['seconds_per_step']:.3g}",
    "share of waiting": lambda found: f"{_waiting(found):.0%}",
    "parameters": lambda found: f"{sum(found['parameters_per_rank']):,}",
    "messages a step": lambda found: f"{found['messages_per_step']:,.0f}",
    "bytes a step": lambda found: decimal(int(found["bytes_per_step"])),
    "ranks": lambda found: str(found["ranks"]),
    "transport": lambda found: str(found["transport"]),
    "version": lambda found: str(found["version"]),
}
Lines = list[list[str]]


class Comparison:
    """``names``: of the runs; ``differences`` and ``results``: lines of a name and a value of each run."""

    def __init__(self, runs: Sequence[Record]) -> None:
        self.runs = runs
        self.names = _names(runs)
        self.differences = _differences(runs)
        finished = ["finished", *("yes" if run.summary else "no" for run in runs)]
        self.results = [finished, *_metrics(runs), *_results(runs)]

    def panels(self) -> list[Panel]:
        """Test loss, and accuracy or error, of all runs."""
        named = list(zip(self.names, self.runs, strict=True))
        losses = {name: column(run.rows, "test_loss") for name, run in named}
        key = (
            "accuracy" if any("accuracy" in row.get("metrics", {}) for run in self.runs for row in run.rows) else "rmse"
        )
        shown = {name: metric(run.rows, key) for name, run in named}
        return [
            Panel("Test loss", losses, "mean loss of a test sample", log=True, last=False),
            Panel(f"Test {key}", shown, f"{key} of the test samples", last=False),
        ]

    def markdown(self) -> str:
        """Both tables as Markdown."""
        parts = [("Keys that differ", self.differences), ("Results", self.results)]
        return "\n\n".join(f"## {title}\n\n{plain_table(['', *self.names], lines)}" for title, lines in parts)

    def html(self) -> str:
        """One page, with the curves."""
        drawn = [picture(partial(draw_series, panel)) for panel in self.panels()]
        note = "" if self.differences else "None: all runs have one config."
        cards = [
            table("Results", ["", *self.names], self.results, kind="wide"),
            table("Keys that differ", ["", *self.names], self.differences, note, kind="wide"),
        ]
        about = f"{len(self.runs)} runs: {', '.join(self.names)}"
        return page("Runs side by side", about, [], [Section("Curves", drawn), Section("Tables", cards)])


def _names(runs: Sequence[Record]) -> list[str]:
    """Those of the folders, or, where two are the same, their paths."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _differences(runs: Sequence[Record]) -> Lines:
    rows = [[key, *(str(value_of(run.config, key)) for run in runs)] for key in known_keys()]
    return [row for row in rows if len(set(row[1:])) > 1]


def _results(runs: Sequence[Record]) -> Lines:
    return [[name, *(tell(run.summary) if run.summary else UNKNOWN for run in runs)] for name, tell in RESULTS.items()]


def _metrics(runs: Sequence[Record]) -> Lines:
    """Those of the test samples that any run has."""
    found = [run.summary.get("test_metrics", {}) for run in runs]
    names = dict.fromkeys(name for metrics in found for name in metrics)
    cells = [[f"{metrics[name]:.4f}" if name in metrics else UNKNOWN for metrics in found] for name in names]
    return [[f"test {name}", *row] for name, row in zip(names, cells, strict=True)]


def _waiting(summary: dict[str, Any]) -> float:
    waited = summary["seconds_waited_per_rank"]
    return float(sum(waited) / len(waited) / max(summary["seconds"], 1e-9))
