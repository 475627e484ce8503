"""Which kernel carries the passes of a network out: the compiled one where it can, the portable one elsewhere."""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from hdnn_dist.kernels.gpu import TRITON, on_gpu
from hdnn_dist.propagation.forward_euler import ForwardEulerStepper
from hdnn_dist.propagation.semi_implicit import SemiImplicitStepper
from hdnn_dist.propagation.stepper import Propagator, Stepper
from hdnn_dist.propagation.system import System
from hdnn_dist.support.arguments import one_line, unknown

KERNELS = ("auto", "torch", "fused", *TRITON)
FUSED_TYPES = (torch.float32, torch.float64)
QUICK = 1.5  # seconds that reading a compiled kernel from the cache stays under
log = logging.getLogger("hdnn_dist")


class KernelWarning(UserWarning):
    """The fused kernel cannot be used, and the torch kernel serves."""


def check_kernel(kernel: str) -> None:
    """``ValueError`` for a name that is not one."""
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)


def propagator(system: System, width: int, dtype: torch.dtype, kernel: str) -> Propagator:
    """What propagates ``width`` columns; ``kernel``: "torch", "fused", or "auto" for the faster one that serves here.

    On a GPU "fused" is "triton", which can be asked for by name too, as can "triton-bf16". What was asked for by name
    raises ``ValueError`` where it does not serve; "auto" warns of it once. Ranks need not choose alike.
    """
    portable = (ForwardEulerStepper if system.architecture.simultaneous else SemiImplicitStepper)(system, width, dtype)
    if kernel == "torch" or width == 0:
        return portable
    fused = _fused(system, portable, kernel)
    if not isinstance(fused, str):
        return fused
    if kernel != "auto":
        raise ValueError(f"kernel {kernel!r} cannot be used: {fused}; use 'auto' or 'torch'")
    message = f"the fused kernel cannot be used: {fused}; the slower torch kernel serves"
    warnings.warn(message, KernelWarning, stacklevel=2)
    return portable


def _unfit(system: System, dtype: torch.dtype) -> str | None:
    device = system.layers.layouts[0].device
    if device.type != "cpu":
        return f"it is compiled for processors and for CUDA, and the network is on {device}"
    if dtype not in FUSED_TYPES:
        return f"it computes in float32 and float64, not in {dtype}"
    if not system.activation.built_in:
        return f"it does not know the activation {system.activation.name!r}"
    return None


def _fused(system: System, portable: Stepper, kernel: str) -> Propagator | str:
    """The compiled passes, or why there are none."""
    with _announced():
        if system.layers.layouts[0].device.type == "cuda" or kernel in TRITON:
            return on_gpu(system, portable, kernel)
        return _unfit(system, portable.dtype) or _on_processor(system, portable)


def _on_processor(system: System, portable: Stepper) -> Propagator | str:
    try:
        stepper: Propagator = importlib.import_module("hdnn_dist.kernels.cpu.stepper").fused(system, portable)
    except Exception as error:  # numba raises errors of many kinds for what it cannot compile, cache or import
        return f"it could not be compiled ({one_line(error)[:200]})"
    return stepper


@cache
def _announce() -> None:
    """Once for a process, which may compile for several kinds of layers."""
    log.warning("compiling the fused kernel for this machine; this is done once, and kept in a cache")


@contextmanager
def _announced() -> Iterator[None]:
    """Say that the kernel is being compiled, if that takes longer than reading it from the cache."""
    timer = threading.Timer(QUICK, _announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
