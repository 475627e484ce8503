"""Ranks over MPI: persistent requests on a communicator of our own."""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from mpi4py import MPI
from torch import Tensor

from hdnn_dist.exchange.ending import guard, has_failed, within
from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, TransportError, World, device_named, size_tag

LOOKS = 200  # at the requests before other ranks on this core are given way
TAG = 20231  # of what is told before there is a communicator of our own
NAP = 1e-3  # seconds between two looks where nothing is in a hurry
VERDICT = 2.0  # seconds after the timeout in which rank 0 says who has not come

if MPI.COMM_WORLD.Get_size() > 1:
    guard(MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Abort)


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
        receive, send = communicator.Recv_init, communicator.Send_init
        arriving = [receive(_bytes_of(part), peer, size_tag(part)) for peer, part in self.receives.items()]
        leaving = [send(_bytes_of(part), peer, size_tag(part)) for peer, part in self.sends.items()]
        self._peers = [*self.receives, *self.sends]
        self._requests = arriving + leaving
        weakref.finalize(self, _free, self._requests)

    def start(self) -> None:
        """As ``Channel``."""
        with self._naming(self._peers[0], "exchange with", MPI.Exception):
            MPI.Prequest.Startall(self._requests)

    def finish(self) -> None:
        """As ``Channel``."""
        with self._naming(self._peers[0], "exchange with", MPI.Exception):
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
                if late:
                    raise self._failure(late[0], "exchange with", f"no answer for {self._timeout:g} s")


def _free(requests: list[MPI.Prequest]) -> None:
    for request in requests:
        request.Free()


def _bytes_of(part: Tensor) -> list[object]:
    return [part.view(-1).view(torch.uint8).numpy(), MPI.BYTE]  # as bytes, so of any type


class MpiWorld(World):
    """A duplicate of COMM_WORLD, so that our messages cannot meet anybody else's."""

    transport = "mpi"

    def __init__(self, device: torch.device, timeout: float) -> None:
        if device.type != "cpu":
            raise ValueError(
                f"the mpi transport carries tensors of the CPU, not of {device}: "
                "use transport='c10d' under torchrun for CUDA, or device='cpu'"
            )
        self.device, self.timeout = device, timeout
        self.rank = MPI.COMM_WORLD.Get_rank()
        self.size = MPI.COMM_WORLD.Get_size()
        _told(MPI.COMM_WORLD, "", timeout)
        self._communicator, request = MPI.COMM_WORLD.Idup()
        if not _done(request.Test, timeout):
            raise TransportError(f"the {self.size} ranks of MPI did not join within {timeout:g} s: one of them waits")

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> MpiChannel:
        """As ``World.channel``."""
        return MpiChannel(route, sends, receives, self._communicator, self.timeout)

    def texts(self, text: str) -> list[str]:
        """As ``World.texts``."""
        return _told(self._communicator, text, self.timeout)

    def part(self, groups: Sequence[Sequence[int]], called: str) -> MpiWorld:
        """As ``World.part``, in a communicator of its own."""
        at = next(at for at, ranks in enumerate(groups) if self.rank in ranks)
        part = copy(self)
        part.rank, part.size, part.about = groups[at].index(self.rank), len(groups[at]), f" of {called} {at}"
        try:
            part._communicator = within(self.timeout, lambda: MPI.Intracomm(self._communicator.Split(at, part.rank)))
        except TimeoutError as error:
            raise TransportError(f"the ranks of {called} {at} did not meet within {self.timeout:g} s") from error
        part._communicator.Set_name(f"{called} {at}")
        return part

    def add_up(self, values: Tensor) -> None:
        """As ``World.add_up``."""
        request = self._communicator.Iallreduce(MPI.IN_PLACE, values.numpy())
        looks, began = 0, time.monotonic()
        while not request.Test():
            looks += 1
            if looks > LOOKS:
                os.sched_yield()
            if looks % LOOKS == 0 and time.monotonic() - began > self.timeout:
                raise RuntimeError(f"no answer for {self.timeout:g} s")

    def close(self) -> None:
        if self._communicator != MPI.COMM_NULL and not has_failed():
            self._communicator.Free()


def _told(communicator: MPI.Intracomm, text: str, timeout: float) -> list[str]:
    """The text of every rank: rank 0 hears them, and says them, or who does not come, to all."""
    if communicator.Get_rank() == 0:
        return _heard(communicator, text, timeout)
    own = _send(communicator, text, 0)
    answer = _received(communicator, 0, timeout + VERDICT)
    if answer is None:
        raise _missing(0, communicator, timeout)
    own.Wait()
    if isinstance(answer, int):
        raise _missing(answer, communicator, timeout)
    return list(answer)


def _heard(communicator: MPI.Intracomm, text: str, timeout: float) -> list[str]:
    texts, late, began = [text], None, time.monotonic()
    while len(texts) < communicator.Get_size() and late is None:
        given = _received(communicator, len(texts), timeout - (time.monotonic() - began))
        if given is None:
            late = len(texts)
        else:
            texts.append(str(given))
    answer = texts if late is None else late
    sent = [_send(communicator, answer, peer) for peer in range(1, communicator.Get_size()) if peer != late]
    arrived = _done(lambda: MPI.Request.Testall(sent), timeout if late is None else VERDICT)
    if late is not None or not arrived:
        raise _missing(late, communicator, timeout)
    return texts


def _send(communicator: MPI.Intracomm, content: object, peer: int) -> MPI.Request:
    """Text and numbers as JSON, which nothing can hide in; the request keeps the bytes."""
    return communicator.Isend([json.dumps(content).encode(), MPI.BYTE], peer, TAG)


def _received(communicator: MPI.Intracomm, peer: int, seconds: float) -> Any:
    """What the rank has sent, ``None`` where it has not."""
    status, found = MPI.Status(), []

    def arrived() -> bool:
        message = communicator.Improbe(peer, TAG, status)
        found.extend([] if message is None else [message])
        return message is not None

    if not _done(arrived, seconds):
        return None
    content = bytearray(status.Get_count(MPI.BYTE))
    return json.loads(content) if _done(found[0].Irecv([content, MPI.BYTE]).Test, seconds) else None


def _done(look: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time; MPI itself knows no timeout."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > seconds:
            return False
        time.sleep(NAP)
    return True


def _missing(rank: int | None, communicator: MPI.Intracomm, timeout: float) -> TransportError:
    size, name = communicator.Get_size(), communicator.Get_name()
    about = f" of {name}" if name and communicator != MPI.COMM_WORLD else ""
    return TransportError(
        f"rank {'?' if rank is None else rank} of {size}{about} has not come within {timeout:g} s: it has ended, "
        "waits, or does not what the others do; see its output, or raise the timeout"
    )


def join(device: str | torch.device | None, timeout: float) -> MpiWorld:
    """As ``connect`` says. ``ValueError`` for a device other than the CPU."""
    return MpiWorld(device_named("cpu" if device is None else device), timeout)
