"""What a user gives, checked: one line says what was given, what was expected and how to mend it."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import TypeVar

import numpy as np
from torch import Tensor

SEEDS = 2**64  # how many there are
LARGEST = 1e30  # of a number that tensors are multiplied by: float32 ends at 3e38
Known = TypeVar("Known")
BRIEF = reprlib.Repr()
BRIEF.maxstring = BRIEF.maxother = 200
BRIEF.maxlist = BRIEF.maxtuple = 16


def unknown(kind: str, given: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the known ones; names the nearest and lists all."""
    names = list(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {shown(given)}: {hint}there are {', '.join(names)}")


def named(kind: str, given: object, known: Mapping[str, Known]) -> Known:
    """What has that name in a table; ``ValueError`` for any other name, and for what is none."""
    if not isinstance(given, str) or given not in known:
        raise unknown(kind, given, known)
    return known[given]


def require_type(name: str, given: object, kind: type | tuple[type, ...], expected: str) -> None:
    """``TypeError`` unless ``given`` is a ``kind``."""
    if not isinstance(given, kind):
        raise TypeError(f"{name} is {shown(given)}: expected {expected}")


@contextmanager
def concerning(key: str) -> Iterator[None]:
    """A ``ValueError`` in this block begins with the key of a config, or the name of an argument, that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {one_line(error)}") from None


def shown(given: object) -> str:
    """How a message shows what was given: on one line, and not all of what is long."""
    return one_line(BRIEF.repr(given))


def one_line(text: object) -> str:
    """A text, or that of an error, on one line, without what a terminal does not print."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def whole(name: str, value: object, least: int = 1) -> int:
    """``value`` as a plain int; ``ValueError`` unless it is a whole number of at least ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {shown(value)}: expected a whole number of at least {least}")
    return int(value)


def require_memory(what: str, size: int) -> None:
    """``ValueError`` for what needs more bytes than this machine has, before a part of it is there."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > available:
        raise ValueError(
            f"{what} need {size / 2**30:,.0f} GiB of memory at least, and this machine has {available / 2**30:,.0f}: "
            "ask for less"
        )


def seed_number(seed: object, name: str = "seed") -> int:
    """``seed`` as a plain int; ``ValueError`` with its ``name`` unless a counter-based generator takes it as a key."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) < SEEDS:
        raise ValueError(f"{name} is {shown(seed)}: expected a whole number from 0 to 2**64 - 1")
    return int(seed)


def is_number(value: object) -> bool:
    """Whether it is a real number of at most ``LARGEST``, so neither NaN nor infinite; True and False are none."""
    real = type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))  # floats take no time
    return real and bool(abs(value) <= LARGEST)  # type: ignore[arg-type]


def positive_number(name: str, value: object) -> float:
    """``value`` as a plain float; ``ValueError`` unless it is a number greater than 0, and at most ``LARGEST``."""
    if not is_number(value) or not float(value) > 0:  # type: ignore[arg-type]
        raise ValueError(f"{name} is {shown(value)}: expected a finite number greater than 0, at most {LARGEST:g}")
    return float(value)  # type: ignore[arg-type]


def real_array(name: str, given: object) -> np.ndarray:
    """A tensor, an array or a list of them as float64, of the shape of ``given``; a list adds a first dimension.

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
