"""Which link carries the edges between two ranks, for a whole job."""

from __future__ import annotations

import numpy as np
import torch

from hdnn_dist.exchange.links import SHARED, Pair
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.training.job import Job


def pairs_by_link(job: Job) -> dict[str, list[Pair]]:
    """The pairs of ranks that have an edge, the lower rank first, under the name of what carries it.

    Ranks are numbered in the whole job. The same on every rank, which all have to call it.
    """
    pairs, world = _pairs(job.agents), job.agents.world
    if not pairs:
        return {}
    shares = [pair[0] == world.rank and job.agents.links[pair[1]] == SHARED for pair in pairs]
    own = job.head.everyone.sum(torch.tensor(shares, dtype=torch.float64, device=world.device))
    found: dict[str, list[Pair]] = {}
    for replica, shared in enumerate(world.of_replicas(own).bool().tolist()):
        for (low, high), here in zip(pairs, shared, strict=True):
            first = replica * world.size
            found.setdefault(SHARED if here else world.network, []).append((first + low, first + high))
    return found


def _pairs(agents: Agents) -> list[Pair]:
    ends = np.unique(np.sort(agents.owner[agents.graph.edges], axis=1), axis=0)
    return [(low, high) for low, high in ends.tolist() if low < high]
