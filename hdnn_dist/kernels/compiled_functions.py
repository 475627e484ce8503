"""Small compiled functions beside the passes, where they can be had."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


def compiled_function(name: str, kernel: str, like: Tensor) -> Function | None:
    """That function of ``kernels.compiled_training`` for numbers of the type and device of ``like``; it takes arrays.

    ``kernel``: of the network. ``None`` where "torch" was asked for, and where it cannot be compiled: the torch form
    serves then, and the network warns if its passes cannot be either.
    """
    return _compiled(name, like.dtype) if kernel != "torch" and like.is_cpu else None


@cache
def _compiled(name: str, dtype: torch.dtype) -> Function | None:
    """Compiled here, or read from the cache, so that it fails here."""
    try:
        module = importlib.import_module("hdnn_dist.kernels.cpu.training_step")
        function: Any = getattr(module, name)
        function.compile(module.signature(name, torch.empty((), dtype=dtype).numpy().dtype))
    except Exception:  # numba raises errors of many kinds for what it cannot compile, cache or import
        return None
    return function  # type: ignore[no-any-return]
