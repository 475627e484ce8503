"""A wave that agents share: the one of ``wave``, whose blocks are the same at all agents but for their coefficients.

Of several labels each has the same part of it, so that on a ring as much travels ahead as back.
"""

from __future__ import annotations

import numpy as np

from hdnn_dist.weights.wave import LAZY, RANDOM_NORM, ROLES, Wave, bias_deviation, stages_of


def shared_wave(
    drawn: np.ndarray, roles: int, rows: int, fan_in: float, wave: Wave, skew: bool, seed: int
) -> np.ndarray:
    """(layers, operators, entries) as ``draw_wave`` says, from standard normal ones.

    ``roles``: how many blocks (rows, rows) there are, an agent's own first; ``fan_in``: what their variance is to be
    divided by; ``skew``: whether K = A - A^T.
    """
    weights, entries = drawn.copy(), roles * rows * rows
    weights[..., :entries] *= wave.jitter / RANDOM_NORM / np.sqrt(fan_in)
    weights[..., entries:] *= bias_deviation(len(weights))
    parts = [LAZY, *[1 / (roles - 1) / (2 if skew else 1)] * (roles - 1)]
    for operator, (name, share) in enumerate(zip(wave.roles, wave.shares, strict=True)):
        W = np.stack([ROLES[name](part / (1 + LAZY), role == 0, rows, rows) for role, part in enumerate(parts)])
        turned = wave.turned(W, seed, operator, stages_of(len(weights))).reshape(len(weights), entries)
        weights[:, operator, :entries] = share * (weights[:, operator, :entries] + (1 - wave.jitter) * turned)
    return weights
