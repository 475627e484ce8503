"""Ranks over torch.distributed: gloo on the CPU, NCCL on CUDA. Point-to-point only, along graph edges."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hdnn_dist.exchange.ending import GRACE, end_soon, failed, guard, within
from hdnn_dist.exchange.launchers import TORCHRUN_VARIABLES
from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.transports.meeting import duration, meet, met_before, texts
from hdnn_dist.exchange.world import Channel, TransportError, World, device_named, size_tag
from hdnn_dist.support.arguments import one_line

NOISE = re.compile(r"^\[\S+\] | This is typically caused .*")  # round gloo's errors
CONTACT = 5  # of its timeouts gloo waits for the first contact of two ranks
Group = dist.ProcessGroup | None  # None: that of all ranks


class Limits:
    """How long an exchange of gloo waits, and what to look for where two ranks of different hosts do not meet.

    ``group``: in which they have these numbers.
    """

    def __init__(self, timeout: float, hosts: Sequence[str], rank: int, group: Group = None) -> None:
        self.wait, self.group = duration(timeout), group
        self._hosts, self._rank = hosts, rank

    def hint(self, peer: int) -> str:
        own, other = self._hosts[self._rank], self._hosts[peer]
        if own == other:
            return ""
        return (
            f"; {own} and {other} have not met yet: where a host's own name resolves to 127.0.1.1, set "
            "GLOO_SOCKET_IFNAME to the network interface between them, such as eth0"
        )


class GlooChannel(Channel):
    """Receives are posted before sends; each work is awaited, receives first."""

    def __init__(
        self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor], limits: Limits
    ) -> None:
        """As ``Channel``."""
        super().__init__(route, sends, receives)
        self._limits = limits
        self._met = False
        self._works: list[tuple[str, int, Any]] = []

    def start(self) -> None:
        """As ``Channel``."""
        group = self._limits.group
        for verb, parts, post, to in (
            ("receive from", self.receives, dist.irecv, "group_src"),
            ("send to", self.sends, dist.isend, "group_dst"),
        ):
            for peer, part in parts.items():
                with self._naming(peer, verb, RuntimeError):
                    self._works.append((verb, peer, post(part, group=group, tag=size_tag(part), **{to: peer})))

    def finish(self) -> None:
        """As ``Channel``."""
        for verb, peer, work in self._works:
            with self._naming(peer, verb, RuntimeError):
                work.wait(self._limits.wait)
        self._works.clear()
        self._met = True

    def _failure(self, peer: int, verb: str, cause: object) -> TransportError:
        hint = "" if self._met else self._limits.hint(peer)
        return super()._failure(peer, verb, f"{NOISE.sub('', str(cause))}{hint}")


class NcclChannel(Channel):
    """One grouped launch an exchange: NCCL would deadlock on sends and receives posted one by one."""

    def __init__(
        self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor], limits: Limits
    ) -> None:
        """As ``Channel``."""
        super().__init__(route, sends, receives)
        both, group = ((dist.irecv, self.receives), (dist.isend, self.sends)), limits.group
        self._operations = [
            dist.P2POp(post, part, group=group, group_peer=peer) for post, parts in both for peer, part in parts.items()
        ]

    def start(self) -> None:
        """As ``Channel``."""
        with self._naming(next(iter(self.route.peers)), "exchange with", RuntimeError):
            self._works = dist.batch_isend_irecv(self._operations)

    def finish(self) -> None:
        """As ``Channel``."""
        with self._naming(next(iter(self.route.peers)), "exchange with", RuntimeError):
            for work in self._works:
                work.wait()


class C10dWorld(World):
    """The default process group; made here unless the caller already made one.

    gloo is told to connect on first use (``TORCH_GLOO_LAZY_INIT``), so that the only connections of a rank are
    those to the owners of neighbouring agents; without it gloo opens a full mesh.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.device, self.timeout = device, timeout
        self._owns_group = not dist.is_initialized()
        self._meeting = meet(timeout) if self._owns_group else met_before()
        self.rank, self.size = self._meeting.rank, self._meeting.size
        self._asked = 0
        if self.size > 1:
            guard(self.rank, end_soon)
        hosts, devices, counts = zip(*map(str.split, self.texts(_place(device))), strict=True)
        refuse_devices(hosts, devices, [int(count) for count in counts])
        self._hosts = list(hosts)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if self._owns_group:
            self._make_group()
        self.transport = f"c10d ({self.network})"
        self._enter(None)

    @property
    def network(self) -> str:
        """gloo or nccl."""
        return str(dist.get_backend())

    def _enter(self, group: Group) -> None:
        """Talk in this group from now on, in which the ranks have their numbers."""
        self._limits = Limits(self.timeout, self._hosts, self.rank, group)
        self._on_gloo = self.network == "gloo"
        if not self._on_gloo:
            dist.barrier(group)  # the first call of an NCCL group has to include every rank

    def _make_group(self) -> None:
        os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
        backend, device = ("nccl", self.device) if self.device.type == "cuda" else ("gloo", None)
        limit, (store, rank, size, _) = duration(self._limit(backend)), self._meeting

        def make() -> None:
            dist.init_process_group(backend, timeout=limit, store=store, rank=rank, world_size=size, device_id=device)

        self._start(backend, make)

    def _limit(self, backend: str) -> float:
        return self.timeout if backend == "nccl" else self.timeout / CONTACT

    def part(self, groups: Sequence[Sequence[int]], called: str) -> C10dWorld:
        """As ``World.part``, in a process group."""
        made: list[Group] = []
        limit = duration(self._limit(self.network))
        self._start(self.network, lambda: made.extend(dist.new_group(list(ranks), timeout=limit) for ranks in groups))
        at = next(at for at, ranks in enumerate(groups) if self.rank in ranks)
        part = copy(self)
        part._meeting = self._meeting.part(groups[at], f"{called} {at}")
        part.rank, part.size, part.about, part._asked = *part._meeting[1:], 0
        part._hosts = [self._hosts[rank] for rank in groups[at]]
        part._owns_group = True
        part._enter(made[at])
        return part

    def add_up(self, values: Tensor) -> None:
        """As ``World.add_up``."""
        group, options = self._limits.group or dist.group.WORLD, dist.AllreduceOptions()
        assert group is not None
        options.timeout = self._limits.wait
        try:
            work = group.allreduce([values], options)
            work.wait(self._limits.wait) if self._on_gloo else work.wait()
        except RuntimeError as error:
            raise RuntimeError(NOISE.sub("", one_line(error))) from error

    def _start(self, backend: str, make: Callable[[], object]) -> None:
        try:
            make() if backend == "nccl" else within(self.timeout + GRACE, make)  # CUDA's device is the thread's
        except (TimeoutError, RuntimeError) as error:
            name = os.environ.get("GLOO_SOCKET_IFNAME", "not set")
            raise TransportError(
                f"rank {self.rank} could not start {backend}: {one_line(error)[:300]} (GLOO_SOCKET_IFNAME is {name})"
            ) from error

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        """As ``World.channel``."""
        kind = GlooChannel if self._on_gloo else NcclChannel
        return kind(route, sends, receives, self._limits)

    def texts(self, text: str) -> list[str]:
        """As ``World.texts``: by the store where the ranks have met, so that gloo opens no connection for it."""
        self._asked += 1
        return texts(self._meeting, str(self._asked), text, self.timeout)

    def close(self) -> None:
        """As ``World.close``. With the last reference to the group end gloo's threads, and a process that ends
        while one of them still puts a tensor away is aborted by Python.
        """
        owned, self._owns_group = self._owns_group and dist.is_initialized(), False
        group, self._limits.group = self._limits.group, None
        if owned:
            try:
                within(GRACE, lambda: dist.destroy_process_group(group))
            except (TimeoutError, RuntimeError):  # it waits for a rank that will not come
                failed()


