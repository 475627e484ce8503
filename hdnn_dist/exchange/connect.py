"""``connect`` is the way into the world of ranks; ``TRANSPORTS`` names all who can carry a halo between them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hdnn_dist.exchange.world import World
from hdnn_dist.support.arguments import one_line, unknown

AUTO, ALONE = "auto", "local"
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MPI_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Transport:
    """A way between ranks.

    ``module``: its file, imported when it is used, with ``join(device, timeout) -> World``; ``launched``: whether the
    launcher of its ranks has started this process; ``mend``: what to do where the file cannot be imported.
    """

    module: str
    launched: Callable[[], bool]
    mend: str = ""

    def join(self, name: str, device: str | torch.device | None, timeout: float) -> World:
        """The world, as ``connect`` says. ``ValueError`` where it is not installed or was not launched."""
        try:
            file = importlib.import_module(self.module)
        except (ImportError, RuntimeError) as error:
            raise ValueError(f"transport {name!r} is not installed ({one_line(error)}): {self.mend}") from error
        world: World = file.join(device, timeout)
        return world


def _by_torchrun() -> bool:
    return _set(TORCHRUN_VARIABLES, all) or torch.distributed.is_initialized()


def _by_mpi() -> bool:
    return _set(MPI_SIZE_VARIABLES, any)


def _by_nobody() -> bool:
    return False


def _set(variables: Sequence[str], enough: Callable[[list[bool]], bool]) -> bool:
    return enough([variable in os.environ for variable in variables])


# "auto" takes the first whose launcher has started this process, else "local".
TRANSPORTS: dict[str, Transport] = {
    "c10d": Transport("hdnn_dist.exchange.transports.c10d", _by_torchrun),
    "mpi": Transport("hdnn_dist.exchange.transports.mpi", _by_mpi, "pip install 'hdnn-dist[mpi]'"),
    ALONE: Transport("hdnn_dist.exchange.transports.local", _by_nobody),
}


def connect(transport: str = AUTO, device: str | torch.device | None = None, timeout: float = 300.0) -> World:
    """Join the other ranks of the job, or be a world of one.

    ``transport``: a name of ``TRANSPORTS``; ``auto`` recognises torchrun and an MPI launch, by the variables that they
    set, and neither. ``device``: ``None`` is the CPU, except that c10d takes the rank's GPU where CUDA is present.
    ``timeout``: seconds after which a c10d exchange gives up.

    Raises ``ValueError`` for an unknown transport, or one that is not installed or was not launched.
    """
    if transport not in (AUTO, *TRANSPORTS):
        raise unknown("transport", transport, (AUTO, *TRANSPORTS))
    name = transport if transport != AUTO else _recognised()
    return TRANSPORTS[name].join(name, device, timeout)


def _recognised() -> str:
    return next((name for name, known in TRANSPORTS.items() if known.launched()), ALONE)
