"""Ranks over torch.distributed: gloo on the CPU, NCCL on CUDA. Point-to-point only, along graph edges."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hdnn_dist.exchange.launchers import TORCHRUN_VARIABLES
from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World, device_named

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class GlooChannel(Channel):
    """Receives are posted before sends; each work is awaited, receives first."""

    def _carry(self) -> None:
        works = []
        for verb, parts, post in (("receive from", self.receives, dist.irecv), ("send to", self.sends, dist.isend)):
            for peer, part in parts.items():
                with self._naming(peer, verb, RuntimeError):
                    works.append((verb, peer, post(part, peer)))
        for verb, peer, work in works:
            assert work is not None  # this rank belongs to the group
            with self._naming(peer, verb, RuntimeError):
                work.wait()


class NcclChannel(Channel):
    """One grouped launch an exchange: NCCL would deadlock on sends and receives posted one by one."""

    def __init__(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> None:
        """As ``Channel``."""
        super().__init__(route, sends, receives)
        receiving = [dist.P2POp(dist.irecv, part, peer) for peer, part in self.receives.items()]
        self._operations = receiving + [dist.P2POp(dist.isend, part, peer) for peer, part in self.sends.items()]

    def _carry(self) -> None:
        with self._naming(next(iter(self.route.peers)), "exchange with", RuntimeError):
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
            dist.init_process_group(backend, timeout=limit, **_meeting_point(limit))
        self.transport = f"c10d ({dist.get_backend()})"
        self._store = dist.PrefixStore("hdnn_dist", dist.distributed_c10d._get_default_store())
        self._asked = 0
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._channel_type: type[Channel] = GlooChannel if dist.get_backend() == "gloo" else NcclChannel
        if self._channel_type is NcclChannel:
            dist.barrier()  # the first call of an NCCL group has to include every rank

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        """As ``World.channel``."""
        return self._channel_type(route, sends, receives)

    def texts(self, text: str) -> list[str]:
        """As ``World.texts``: by the store where the ranks have met, so that gloo opens no connection for it."""
        self._asked += 1
        self._store.set(f"{self._asked}/{self.rank}", text)
        return [self._store.get(f"{self._asked}/{rank}").decode() for rank in range(self.size)]

    def close(self) -> None:
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()


def join(device: str | torch.device | None, timeout: float) -> C10dWorld:
    """As ``connect`` says; ``ValueError`` where torchrun has not set its variables and there is no group yet."""
    missing = [variable for variable in TORCHRUN_VARIABLES if variable not in os.environ]
    if missing and not dist.is_initialized():
        raise ValueError(
            f"transport 'c10d' needs the environment of torchrun, and {', '.join(missing)} is not set: "
            "start with 'torchrun --standalone --nproc-per-node RANKS ...', or use transport 'local'"
        )
    if device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    chosen = device_named(device or "cpu")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return C10dWorld(chosen, timeout)


def _alone_on_this_machine() -> bool:
    """Whether the ranks meet on the loopback, at a store that torchrun leaves to us."""
    agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return not agent_store and os.environ.get("MASTER_ADDR") in LOOPBACK


def _meeting_point(timeout: timedelta) -> dict[str, Any]:
    """Where the ranks meet: a store of ours on the loopback, or, by default, where torch decides."""
    if not _alone_on_this_machine():
        return {}
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return {"store": _loopback_store(rank, size, timeout), "rank": rank, "world_size": size}


def _loopback_store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """The meeting point of the ranks, listening on the loopback alone; torch's own listens on every interface."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank > 0:
        return dist.TCPStore(address, port, size, is_master=False, timeout=timeout)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=max(128, size))
    return dist.TCPStore(address, port, size, is_master=True, timeout=timeout, master_listen_fd=listener.detach())
