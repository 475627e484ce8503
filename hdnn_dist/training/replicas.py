"""What a replica takes of every batch, and how what it has found comes together with the others."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hdnn_dist.exchange.common_facts import digest
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.model.averaging import average


class Shares:
    """Of one rank. Of one replica alone, nothing is sent, and a share is the whole batch."""

    def __init__(self, agents: Agents, parameters: Sequence[nn.Parameter]) -> None:
        self._agents, self._world, self._parameters = agents, agents.world, parameters

    def of(self, index: Tensor) -> tuple[Tensor, float]:
        """The part (own,) of a batch (batch,) that this replica takes, and its weight, the share of the samples.

        Of a batch with fewer samples than replicas some take its first, with no weight.
        """
        if self._world.replicas == 1:
            return index, 1.0
        own = index.tensor_split(self._world.replicas)[self._world.replica]
        return (own, len(own) / len(index)) if len(own) else (index[:1], 0.0)

    def add_up(self, loss: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
        """Sum all gradients over the replicas, in place, and these scalars, each of this replica's share.

        Every rank gets the same bits, or ``TransportError``.
        """
        if self._world.replicas == 1:
            return loss, correct
        began = time.monotonic_ns()
        try:
            each = average(self._parameters, self._world, 1.0, [loss, correct])
        except TransportError as error:
            raise TransportError(f"averaging the gradients of {self._named()}: {error}") from error
        self._agents.rank_links.waited[0] += time.monotonic_ns() - began
        loss, correct = each.sum(0).unbind()
        return loss, correct

    def agreed(self, *numbers: float) -> list[float]:
        """These numbers as the first replica has them: what is decided by them is decided alike."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self._world.device)
        return list(self._world.of_replicas(own)[0].tolist())

    def refuse_other_copies(self, tree: SumTree) -> None:
        """``ValueError`` on every rank unless all copies of an agent have the same parameters, bit for bit.

        ``tree``: of all agents.
        """
        if self._world.replicas == 1:
            return
        bits = [digest(parameter.detach().cpu().numpy().tobytes()) for parameter in self._parameters]
        own = torch.tensor([int(digest(bits), 16)], dtype=torch.float64, device=self._world.device)
        each = self._world.of_replicas(own)
        if tree.sum((each != each[0]).any(dim=0).double()).item():
            raise ValueError(
                f"the {self._world.replicas} replicas have different parameters: start all of them from the same seed "
                "and the same weights"
            )

    def _named(self) -> str:
        local, named = self._agents.local.tolist(), self._agents.graph.named
        return named(local[0]) if len(local) == 1 else f"{named(local[0])} to {named(local[-1])}"
