"""``connect`` is the way into the world of ranks; ``TRANSPORTS`` names all who can carry a halo between them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch

from hdnn_dist.exchange.common_facts import same_in_world
from hdnn_dist.exchange.ending import ended_after
from hdnn_dist.exchange.launchers import by_mpi, by_nobody, by_torchrun, refuse_fewer_ranks, refuse_leftovers
from hdnn_dist.exchange.replicas import in_replicas
from hdnn_dist.exchange.world import World
from hdnn_dist.support.arguments import one_line, positive_number, unknown, whole
from hdnn_dist.support.version import VERSION

AUTO, ALONE = "auto", "local"
LINKS = (AUTO, "network")
TIMEOUT = 300.0  # seconds


@dataclass(frozen=True)
class Transport:
    """A way between ranks.

    ``module``: its file, imported when it is used, with ``join(device, timeout) -> World``; ``launched``: whether the
    launcher of its ranks has started this process; ``mend``: what to do where the file cannot be imported;
    ``meets``: whether all ranks wait for each other in that import, as in that of MPI.
    """

    module: str
    launched: Callable[[], bool]
    mend: str = ""
    meets: bool = False

    def join(self, name: str, device: str | torch.device | None, timeout: float) -> World:
        """The world, as ``connect`` says. ``ValueError`` where it is not installed or was not launched."""
        world: World = self.file(name, timeout).join(device, timeout)
        return world

    def file(self, name: str, timeout: float) -> Any:
        """Its file, imported. ``ValueError`` where it is not installed."""
        late = f"hdnn-dist: failed: the other ranks have not started {name} within {timeout:g} s: see their output"
        first = self.meets and self.launched() and self.module not in sys.modules
        try:
            with ended_after(timeout, late) if first else nullcontext():
                return importlib.import_module(self.module)
        except (ImportError, RuntimeError) as error:
            raise ValueError(f"transport {name!r} is not installed ({one_line(error)}): {self.mend}") from error


# "auto" takes the first whose launcher has started this process, else "local".
TRANSPORTS: dict[str, Transport] = {
    "c10d": Transport("hdnn_dist.exchange.transports.c10d", by_torchrun),
    "mpi": Transport("hdnn_dist.exchange.transports.mpi", by_mpi, "pip install 'hdnn-dist[mpi]'", meets=True),
    ALONE: Transport("hdnn_dist.exchange.transports.local", by_nobody),
}


def meet_early(transport: str = AUTO, timeout: float = TIMEOUT) -> None:
    """Import what all ranks wait for each other in, before anything can fail: others would wait there for ever.

    ``transport``, ``timeout``: as of ``connect``, which has to follow, and says what cannot be.
    """
    name = _launched(transport)
    if TRANSPORTS[name].meets:
        with suppress(ValueError):
            TRANSPORTS[name].file(name, timeout)


def connect(
    transport: str = AUTO,
    device: str | torch.device | None = None,
    timeout: float = TIMEOUT,
    links: str = AUTO,
    replicas: int = 1,
) -> World:
    """Join the other ranks of the job, or be a world of one.

    ``transport``: a name of ``TRANSPORTS``; ``auto`` recognises torchrun and an MPI launch, by the variables that they
    set, and neither. ``device``: ``None`` is the CPU, except that c10d takes the rank's GPU where CUDA is present.
    ``timeout``: seconds after which an exchange gives up. ``links``: ``auto`` lets ranks of one host talk through
    memory that they share, edge by edge; ``network`` lets them not.
    ``replicas``: so many groups of ranks hold all agents each, see ``Replica``; the world is that of this rank's group.

    Raises ``ValueError`` for an unknown transport, or one that is not installed or was not launched, and for replicas
    that do not divide the ranks.
    """
    if transport not in (AUTO, *TRANSPORTS):
        raise unknown("transport", transport, (AUTO, *TRANSPORTS))
    timeout, replicas = positive_number("timeout", timeout), whole("replicas", replicas)
    if links not in LINKS:
        raise unknown("links", links, LINKS)
    name = transport if transport != AUTO else _recognised()
    world = TRANSPORTS[name].join(name, device, timeout)
    world.links = links
    try:
        refuse_fewer_ranks(world, alone=transport == ALONE)
        same_in_world(world, {"version of hdnn-dist": VERSION, "replicas": replicas})
        return in_replicas(world, replicas)
    except ValueError:
        world.close()
        raise


def _launched(transport: str) -> str:
    """That transport, or the first of all for ``auto``, whose launcher has started this process; else ``local``."""
    return next((name for name, known in TRANSPORTS.items() if transport in (AUTO, name) and known.launched()), ALONE)


def _recognised() -> str:
    name = _launched(AUTO)
    if name == ALONE:
        refuse_leftovers()
    return name
