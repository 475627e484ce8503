"""A system whose BSM diverges although its state hardly moves: y' = eps J tanh(y), J = [0 -1; 1 0].

It is a Hamiltonian system with H = eps sum log cosh y, so y runs round a closed curve for ever, slowly for a small eps.
The period depends on the curve, so two starts on neighbouring curves drift apart: the BSM grows without bound, in
proportion to t, M ~ t c f(y(t)) grad H(y(0))^T. Column k grows where entry k of grad H(y(0)) = tanh(y(0)) is not 0, so
all four entries do for a start off the axes. Not vanishing is not the same as not exploding (Galimberti et al., IEEE
TAC 68(5), 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

J = np.array([[0.0, -1.0], [1.0, 0.0]])


@dataclass(frozen=True)
class Solution:
    """``t``: (times,); ``y``: (times, 2); ``bsm``: (times, 2, 2), d y(t) / d y(0)."""

    t: np.ndarray
    y: np.ndarray
    bsm: np.ndarray


def solve(
    eps: float = 0.1, start: tuple[float, float] = (1.0, 0.5), until: float = 2000.0, steps: int = 20_000
) -> Solution:
    """y and its BSM, integrated together by the Runge-Kutta method of order 4.

    Raises ``ValueError`` for an ``eps``, ``until`` or ``steps`` that is not positive.
    """
    if not (eps > 0 and until > 0 and steps > 0):
        raise ValueError(f"eps is {eps}, until {until}, steps {steps}: expected numbers greater than 0")
    h = until / steps
    state = np.column_stack([start, np.eye(2)])  # y beside the BSM: one system
    states = np.empty((steps + 1, 2, 3))
    states[0] = state
    for number in range(steps):
        state = _runge_kutta(state, h, eps)
        states[number + 1] = state
    return Solution(np.linspace(0.0, until, steps + 1), states[:, :, 0], states[:, :, 1:])


def _rate(state: np.ndarray, eps: float) -> np.ndarray:
    """Of y and of the BSM: eps J tanh(y), and eps J diag(1 - tanh(y)^2) times the BSM."""
    s = np.tanh(state[:, :1])
    return eps * J @ np.hstack([s, (1.0 - s**2) * state[:, 1:]])


def _runge_kutta(state: np.ndarray, h: float, eps: float) -> np.ndarray:
    first = _rate(state, eps)
    second = _rate(state + h / 2 * first, eps)
    third = _rate(state + h / 2 * second, eps)
    fourth = _rate(state + h * third, eps)
    return state + h / 6 * (first + 2 * second + 2 * third + fourth)
