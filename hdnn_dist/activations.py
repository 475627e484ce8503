"""Activations s and their derivatives, in place on preallocated buffers.

An activation turns z into s(z) in place; its derivative is computed from s alone where that is possible,
so that z need not be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """``apply_(z)``: z becomes s(z). ``times_slope_(r, s)``: r becomes s'(z) r, given s = s(z)."""

    name: str
    apply_: Callable[[Tensor], Tensor]
    times_slope_: Callable[[Tensor, Tensor], Tensor]


def _tanh_slope(r: Tensor, s: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward.grad_input(r, s, grad_input=r)  # r (1 - s^2), no temporary


TANH = Activation("tanh", torch.tanh_, _tanh_slope)
