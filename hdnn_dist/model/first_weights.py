"""The first weights of a network, by the name of its initialisation; which wave an architecture carries."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np

from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.support.arguments import is_number, shown, unknown
from hdnn_dist.weights.initial import INITIALS, draw_layers
from hdnn_dist.weights.layers import Layers
from hdnn_dist.weights.wave import Wave, draw_wave, hops

WAVE = "wave"
COURANT = 0.9
JITTER = 0.02


class Carried(NamedTuple):
    """The wave of an architecture: the role of each operator, and the norm of each, from the largest h omega, and h.

    ``gradient``: as of ``Wave``.
    """

    roles: tuple[str, ...]
    norm: Callable[[float, float], float]
    gradient: bool


def _of_gradients(phase: float, step: float) -> float:
    return sqrt(phase / step)  # h ||Kp||^2 ||Kq||^2 h = phase^2


def _of_products(phase: float, step: float) -> float:
    return phase / step


class First(NamedTuple):
    """What the first weights of a network follow from, as ``HDNN`` is given it."""

    step: float
    seed: int
    initial: str
    coupling: object
    courant: float
    jitter: float


CARRIED = {
    "H2": Carried(("own", "neighbours"), _of_gradients, True),
    "MS3": Carried(("neighbours", "own"), _of_gradients, True),
    "H1-J1": Carried(("halves",), _of_gradients, True),
    "MS1": Carried(("neighbours",), _of_products, False),
    "MS2": Carried(("rotation",), _of_products, False),
}


def first_weights(
    stack: Layers,
    architecture: Architecture,
    step: float,
    seed: int,
    initial: str,
    coupling: object,
    courant: float,
    jitter: float,
) -> np.ndarray:
    """The weights of all layers, float64, in the shape of ``draw_layers``.

    ``courant``, 0 to 1: of a wave, half of the largest frequency times h; ``jitter``, 0 to 1: its random share.
    ``ValueError`` for what carries none, and where one of both says nothing.
    """
    wave = first_wave(stack, architecture, First(step, seed, initial, coupling, courant, jitter))
    return draw_layers(stack, seed, initial) if wave is None else draw_wave(stack, seed, wave)


def first_wave(stack: Layers, architecture: Architecture, first: First) -> Wave | None:
    """The wave to draw, none for other initialisations; ``ValueError`` as ``first_weights``."""
    _check_numbers(first.initial, first.courant, first.jitter)
    if first.initial != WAVE:
        return None
    _check_carries(architecture, stack, first.coupling)
    roles, norm, gradient = CARRIED[architecture.name]
    return Wave(roles, [norm(2 * first.courant, first.step)] * len(roles), float(first.jitter), gradient)


def layers_across(distance: int, courant: float) -> int:
    """How many layers a wave needs at least to travel so many edges."""
    return ceil(distance / hops(courant))


def _check_numbers(initial: object, courant: object, jitter: object) -> None:
    if initial not in INITIALS:
        raise unknown("initial", initial, INITIALS)
    if not is_number(courant) or not 0 < courant <= 1:  # type: ignore[operator]
        raise ValueError(
            f"courant is {shown(courant)}: expected a number greater than 0, at most 1, where waves are stable"
        )
    if not is_number(jitter) or not 0 <= jitter <= 1:  # type: ignore[operator]
        raise ValueError(f"jitter is {shown(jitter)}: expected a number from 0 to 1, the share of random weights")
    for name, given, default in (("courant", courant, COURANT), ("jitter", jitter, JITTER)):
        if initial != WAVE and given != default:
            raise ValueError(
                f"{name} is {shown(given)}, which says nothing to initial={initial!r}: leave it out, "
                "or use initial='wave'"
            )


def _check_carries(architecture: Architecture, stack: Layers, coupling: object) -> None:
    if architecture.name not in CARRIED:
        raise ValueError(
            f"initial='wave' is not known for {architecture.name}: use {', '.join(CARRIED)}, or initial='scaled'"
        )
    if coupling is not None and not (isinstance(coupling, str) and coupling == architecture.coupling):
        raise ValueError(
            f"initial='wave' needs the coupling {architecture.coupling!r} that {architecture.name} has by itself: "
            "leave coupling out, or use initial='scaled'"
        )
    rows = stack.layouts[0].halo.sizes
    if "rotation" in CARRIED[architecture.name].roles and (rows < 2).any():
        raise ValueError(
            f"agent {int(rows.argmin())} has 1 feature, but a wave turns pairs of them in {architecture.name}: "
            "give it 2, or use initial='scaled'"
        )
