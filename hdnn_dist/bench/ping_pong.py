"""Ping-pongs between two ranks: by the exchange of this project, and by what carries it, with nothing between.

A form takes the agents, 0 on rank 0 and 1 on rank 1, the bytes of a message, and a path to memory that both ranks can
open; it returns a function that makes so many round trips, or ``None`` where there is no such link here.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from hdnn_dist.bench.links import link_of
from hdnn_dist.exchange.links import SHARED
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.world import Channel

RoundTrips = Callable[[int], object]
Form = Callable[[Agents, int, str], RoundTrips | None]


def exchange(agents: Agents, size: int, memory: str) -> RoundTrips:
    """As compiled passes do it over shared memory; elsewhere two channels, there and back.

    What is packed before and unpacked after is not in it.
    """
    if link_of(agents) == SHARED:
        return importlib.import_module("hdnn_dist.bench.ring_trade").round_trips(agents, size)  # type: ignore[no-any-return]
    there, back = _channel(agents, 0, size), _channel(agents, 1, size)

    def run(times: int) -> None:
        for _ in range(times):
            there.exchange(size)
            back.exchange(size)

    return run


def _channel(agents: Agents, sender: int, size: int) -> Channel:
    """From one agent to the other."""
    route = agents.ledger.route(np.array([[sender, 1 - sender]]), np.array([1]))
    rank = agents.world.rank
    part = {1 - rank: torch.zeros(1, size, dtype=torch.uint8)}
    return agents.channel(route, *((part, {}) if rank == sender else ({}, part)))


def raw(agents: Agents, size: int, memory: str) -> RoundTrips | None:
    """That of the link between the two."""
    form = RAW.get(link_of(agents))
    return form(agents, size, memory) if form else None


def gloo(agents: Agents, size: int, memory: str) -> RoundTrips:
    """``isend`` and ``irecv`` of torch.distributed."""
    peer, buffer = 1 - agents.world.rank, torch.zeros(size, dtype=torch.uint8)

    def send() -> None:
        _wait(dist.isend(buffer, peer))

    def receive() -> None:
        _wait(dist.irecv(buffer, peer))

    return _in_order(agents, send, receive)


def _wait(work: dist.Work | None) -> None:
    assert work is not None  # this rank belongs to the group
    work.wait()


def mpi(agents: Agents, size: int, memory: str) -> RoundTrips:
    """``Send`` and ``Recv`` of mpi4py."""
    from mpi4py import MPI

    peer, buffer = 1 - agents.world.rank, [np.zeros(size, dtype=np.uint8), MPI.BYTE]
    return _in_order(agents, lambda: MPI.COMM_WORLD.Send(buffer, peer), lambda: MPI.COMM_WORLD.Recv(buffer, peer))


def _in_order(agents: Agents, send: Callable[[], None], receive: Callable[[], None]) -> RoundTrips:
    """Rank 0 sends first."""
    first, second = (send, receive) if agents.world.rank == 0 else (receive, send)

    def run(times: int) -> None:
        for _ in range(times):
            first()
            second()

    return run


def shared_memory(agents: Agents, size: int, memory: str) -> RoundTrips | None:
    """A copy and a flag, compiled."""
    if not memory or importlib.util.find_spec("numba") is None:
        return None
    from hdnn_dist.bench.raw_memory import round_trips

    return round_trips(memory, agents.world.rank, size)


RAW: dict[str, Form] = {"gloo": gloo, "mpi": mpi, SHARED: shared_memory}
FORMS: dict[str, Form] = {"exchange": exchange, "raw": raw}
