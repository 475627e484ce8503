"""All agents in one process: there is nobody to send to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hdnn_dist.exchange.ledger import Route
from hdnn_dist.exchange.world import Channel, World, device_named


class LocalChannel(Channel):
    """Counts the messages of agents that share this process; carries nothing."""

    def start(self) -> None:
        raise AssertionError("a world of one rank has no peers")

    finish = start


class LocalWorld(World):
    """This process alone."""

    transport = "local"
    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> LocalChannel:
        """As ``World.channel``."""
        return LocalChannel(route, sends, receives)


def join(device: str | torch.device | None, timeout: float) -> LocalWorld:
    """As ``connect`` says; nothing is waited for."""
    return LocalWorld(device_named("cpu" if device is None else device))
