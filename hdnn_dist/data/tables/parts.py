"""What is read of a table: its parts, and what its columns are in the training samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hdnn_dist.data.tables.rows import Rows

Statistics = Mapping[int, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """The samples of one part, as one rank holds them.

    inputs: float32 (samples, columns of the local agents), agent after agent. labels: on the root's rank, class numbers
    (samples,) or float64 (samples, outputs). targets: (samples, outputs of the local agents) where agents have some.
    ids: (samples,) on the rank with the reference, whole numbers or bytes.
    """

    inputs: Rows
    labels: np.ndarray | None = None
    targets: Rows | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class TableData:
    """All parts, and the statistics of the training samples: agent -> "mean" and "std" (columns,) of what it sees, and
    "target_mean" and "target_std" (outputs,) of what it predicts, where they were standardised.
    """

    train: Part
    validation: Part | None
    test: Part
    statistics: Statistics
