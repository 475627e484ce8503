"""The statistics of a run's data, by which each agent standardises its own columns, as those of the columns."""

from __future__ import annotations

import numpy as np
import torch

from hdnn_dist.data.columns import ZERO, Columns
from hdnn_dist.model.head import Head
from hdnn_dist.runs.checkpoint import Statistics
from hdnn_dist.runs.outputs import EVERY, outputs_of, places_of


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


def target_scaling(head: Head, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of what is predicted, (outputs,) each; 0 and 1 where it was not scaled.

    Known to the agents that predict, and summed along the tree: every rank has to call it.
    """
    own, places = np.zeros((2, outputs_of(head))), places_of(head)
    for agent, known in statistics.items():
        if "target_mean" in known:
            place = places.get(agent, EVERY)
            own[:, place] = np.asarray(known["target_mean"]), np.asarray(known["target_std"]) - 1
    total = head.everyone.sum(torch.as_tensor(own, device=head.agents.world.device)).cpu().numpy()
    return total[0], total[1] + 1
