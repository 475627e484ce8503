"""The half-step and its reverse in plain torch operations: the portable form, and the check of the fused ones.

Legend: K block matrix, b bias, x_hat the blocks an agent reads, z = K x_hat + b, s = s(z), f = K^T s;
in reverse u is the gradient that enters a half-step, r = K u_hat, q = s'(z) r, v = K^T q (DESIGN: propagation).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.activations import Activation
from hdnn_dist.blocks import BlockLayout, Group


class TorchKernel:
    """Products of one block layout for one width, on buffers that are allocated once.

    ``width``: columns that are read, ``returned``: columns that are returned. Forward both are the samples times
    positions; in reverse twice that is read, and the second half alone is returned where f is not wanted.
    """

    def __init__(
        self, layout: BlockLayout, activation: Activation, width: int, returned: int, dtype: torch.dtype
    ) -> None:
        self.layout = layout
        self.activation = activation
        empty = torch.empty((), dtype=dtype, device=layout.device)
        self._read = empty.new_empty(layout.slots, width)
        self._returned = empty.new_empty(layout.slots, returned)
        self._groups = [_GroupBuffers(group, self._read, self._returned) for group in layout.groups]

    def forward(self, K: Sequence[Tensor], b: Sequence[Tensor], x: Tensor, f: Tensor) -> None:
        """f = G^T K^T s(K G x + b), where G reads a group's blocks from the rows of x.

        ``K``: per group (A, rows, columns), ``b``: per group (A, rows), ``x``, ``f``: (field rows, width).
        """
        for group, K_g, b_g in zip(self._groups, K, b, strict=True):
            x_hat = group.gather(x)
            s = self.activation.apply_(torch.baddbmm(b_g.unsqueeze(-1), K_g, x_hat, out=group.z))
            torch.bmm(K_g.mT, s, out=group.returned)
        self._sum_slots(f)

    def reverse(
        self,
        K: Sequence[Tensor],
        b: Sequence[Tensor],
        xu: Tensor,
        fv: Tensor,
        grad_K: Sequence[Tensor],
        grad_b: Sequence[Tensor],
    ) -> None:
        """[f, v] = G^T K^T [s, q] from [x, u] side by side; adds q x_hat^T + s u_hat^T to grad_K and sum q to grad_b.

        ``xu``: (field rows, width), x in the first half of the columns, u in the second; ``fv`` likewise, or v alone.
        """
        for group, K_g, b_g, grad_K_g, grad_b_g in zip(self._groups, K, b, grad_K, grad_b, strict=True):
            xu_hat = group.gather(xu)
            samples = xu_hat.shape[-1] // 2
            torch.bmm(K_g, xu_hat, out=group.z)
            s = self.activation.apply_(group.z[..., :samples].add_(b_g.unsqueeze(-1)))
            q = self.activation.times_slope_(group.z[..., samples:], s)
            torch.bmm(K_g.mT, group.z[..., -fv.shape[1] :], out=group.returned)
            grad_K_g.baddbmm_(q, xu_hat[..., :samples].mT).baddbmm_(s, xu_hat[..., samples:].mT)
            grad_b_g.add_(q.sum(-1))
        self._sum_slots(fv)

    def _sum_slots(self, f: Tensor) -> None:
        """Every field row is the sum of the slots that read it, in a fixed order."""
        layout = self.layout
        f.copy_(F.embedding_bag(layout.bag_order, self._returned, layout.bag_starts, mode="sum"))


class _GroupBuffers:
    """What one group reads, computes and returns, as views of shape (A, rows or columns, width)."""

    def __init__(self, group: Group, read: Tensor, returned: Tensor) -> None:
        shape = (len(group.agents), group.columns, -1)
        self._slots = group.slots
        self._read = read[group.span]
        self._x_hat = self._read.view(shape)
        self.returned = returned[group.span].view(shape)
        self.z = read.new_empty(len(group.agents), group.rows, read.shape[1])

    def gather(self, x: Tensor) -> Tensor:
        torch.index_select(x, 0, self._slots, out=self._read)
        return self._x_hat
