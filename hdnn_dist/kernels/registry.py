"""Which kernel carries the passes of a network out: a table, tried in order, behind it the portable pass."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hdnn_dist.kernels.announcement import announced, interruptible
from hdnn_dist.propagation.expanded import Expanded
from hdnn_dist.propagation.forward_euler import ForwardEulerStepper
from hdnn_dist.propagation.semi_implicit import SemiImplicitStepper
from hdnn_dist.propagation.stepper import Propagator, Stepper
from hdnn_dist.propagation.system import System
from hdnn_dist.support.arguments import one_line, shown, unknown

AUTO, PORTABLE = "auto", "torch"
FEW = 20_000  # numbers of one K on a rank; to copy them takes what the operations without copies take to be called
TILES = tuple(32 << n for n in range(6))  # columns


class KernelWarning(UserWarning):
    """No faster kernel can be used, and the torch kernel serves."""


@dataclass(frozen=True)
class Kernel:
    """A faster way through the pass.

    ``name``: what a network says that it runs on; ``asked``: for each type of device the values of ``kernel`` that ask
    for it; ``dtypes``: that it computes in; ``whole``: whether it needs all agents here and one layout for all layers;
    ``shares``: whether it computes with the weights that agents share, which are expanded for others.
    ``module``: its file, imported when it is tried, with ``make(system, portable, name)``, a ``Propagator`` in place of
    ``portable``, and, if more than this has to fit, ``misfit(system)``, why it does not serve or ``None``.
    """

    name: str
    module: str
    asked: Mapping[str, tuple[str, ...]]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    whole: bool = True
    shares: bool = False

    def attempt(self, system: System, portable: Stepper) -> Propagator | str:
        """What propagates, or why it does not."""
        if reason := self._misfit(system, portable.dtype):
            return reason
        try:
            file = importlib.import_module(self.module)
            reason = file.misfit(system) if hasattr(file, "misfit") else None
            made: Propagator | str = reason or file.make(system, portable, self.name)
        except ImportError as error:
            return f"it cannot be imported ({one_line(error)[:200]})"
        except Exception as error:  # numba and triton raise errors of many kinds for what they cannot compile or cache
            return f"it could not be compiled ({one_line(error)[:200]})"
        return made

    def _misfit(self, system: System, dtype: torch.dtype) -> str | None:
        strange = [half.field.__name__ for half in system.architecture.layer if not half.field.in_closed_form()]
        if dtype not in self.dtypes:
            return f"it computes in {' and '.join(str(known)[6:] for known in self.dtypes)}, not in {dtype}"
        if not system.activation.built_in:
            return f"it does not know the activation {system.activation.name!r}"
        if strange:
            return f"it does not know the vector field {strange[0]}"
        if self.shares and system.sharing is None:
            return "weights are of each agent"
        if self.whole and not system.whole:
            return "it needs all agents in one process, and one graph for all layers"
        return None


# Tried in this order: shared weights are expanded for the others. On a GPU a small network runs in Triton, any other
# as a CUDA graph of the portable pass.
KERNELS = [
    Kernel(
        "shared",
        "hdnn_dist.kernels.shared",
        {"cpu": (AUTO, "shared"), "cuda": ("shared",)},
        whole=False,
        shares=True,
    ),
    Kernel("fused", "hdnn_dist.kernels.cpu.stepper", {"cpu": (AUTO, "fused")}, whole=False),
    Kernel(
        "triton",
        "hdnn_dist.kernels.cuda.stepper",
        {"cuda": (AUTO, "fused", "triton"), "cpu": ("triton",)},
        (torch.float32,),
    ),
    Kernel(
        "triton-bf16",
        "hdnn_dist.kernels.cuda.stepper",
        {"cuda": ("triton-bf16",), "cpu": ("triton-bf16",)},
        (torch.float32,),
    ),
    Kernel("cuda graph", "hdnn_dist.kernels.cuda.graphs", {"cuda": (AUTO,)}),
]


def kernel_names() -> tuple[str, ...]:
    """What can be asked for."""
    asked = (name for kernel in KERNELS for names in kernel.asked.values() for name in names)
    return tuple(dict.fromkeys((AUTO, PORTABLE, *asked)))


def check_kernel(kernel: str) -> None:
    """``ValueError`` for a name that is not one."""
    if kernel not in kernel_names():
        raise unknown("kernel", kernel, kernel_names())


def check_flight(flight: object) -> None:
    """``ValueError`` for what says neither how wide tiles are and how many are in flight, nor nothing."""
    known = isinstance(flight, tuple) and len(flight) == 2 and all(type(number) is int for number in flight)
    if flight is not None and not (known and flight[0] in TILES and flight[1] >= 1):  # type: ignore[index]
        raise ValueError(
            f"flight is {shown(flight)}: expected the columns of a tile, {TILES[0]} to {TILES[-1]} and a power of two, "
            "and how many tiles are in flight, such as (128, 2); or None, to have it chosen"
        )


def propagator(
    system: System, width: int, dtype: torch.dtype, kernel: str, collect: Callable[[Sequence[float]], Tensor]
) -> Propagator:
    """What propagates ``width`` columns; ``kernel``: "torch" for the portable pass, "auto" for the first that serves.

    What was asked for by name raises ``ValueError`` where it does not serve; "auto" warns. ``collect``: the numbers of
    every rank, (ranks, n), for those of this one: all propagate alike, or their messages would not fit.
    """
    portable = portable_stepper(system, width, dtype)
    if kernel == PORTABLE or width == 0:
        collect([0.0])
        return _expanded(system, portable)
    with announced(), interruptible():
        made = _first(system, portable, kernel)
    if not collect([float(not isinstance(made, str))]).all() and not isinstance(made, str):
        made = "it does not serve on every rank"
    if not isinstance(made, str):
        if hasattr(made, "settle") and not alone(system):
            made.settle(collect)
        return _expanded(system, made)
    if kernel != AUTO:
        raise ValueError(f"kernel {kernel!r} cannot be used: {made}; use 'auto' or 'torch'")
    message = f"the fused kernel cannot be used: {made}; the slower torch kernel serves"
    warnings.warn(message, KernelWarning, stacklevel=2)
    return _expanded(system, portable)


def alone(system: System) -> bool:
    """Whether there is no other rank."""
    return system.layers.layouts[0].halo.agents.world.size == 1


def portable_stepper(system: System, width: int, dtype: torch.dtype) -> Stepper:
    """The portable pass: the reference."""
    stepper = ForwardEulerStepper if system.architecture.simultaneous else SemiImplicitStepper
    return stepper(system, width, dtype)


def _copies_pay(system: System, width: int) -> bool:
    """Whether blocks, copied for each agent, are smaller than what they act on, or few; the same on every rank."""
    layout = system.layers.layouts[0]
    m, ranks = int(layout.halo.sizes.max()), layout.halo.agents.world.size
    return width > m or len(layout.pattern) * m * m < FEW * ranks


def _expanded(system: System, made: Propagator) -> Propagator:
    """What takes the weights that agents share, where they do."""
    shares = any(known.shares and known.name == made.kernel for known in KERNELS)
    return made if system.sharing is None or shares else Expanded(made, system.sharing)


def _first(system: System, portable: Stepper, kernel: str) -> Propagator | str:
    """The first kernel of the table that was asked for and serves, or why the last one does not."""
    device = system.layers.layouts[0].device
    made: Propagator | str = f"there is none of that name for networks on {device}"
    for known in KERNELS:
        slower = kernel == AUTO and known.shares and _copies_pay(system, portable.width)
        if kernel in known.asked.get(device.type, ()) and not slower:
            made = known.attempt(system, portable)
            if not isinstance(made, str):
                return made
    return made


def compiled_function(name: str, kernel: str, like: Tensor) -> Callable[..., Any] | None:
    """That function of ``kernels.cpu.training_step`` for numbers of the type and device of ``like``, of any shape.

    ``kernel``: of the network. ``None`` where "torch" was asked for, and where it cannot be compiled: torch serves
    then, and the network warns if its passes cannot be compiled either.
    """
    return _compiled(name, like.dtype) if kernel != PORTABLE and like.is_cpu else None


@cache
def _compiled(name: str, dtype: torch.dtype) -> Callable[..., Any] | None:
    """Compiled here, or read from the cache, so that it fails here."""
    try:
        with interruptible():
            file = importlib.import_module("hdnn_dist.kernels.cpu.training_step")
            function: Any = getattr(file, name)
            function.compile(file.signature(name, torch.empty((), dtype=dtype).numpy().dtype))
    except Exception:  # as in ``Kernel.attempt``
        return None
    return function  # type: ignore[no-any-return]
