"""Recipe: a vector field of another kind, F(x) = s(K x + b) o s(K x + b), a file beside that of its architecture."""

from __future__ import annotations

from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.propagation.architectures import ARCHITECTURES, MS2, Architecture, HalfStep, Operator
from hdnn_dist.propagation.vector_fields import Blocks, Norm, Pointwise


class Squared(Pointwise):
    """Its Jacobian is 2 diag(s s') K: with |s| <= 1, as of tanh, twice as steep as s."""

    @classmethod
    def lipschitz(cls, norm: Norm, slope: float) -> Norm:
        return 2 * super().lipschitz(norm, slope)

    @classmethod
    def norm_within(cls, constant: float, slope: float) -> float:
        return super().norm_within(constant / 2, slope)

    def forward(self, at: Blocks, x: HaloBuffer) -> Tensor:
        return super().forward(at, x).square()

    def reverse(self, at: Blocks, x: HaloBuffer, grad: Blocks, rebuild: bool) -> tuple[Tensor | None, Tensor]:
        s = super().forward(at, x)
        self.entering(x).mul_(2 * s)
        f, v = super().reverse(at, x, grad, rebuild)
        return None if f is None else f.square(), v

    def tangent(self, at: Blocks, x: HaloBuffer) -> tuple[Tensor, Tensor]:
        s, change = super().tangent(at, x)
        return s.square(), 2 * s * change


ARCHITECTURES["squared"] = Architecture(
    "squared", MS2.parts, False, (Operator("K"),), (HalfStep(Squared, "y", "y"),), simultaneous=True
)
