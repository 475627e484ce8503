"""Activations s and their derivatives s', elementwise and in place, on tensors that the vector fields own.

Every built-in derivative follows from s(z) alone, so z need not be kept. All have a bounded derivative, which the
bounds of the analysis rely on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hdnn_dist.support.arguments import named, shown

EXACT = 40  # from there on softplus(z) is z to rounding, in float64 too; torch's own 20 is a few 1e-10 off
LEAKY_SLOPE = 0.01
aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """``apply_(z)``: z, of any shape, becomes s(z). ``both_(z, r)``: z becomes s(z) and r, of its shape, s'(z) r.

    ``slope``: the largest |s'|, which is 1 for all built-in ones.
    """

    name: str
    apply_: Callable[[Tensor], object]
    both_: Callable[[Tensor, Tensor], object]
    slope: float = 1.0

    @property
    def built_in(self) -> bool:
        """Whether it is one of ``ACTIVATIONS``, not only called like one."""
        return ACTIVATIONS.get(self.name) is self

    def __deepcopy__(self, memo: dict[int, Any]) -> Activation:
        return self  # of functions, which a network and its copies share


def _from_value(
    name: str, apply_: Callable[[Tensor], object], times_slope_: Callable[[Tensor, Tensor], object]
) -> Activation:
    """An activation whose slope follows from its value: ``times_slope_(r, s)``."""

    def both_(z: Tensor, r: Tensor) -> None:
        apply_(z)
        times_slope_(r, z)

    return Activation(name, apply_, both_)


ACTIVATIONS = {
    activation.name: activation
    for activation in (
        _from_value("tanh", torch.tanh_, lambda r, s: aten.tanh_backward.grad_input(r, s, grad_input=r)),
        _from_value("relu", torch.relu_, lambda r, s: aten.threshold_backward.grad_input(r, s, 0, grad_input=r)),
        _from_value(
            "leaky_relu",
            lambda z: torch.nn.functional.leaky_relu_(z, LEAKY_SLOPE),
            lambda r, s: aten.leaky_relu_backward.grad_input(r, s, LEAKY_SLOPE, True, grad_input=r),
        ),
        _from_value(
            "softplus",
            lambda z: aten.softplus.out(z, 1, EXACT, out=z),
            lambda r, s: r.mul_(torch.expm1(-s).neg_()),  # sigmoid(z) = 1 - exp(-softplus(z))
        ),
        _from_value("sigmoid", torch.sigmoid_, lambda r, s: aten.sigmoid_backward.grad_input(r, s, grad_input=r)),
        _from_value("identity", lambda z: z, lambda r, s: r),
    )
}


def activation(given: str | Activation) -> Activation:
    """An activation by name, or one made by ``custom``; ``ValueError`` for anything else."""
    if isinstance(given, Activation):
        return given
    if not isinstance(given, str):
        raise ValueError(
            f"activation is {shown(given)}, which has no derivative: wrap it in activations.custom(value, derivative), "
            f"or name one of {', '.join(ACTIVATIONS)}"
        )
    return named("activation", given, ACTIVATIONS)


def told(given: object) -> object:
    """What tells an activation from another on another rank: its name, for one of a user's own some values too."""
    if not isinstance(given, Activation) or given.built_in:
        return given.name if isinstance(given, Activation) else given
    z = torch.linspace(-3.0, 3.0, 13, dtype=torch.float64)
    given.apply_(z)
    return [given.name, *(f"{value:.6g}" for value in z.tolist())]


def custom(
    value: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor] | None = None, name: str = "custom"
) -> Activation:
    """An activation from a function of z and its derivative, both elementwise.

    Raises ``ValueError`` where one of them is missing or is not elementwise, and where the derivative is not that of
    the value, by central differences between -3 and 3.
    """
    if not callable(value):
        raise ValueError(f"activation {name!r} was given without a value: pass s(z) as a function")
    if derivative is None or not callable(derivative):
        raise ValueError(f"activation {name!r} was given without a derivative: pass s'(z) as a second function")
    slope = _check_derivative(value, derivative, name)

    def both_(z: Tensor, r: Tensor) -> None:
        r.mul_(derivative(z))
        z.copy_(value(z))

    return Activation(name, lambda z: z.copy_(value(z)), both_, slope)


def _check_derivative(value: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor], name: str) -> float:
    """The largest |s'| that was seen."""
    z = torch.linspace(-3.0, 3.0, 100, dtype=torch.float64)  # 100 points miss zero, where relu-like ones have a kink
    _check_elementwise(value(z), z, f"value of activation {name!r}")
    given, eps = derivative(z), 1e-6
    _check_elementwise(given, z, f"derivative of activation {name!r}")
    expected = (value(z + eps) - value(z - eps)) / (2 * eps)
    worst = int((given - expected).abs().argmax())
    if not torch.allclose(given, expected, rtol=1e-4, atol=1e-6):
        raise ValueError(
            f"the derivative of activation {name!r} is {given[worst]:.6g} at z = {z[worst]:.3g}, but the value has "
            f"slope {expected[worst]:.6g} there: pass the derivative of this value"
        )
    return float(given.abs().max())


def _check_elementwise(result: object, z: Tensor, what: str) -> None:
    if isinstance(result, Tensor) and result.shape == z.shape:
        return
    returned = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)
    raise ValueError(f"the {what} is {returned} for a z of shape {tuple(z.shape)}: expected a tensor of that shape")
