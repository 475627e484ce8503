"""What a source of data has to offer, whoever writes it: its shape at once, its columns on request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Description:
    """What is known of a data set before any of it is read.

    columns: number of columns D. image: (height, width) where a sample is an image, its columns row by row.
    samples: how many samples, training and test together, it has or makes unless told otherwise.
    noise: its default width of noise, None where it takes none.
    """

    name: str
    columns: int
    classes: int
    samples: int
    image: tuple[int, int] | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Split:
    """Training or test samples.

    inputs: float64 (samples, columns asked for, or features of the local agents); float32 where no more is known.
    labels: int64 (samples,), None on a rank that did not ask for them.
    """

    inputs: Values
    labels: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Request:
    """What a rank asks of a source. Ranks differ in ``columns`` and ``labels`` only.

    samples, noise: as in Description, the defaults already filled in.
    seed: decides the samples, their order and which are for test, the same on every rank.
    root: folder of files; sources that make or ship their data do not look at it.
    columns: int64 (columns,), those of the data set that this rank needs, in this order.
    labels: whether it needs the labels.
    """

    samples: int
    noise: float | None
    seed: int
    root: Path | None
    columns: npt.NDArray[np.int64]
    labels: bool

    def split(self, table: Values, labels: npt.NDArray[np.int64]) -> Split:
        """The requested part of a table (samples, D) and its labels (samples,)."""
        return Split(table[:, self.columns], labels if self.labels else None)


class Source(Protocol):
    """One data set, or one kind of files."""

    def describe(self, root: Path | None) -> Description:
        """Its shape, cheaply: without reading the samples."""
        ...

    def read(self, request: Request) -> tuple[Split, Split]:
        """Training and test samples, with the requested columns only; ValueError for what it cannot serve."""
        ...


def check_splits(splits: tuple[Split, Split], about: Description, request: Request) -> None:
    """``ValueError`` unless training and test samples are as ``Split`` says, as many labels as samples among them."""
    for kind, split in zip(("training", "test"), splits, strict=True):
        wrong = _wrong_inputs(split.inputs, len(request.columns))
        if wrong is None and request.labels:
            wrong = _wrong_labels(split.labels, len(split), about.classes)
        if wrong is not None:
            raise ValueError(f"the {kind} samples of the data set {about.name} do not fit: {wrong}; mend its read()")


def _wrong_inputs(inputs: object, columns: int) -> str | None:
    if not isinstance(inputs, np.ndarray) or inputs.dtype.kind != "f":
        return f"inputs are {_kind(inputs)}, expected an array of floating-point numbers"
    if inputs.ndim != 2 or inputs.shape[1] != columns or not len(inputs):
        return f"inputs have shape {inputs.shape}, expected (samples, {columns}), one sample or more"
    return None


def _wrong_labels(labels: object, samples: int, classes: int) -> str | None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        return f"labels are {_kind(labels)}, expected class numbers in an array of int64"
    if labels.shape != (samples,):
        return f"labels have shape {labels.shape}, expected ({samples},), one for each sample"
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels run from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}"
    return None


def _kind(given: object) -> str:
    return f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
