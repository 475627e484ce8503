"""Numbers and matrices that a user gives, checked: one line says what was given and what was expected."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
from torch import Tensor


def whole(name: str, value: object) -> int:
    """``value`` as a plain int; ``ValueError`` unless it is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}: expected a whole number of at least 1")
    return int(value)


def finite(value: object) -> bool:
    """Whether it is a real number, and neither NaN nor infinite."""
    return isinstance(value, Real) and math.isfinite(value)


def real_array(name: str, given: object) -> np.ndarray:
    """A tensor, an array or a list of them as float64.

    ``ValueError`` for parts of different shapes, complex numbers, NaN and infinity, and a tensor with a gradient, which
    would never get one.
    """
    array = _array(name, given)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {array.dtype}: expected real numbers in a tensor, an array or a list of them")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        place = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{name} is {array[place]} at {place}: expected finite numbers")
    return array


def _array(name: str, given: object) -> np.ndarray:
    if isinstance(given, Tensor):
        if given.requires_grad:
            raise ValueError(f"{name} requires a gradient, but what is given stays fixed: detach it, or use 'trained'")
        return (given if given.is_complex() else given.double()).cpu().numpy()
    if isinstance(given, list | tuple):
        parts = [_array(name, part) for part in given]
        if len(shapes := {part.shape for part in parts}) != 1:
            raise ValueError(f"{name} is a list of parts of the shapes {sorted(shapes)}: expected one shape for all")
        return np.stack(parts)
    return np.asarray(given)
