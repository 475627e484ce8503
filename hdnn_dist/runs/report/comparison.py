"""Several runs side by side: which keys differ, what came of it, and their curves together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.filesize import decimal

from hdnn_dist.plots.series import Panel, draw_series
from hdnn_dist.runs.record import Record
from hdnn_dist.runs.report.charts import column
from hdnn_dist.runs.report.pages import Section, page, picture, table
from hdnn_dist.support.markdown import plain_table
from hdnn_dist.training.config import known_keys, value_of

UNKNOWN = "-"
RESULTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "test accuracy": lambda found: f"{found['test_accuracy']:.4f}",
    "training accuracy": lambda found: f"{found['train_accuracy']:.4f}",
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
        self.results = [["finished", *("yes" if run.summary else "no" for run in runs)], *_results(runs)]

    def panels(self) -> list[Panel]:
        """Test loss and test accuracy of all runs."""
        curves = {
            key: {name: column(run.rows, key) for name, run in zip(self.names, self.runs, strict=True)}
            for key in ("test_loss", "test_accuracy")
        }
        return [
            Panel("Test loss", curves["test_loss"], "mean loss of a test sample", log=True, last=False),
            Panel("Test accuracy", curves["test_accuracy"], "share of test samples right", last=False),
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


def _waiting(summary: dict[str, Any]) -> float:
    waited = summary["seconds_waited_per_rank"]
    return float(sum(waited) / len(waited) / max(summary["seconds"], 1e-9))