def _place(device: torch.device) -> str:
    """Host, device, and how many GPUs the host shows."""
    return f"{socket.gethostname()} {device} {torch.cuda.device_count()}"


def refuse_devices(hosts: Sequence[str], devices: Sequence[str], counts: Sequence[int]) -> None:
    """``ValueError`` unless all ranks are on CPUs, or each on a GPU of its own: NCCL serves one rank on each.

    ``hosts``, ``devices``: of all ranks, such as "node1" and "cuda:0"; ``counts``: the GPUs that each of them sees.
    """
    mend = (
        "start at most as many ranks on a host as it has GPUs, or give device='cpu' (hide GPUs: CUDA_VISIBLE_DEVICES=)"
    )
    kinds = [device.partition(":")[0] for device in devices]
    if other := [rank for rank, kind in enumerate(kinds) if kind != kinds[0]]:
        raise ValueError(f"rank 0 is on {devices[0]}, rank {other[0]} on {devices[other[0]]}: {mend}")
    places = [f"{device} of {host}" for host, device in zip(hosts, devices, strict=True)]
    for rank, (place, count) in enumerate(zip(places, counts, strict=True)):
        if kinds[rank] == "cpu":
            continue
        if torch.device(devices[rank]).index >= count:
            raise ValueError(f"rank {rank} needs {place}, which has {count} GPU{'s' * (count != 1)}: {mend}")
        if (first := places.index(place)) < rank:
            raise ValueError(f"ranks {first} and {rank} both have {place}: {mend}")


def join(device: str | torch.device | None, timeout: float) -> C10dWorld:
    """As ``connect`` says; ``ValueError`` where torchrun has not set its variables and there is no group yet."""
    missing = [variable for variable in TORCHRUN_VARIABLES if variable not in os.environ]
    if missing and not dist.is_initialized():
        raise ValueError(
            f"transport 'c10d' needs the environment of torchrun, and {', '.join(missing)} is not set: "
            "start with 'torchrun --standalone --nproc-per-node RANKS ...', or use transport 'local'"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return C10dWorld(_numbered(device_named(device)), timeout)


def _numbered(device: torch.device) -> torch.device:
    """With the number of a GPU: that of the rank on its host, or the current one of a user who has made the group."""
    if device.type == "cpu" or device.index is not None:
        return device
    own = torch.cuda.current_device() if dist.is_initialized() else int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", own)
