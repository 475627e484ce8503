"""Keeps torch.compile out of what it cannot trace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """As ``torch.compiler.disable``, without its import where none compiles: 1.5 s of every start."""
    apart: list[Callable[P, T]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if not apart:
            apart.append(torch.compiler.disable(function))
        return apart[0](*args, **kwargs)

    return call
