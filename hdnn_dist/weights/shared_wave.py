"""A wave that agents share: the one of ``wave``, whose blocks are the same at all agents but for their coefficients.

Of several labels each has the same part of it, so that on a ring as much travels ahead as back. Not turned:
distances from a source are told better so.
"""

from __future__ import annotations

import numpy as np

from hdnn_dist.weights.wave import LAZY, RANDOM_NORM, ROLES, Wave, bias_deviation


def shared_wave(drawn: np.ndarray, roles: int, rows: int, fan_in: float, wave: Wave, skew: bool) -> np.ndarray:
    """(layers, operators, entries) as ``draw_wave`` says, from standard normal ones.

    ``roles``: how many blocks (rows, rows) there are, an agent's own first; ``fan_in``: what their variance is to be
    divided by; ``skew``: whether K = A - A^T.
    """
    weights, entries = drawn.copy(), roles * rows * rows
    weights[..., :entries] *= wave.jitter / RANDOM_NORM / np.sqrt(fan_in)
    weights[..., entries:] *= bias_deviation(len(weights))
    for operator, (name, share) in enumerate(zip(wave.roles, wave.shares, strict=True)):
        for role in range(roles):
            own = role == 0
            part = LAZY if own else 1 / (roles - 1) / (2 if skew else 1)
            W = ROLES[name](part / (1 + LAZY), own, rows, rows).numpy()
            weights[:, operator, role * W.size : (role + 1) * W.size] += (1 - wave.jitter) * W.ravel()
        weights[:, operator, :entries] *= share
    return weights
