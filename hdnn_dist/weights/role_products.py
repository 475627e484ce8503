"""Products with blocks that agents share, without a copy of them for each agent: K x = sum over roles of W_r (C_r x).

C_r x is a weighted sum over what each agent reads in role r, see ``roles``; W_r then acts on all agents at once, as one
matrix product. Where every agent reads its own block, C_r is the identity and nothing is summed.

Rows of a buffer belong to its exchange alone; what stands in them for an agent lies here as (width, m), so that all
agents are one matrix (agents * width, m), whose rows are samples of agents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.weights.roles import LocalPairs, RoleTable


class _Sums(NamedTuple):
    """Weighted sums of rows: ``order`` and ``weights`` (terms,), and where the terms of each sum begin."""

    order: Tensor
    starts: Tensor
    weights: Tensor

    def of(self, rows: Tensor) -> Tensor:
        """(sums, n) of rows (any, n)."""
        return F.embedding_bag(self.order, rows, self.starts, mode="sum", per_sample_weights=self.weights)


class _Role(NamedTuple):
    """C_r: what the agents here read; C_r^T: what is returned to them, and to the halo."""

    reads: _Sums
    own: _Sums
    of_others: _Sums


class RoleProduct:
    """K x, K^T y and the gradient of the blocks, for one layout.

    ``W``: (roles, m, m). States of the agents here are (agents * width, m).
    """

    def __init__(self, table: RoleTable) -> None:
        self.halo, self.m = table.layout.halo, table.rows
        pairs = table.pairs()
        self.agents, self.present = self.halo.rows // self.m, (self.halo.rows + self.halo.halo_rows) // self.m
        roles = {number: self._role(pairs.of_role(number), table) for number in range(table.roles)}
        self._own = [number for number, role in roles.items() if role is None]
        self._of_others = [(number, role) for number, role in roles.items() if role is not None]

    def buffer(self, width: int, dtype: torch.dtype) -> HaloBuffer:
        """For ``width`` samples of every block that is present here."""
        return self.halo.buffer(width, dtype)

    def local(self, buffer: HaloBuffer) -> Tensor:
        """View (agents * width, m) of what the agents here have in a buffer."""
        return buffer.local.view(-1, self.m)

    def read(self, W: Tensor, x: HaloBuffer) -> tuple[Tensor, list[Tensor]]:
        """(K x, what W acted on by roles), all (agents * width, m), from the agents' own x, which is gathered."""
        x.begin_gather()
        own = self.local(x)
        z, reads = torch.empty_like(own), [own] * len(W)
        self._alone(W, own, z)
        x.end_gather()
        for number, role in self._of_others:
            reads[number] = role.reads.of(x.data.view(self.present, -1)).view_as(z)
            z.addmm_(reads[number], W[number].T)
        return z, reads

    def give_back(self, W: Tensor, y: Tensor, f: HaloBuffer) -> Tensor:
        """K^T y, (agents * width, m), as a view of f, from y of that shape: what others' blocks get is sent to them."""
        parts = [((y @ W[number]).view(self.agents, -1), role) for number, role in self._of_others]
        if len(f.halo):
            f.halo.zero_()
            for part, role in parts:
                f.halo.view(self.present - self.agents, -1).add_(role.of_others.of(part))
        f.begin_scatter_add()
        returned = self.local(f)
        self._alone(W.mT, y, returned)
        for part, role in parts:
            f.local.view(self.agents, -1).add_(role.own.of(part))
        f.end_scatter_add()
        return returned

    @staticmethod
    def accumulate(grad: Tensor, y: Tensor, reads: list[Tensor], scale: float = 1.0) -> None:
        """grad (roles, m, m) += scale y (C_r x)^T, summed over agents and samples; ``reads`` as ``read`` gives them."""
        for into, read in zip(grad, reads, strict=True):
            into.addmm_(y.T, read, alpha=scale)

    def _alone(self, W: Tensor, x: Tensor, out: Tensor) -> None:
        """out = the sum over roles in which agents read themselves alone, (agents * width, m)."""
        if not self._own:
            out.zero_()
        for place, number in enumerate(self._own):
            torch.addmm(out, x, W[number].T, beta=float(place > 0), out=out)

    def _role(self, pairs: LocalPairs, table: RoleTable) -> _Role | None:
        _, readers, blocks, coefficients = pairs
        everyone = np.arange(self.agents)
        if np.array_equal(readers, everyone) and np.array_equal(blocks, everyone) and (coefficients == 1).all():
            return None

        def sums(of: np.ndarray, terms: np.ndarray, first: int, stop: int) -> _Sums:
            chosen = np.flatnonzero((of >= first) & (of < stop))
            order = chosen[np.argsort(of[chosen], kind="stable")]
            starts = np.searchsorted(of[order], np.arange(first, stop))
            made = terms[order], starts, coefficients[order]
            return _Sums(*(torch.as_tensor(part, device=table.layout.device) for part in made))

        made = (
            sums(readers, blocks, 0, self.agents),
            sums(blocks, readers, 0, self.agents),
            sums(blocks, readers, self.agents, self.present),
        )
        return _Role(*(one._replace(weights=one.weights.to(table.dtype)) for one in made))
