"""An exchange over links of both kinds: through shared memory where there is some, beside it over the network."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.links import Links, Patience
from hdnn_dist.exchange.shared_memory.rings import PARCEL, receive_parcels, send_parcels
from hdnn_dist.exchange.shared_memory.segment import Segment
from hdnn_dist.exchange.world import Channel

SLOTS = 4


class SharedChannel(Channel):
    """As ``Channel``, from and into memory of this process; what the network carries is under way meanwhile."""

    def __init__(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor], links: Links) -> None:
        super().__init__(route, sends, receives)
        self._links = links
        here, apart = zip(*(_split(parts, links) for parts in (self.sends, self.receives)), strict=True)
        self._network = links.world.channel(route, *apart) if any(apart) else None
        self._leaving = _parcels(here[0], links, Segment.sender)
        self._arriving = _parcels(here[1], links, Segment.receiver)
        self._peers = [list(parts) for parts in here]

    def start(self) -> None:
        """As ``Channel``."""
        if self._network is not None:
            self._network.start()
        self._leaving["done"] = 0
        patience = Patience(self._links, lambda peer, cause: self._failure(peer, "send to", cause))
        while (late := send_parcels(self._leaving, self._links.waited)) >= 0:
            patience.look(self._peers[0][late])

    def finish(self) -> None:
        """As ``Channel``."""
        self._arriving["done"] = 0
        patience = Patience(self._links, lambda peer, cause: self._failure(peer, "receive from", cause))
        while (found := receive_parcels(self._arriving, self._links.waited))[0] >= 0:
            late, size = found
            if size >= 0:
                expected = int(self._arriving[late]["bytes"])
                raise self._failure(
                    self._peers[1][late], "receive from", f"its message has {size} bytes, and not {expected}"
                )
            patience.look(self._peers[1][late])
        if self._network is not None:
            began = time.monotonic_ns()
            self._network.finish()
            self._links.waited[0] += time.monotonic_ns() - began

    def exchange(self, row_bytes: int) -> None:
        """As ``Channel``: what is waited for is counted as it is waited for."""
        self.count(row_bytes)
        if self.sends or self.receives:
            self.start()
            self.finish()


def _split(parts: Mapping[int, Tensor], links: Links) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Those for peers that memory is shared with, and the others."""
    here = {peer: part for peer, part in parts.items() if peer in links.segments}
    return here, {peer: part for peer, part in parts.items() if peer not in here}


def _parcels(parts: Mapping[int, Tensor], links: Links, ring: object) -> np.ndarray:
    parcels = np.zeros(len(parts), dtype=PARCEL)
    for parcel, (peer, part) in zip(parcels, parts.items(), strict=True):
        size = part.numel() * part.element_size()
        parcel["ring"] = ring(links.segments[peer], size, SLOTS)  # type: ignore[operator]
        parcel["data"], parcel["bytes"] = part.data_ptr(), size
    return parcels
