"""The messages of compiled passes: which rows of a tile go to which rank and come from it, and through which rings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.links import Links
from hdnn_dist.exchange.shared_memory.rings import MESSAGE_AT, NUMBER_AT, RING, SIZE_AT, SLOTS_AT, TAKEN
from hdnn_dist.exchange.world import Channel
from hdnn_dist.kernels.instructions import Numbered

# One peer's part of an exchange: the rings, and which of ``Messages.rows`` leave and arrive. ``network``: whether the
# transport carries what is in the rings, which lie in memory of this process then.
MESSAGE = np.dtype(
    [("outgoing", RING), ("incoming", RING)]
    + [(name, np.int64) for name in ["out_first", "out_last", "in_first", "in_last", "network"]]
)
SLOTS_A_TILE = 4  # twice as many as are under way at once: neighbours may be ahead
RowsByPeer = Mapping[int, np.ndarray]


class Wires(NamedTuple):
    """``messages``: (messages,) ``MESSAGE`` and the ``rows`` that they name; ``waited``: (1,) nanoseconds."""

    messages: np.ndarray
    rows: np.ndarray
    waited: np.ndarray


class Exchange(NamedTuple):
    """``first``: its first message for the first tile in flight; those of the next one come ``number`` later.

    ``parts``: how many buffers' rows are in a message; ``out``, ``come``: peer -> (rows,); ``network``: whether the
    transport has a part in it.
    """

    first: int
    number: int
    peers: list[int]
    route: Route
    parts: int
    out: RowsByPeer
    come: RowsByPeer
    network: bool


class Messages:
    """Of one network at one width on one rank. ``columns``: of a tile; ``lanes``: how many tiles are in flight."""

    def __init__(self, links: Links, columns: int, lanes: int, dtype: torch.dtype) -> None:
        self.links, self.lanes = links, lanes
        self._bytes = torch.empty((), dtype=dtype).element_size()
        self._columns = columns
        self.exchanges: list[Exchange] = []
        self._rows: list[int] = []
        self._messages: list[tuple[object, ...]] = []
        self._private: dict[int, PrivateRings] = {}
        self._under_way: set[tuple[int, int, int]] = set()
        self._wires: Wires | None = None
        self._made: dict[tuple[Route, int], Numbered | None] = {}
        self._channel = cache(self._make_channel)

    def gather(self, halo: Halo, parts: int = 1) -> Numbered | None:
        """As ``Exchanges``."""
        return self._numbered(halo.gather_route, parts, _sent(halo), _halo(halo))

    def scatter(self, halo: Halo, parts: int = 1) -> Numbered | None:
        """As ``Exchanges``."""
        return self._numbered(halo.scatter_route, parts, _halo(halo), _sent(halo))

    def wires(self) -> Wires | None:
        """All messages so far, as passes are told of them; ``None`` in a world of one rank."""
        if self._wires is None and self.links.world.size > 1:
            messages, rows = np.array(self._messages, dtype=MESSAGE), np.array(self._rows, dtype=np.int64)
            self._wires = Wires(messages, rows, self.links.waited)
        return self._wires

    def of(self, message: int) -> tuple[Exchange, int, int]:
        """The exchange that a message belongs to, its tile among those in flight, and the peer."""
        known = next(e for e in reversed(self.exchanges) if e.first <= message)
        lane, place = divmod(message - known.first, len(known.peers))
        return known, lane, known.peers[place]

    def start(self, message: int, columns: int) -> None:
        """Hand to the transport what stands in the rings of this message's exchange."""
        key = (*self._named(message), columns)
        self._under_way.add(key)
        self._channel(*key).start()

    def finish(self, message: int, columns: int) -> None:
        """Wait until the transport has carried all of it."""
        first, lane = self._named(message)
        self._under_way.discard((first, lane, columns))
        began = time.monotonic_ns()
        self._channel(first, lane, columns).finish()
        self.links.waited[0] += time.monotonic_ns() - began
        known, *_ = self.of(first)
        for place, peer in enumerate(known.peers):
            if peer not in self.links.segments:
                rows = len(known.come.get(peer, ()))
                rings = self._private[first + lane * len(known.peers) + place]
                rings.carried(rows * known.parts * columns * self._bytes)

    def end(self) -> None:
        """Finish what only leaves this rank, which nothing here has waited for."""
        for first, lane, columns in sorted(self._under_way):
            self.finish(first + lane * len(self.of(first)[0].peers), columns)

    def _named(self, message: int) -> tuple[int, int]:
        known, lane, _ = self.of(message)
        return known.first, lane

    def _numbered(self, route: Route, parts: int, out: RowsByPeer, come: RowsByPeer) -> Numbered | None:
        key = route, parts
        if key not in self._made:
            peers = sorted(out.keys() | come.keys())
            self._made[key] = self._exchange(route, peers, parts, out, come) if peers else None
        return self._made[key]

    def _exchange(self, route: Route, peers: list[int], parts: int, out: RowsByPeer, come: RowsByPeer) -> Numbered:
        network = any(peer not in self.links.segments for peer in peers)
        made = Exchange(len(self._messages), len(peers), peers, route, parts, out, come, network)
        places = {peer: (*self._named_rows(out.get(peer)), *self._named_rows(come.get(peer))) for peer in peers}
        for _ in range(self.lanes):
            for peer in peers:
                rings = self._rings(peer, *(len(rows.get(peer, ())) * parts for rows in (out, come)))
                self._messages.append((*rings, *places[peer], int(peer not in self.links.segments)))
        self.exchanges.append(made)
        self._wires = None
        return Numbered(made.first, made.number)

    def _named_rows(self, rows: np.ndarray | None) -> tuple[int, int]:
        first = len(self._rows)
        self._rows += [] if rows is None else rows.tolist()
        return first, len(self._rows)

    def _rings(self, peer: int, out: int, come: int) -> tuple[object, object]:
        row = self._columns * self._bytes
        segment = self.links.segments.get(peer)
        if segment is not None:
            slots = SLOTS_A_TILE * self.lanes
            return segment.sender(out * row, slots)[()], segment.receiver(come * row, slots)[()]
        rings = self._private[len(self._messages)] = PrivateRings(out * row, come * row)
        return rings.outgoing, rings.incoming

    def _make_channel(self, first: int, lane: int, columns: int) -> Channel:
        known, *_ = self.of(first)
        rings = {
            peer: self._private[first + lane * len(known.peers) + place]
            for place, peer in enumerate(known.peers)
            if peer not in self.links.segments
        }
        row = known.parts * columns * self._bytes
        sends = {peer: ring.leaving(len(known.out[peer]), row) for peer, ring in rings.items() if peer in known.out}
        come = {peer: ring.arriving(len(known.come[peer]), row) for peer, ring in rings.items() if peer in known.come}
        return self.links.world.channel(known.route, sends, come)


