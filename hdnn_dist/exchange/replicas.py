"""Replicas: the ranks of a job in groups, each of which holds all agents and takes its share of every batch.

Inside a group nothing is different: it is a world. The ranks of one place, one in each group, hold copies of the same
agents. What copies tell each other is the one exception to messages along graph edges: sums, between copies of the same
agents only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, TransportError, World
from hdnn_dist.support.arguments import one_line

REPLICA, PLACE = "replica", "place"


class Replica(World):
    """One of ``replicas`` groups of a job: ``rank`` and ``size`` are those inside it, ``replica`` is its number.

    Ranks are numbered group after group, so rank r of the job is in group r // size, at place r % size. ``ValueError``
    where the transport has no groups.
    """

    def __init__(self, job: World, replicas: int) -> None:
        ranks = np.arange(job.size).reshape(replicas, -1)
        self._job, self._inside = job, job.part(ranks.tolist(), REPLICA)
        self._copies = job.part(ranks.T.tolist(), PLACE)
        self.replicas, self.size = ranks.shape
        self.replica, self.rank = divmod(job.rank, self.size)
        self.transport, self.device, self.timeout, self.links = job.transport, job.device, job.timeout, job.links
        self.about = self._inside.about

    @property
    def job(self) -> World:
        """As ``World.job``."""
        return self._job

    @property
    def network(self) -> str:
        """As ``World.network``."""
        return self._inside.network

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        """As ``World.channel``."""
        return self._inside.channel(route, sends, receives)

    def texts(self, text: str) -> list[str]:
        """As ``World.texts``, of the ranks of this group."""
        return self._inside.texts(text)

    def add_copies(self, values: Tensor) -> None:
        """As ``World.add_copies``."""
        self.copied += values.nbytes
        try:
            self._copies.add_up(values)
        except RuntimeError as error:
            own = f"rank {self.rank}{self.about}"
            raise TransportError(f"{own} could not add up with {self._others}: {one_line(error)}") from error

    @property
    def _others(self) -> str:
        ranks = [place for place in range(self.rank, self._job.size, self.size) if place != self._job.rank]
        return f"its copies, rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} of the job"

    def of_replicas(self, values: Tensor) -> Tensor:
        """As ``World.of_replicas``."""
        rows = values.new_zeros(self.replicas, *values.shape)
        rows[self.replica] = values
        self.add_copies(rows)
        return rows

    def close(self) -> None:
        """As ``World.close``: of the whole job."""
        for world in (self._inside, self._copies, self._job):
            world.close()

    def __repr__(self) -> str:
        return f"Replica(replica={self.replica} of {self.replicas}, rank={self.rank}, size={self.size})"


def in_replicas(world: World, replicas: int) -> World:
    """The world inside this rank's group, of so many. ``ValueError`` where they do not divide the ranks."""
    refuse_rest(replicas, world.size)
    return world if replicas == 1 else Replica(world, replicas)


def refuse_rest(replicas: int, ranks: int) -> None:
    """``ValueError`` where so many replicas do not divide the ranks of a job."""
    if ranks % replicas:
        given = "1 rank" if ranks == 1 else f"{ranks} ranks"
        raise ValueError(
            f"replicas is {replicas}, which does not divide {given}: start a multiple of {replicas} ranks, under "
            "torchrun or mpiexec, or take another number (--replicas 1 for none)"
        )
