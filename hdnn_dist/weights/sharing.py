"""From the weights that all agents share to those of the agents here, in all layers of a network, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hdnn_dist.weights.layers import Layers, Run
from hdnn_dist.weights.roles import RoleTable


class Sharing:
    """A linear map and its adjoint; no message. ``tables``: one for each layout of the stack."""

    def __init__(self, stack: Layers, tables: Sequence[RoleTable]) -> None:
        self.stack, self.tables = stack, list(tables)

    def expand(self, roles: Tensor) -> Tensor:
        """(layers, operators, entries) -> weights of the shape of the stack, a copy for every agent."""
        if self.stack.alike:
            return self.tables[0].expand(roles)
        flat = roles.new_empty(self.stack.shape)
        for run, table in self._runs(flat):
            run.weights.copy_(table.expand(roles[run.layers.start : run.layers.stop]))
        return flat

    def collect(self, flat: Tensor) -> Tensor:
        """The adjoint: from weights to (layers, operators, entries), summed over the agents here."""
        return torch.cat([table.collect(run.weights) for run, table in self._runs(flat)])

    def counts(self, like: Tensor) -> Tensor:
        """(layers, operators, entries), the shape of ``like``: what the agents here multiply each with in ``collect``
        of ``expand``.
        """
        each = [table.counts() for table in self.tables]
        return torch.stack([each[number] for number in self.stack.which]).unsqueeze(1).expand_as(like)

    def _runs(self, flat: Tensor) -> Iterator[tuple[Run, RoleTable]]:
        for run in self.stack.runs(flat):
            yield run, self.tables[self.stack.which[run.layers.start]]