class PrivateRings:
    """A ring of one slot each way in memory of this process, for an edge that the network carries."""

    def __init__(self, out: int, come: int) -> None:
        self._out, self._come = (np.zeros(SLOTS_AT + MESSAGE_AT + size, dtype=np.uint8) for size in (out, come))
        self.outgoing, self.incoming = (
            (memory.ctypes.data, len(memory) - SLOTS_AT, 1) for memory in (self._out, self._come)
        )

    def leaving(self, rows: int, row_bytes: int) -> Tensor:
        """(rows, row_bytes) of the message that is to be sent."""
        return _message(self._out, rows, row_bytes)

    def arriving(self, rows: int, row_bytes: int) -> Tensor:
        """(rows, row_bytes) of the one that is to come."""
        return _message(self._come, rows, row_bytes)

    def carried(self, size: int) -> None:
        """The transport has sent the one, and received the other, of ``size`` bytes, if there is one."""
        out, come = (memory[: SLOTS_AT + MESSAGE_AT].view(np.int64) for memory in (self._out, self._come))
        out[TAKEN // 8] = out[0]
        if size:
            come[NUMBER_AT // 8], come[SIZE_AT // 8] = come[TAKEN // 8] + 1, size


def _message(memory: np.ndarray, rows: int, row_bytes: int) -> Tensor:
    start = SLOTS_AT + MESSAGE_AT
    return torch.from_numpy(memory[start : start + rows * row_bytes].reshape(rows, row_bytes))


def _sent(halo: Halo) -> RowsByPeer:
    return {peer: halo.send_rows[place] for peer, place in halo.send_slices.items()}


def _halo(halo: Halo) -> RowsByPeer:
    return {peer: np.arange(rows.start, rows.stop) for peer, rows in halo.halo_slices.items()}
