"""Ranks over torch.distributed: gloo on the CPU, NCCL on CUDA. Point-to-point only, along graph edges."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class GlooChannel(Channel):
    """Receives are posted before sends; each work is awaited, receives first."""

    def _carry(self) -> None:
        arriving = [("receive from", peer, dist.irecv(part, peer)) for peer, part in self.receives.items()]
        leaving = [("send to", peer, dist.isend(part, peer)) for peer, part in self.sends.items()]
        for verb, peer, work in arriving + leaving:
            assert work is not None  # this rank belongs to the group
            try:
                work.wait()
            except RuntimeError as error:
                raise self._failure(peer, verb, str(error).splitlines()[0]) from error


class NcclChannel(Channel):
    """One grouped launch an exchange: NCCL would deadlock on sends and receives posted one by one."""

    def __init__(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> None:
        super().__init__(route, sends, receives)
        receiving = [dist.P2POp(dist.irecv, part, peer) for peer, part in self.receives.items()]
        self._operations = receiving + [dist.P2POp(dist.isend, part, peer) for peer, part in self.sends.items()]

    def _carry(self) -> None:
        for work in dist.batch_isend_irecv(self._operations):
            work.wait()


class C10dWorld(World):
    """The default process group; made here unless the caller already made one.

    gloo is told to connect on first use (``TORCH_GLOO_LAZY_INIT``), so that the only connections of a rank are
    those to the owners of neighbouring agents; without it gloo opens a full mesh.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.device = device
        self._owns_group = not dist.is_initialized()
        if self._owns_group:
            os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
            backend = "nccl" if device.type == "cuda" else "gloo"
            limit = timedelta(seconds=timeout)
            if _alone_on_this_machine():
                store, place = (
                    _loopback_store(limit),
                    (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])),
                )
                dist.init_process_group(backend, store=store, rank=place[0], world_size=place[1], timeout=limit)
            else:
                dist.init_process_group(backend, timeout=limit)
        self.transport = f"c10d ({dist.get_backend()})"
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._channel_type: type[Channel] = GlooChannel if dist.get_backend() == "gloo" else NcclChannel
        if self._channel_type is NcclChannel:
            dist.barrier()  # the first call of an NCCL group has to include every rank

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        return self._channel_type(route, sends, receives)

    def close(self) -> None:
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()


def _alone_on_this_machine() -> bool:
    """Whether the ranks meet on the loopback, at a store that torchrun leaves to us."""
    agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return not agent_store and os.environ.get("MASTER_ADDR") in LOOPBACK


def _loopback_store(timeout: timedelta) -> dist.Store:
    """The meeting point of the ranks, listening on the loopback alone; torch's own listens on every interface."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank > 0:
        return dist.TCPStore(address, port, size, is_master=False, timeout=timeout)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=max(128, size))
    return dist.TCPStore(address, port, size, is_master=True, timeout=timeout, master_listen_fd=listener.detach())
