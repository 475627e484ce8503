"""The network of a case, its fixed input and output gradient, and one training step of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hdnn_dist.bench.cases import Case
from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.network import HDNN


def build(case: Case, world: World | None = None, **network: Any) -> HDNN:
    """H2 with its agents on the ranks of ``world``, by default all in this process; the time T is 1 at any depth.

    ``network``: arguments of ``HDNN``.
    """
    agents = place(CommunicationGraph.ring(case.agents), world or connect("local"))
    return HDNN(agents, case.features, case.layers, step=1.0 / case.layers, **network)


def fixed_pair(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The input and the gradient of the output, (batch, agents * features) each, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(2, case.batch, case.agents * case.features, generator=generator, dtype=dtype)
    return x, g


def local_pair(case: Case, agents: Agents) -> tuple[Tensor, Tensor]:
    """The columns of ``fixed_pair`` of the agents of this rank, (batch, local features) each."""
    x, g = (tensor.view(case.batch, case.agents, -1)[:, agents.local].flatten(1) for tensor in fixed_pair(case))
    return x, g


def training_step(module: nn.Module, x: Tensor, g: Tensor) -> Callable[[], None]:
    """A function that runs one pass forward and one back, from the gradient ``g`` of the output.

    ``x`` and ``g`` have the same shape, whichever the module takes.
    """
    parameters = list(module.parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        module(x).backward(g)

    return step


def halves_first(x: Tensor, agents: int) -> Tensor:
    """(batch, n), agent after agent, in the dense order: all agents' p, then all q. Equal even features."""
    return x.view(len(x), agents, 2, -1).transpose(1, 2).reshape(x.shape)


def agents_first(y: Tensor, agents: int) -> Tensor:
    """(batch, n): the inverse of ``halves_first``."""
    return y.view(len(y), 2, agents, -1).transpose(1, 2).reshape(y.shape)
