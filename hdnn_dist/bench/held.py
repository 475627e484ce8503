"""A network that is slower than the one at hand: what it carries arrives a while later, and takes no time of a core."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World

HELD = 1e-3  # seconds


class HeldChannel(Channel):
    """What another one carries, held."""

    def __init__(self, carrier: Channel) -> None:
        super().__init__(carrier.route, carrier.sends, carrier.receives)
        self._carrier, self._due = carrier, 0.0

    def start(self) -> None:
        """As ``Channel``."""
        self._due = time.perf_counter() + HELD
        self._carrier.start()

    def finish(self) -> None:
        """As ``Channel``, not before its time."""
        self._carrier.finish()
        time.sleep(max(self._due - time.perf_counter(), 0.0))


def hold(world: World) -> World:
    """The same world, whose channels are held."""
    carry = world.channel

    def channel(route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        return HeldChannel(carry(route, sends, receives))

    world.channel = channel  # type: ignore[method-assign]
    return world
