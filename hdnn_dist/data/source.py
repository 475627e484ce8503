"""What a source of data has to offer, whoever writes it: its shape at once, its columns on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hdnn_dist.graph.communication import CommunicationGraph

Values = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Answers = npt.NDArray[np.int64] | Values
TASKS = CLASSIFICATION, REGRESSION = "classification", "regression"


@dataclass(frozen=True)
class Description:
    """What is known of a data set before any of it is read.

    columns: number of columns D. image: (height, width) where a sample is an image, its columns row by row.
    samples: how many samples, training and test together, it has or makes unless told otherwise.
    noise: its default width of noise, None where it takes none.
    task: "classification", or "regression", which predicts numbers.
    classes: how many classes, or numbers that are predicted of a sample, those of all agents together.
    targets: agent -> how many numbers it predicts itself, where agents have targets of their own; None where labels, of
    whatever task, are at the root.
    assignment: agent -> the columns that it sees unless a config says otherwise; None where they are spread evenly.
    class_names: what people call the classes, in the order of their numbers; None where they are numbers.
    """

    name: str
    columns: int
    classes: int
    samples: int
    image: tuple[int, int] | None = None
    noise: float | None = None
    task: str = CLASSIFICATION
    targets: Mapping[int, int] | None = None
    assignment: Mapping[int, tuple[int, ...]] | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Split:
    """Training or test samples.

    inputs: float64 (samples, columns asked for, or features of the local agents); float32 where no more is known.
    labels: int64 (samples,) class numbers, or floating-point (samples, outputs) for regression; None on a rank that did
    not ask for them, and where agents have targets of their own.
    targets: agent -> floating-point (samples, outputs of that agent), of the agents that were asked for; None where
    labels are at the root.
    """

    inputs: Values
    labels: Answers | None
    targets: Mapping[int, Values] | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Request:
    """What a rank asks of a source. Ranks differ in ``columns``, ``labels`` and ``targets`` only.

    samples, noise: as in Description, the defaults already filled in.
    seed: decides the samples, their order and which are for test, the same on every rank.
    root: folder of files; sources that make or ship their data do not look at it.
    columns: int64 (columns,), those of the data set that this rank needs, in this order.
    labels: whether it needs the labels.
    targets: the local agents whose own targets it needs, ascending; none where labels are at the root.
    """

    samples: int
    noise: float | None
    seed: int
    root: Path | None
    columns: npt.NDArray[np.int64]
    labels: bool
    targets: tuple[int, ...] = ()

    def split(self, table: Values, labels: Answers | None, targets: Mapping[int, Values] | None = None) -> Split:
        """The requested part of a table (samples, D), its labels and its targets, as ``Split`` has them."""
        own = None if targets is None else {agent: targets[agent] for agent in self.targets}
        return Split(table[:, self.columns], labels if self.labels else None, own)


@runtime_checkable
class Source(Protocol):
    """One data set, or one kind of files."""

    def describe(self, root: Path | None) -> Description:
        """Its shape, cheaply: without reading the samples."""
        ...

    def read(self, request: Request) -> tuple[Split, Split]:
        """Training and test samples, with the requested columns only; ValueError for what it cannot serve."""
        ...


@runtime_checkable
class GraphSource(Protocol):
    """A kind of data that lives on a graph, with columns or targets for its agents."""

    def on(self, graph: CommunicationGraph) -> Source:
        """The source for this graph; ValueError for one that it cannot serve."""
        ...
