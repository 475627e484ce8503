"""Who carries a halo between ranks. ``connect`` is the way in."""

from __future__ import annotations

import importlib.util
import os

import torch

from hdnn_dist.exchange.ledger import Ledger, OffGraphError, Route, Traffic
from hdnn_dist.exchange.transports.local import LocalWorld
from hdnn_dist.exchange.world import Channel, TransportError, World
from hdnn_dist.support.arguments import unknown

__all__ = ["Channel", "Ledger", "OffGraphError", "Route", "Traffic", "TransportError", "World", "connect"]

TRANSPORTS = ("auto", "local", "c10d", "mpi")
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MPI_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")


def connect(transport: str = "auto", device: str | torch.device | None = None, timeout: float = 300.0) -> World:
    """Join the other ranks of the job, or be a world of one.

    ``auto`` recognises torchrun (its environment variables), an MPI launch (the launcher's), and neither.
    ``device``: ``None`` is the CPU, except that c10d takes the rank's GPU where CUDA is present.
    ``timeout``: seconds after which a c10d exchange gives up.

    Raises ``ValueError`` for an unknown transport, or one that is not installed or was not launched.
    """
    if transport not in TRANSPORTS:
        raise unknown("transport", transport, TRANSPORTS)
    name = _recognise() if transport == "auto" else transport
    if name == "mpi":
        return _connect_mpi(device)
    if name == "c10d":
        return _connect_c10d(device, timeout)
    return LocalWorld(_device(device or "cpu"))


def _recognise() -> str:
    if all(variable in os.environ for variable in TORCHRUN_VARIABLES) or torch.distributed.is_initialized():
        return "c10d"
    return "mpi" if any(variable in os.environ for variable in MPI_SIZE_VARIABLES) else "local"


def _connect_c10d(device: str | torch.device | None, timeout: float) -> World:
    from hdnn_dist.exchange.transports.c10d import C10dWorld

    missing = [variable for variable in TORCHRUN_VARIABLES if variable not in os.environ]
    if missing and not torch.distributed.is_initialized():
        raise ValueError(
            f"transport 'c10d' needs the environment of torchrun, and {', '.join(missing)} is not set: "
            "start with 'torchrun --standalone --nproc-per-node RANKS ...', or use transport 'local'"
        )
    if device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    chosen = _device(device or "cpu")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return C10dWorld(chosen, timeout)


def _connect_mpi(device: str | torch.device | None) -> World:
    if importlib.util.find_spec("mpi4py") is None:
        raise ValueError("transport 'mpi' needs mpi4py, which is not installed: pip install 'hdnn-dist[mpi]'")
    try:
        from hdnn_dist.exchange.transports.mpi import MpiWorld
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"transport 'mpi': no MPI library here ({error}): pip install 'hdnn-dist[mpi]'") from error

    return MpiWorld(_device(device or "cpu"))


def _device(device: str | torch.device) -> torch.device:
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but torch sees no CUDA device here: use 'cpu'")
    return chosen
