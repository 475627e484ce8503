"""How fast an epoch went, for the whole job."""

from __future__ import annotations

from dataclasses import dataclass

from hdnn_dist.exchange.agreement import collected
from hdnn_dist.exchange.sum_tree import SumTree


@dataclass(frozen=True)
class Pace:
    """The training steps of an epoch, the same on every rank.

    ``samples_per_second``; ``bytes_per_second``: sent by agents to agents; ``waiting``: the share of their time, from 0
    to 1, that the ranks have waited for others, on average.
    """

    samples_per_second: float
    bytes_per_second: float
    waiting: float


def pace(tree: SumTree, samples: int, seconds: float, waited: float, sent: int) -> Pace:
    """From what this rank has measured; every rank has to call it, for one sum along the tree.

    ``sent``: bytes of this rank's agents.
    """
    ranks = collected(tree, [seconds, waited, sent])
    longest = max(float(ranks[:, 0].max()), 1e-9)
    waiting = float((ranks[:, 1] / ranks[:, 0].clamp_min(1e-9)).mean())
    return Pace(samples / longest, float(ranks[:, 2].sum()) / longest, min(waiting, 1.0))
