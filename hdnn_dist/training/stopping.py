"""When a run may end before its last epoch: once what is watched no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hdnn_dist.data.source import CLASSIFICATION, REGRESSION, Description
from hdnn_dist.model.metrics import LOWER_IS_BETTER
from hdnn_dist.training.config import StopConfig
from hdnn_dist.training.job import Job, Samples

METRICS = {REGRESSION: ("loss", "mae", "rmse", "r2"), CLASSIFICATION: ("loss", "accuracy", "f1", "auc")}


def check_stop(config: StopConfig, about: Description) -> None:
    """``ValueError`` for a metric that the data do not have."""
    known = METRICS[about.task]
    if config.patience is not None and config.metric not in known:
        raise ValueError(
            f"stop.metric is {config.metric!r}, which {about.task} has not (data set {about.name}): use "
            f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        )


def watched(job: Job) -> Samples:
    """The samples that decide when a run stops: those for validation, where there are some."""
    return job.test if job.validation is None else job.validation


class Patience:
    """Counts epochs in a row without an improvement of more than ``min_delta``.

    ``best`` and ``since`` are all that it remembers; the same numbers come to all ranks, so all decide alike.
    """

    def __init__(self, config: StopConfig) -> None:
        self._config = config
        self._sign = 1.0 if config.metric in ("loss", *LOWER_IS_BETTER) else -1.0
        self.best, self.since = math.inf, 0

    def over_all(self, values: Iterable[float | None]) -> bool:
        """Whether one of these epochs, one after the other, was one too many."""
        return self._config.patience is not None and any(self.over(value) for value in values if value is not None)

    def over(self, value: float) -> bool:
        """Take the value of one more epoch; whether it was one too many."""
        signed = self._sign * value
        better = signed < self.best - self._config.min_delta
        self.best, self.since = (signed, 0) if better else (self.best, self.since + 1)
        return self._config.patience is not None and self.since >= self._config.patience
