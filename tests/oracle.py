"""The whole network as dense matrices in one process with plain autograd, written from the formulas alone.

States are (batch, n) in the order of the formulas: all agents' first halves, then all second halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Function] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "softplus": lambda z: F.softplus(z, threshold=40),
    "sigmoid": torch.sigmoid,
    "identity": lambda z: z,
}


def h1(y: Tensor, K: Tensor, b: Tensor, J: Tensor, h: float, s: Function) -> Tensor:
    """y+ = y + h J K^T s(K y + b); J is one for all layers or one for each."""
    J = J.expand(len(K), -1, -1)
    for K_j, b_j, J_j in zip(K, b, J, strict=True):
        y = y + h * s(y @ K_j.T + b_j) @ K_j @ J_j.T
    return y


def h2(y: Tensor, K: Tensor, b: Tensor, J: Tensor, h: float, s: Function, euler: bool) -> Tensor:
    """p+ = p - h X^T Kq^T s(Kq q + bq); q+ = q + h X Kp^T s(Kp p+ + bp), K = blkdiag(Kp, Kq), J = [0 -X^T; X 0]."""
    m = y.shape[1] // 2
    p, q = y[:, :m], y[:, m:]
    for K_j, b_j, J_j in zip(K, b, J.expand(len(K), -1, -1), strict=True):
        Kp, Kq, X = K_j[:m, :m], K_j[m:, m:], J_j[m:, :m]
        before = p
        p = p - h * s(q @ Kq.T + b_j[m:]) @ Kq @ X
        used = before if euler else p
        q = q + h * s(used @ Kp.T + b_j[:m]) @ Kp @ X.T
    return torch.cat([p, q], 1)


def ms1(x: Tensor, K: Tensor, b: Tensor, h: float, s: Function, euler: bool) -> Tensor:
    """z+ = z + h s(K0 y + bz); y+ = y + h s(-K0^T z+ + by), K = [0 -K0^T; K0 0] and b = (by, bz)."""
    m = x.shape[1] // 2
    y, z = x[:, :m], x[:, m:]
    for K_j, b_j in zip(K, b, strict=True):
        K0, before = K_j[m:, :m], z
        z = z + h * s(y @ K0.T + b_j[m:])
        y = y + h * s(-(before if euler else z) @ K0 + b_j[:m])
    return torch.cat([y, z], 1)


def ms2(y: Tensor, K: Tensor, b: Tensor, h: float, s: Function) -> Tensor:
    """y+ = y + h s(K y + b), K = -K^T."""
    for K_j, b_j in zip(K, b, strict=True):
        y = y + h * s(y @ K_j.T + b_j)
    return y


def ms3(x: Tensor, K: Tensor, b: Tensor, h: float, s: Function, euler: bool) -> Tensor:
    """z+ = z - h K1^T s(K1 y + b2); y+ = y + h K2^T s(K2 z+ + b1), K = [0 K2; K1 0] and b = (b1, b2)."""
    m = x.shape[1] // 2
    y, z = x[:, :m], x[:, m:]
    for K_j, b_j in zip(K, b, strict=True):
        K1, K2, before = K_j[m:, :m], K_j[:m, m:], z
        z = z - h * s(y @ K1.T + b_j[m:]) @ K1
        y = y + h * s((before if euler else z) @ K2.T + b_j[:m]) @ K2
    return torch.cat([y, z], 1)


def mlp(y: Tensor, K: Tensor, b: Tensor, s: Function) -> Tensor:
    """y+ = s(K y + b)."""
    for K_j, b_j in zip(K, b, strict=True):
        y = s(y @ K_j.T + b_j)
    return y


def propagate(
    architecture: str, y: Tensor, K: Tensor, b: Tensor, J: Tensor, h: float, s: Function, euler: bool = False
) -> Tensor:
    """The state after all layers."""
    if architecture == "H2":
        return h2(y, K, b, J, h, s, euler)
    if architecture == "MS1":
        return ms1(y, K, b, h, s, euler)
    if architecture == "MS2":
        return ms2(y, K, b, h, s)
    if architecture == "MS3":
        return ms3(y, K, b, h, s, euler)
    return mlp(y, K, b, s) if architecture == "MLP" else h1(y, K, b, J, h, s)


def halved(architecture: str) -> bool:
    """Whether the dense order puts all first halves before all second halves."""
    return architecture in ("H2", "H1-J1", "MS1", "MS3")


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


def coupling(architecture: str, features: Sequence[int], joined: Tensor, like: Tensor) -> Tensor:
    """The default J in the dense order; ``joined`` (n, n): where the graph lets it be non-zero."""
    n = sum(features)
    if architecture == "H1-J2":
        return torch.triu(torch.ones(n, n), 1).sub(torch.tril(torch.ones(n, n), -1)).to(like.dtype) * joined
    if architecture not in ("H2", "H1-J1"):
        return like.new_zeros(n, n)
    identity, zero = torch.eye(n // 2, dtype=like.dtype), torch.zeros(n // 2, n // 2, dtype=like.dtype)
    return torch.cat([torch.cat([zero, -identity], 1), torch.cat([identity, zero], 1)], 0)
