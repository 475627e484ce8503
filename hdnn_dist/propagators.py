"""Which kernel carries the passes of a network out: the compiled one where it can, the portable one elsewhere."""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from hdnn_dist.activations import ACTIVATIONS
from hdnn_dist.choices import unknown
from hdnn_dist.stations import Scheme
from hdnn_dist.steppers import EulerStepper, Propagator, SplitStepper, Stepper

KERNELS = ("auto", "torch", "fused")
FUSED_TYPES = (torch.float32, torch.float64)
QUICK = 1.5  # seconds that reading a compiled kernel from the cache stays under
log = logging.getLogger("hdnn_dist")


class KernelWarning(UserWarning):
    """The fused kernel cannot be used, and the torch kernel serves."""


def check_kernel(kernel: str) -> None:
    """``ValueError`` for a name that is not one."""
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)


def propagator(scheme: Scheme, width: int, dtype: torch.dtype, kernel: str) -> Propagator:
    """What propagates ``width`` columns; ``kernel``: "torch", "fused", or "auto" for the faster one that serves here.

    "fused" raises ``ValueError`` where it does not serve; "auto" warns once where that may come as a surprise.
    """
    portable = (EulerStepper if scheme.architecture.simultaneous else SplitStepper)(scheme, width, dtype)
    if kernel == "torch" or (kernel == "auto" and not _expected(scheme, width)):
        return portable
    reason = _unfit(scheme, width, dtype)
    fused = _fused(scheme, portable) if reason is None else reason
    if not isinstance(fused, str):
        return fused
    if kernel == "fused":
        raise ValueError(f"kernel 'fused' cannot be used: {fused}; use 'auto' or 'torch'")
    warnings.warn(
        f"the fused kernel cannot be used: {fused}; the slower torch kernel serves", KernelWarning, stacklevel=2
    )
    return portable


def _expected(scheme: Scheme, width: int) -> bool:
    """Whether a user would expect the fused kernel: all agents here, on a processor, in layers that are alike."""
    halo = scheme.layers.layouts[0].halo
    return not halo.halo_rows and halo.agents.world.device.type == "cpu" and scheme.layers.alike and width > 0


def _unfit(scheme: Scheme, width: int, dtype: torch.dtype) -> str | None:
    if not _expected(scheme, width):
        return "it needs all agents in one process, on a CPU, and one graph for all layers"
    if dtype not in FUSED_TYPES:
        return f"it computes in float32 and float64, not in {dtype}"
    if scheme.activation.name not in ACTIVATIONS or scheme.activation is not ACTIVATIONS[scheme.activation.name]:
        return f"it does not know the activation {scheme.activation.name!r}"
    return None


def _fused(scheme: Scheme, portable: Stepper) -> Propagator | str:
    """The compiled passes, or why there are none."""
    try:
        with _announced():
            stepper: Propagator = _module().FusedStepper(scheme, portable)
    except Exception as error:  # numba raises errors of many kinds for what it cannot compile, cache or import
        return f"it could not be compiled ({' '.join(str(error).split())[:200]})"
    return stepper


def _module() -> ModuleType:
    return importlib.import_module("hdnn_dist.fused")


@contextmanager
def _announced() -> Iterator[None]:
    """Say that the kernel is being compiled, if that takes longer than reading it from the cache."""
    line = "compiling the fused kernel for this machine; this is done once, and kept in a cache"
    timer = threading.Timer(QUICK, log.warning, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
