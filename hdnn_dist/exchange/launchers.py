"""Who has started this process, by the variables that launchers set, and what is refused of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from hdnn_dist.exchange.world import World

TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MPI_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")
RANK_VARIABLES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK")
MEND = "use transport 'local' (--transport local) to train in this process alone"


def by_torchrun() -> bool:
    """Whether torchrun has started this process, or somebody has made a process group."""
    return _set(TORCHRUN_VARIABLES, all) or torch.distributed.is_initialized()


def by_mpi() -> bool:
    """Whether an MPI launcher has."""
    return _set(MPI_SIZE_VARIABLES, any)


def by_nobody() -> bool:
    """No launcher starts a process that trains alone."""
    return False


def launched_as() -> int:
    """The rank that a launcher gives this process, before it has met the others; 0 without one."""
    given = [os.environ[variable] for variable in RANK_VARIABLES if variable in os.environ]
    return int(given[0]) if given and given[0].isdecimal() else 0


def _set(variables: Sequence[str], enough: Callable[[list[bool]], bool]) -> bool:
    return enough([variable in os.environ for variable in variables])


def refuse_leftovers() -> None:
    """``ValueError`` where some of a launcher's variables are set, but not all that its ranks need to meet."""
    found = [variable for variable in TORCHRUN_VARIABLES if variable in os.environ]
    missing = [variable for variable in TORCHRUN_VARIABLES if variable not in os.environ]
    if {"RANK", "WORLD_SIZE"} <= set(found):
        raise ValueError(
            f"{', '.join(found)} are set, but {', '.join(missing)} is not: start with torchrun, set what is missing, "
            f"or {MEND}"
        )
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1":
        raise ValueError(
            f"SLURM_NTASKS is {tasks}, but no launcher has started this process: start with srun --mpi=pmi2, torchrun "
            f"or mpiexec, or {MEND}"
        )


def refuse_fewer_ranks(world: World, alone: bool) -> None:
    """``ValueError`` where the launcher announces more ranks than have met: each would train alone in silence."""
    announced = {name: os.environ[name] for name in (*MPI_SIZE_VARIABLES, "WORLD_SIZE") if name in os.environ}
    more = [name for name, size in announced.items() if size.isdecimal() and int(size) > world.size]
    if more and not alone:
        raise ValueError(
            f"{more[0]} announces {announced[more[0]]} ranks, but {world.size} met by transport {world.transport!r}: "
            f"start with the launcher of this transport, for MPI that of the library which mpi4py loads, or {MEND}"
        )
