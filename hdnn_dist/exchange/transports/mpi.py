"""Ranks over MPI: persistent requests on a communicator of our own."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World, device_named

LOOKS = 200  # at the requests before other ranks on this core are given way


class MpiChannel(Channel):
    """One persistent receive or send per peer, set up once and started in every exchange."""

    def __init__(
        self,
        route: Route,
        sends: Mapping[int, Tensor],
        receives: Mapping[int, Tensor],
        communicator: MPI.Intracomm,
        timeout: float,
    ) -> None:
        """As ``Channel``."""
        super().__init__(route, sends, receives)
        self._timeout = timeout
        arriving = [communicator.Recv_init(_bytes_of(part), peer) for peer, part in self.receives.items()]
        leaving = [communicator.Send_init(_bytes_of(part), peer) for peer, part in self.sends.items()]
        self._peers = [*self.receives, *self.sends]
        self._requests = arriving + leaving
        weakref.finalize(self, _free, self._requests)

    def _carry(self) -> None:
        with self._naming(self._peers[0], "exchange with", MPI.Exception):
            MPI.Prequest.Startall(self._requests)
            self._wait()

    def _wait(self) -> None:
        """Until all requests are done: MPI itself knows no timeout, and waits without giving way to other ranks."""
        looks, began = 0, 0.0
        while not MPI.Request.Testall(self._requests):
            looks += 1
            if looks > LOOKS:
                os.sched_yield()
                began = began or time.monotonic()
            if looks % LOOKS == 0 and began and time.monotonic() - began > self._timeout:
                late = [peer for peer, request in zip(self._peers, self._requests, strict=True) if not request.Test()]
                raise self._failure(late[0], "exchange with", f"no answer for {self._timeout:g} s")


def _free(requests: list[MPI.Prequest]) -> None:
    for request in requests:
        request.Free()


def _bytes_of(part: Tensor) -> list[object]:
    return [part.numpy().reshape(-1).view("uint8"), MPI.BYTE]


class MpiWorld(World):
    """A duplicate of COMM_WORLD, so that our messages cannot meet anybody else's."""

    transport = "mpi"

    def __init__(self, device: torch.device, timeout: float) -> None:
        if device.type != "cpu":
            raise ValueError(
                f"the mpi transport carries tensors of the CPU, not of {device}: "
                "use transport='c10d' under torchrun for CUDA, or device='cpu'"
            )
        self.device, self._timeout = device, timeout
        self._communicator = MPI.COMM_WORLD.Dup()
        self.rank = self._communicator.Get_rank()
        self.size = self._communicator.Get_size()

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> MpiChannel:
        """As ``World.channel``."""
        return MpiChannel(route, sends, receives, self._communicator, self._timeout)

    def texts(self, text: str) -> list[str]:
        """As ``World.texts``."""
        own = np.frombuffer(text.encode(), dtype=np.uint8)
        lengths = np.empty(self.size, dtype=np.int64)
        self._communicator.Allgather(np.array([len(own)], dtype=np.int64), lengths)
        together = np.empty(int(lengths.sum()), dtype=np.uint8)
        self._communicator.Allgatherv(own, [together, lengths.tolist()])
        return [part.tobytes().decode() for part in np.split(together, np.cumsum(lengths)[:-1])]

    def close(self) -> None:
        if self._communicator != MPI.COMM_NULL:
            self._communicator.Free()


def join(device: str | torch.device | None, timeout: float) -> MpiWorld:
    """As ``connect`` says. ``ValueError`` for a device other than the CPU."""
    return MpiWorld(device_named(device or "cpu"), timeout)
