"""How far agents are from each other, in edges."""

from __future__ import annotations

from collections import deque

import numpy as np

from hdnn_dist.graph.pairs import IntArray

MOST_WORK = 2**32  # reads of a neighbour, about half a minute


def can_be_surveyed(indptr: IntArray, neighbours: IntArray) -> bool:
    """Whether ``eccentricities`` takes less than about half a minute, from the same arguments (agents + 1,) and (2 E,).

    It reads all neighbours once for each 64 agents and each unit of an eccentricity, of which that of agent 0 is at
    least half the largest.
    """
    once = (len(indptr) - 1) * len(neighbours) / 64
    return once <= MOST_WORK and once * _farthest(indptr.tolist(), neighbours.tolist()) <= MOST_WORK


def _farthest(indptr: list[int], neighbours: list[int]) -> int:
    """The distance from agent 0 to the farthest one."""
    distance, waiting = {0: 0}, deque([0])
    agent = 0
    while waiting:
        agent = waiting.popleft()
        for other in neighbours[indptr[agent] : indptr[agent + 1]]:
            if other not in distance:
                distance[other] = distance[agent] + 1
                waiting.append(other)
    return distance[agent]


def eccentricities(indptr: IntArray, neighbours: IntArray) -> IntArray:
    """(agents,): the distance from each agent to the farthest one, from row starts (agents + 1,) and neighbours (2 E,).

    Breadth first from 64 agents at once, bit b of ``reached[i]`` for the b-th of them. networkx walks from one
    at a time: on a torus of 64 x 64 its diameter took 23 s, this 0.3 s.
    """
    agents = len(indptr) - 1
    eccentricity = np.zeros(agents, dtype=np.int64)
    for first in range(0, agents, 64):
        sources = np.arange(first, min(first + 64, agents))
        bits = np.uint64(1) << np.arange(len(sources), dtype=np.uint64)
        reached = np.zeros(agents, dtype=np.uint64)
        reached[sources] = bits
        while (missing := (np.bitwise_and.reduce(reached) & bits) == 0).any():
            eccentricity[sources[missing]] += 1
            reached |= np.bitwise_or.reduceat(reached[neighbours], indptr[:-1])
    return eccentricity


def distances_to(indptr: IntArray, neighbours: IntArray, targets: IntArray) -> IntArray:
    """(agents,): edges from each agent to the nearest of ``targets`` (targets,), -1 where there is no way.

    From row starts (agents + 1,) and neighbours (2 E,).
    """
    distance = np.full(len(indptr) - 1, -1)
    distance[targets] = 0
    front = np.unique(targets)
    for steps in range(1, len(distance)):
        read = np.concatenate([neighbours[indptr[agent] : indptr[agent + 1]] for agent in front.tolist()])
        front = np.unique(read[distance[read] < 0])
        if not len(front):
            break
        distance[front] = steps
    return distance
