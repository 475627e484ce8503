"""Recipe: a new kind of trained parameter. One file: the module that has it, and tells whose each number is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hdnn_dist import HDNN
from hdnn_dist.model.trained import BEFORE, Trained, by_columns


class Gains(nn.Module):
    """A factor for every feature before the first layer."""

    def __init__(self, net: HDNN) -> None:
        super().__init__()
        self._agents, self._widths = net.agents, net.features[net.agents.local]
        self.gains = nn.Parameter(torch.ones(net.local_features, dtype=net.weights.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gains

    def trained(self) -> Iterator[Trained]:
        yield from by_columns("gains", self.gains, self._agents.local, self._widths, dim=0, layer=BEFORE)

    def trained_names(self) -> Iterator[str]:
        return (f"agent.{agent}.gains" for agent in range(self._agents.graph.agents))
