"""Block-sparse products in plain torch operations, for the portable pass: the reference of the compiled ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.weights.blocks import BlockLayout, Group


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

    def apply(self, K: Sequence[Tensor], x: Tensor) -> Tensor:
        """z = K x, (rows, width), from x (buffer rows, width).

        The result is valid until the next call; so are the blocks that were read, for ``accumulate``.
        """
        for part, K_g in zip(self._parts, K, strict=True):
            torch.index_select(x, 0, part.slots, out=part.read)
            torch.bmm(K_g, part.x_hat, out=part.z)
        return self.z

    def adjoint(self, K: Sequence[Tensor], y: Tensor, f: Tensor) -> None:
        """f = K^T y, (buffer rows, returned), from y (rows, returned).

        Every buffer row is the sum of what its readers return, in a fixed order.
        """
        for part, K_g in zip(self._parts, K, strict=True):
            torch.bmm(K_g.mT, part.rows_of(y), out=part.returned)
        layout = self.layout
        f.copy_(F.embedding_bag(layout.bag_order, self._returned, layout.bag_starts, mode="sum"))

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
