"""Which passes serve on a GPU: those in Triton for small networks, CUDA graphs for the others."""

from __future__ import annotations

import importlib

from hdnn_dist.propagation.stepper import Propagator, Stepper
from hdnn_dist.propagation.system import System
from hdnn_dist.support.arguments import one_line

TRITON = {"triton": "float32", "triton-bf16": "bf16"}  # kernels by name, and the precision of their products


def on_gpu(system: System, portable: Stepper, kernel: str) -> Propagator | str:
    """What propagates in place of ``portable``, or why nothing does.

    ``kernel``: one of ``TRITON``; "fused", which is "triton"; or "auto", which is a CUDA graph where Triton does not
    serve.
    """
    triton = _triton(system, portable, TRITON.get(kernel, "float32"))
    return _graphed(system, portable) if kernel == "auto" and isinstance(triton, str) else triton


def _triton(system: System, portable: Stepper, precision: str) -> Propagator | str:
    try:
        module = importlib.import_module("hdnn_dist.kernels.cuda.stepper")
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    reason: str | None = module.unfit(system, portable.dtype)
    if reason is not None:
        return reason
    try:
        stepper: Propagator = module.TritonStepper(system, portable, precision)
    except Exception as error:  # triton raises errors of many kinds for what it cannot compile or launch
        return f"it could not be compiled ({one_line(error)[:200]})"
    return stepper


def _graphed(system: System, portable: Stepper) -> Propagator | str:
    if not system.whole:
        return "a CUDA graph needs all agents in one process, and one graph for all layers"
    if not system.activation.built_in:
        return f"a CUDA graph cannot hold what the activation {system.activation.name!r} may do"
    try:
        module = importlib.import_module("hdnn_dist.kernels.cuda.graphs")
    except ImportError as error:  # of numba, for which the tables of a layer are made
        return f"CUDA graphs cannot be made ({error})"
    stepper: Propagator = module.GraphedStepper(system, portable)
    return stepper
