"""What an experiment is: a table of cells, each of which is a config that is trained once for every seed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Outcome

CONFIGS = Path(__file__).parents[2] / "launch" / "configs"


@dataclass(frozen=True)
class Cell:
    """A file of ``launch/configs``, changed by ``key=value`` overrides: what ``hdnn-dist train`` runs.

    ``labels``: what tells the cell from the others of its table, such as ``{"graph": "ring:8", "layers": 4}``.
    """

    labels: Mapping[str, Any]
    config: str
    overrides: tuple[str, ...] = ()

    def settings(self, seed: int, root: str | None = None) -> Config:
        """The resolved config; ``root``: the folder of the data set's files, None for that of the config."""
        files = () if root is None else (f"data.root={json.dumps(root)}",)
        return load_config(CONFIGS / self.config, [*self.overrides, f"seed={seed}", *files])

    def with_settings(self, settings: Sequence[str]) -> Cell:
        """The same cell with more overrides behind its own."""
        return replace(self, overrides=(*self.overrides, *settings))

    @property
    def command(self) -> str:
        """The command that trains this cell alone, for the seed of the file."""
        changes = "".join(f" --set {_quoted(override)}" for override in self.overrides)
        return f"hdnn-dist train launch/configs/{self.config}{changes}"

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.labels.items())


@dataclass(frozen=True)
class Result:
    """What one training gave. ``accuracy``: on the test samples, after the last epoch; None where the loss diverged,
    and where numbers are learned.

    ``messages_per_step``, ``bytes_per_step``: between the agents of the graph, forward and backward. ``figures``: what
    the experiment measures beside them; none where the loss diverged.
    """

    accuracy: float | None
    seconds: float
    messages_per_step: float
    bytes_per_step: float
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A cell with its results, one for each seed. A training that diverged counts as worse than any other."""

    cell: Cell
    results: tuple[Result, ...]

    @property
    def median(self) -> float:
        """Of the test accuracies; minus infinity where most of the trainings diverged."""
        return statistics.median(self._accuracies)

    @property
    def worst(self) -> float:
        """Of the test accuracies; minus infinity where a training diverged."""
        return min(self._accuracies)

    @property
    def seconds(self) -> float:
        """Of one training, the median."""
        return statistics.median(result.seconds for result in self.results)

    @property
    def bytes_per_step(self) -> float:
        """Of one training step, the median."""
        return statistics.median(result.bytes_per_step for result in self.results)

    def figure(self, name: str) -> list[float]:
        """What each training measured; infinity, the worst error, where it diverged."""
        return [result.figures.get(name, math.inf) for result in self.results]

    @property
    def _accuracies(self) -> list[float]:
        return [-math.inf if result.accuracy is None else result.accuracy for result in self.results]


Findings = Sequence[Finding]


@dataclass(frozen=True)
class Experiment:
    """A table of cells, and how what was found is shown.

    ``compares``: what the table compares, in a few sentences. ``table``: the findings as a Markdown table.
    ``headline``: the figures that sum them up, in one line that fits into a cell of a table. ``draw``: a picture of
    them into a file. ``measure``: figures from what was trained, on the test samples; ``trace``: figures from how the
    training went; ``judged_by``: what is measured. ``parts``: whether table and headline can do with some of the cells.
    ``train``: how a cell is trained and measured, where not as ``hdnn-dist train`` does.
    ``seeds``: how many unless told otherwise. ``reads_files``: whether it needs the files of MNIST,
    in the folder ``data.root`` of its configs.
    """

    name: str
    title: str
    compares: str
    cells: tuple[Cell, ...]
    table: Callable[[Findings], str]
    headline: Callable[[Findings], str]
    draw: Callable[[Findings, Path], Path] | None = None
    measure: Callable[[Job], Mapping[str, float]] | None = None
    trace: Callable[[Outcome], Mapping[str, float]] | None = None
    judged_by: str = "Test accuracy after the last epoch"
    seeds: int = 3
    reads_files: bool = False
    parts: bool = False
    train: Callable[[Config], Result] | None = None


def _quoted(override: str) -> str:
    return f"'{override}'" if set(override) & set(' {}[]"') else override
