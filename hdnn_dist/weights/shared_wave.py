"""A wave that agents share: the one of ``wave``, whose blocks are the same at all agents but for their coefficients.

Of several labels each has the same part of it, so that on a ring as much travels ahead as back.
"""

from __future__ import annotations

import numpy as np

from hdnn_dist.weights.wave import LAZY, RANDOM_NORM, ROLES, Wave


def shared_wave(drawn: np.ndarray, roles: int, rows: int, wave: Wave, skew: bool) -> np.ndarray:
    """(layers, operators, entries) share ((1 - jitter) W + jitter Z) from Z, random of variance 1/fan-in.

    ``roles``: how many blocks (rows, rows) there are, an agent's own first; ``skew``: whether K = A - A^T.
    """
    weights = drawn * (wave.jitter / RANDOM_NORM)
    for operator, (name, share) in enumerate(zip(wave.roles, wave.shares, strict=True)):
        for role in range(roles):
            own = role == 0
            part = LAZY if own else 1 / (roles - 1) / (2 if skew else 1)
            W = ROLES[name](part / (1 + LAZY), own, rows, rows).numpy()
            weights[:, operator, role * W.size : (role + 1) * W.size] += (1 - wave.jitter) * W.ravel()
        weights[:, operator] *= share
    return weights
