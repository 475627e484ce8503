"""The ping-pong of the project's own rings, as compiled passes use them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.shared_memory.rings import PARCEL, trade

SLOTS = 4


def round_trips(agents: Agents, size: int) -> Callable[[int], None]:
    """A function that makes so many between two ranks, of messages of ``size`` bytes."""
    rank, links = agents.world.rank, agents.rank_links
    segment, rows = links.segments[1 - rank], np.zeros(size, dtype=np.uint8)
    parcels = np.zeros(2, dtype=PARCEL)
    parcels[0]["ring"], parcels[1]["ring"] = segment.sender(size, SLOTS), segment.receiver(size, SLOTS)
    parcels["data"], parcels["bytes"] = rows.ctypes.data, size

    def run(times: int) -> None:
        if not trade(parcels[:1], parcels[1:], rank == 0, times, links.waited):
            raise TimeoutError("the other rank of a ping-pong has not answered")

    return run
