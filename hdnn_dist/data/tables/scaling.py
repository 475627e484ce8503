"""What a column is in the training samples, and what becomes of it: gaps filled, mean 0, standard deviation 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Parts = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Scale:
    """``fill``: for what is missing; then (x - ``mean``) / ``std``."""

    fill: float = 0.0
    mean: float = 0.0
    std: float = 1.0

    def apply(self, values: np.ndarray) -> np.ndarray:
        """float64 (rows,) with NaN for what is missing -> (rows,)."""
        filled = np.where(np.isnan(values), self.fill, values)
        return (filled - self.mean) / self.std


def measured(parts: Parts) -> Scale | None:
    """Mean and standard deviation of a column, whose parts (rows,) are gone through twice; None where all is missing.

    Exact for a constant column: its standard deviation is told as 1, so that it becomes zeros.
    """
    count, total, first = 0, 0.0, 0.0
    for values in _known(parts):
        first = first if count else float(values[0])
        total += float((values - first).sum())
        count += len(values)
    if not count:
        return None
    mean = first + total / count
    spread = sum(float(np.square(values - mean).sum()) for values in _known(parts))
    std = float(np.sqrt(spread / count))
    return Scale(mean, mean, std if std > 0 else 1.0)


def _known(parts: Parts) -> Iterable[np.ndarray]:
    for values in parts():
        known = values[~np.isnan(values)]
        if len(known):
            yield known
