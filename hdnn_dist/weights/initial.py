"""Initial weights, drawn per (seed, agent, layer) and never per rank, so that every placement starts from the same."""

from __future__ import annotations

import numpy as np

from hdnn_dist.support.arguments import seed_number, unknown
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers

DRAWN = ("scaled", "normal")
INITIALS = (*DRAWN, "wave")  # the last one is drawn in ``wave``
READOUT_STREAM = 1 << 32
COUPLING_STREAM = 1 << 33
LIFT_STREAM = 1 << 34
LAYER_STREAM = 1 << 40


def generator(seed: int, agent: int, stream: int) -> np.random.Generator:
    """A counter-based generator (Philox) of its own for each agent and purpose."""
    key = np.array([seed, agent], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))


def draw_weights(
    layout: BlockLayout, layers: int, operators: int, seed: int, initial: str, stream: int = 0
) -> np.ndarray:
    """(layers, operators, size) float64, size that of the layout.

    ``normal``: K and b standard normal; ``scaled``: both with variance 1/fan-in, the columns of K_i. The first layers
    of a deep network are those of a shallow one. ``stream`` tells the operators apart from other draws.
    Raises ``ValueError`` for another name or a negative seed.
    """
    _check(initial, seed)
    rows, biases = layout.halo.rows, layout.biases
    weights = np.empty((layers, operators, layout.size))
    for operator in range(operators):
        b = weights[:, operator, layout.entries :].reshape(layers, biases, rows)
        for group in layout.groups:
            shape = (layers, group.rows, group.columns + biases)
            drawn = [
                generator(seed, agent, stream + operator).standard_normal(shape) for agent in group.agents.tolist()
            ]
            stacked = np.stack(drawn, axis=1) / (np.sqrt(group.columns) if initial == "scaled" else 1.0)
            weights[:, operator, group.entries] = stacked[..., : group.columns].reshape(layers, -1)
            b[:, :, group.place] = np.moveaxis(stacked[..., group.columns :], -1, 1).reshape(b[:, :, group.place].shape)
        weights[:, operator, layout.entries :] = b.reshape(layers, -1)
    return weights


def draw_layers(layers: Layers, seed: int, initial: str) -> np.ndarray:
    """The weights of all layers, float64: (layers, operators, size) where layers are alike, else flat.

    A layer of its own layout has draws of its own.
    """
    if layers.alike:
        return draw_weights(layers.layouts[0], len(layers), layers.operators, seed, initial)
    drawn = [
        draw_weights(layers.layout(layer), 1, layers.operators, seed, initial, stream=LAYER_STREAM * (layer + 1))
        for layer in range(len(layers))
    ]
    return np.concatenate([weights.ravel() for weights in drawn])


def draw_readout(agents: np.ndarray, features: np.ndarray, outputs: int, seed: int, fan_in: int) -> np.ndarray:
    """(outputs, features of these agents) float64, variance 1/fan-in, the features of all agents that are read."""
    drawn = [
        generator(seed, agent, READOUT_STREAM).standard_normal((count, outputs)) / np.sqrt(fan_in)
        for agent, count in zip(agents.tolist(), features.tolist(), strict=True)
    ]
    return np.ascontiguousarray(np.concatenate([np.empty((0, outputs)), *drawn]).T)


def draw_lift(agents: np.ndarray, features: np.ndarray, fan_in: int, seed: int) -> np.ndarray:
    """(features of these agents, fan_in) float64, variance 1/fan-in."""
    drawn = [
        generator(seed, agent, LIFT_STREAM).standard_normal((count, fan_in)) / np.sqrt(fan_in)
        for agent, count in zip(agents.tolist(), features.tolist(), strict=True)
    ]
    return np.concatenate([np.empty((0, fan_in)), *drawn])


def _check(initial: str, seed: int) -> None:
    if initial not in DRAWN:
        raise unknown("initial", initial, DRAWN)
    seed_number(seed)
