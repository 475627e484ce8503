"""The dense masked baseline: H2 as one process would compute it, with plain autograd.

A half-step is ``K = W * mask; dst = dst + a * s(F.linear(src, K, b)) @ K``, with X = I and s = tanh. It reads and
writes states in the dense order: all agents' first halves, then all second halves.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdnn_dist.bench.cases import Case
from hdnn_dist.model.network import HDNN

LARGEST_BYTES = 512 * 2**20
HALF_STEPS = 2


class DenseBaseline(nn.Module):
    """The same function as an H2 network, with all its zeros.

    ``K``: (layers, n, n) and ``b``: (layers, n), of ``HDNN.dense``; ``mask``: (n/2, n/2) of 0 and 1; ``step``: h.
    """

    mask: Tensor

    def __init__(self, K: Tensor, b: Tensor, mask: Tensor, step: float) -> None:
        super().__init__()
        m = len(mask)
        self.step = step
        self.register_buffer("mask", mask)
        self.Wp = nn.ParameterList(K_j[:m, :m].clone() for K_j in K)
        self.Wq = nn.ParameterList(K_j[m:, m:].clone() for K_j in K)
        self.bp = nn.ParameterList(b_j[:m].clone() for b_j in b)
        self.bq = nn.ParameterList(b_j[m:].clone() for b_j in b)
        self._layers = [*zip(self.Wp, self.Wq, self.bp, self.bq, strict=True)]  # lists of parameters are slow to walk

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n) -> (batch, n), after the last layer."""
        p, q = x.chunk(2, 1)
        for Wp, Wq, bp, bq in self._layers:
            p = self._half_step(p, -self.step, q, Wq, bq)
            q = self._half_step(q, self.step, p, Wp, bp)
        return torch.cat([p, q], 1)

    def _half_step(self, dst: Tensor, a: float, src: Tensor, W: Tensor, b: Tensor) -> Tensor:
        K = W * self.mask
        return dst + a * torch.tanh(F.linear(src, K, b)) @ K


def dense_baseline(net: HDNN) -> DenseBaseline:
    """The baseline with the weights of an H2 network whose agents are all here and have equal features."""
    with torch.no_grad():
        K, b = net.fill_dense(net.weights)
    return DenseBaseline(K, b, block_mask(net).to(K.dtype), net.step)


def block_mask(net: HDNN) -> Tensor:
    """(n/2, n/2): ones in the blocks of T."""
    pattern, half = net.pattern, int(net.features[0]) // 2
    mask = np.zeros((pattern.agents, pattern.agents))
    mask[pattern.rows, pattern.columns] = 1.0
    return torch.as_tensor(mask).repeat_interleave(half, 0).repeat_interleave(half, 1)


def dense_bytes(case: Case) -> int:
    """Bytes of the baseline's weights in float32."""
    return HALF_STEPS * case.layers * (case.agents * case.features // 2) ** 2 * 4
