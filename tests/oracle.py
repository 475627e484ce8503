"""The whole network as dense matrices in one process with plain autograd, written from the formulas alone.

States are (batch, n) in the order of the formulas: all agents' first halves, then all second halves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def canonical(n: int, like: Tensor) -> Tensor:
    """J1 = [0 -I; I 0]."""
    identity, zero = torch.eye(n // 2, dtype=like.dtype), torch.zeros(n // 2, n // 2, dtype=like.dtype)
    return torch.cat([torch.cat([zero, -identity], 1), torch.cat([identity, zero], 1)], 0)


def h1(y: Tensor, K: Tensor, b: Tensor, J: Tensor, h: float) -> Tensor:
    """y+ = y + h J K^T s(K y + b), forward Euler."""
    for K_j, b_j in zip(K, b, strict=True):
        y = y + h * torch.tanh(y @ K_j.T + b_j) @ K_j @ J.T
    return y


def h2(y: Tensor, K: Tensor, b: Tensor, h: float) -> Tensor:
    """p+ = p - h Kq^T s(Kq q + bq); q+ = q + h Kp^T s(Kp p+ + bp), with K = blkdiag(Kp, Kq), X = I."""
    m = y.shape[1] // 2
    p, q = y[:, :m], y[:, m:]
    for K_j, b_j in zip(K, b, strict=True):
        Kp, Kq = K_j[:m, :m], K_j[m:, m:]
        p = p - h * torch.tanh(q @ Kq.T + b_j[m:]) @ Kq
        q = q + h * torch.tanh(p @ Kp.T + b_j[:m]) @ Kp
    return torch.cat([p, q], 1)


def propagate(architecture: str, y: Tensor, K: Tensor, b: Tensor, h: float) -> Tensor:
    """The state after all layers."""
    if architecture == "H2":
        return h2(y, K, b, h)
    return h1(y, K, b, canonical(y.shape[1], y), h)


def dense_order(features: Sequence[int], halves: bool = True) -> Tensor:
    """Row of the state, agent after agent, at each place of the dense order."""
    if not halves:
        return torch.arange(sum(features))
    first, second, start = [], [], 0
    for count in features:
        first += range(start, start + count // 2)
        second += range(start + count // 2, start + count)
        start += count
    return torch.tensor(first + second)
