"""Block-sparse products in plain torch operations, for the portable pass: the reference of the compiled ones.

An exchange is a part of a product: blocks that need no other rank are multiplied while the others' halo travels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.weights.blocks import Bags, BlockLayout, Group


class BlockProduct:
    """K x, K^T y and the gradient of K for one layout, in memory that is allocated once.

    ``width``: columns that are read, ``returned``: columns that K^T is applied to. Rows of z and y are in the order of
    the groups, those of x and f are buffer rows. ``K``, and its gradient: per group (A, rows, columns).
    """

    def __init__(self, layout: BlockLayout, width: int, returned: int, dtype: torch.dtype) -> None:
        self.layout = layout
        empty = torch.empty((), dtype=dtype, device=layout.device)
        self.z = empty.new_empty(layout.halo.rows, width)
        read = empty.new_empty(layout.slots, width)
        self._returned = empty.new_empty(layout.slots, returned)
        self._parts = [_Part(group, read, self.z, self._returned) for group in layout.groups]
        self._inner, self._outer = slice(layout.inner), slice(layout.inner, None)

    def apply(self, K: Sequence[Tensor], x: HaloBuffer) -> Tensor:
        """z = K x, (rows, width), from the local rows of x, of ``width`` columns, which is gathered.

        The result is valid until the next call; so are the blocks that were read, for ``accumulate``.
        """
        x.begin_gather()
        self._read(K, x.data, self._inner)
        x.end_gather()
        self._read(K, x.data, self._outer)
        return self.z

    def begin_adjoint(self, K: Sequence[Tensor], y: Tensor, f: HaloBuffer) -> None:
        """f = K^T y, of ``returned`` columns, from y (rows, returned); what belongs to others is on its way.

        Every buffer row is the sum of what its readers return, in a fixed order; ``f.end_scatter_add()`` adds what
        comes from other ranks.
        """
        self._return(K, y, self._outer)
        if len(f.halo):
            f.halo.copy_(self._sums(self.layout.of_others))
        f.begin_scatter_add()
        self._return(K, y, self._inner)
        f.local.copy_(self._sums(self.layout.own))

    def _read(self, K: Sequence[Tensor], x: Tensor, groups: slice) -> None:
        for part, K_g in zip(self._parts[groups], K[groups], strict=True):
            torch.index_select(x, 0, part.slots, out=part.read)
            torch.bmm(K_g, part.x_hat, out=part.z)

    def _return(self, K: Sequence[Tensor], y: Tensor, groups: slice) -> None:
        for part, K_g in zip(self._parts[groups], K[groups], strict=True):
            torch.bmm(K_g.mT, part.rows_of(y), out=part.returned)

    def _sums(self, bags: Bags) -> Tensor:
        return F.embedding_bag(bags.order, self._returned, bags.starts, mode="sum")

    def accumulate(self, grad_K: Sequence[Tensor], y: Tensor, columns: slice, scale: float = 1.0) -> None:
        """grad_K += scale y x_hat^T, per group (A, rows, columns), with the blocks that ``apply`` read last.

        ``columns``: those of x_hat that are taken, as many as y has.
        """
        for part, grad in zip(self._parts, grad_K, strict=True):
            grad.baddbmm_(part.rows_of(y), part.x_hat[..., columns].mT, alpha=scale)


class _Part:
    """The views of that memory that belong to one group, made once."""

    def __init__(self, group: Group, read: Tensor, z: Tensor, returned: Tensor) -> None:
        agents = len(group.agents)
        self.slots = group.slots
        self.read = read[group.span]
        self.x_hat = self.read.view(agents, group.columns, -1)
        self.z = z[group.place].view(agents, group.rows, -1)
        self.returned = returned[group.span].view(agents, group.columns, -1)
        self._place, self._shape = group.place, (agents, group.rows, -1)

    def rows_of(self, y: Tensor) -> Tensor:
        """(A, rows, width) view of this group's rows; y may be some of the columns of a wider one."""
        return y[self._place].view(self._shape)
