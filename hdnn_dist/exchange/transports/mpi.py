"""Ranks over MPI: persistent requests on a communicator of our own."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from mpi4py import MPI
from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World, device_named


class MpiChannel(Channel):
    """One persistent receive or send per peer, set up once and started in every exchange."""

    def __init__(
        self,
        route: Route,
        sends: Mapping[int, Tensor],
        receives: Mapping[int, Tensor],
        communicator: MPI.Intracomm,
    ) -> None:
        """As ``Channel``."""
        super().__init__(route, sends, receives)
        arriving = [communicator.Recv_init(_bytes_of(part), peer) for peer, part in self.receives.items()]
        leaving = [communicator.Send_init(_bytes_of(part), peer) for peer, part in self.sends.items()]
        self._requests = arriving + leaving
        weakref.finalize(self, _free, self._requests)

    def _carry(self) -> None:
        MPI.Prequest.Startall(self._requests)
        MPI.Request.Waitall(self._requests)


def _free(requests: list[MPI.Prequest]) -> None:
    for request in requests:
        request.Free()


def _bytes_of(part: Tensor) -> list[object]:
    return [part.numpy().reshape(-1).view("uint8"), MPI.BYTE]


class MpiWorld(World):
    """A duplicate of COMM_WORLD, so that our messages cannot meet anybody else's."""

    transport = "mpi"

    def __init__(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise ValueError(
                f"the mpi transport carries tensors of the CPU, not of {device}: "
                "use transport='c10d' under torchrun for CUDA, or device='cpu'"
            )
        self.device = device
        self._communicator = MPI.COMM_WORLD.Dup()
        self.rank = self._communicator.Get_rank()
        self.size = self._communicator.Get_size()

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> MpiChannel:
        """As ``World.channel``."""
        return MpiChannel(route, sends, receives, self._communicator)

    def close(self) -> None:
        if self._communicator != MPI.COMM_NULL:
            self._communicator.Free()


def join(device: str | torch.device | None, timeout: float) -> MpiWorld:
    """As ``connect`` says; MPI itself knows no timeout. ``ValueError`` for a device other than the CPU."""
    return MpiWorld(device_named(device or "cpu"))
