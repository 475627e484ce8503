"""Block-sparse products in plain torch operations: the portable form, and the check of the fused ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.blocks import BlockLayout, Group


class BlockProduct:
    """K x, K^T y and the gradient of K for one layout, on buffers that are allocated once.

    ``width``: columns that are read, ``returned``: columns that K^T is applied to. Rows of z and y are in the order of
    the groups, those of x and f are field rows.
    """

    def __init__(self, layout: BlockLayout, width: int, returned: int, dtype: torch.dtype) -> None:
        self.layout = layout
        empty = torch.empty((), dtype=dtype, device=layout.device)
        self.z = empty.new_empty(layout.halo.rows, width)
        self._read = empty.new_empty(layout.slots, width)
        self._returned = empty.new_empty(layout.slots, returned)
        self._x_hat = [_blocks(self._read[group.span], group, group.columns) for group in layout.groups]

    def apply(self, K: Sequence[Tensor], x: Tensor) -> Tensor:
        """z = K x from field rows x (field rows, width); ``K``: per group (A, rows, columns).

        The result is a buffer, valid until the next call; so are the blocks that were read, for ``accumulate``.
        """
        for group, K_g, x_hat in zip(self.layout.groups, K, self._x_hat, strict=True):
            torch.index_select(x, 0, group.slots, out=self._read[group.span])
            torch.bmm(K_g, x_hat, out=_blocks(self.z[group.place], group, group.rows))
        return self.z

    def adjoint(self, K: Sequence[Tensor], y: Tensor, f: Tensor) -> None:
        """f = K^T y: every field row is the sum of what its readers return, in a fixed order."""
        layout = self.layout
        for group, K_g in zip(layout.groups, K, strict=True):
            out = _blocks(self._returned[group.span], group, group.columns)
            torch.bmm(K_g.mT, _blocks(y[group.place], group, group.rows), out=out)
        f.copy_(F.embedding_bag(layout.bag_order, self._returned, layout.bag_starts, mode="sum"))

    def accumulate(self, grad_K: Sequence[Tensor], y: Tensor, columns: slice, scale: float = 1.0) -> None:
        """grad_K += scale y x_hat^T with the blocks that ``apply`` read last, of these columns."""
        for group, grad, x_hat in zip(self.layout.groups, grad_K, self._x_hat, strict=True):
            grad.baddbmm_(_blocks(y[group.place], group, group.rows), x_hat[..., columns].mT, alpha=scale)


def _blocks(rows: Tensor, group: Group, height: int) -> Tensor:
    """(A, height, width) view of rows that hold agent after agent."""
    return rows.unflatten(0, (len(group.agents), height))
