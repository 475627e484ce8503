"""What says which epoch is the best, and when a run may end before its last: once that no longer gets better, or is
good enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from hdnn_dist.data.source import CLASSIFICATION, REGRESSION, Description
from hdnn_dist.model.metrics import LOWER_IS_BETTER
from hdnn_dist.training.config import Config, StopConfig

METRICS = {REGRESSION: ("loss", "mae", "rmse", "r2"), CLASSIFICATION: ("loss", "accuracy", "f1", "auc")}


def check_watched(config: Config, about: Description) -> None:
    """``ValueError`` for a metric that the data do not have."""
    known, stop = METRICS[about.task], config.stop
    stops = stop.patience is not None or stop.goal is not None
    asked = {"stop.metric": stop.metric if stops else None, "checkpoint.best": config.checkpoint.best}
    for key, metric in asked.items():
        if metric is not None and metric not in known:
            raise ValueError(
                f"{key} is {metric!r}, which {about.task} has not (data set {about.name}): use "
                f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
            )


def watched(row: Mapping[str, Any], metric: str) -> float:
    """Of an epoch (its ``vars``), the metric of the validation samples, or of the test samples where there are none."""
    numbers = row["validation"] or {"loss": row["test_loss"], **row["metrics"]}
    return float(numbers.get(metric, math.nan))


def sign_of(metric: str) -> float:
    """1 where less is better, -1 where more is."""
    return 1.0 if metric in ("loss", *LOWER_IS_BETTER) else -1.0


class Patience:
    """Counts epochs in a row without an improvement of more than ``min_delta``, and those that reach the goal.

    ``best``, ``since`` and ``there`` are all that it remembers; the same numbers come to all ranks, which decide alike.
    """

    def __init__(self, config: StopConfig) -> None:
        self._config = config
        self._sign = sign_of(config.metric)
        self.best, self.since, self.there = math.inf, 0, 0

    def over_all(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether one of these epochs, one after the other, was one too many."""
        config = self._config
        limited = config.patience is not None or config.goal is not None
        return limited and any(self.over(watched(row, config.metric)) for row in rows)

    def over(self, value: float) -> bool:
        """Take the value of one more epoch; whether it was one too many, or enough."""
        signed, config = self._sign * value, self._config
        better = signed < self.best - config.min_delta
        self.best, self.since = (signed, 0) if better else (self.best, self.since + 1)
        reached = config.goal is not None and signed <= self._sign * config.goal
        self.there = self.there + 1 if reached else 0
        return self.there >= config.goal_epochs or (config.patience is not None and self.since >= config.patience)
