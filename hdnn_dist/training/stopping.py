"""What says which epoch is the best, and when a run may end before its last: once that no longer gets better."""

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
    asked = {"stop.metric": None if stop.patience is None else stop.metric, "checkpoint.best": config.checkpoint.best}
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
    """Counts epochs in a row without an improvement of more than ``min_delta``.

    ``best`` and ``since`` are all that it remembers; the same numbers come to all ranks, so all decide alike.
    """

    def __init__(self, config: StopConfig) -> None:
        self._config = config
        self._sign = sign_of(config.metric)
        self.best, self.since = math.inf, 0

    def over_all(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether one of these epochs, one after the other, was one too many."""
        limited, metric = self._config.patience is not None, self._config.metric
        return limited and any(self.over(watched(row, metric)) for row in rows)

    def over(self, value: float) -> bool:
        """Take the value of one more epoch; whether it was one too many."""
        signed = self._sign * value
        better = signed < self.best - self._config.min_delta
        self.best, self.since = (signed, 0) if better else (self.best, self.since + 1)
        return self._config.patience is not None and self.since >= self._config.patience
