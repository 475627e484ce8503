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
from hdnn_dist.weights.sharing import Sharing

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


def summed(roles: Tensor, tree: Callable[[], SumTree]) -> Tensor:
    """The same weights (layers, operators, entries), whose gradient, that of the agents of each rank, is summed over
    ranks; every rank has to call it and go through its backward pass.
    """
    same: Tensor = _Summed.apply(roles, tree)
    return same


def tie(sharing: Sharing, tree: SumTree, flat: Tensor, roles: Tensor) -> None:
    """Set roles (layers, operators, entries) to what gives weights of the shape of the stack; those that no agent
    has stay. ``ValueError`` on every rank, which all have to call it, where blocks of one role differ.
    """
    each = tree.sum(sharing.counts(roles).contiguous())
    tied = torch.where(each > 0, tree.sum(sharing.collect(flat)) / each, roles)
    with agreed(tree):
        _refuse_untied(sharing.expand(tied), flat)
    roles.copy_(tied)


def _refuse_untied(own: Tensor, given: Tensor) -> None:
    worst = float((own - given).abs().max())
    if not worst <= TIED * max(1.0, float(given.abs().max())):
        raise ValueError(
            f"blocks of K, or biases, of one role differ by {worst:.3g} between agents, but this network shares them: "
            "give all agents the same, or use a network without shared=True"
        )


class _Summed(torch.autograd.Function):
    """Every rank goes through both passes, since the one pass through the network behind it is on every rank."""

    @staticmethod
    def forward(ctx: Any, roles: Tensor, tree: Callable[[], SumTree]) -> Tensor:
        ctx.tree = tree
        return roles.view_as(roles)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.tree().sum(grad), None
