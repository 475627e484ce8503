"""The statistics of a run's data, by which each agent standardises its own columns, as those of the columns."""

from __future__ import annotations

import numpy as np

from hdnn_dist.data.columns import ZERO, Columns
from hdnn_dist.runs.checkpoint import Statistics


def scaling(statistics: Statistics, columns: Columns | None, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (total,) each; 0 and 1 for columns of which none are known.

    ``columns``: which agent sees which of the ``total``. ``ValueError`` for an agent with other columns.
    """
    mean, std = np.zeros(total), np.ones(total)
    for agent, own in statistics.items():
        assigned = () if columns is None else columns.assignment.get(agent, ())
        entered = [column for column in assigned if column != ZERO]
        if not own.keys() >= {"mean", "std"}:
            continue
        if len(own["mean"]) != len(entered):
            raise ValueError(
                f"agent {agent} has statistics of {len(own['mean'])} columns, but sees {len(entered)} of the data: "
                "they are of another run"
            )
        mean[entered], std[entered] = np.asarray(own["mean"]), np.asarray(own["std"])
    return mean, std
