"""What carries an edge between two ranks: memory that they share where they can, else the network of the transport.

Chosen edge by edge, and by both ranks alike, when agents are placed. The ranks tell each other where the memory of an
edge is, each opens what its neighbours have made, and both take it only where both have it.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.ending import tell_others
from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World

if TYPE_CHECKING:
    from hdnn_dist.exchange.shared_memory.segment import Segment

SHARED = "shared memory"
TRIED = (1 << 12, 4)  # bytes and slots of a ring that an edge begins with
NAP, BEFORE_NAPS = 1e-3, 0.02  # seconds between two looks at another rank, after so many of waiting
LOOKS, FEW_LOOKS = 200, 20  # the fewer where ranks of this machine share cores
Pair = tuple[int, int]


class Links:
    """Of one rank. ``segments``: peer -> the memory that is shared with it; ``waited``: (2,) nanoseconds in exchanges
    so far, and how often a message is looked for before others on this core are given way.

    For every other peer the transport's own network serves.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.segments: dict[int, Segment] = {}
        self.waited = np.array([0, LOOKS], dtype=np.int64)
        self._machines: list[str] | None = None
        self._tried: set[Pair] = set()
        _links.add(self)
        tell_others(_leave)

    def add(self, pairs: Iterable[Pair]) -> None:
        """Choose for these pairs of ranks, the lower one first. Every rank has to, with all of the job."""
        new = set(pairs) - self._tried
        self._tried |= new
        if new and self.world.size > 1:
            near = [pair for pair in sorted(new) if self._shared_machine(pair)]
            if near:
                self._share([pair for pair in near if self.world.rank in pair])

    def kind(self, peer: int) -> str:
        """The name of what carries the edge to a peer."""
        return SHARED if peer in self.segments else self.world.network

    def _shared_machine(self, pair: Pair) -> bool:
        if self._machines is None:
            world, machines = self.world, self.world.job.texts(_own_machine(self.world))
            self.waited[1] = _looks(machines, world.job.rank)
            self._machines = machines[world.replica * world.size :][: world.size]
        if len(self._machines) < self.world.size:
            return False  # of a transport that tells no texts
        here, there = (self._machines[rank] for rank in pair)
        return here == there != ""

    def _share(self, pairs: list[Pair]) -> None:
        rank, mark = self.world.rank, secrets.token_bytes(32)
        first = self.world.replica * self.world.size  # so that the name of the memory tells the ranks of the job
        files = {high: _made(first + low, first + high) for low, high in pairs if low == rank}
        made = {high: _segment(file, 0, mark) for high, file in files.items()}
        own = {"process": os.getpid(), "mark": mark.hex(), "files": files}
        told = [json.loads(text) for text in self.world.texts(json.dumps(own))]
        opened = {low: _opened(told[low], rank) for low, high in pairs if high == rank}
        segments = {peer: segment for peer, segment in {**made, **opened}.items() if segment is not None}
        having = [json.loads(text) for text in self.world.texts(json.dumps(sorted(segments)))]
        self.segments.update((peer, segment) for peer, segment in segments.items() if rank in having[peer])


def _looks(machines: Sequence[str], rank: int) -> int:
    """Fewer where this machine has more of the ranks than cores."""
    crowded = rank < len(machines) and machines.count(machines[rank]) > len(os.sched_getaffinity(0))
    return FEW_LOOKS if crowded else LOOKS


def _own_machine(world: World) -> str:
    """Empty where this rank shares no memory: asked to, on a GPU, or where nothing can be compiled."""
    if world.links != "auto" or world.device.type != "cpu":
        return ""
    try:
        importlib.import_module("hdnn_dist.exchange.shared_memory.rings")
        machine: str = _file().machine()
    except Exception:  # numba raises errors of many kinds for what it cannot compile or cache
        return ""
    return machine


def _file() -> Any:
    """Imported when it is used: it needs numba."""
    return importlib.import_module("hdnn_dist.exchange.shared_memory.segment")


def _made(low: int, high: int) -> int:
    try:
        return int(_file().memory_of(low, high))
    except (OSError, AttributeError):
        return -1


def _segment(file: int, side: int, mark: bytes) -> Segment | None:
    """``None`` where it cannot be used."""
    if file < 0:
        return None
    try:
        segment: Segment = _file().Segment(file, side, mark)
        segment.sender(*TRIED)
        segment.receiver(*TRIED)
    except (OSError, ValueError):
        return None
    return segment


def _opened(maker: dict[str, Any], rank: int) -> Segment | None:
    try:
        file = _file().opened(maker["process"], maker["files"][str(rank)])
    except OSError:
        return None
    return _segment(file, 1, bytes.fromhex(maker["mark"]))


_links: WeakSet[Links] = WeakSet()


def links_of(world: World) -> Links:
    """Of a world, the same for all graphs whose agents are placed in it."""
    links: Links = world.rank_links or Links(world)
    world.rank_links = links
    return links


def _leave() -> None:
    """Let neighbours see that this rank exchanges no more."""
    for links in list(_links):
        for segment in links.segments.values():
            segment.leave()


def linked_channel(links: Links, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
    """As ``World.channel``, through shared memory where there is some."""
    if links.segments.keys().isdisjoint([*sends, *receives]):
        channel = links.world.channel(route, sends, receives)
        channel.waited = links.waited
        return channel
    file = importlib.import_module("hdnn_dist.exchange.shared_memory.channel")
    shared: Channel = file.SharedChannel(route, sends, receives, links)
    return shared


class Patience:
    """Of one exchange, while another rank does not come. ``fail(peer, cause)``: the error to raise."""

    def __init__(self, links: Links, fail: Callable[[int, str], Exception]) -> None:
        self._links, self._fail = links, fail
        self._began, self._lost = 0.0, -1

    def look(self, peer: int) -> None:
        """Raise where the peer of shared memory has ended, or is late; what it left behind may still be taken once."""
        now = time.monotonic()
        self._began = self._began or now
        if peer == self._lost:
            raise self._fail(peer, "it has ended or failed")
        if not self._links.segments[peer].peer_lives():
            self._lost = peer
        elif now - self._began > self._links.world.timeout:
            raise self._fail(peer, f"no answer for {self._links.world.timeout:g} s")
        elif now - self._began > BEFORE_NAPS:
            time.sleep(NAP)
            self._links.waited[0] += int(1e9 * (time.monotonic() - now))

    def came(self) -> None:
        """The peer has come: what follows is waited for anew."""
        self._began, self._lost = 0.0, -1
