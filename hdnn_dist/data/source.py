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
