"""Measuring functions in turns, so that what slows the machine for a while slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from hdnn_dist.bench.cases import Effort

Step = Callable[[], object]
MOST_REPETITIONS = 200


@dataclass(frozen=True)
class Timing:
    """``seconds`` of every call of one function."""

    seconds: list[float]

    @property
    def milliseconds(self) -> float:
        """The median."""
        return 1e3 * float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Milliseconds between the first and the third quartile."""
        low, high = np.percentile(self.seconds, [25, 75])
        return 1e3 * float(high - low)

    @property
    def best(self) -> float:
        """Seconds of the fastest call."""
        return min(self.seconds)


def in_turns(steps: Sequence[Step], effort: Effort) -> list[Timing]:
    """Time each function: a call that does not count, then block after block of calls, A B A B ..."""
    number = [_repetitions(step, effort.block_seconds) for step in steps]
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(effort.rounds):
        for step, times, taken in zip(steps, number, seconds, strict=True):
            taken += [seconds_of(step) for _ in range(times)]
    return [Timing(taken) for taken in seconds]


def seconds_of(step: Step) -> float:
    """Of one call."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _repetitions(step: Step, block_seconds: float) -> int:
    """Calls that fill a block, after one that allocates and compiles."""
    step()
    return repetitions(seconds_of(step), block_seconds)


def repetitions(seconds: float, block_seconds: float, most: int = MOST_REPETITIONS) -> int:
    """Calls of so many seconds each that fill a block."""
    return int(np.clip(block_seconds / seconds, 1, most))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run what follows with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
