"""Weights that all agents share: one block for each role, the same on every rank, whose gradients are summed on a tree.

They do not know of any graph: trained on one, they run on another. What a network works with are the weights that they
give to its agents, by a node of autograd of its own before the pass, whose backward adds up the agents here, and all
ranks along the tree: one message up and one down each of its edges. All ranks then hold the same gradient, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.identity import packed, refuse_other_weights, unpacked
from hdnn_dist.model.trained import SharedParameter, Trained
from hdnn_dist.weights.layers import Layers
from hdnn_dist.weights.roles import RoleTable

TIED = 1e-6  # how far blocks of one role may be apart that are taken for the same


class SharedWeights(nn.Module):
    """One K of every layer and operator by roles, and its biases; made by ``HDNN(..., shared=True)``.

    ``roles`` (layers, operators, entries), the parameter: the blocks (rows, rows) of ``names``, "own" first, one after
    another, then the biases (biases, rows). ``facts``: what they depend on to mean the same, as short texts.
    ``edge_labels``, ``normalisation``: as of ``HDNN``.
    """

    def __init__(
        self,
        values: Tensor,
        names: Sequence[str],
        rows: int,
        facts: dict[str, str],
        edge_labels: Any,
        normalisation: str,
    ) -> None:
        super().__init__()
        self.names, self.rows, self.facts = tuple(names), rows, facts
        self.edge_labels, self.normalisation = edge_labels, normalisation
        self.roles = SharedParameter(values)

    def block(self, name: str, values: Tensor) -> Tensor:
        """View (layers, operators, rows, rows) of the block of a role in what lies like ``roles``."""
        start = self.names.index(name) * self.rows**2
        return values[..., start : start + self.rows**2].unflatten(-1, (self.rows, self.rows))

    def blocks(self, values: Tensor) -> Tensor:
        """View (layers, operators, entries of all blocks) of what lies like ``roles``, without the biases."""
        return values[..., : len(self.names) * self.rows**2]

    def biases(self, values: Tensor) -> Tensor:
        """View (layers, operators, biases, rows) of what lies like ``roles``."""
        return values[..., len(self.names) * self.rows**2 :].unflatten(-1, (-1, self.rows))

    def trained(self) -> Iterator[Trained]:
        """As ``TrainedModule.trained``: each number once, on every rank."""
        layers = range(len(self.roles))
        for name in self.names:
            yield Trained(f"shared.{name}.K", 0, self.roles, partial(self.block, name), layers, shared=True)
        yield Trained("shared.b", 0, self.roles, self.biases, layers, shared=True)

    def trained_names(self) -> Iterator[str]:
        """As ``TrainedModule.trained_names``."""
        yield from (f"shared.{name}.K" for name in self.names)
        yield "shared.b"

    def require(self, facts: dict[str, str]) -> None:
        """``ValueError`` unless the network that asks for these weights has the ``facts`` that they depend on."""
        refuse_other_weights("shared", self.facts, facts)

    def get_extra_state(self) -> Tensor:
        """(bytes,) for ``state_dict``: ``facts``."""
        return packed(self.facts)

    def set_extra_state(self, state: Tensor) -> None:
        """``ValueError`` for the state of weights that mean something else; (bytes,) as ``get_extra_state``."""
        refuse_other_weights("this state", unpacked(state), self.facts)

    def extra_repr(self) -> str:
        return f"{', '.join(self.names)}, {self.rows} rows each, {self.normalisation}"


class Expansion:
    """From shared weights to those of the agents here, in the layers of one network."""

    def __init__(self, stack: Layers, tables: Sequence[RoleTable], tree: Callable[[], SumTree]) -> None:
        self._stack, self._tables, self._tree = stack, list(tables), tree

    def __call__(self, roles: Tensor) -> Tensor:
        """(layers, operators, entries) -> weights of the shape of the stack. Differentiable, also across ranks."""
        flat: Tensor = _Expand.apply(roles, self)
        return flat

    def expand(self, roles: Tensor) -> Tensor:
        """As a call, (layers, operators, entries) -> the shape of the stack, without autograd."""
        if self._stack.alike:
            return self._tables[0].expand(roles)
        flat = roles.new_empty(self._stack.shape)
        for run, table in self._runs(flat):
            run.weights.copy_(table.expand(roles[run.layers.start : run.layers.stop]))
        return flat

    def collect(self, flat: Tensor) -> Tensor:
        """The adjoint: from weights to (layers, operators, entries), summed over the agents of all ranks."""
        return self._tree().sum(torch.cat([table.collect(run.weights) for run, table in self._runs(flat)]))

    def tie(self, flat: Tensor, roles: Tensor) -> None:
        """Set roles (layers, operators, entries) to what gives weights of the shape of the stack; those that no agent
        has stay. ``ValueError`` on every rank, which all have to call it, where blocks of one role differ.
        """
        counts = [table.counts() for table in self._tables]
        total = self._tree().sum(torch.stack(counts)) if counts else roles
        each = torch.stack([total[number] for number in self._stack.which]).unsqueeze(1).expand_as(roles)
        tied = torch.where(each > 0, self.collect(flat) / each, roles)
        with agreed(self._tree()):
            _refuse_untied(self.expand(tied), flat)
        roles.copy_(tied)

    def _runs(self, flat: Tensor) -> Iterator[tuple[Any, RoleTable]]:
        for run in self._stack.runs(flat):
            yield run, self._tables[self._stack.which[run.layers.start]]


def _refuse_untied(own: Tensor, given: Tensor) -> None:
    worst = float((own - given).abs().max())
    if not worst <= TIED * max(1.0, float(given.abs().max())):
        raise ValueError(
            f"blocks of K, or biases, of one role differ by {worst:.3g} between agents, but this network shares them: "
            "give all agents the same, or use a network without shared=True"
        )


class _Expand(torch.autograd.Function):
    """Every rank goes through both passes, since the one pass through the network behind it is on every rank."""

    @staticmethod
    def forward(ctx: Any, roles: Tensor, expansion: Expansion) -> Tensor:
        ctx.expansion = expansion
        return expansion.expand(roles)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.expansion.collect(grad), None
