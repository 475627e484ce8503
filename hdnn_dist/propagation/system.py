"""What is integrated: the architecture on one rank, its layers and its coupling, and the weights of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.architectures import Architecture, HalfStep
from hdnn_dist.propagation.linear_map import Coefficients
from hdnn_dist.propagation.vector_fields import Blocks
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers, LayerViews
from hdnn_dist.weights.sharing import Sharing

NO_MAP = Coefficients(0.0, 0.0)
BLOCK_MAPS = {"canonical": Coefficients(1.0, 0.0), "block": Coefficients(1.0, 0.0), "skew": Coefficients(1.0, -1.0)}


@dataclass(frozen=True)
class CouplingSpec:
    """What kind of coupling a network has: ``kind`` "identity", "canonical", "block" or "skew".

    ``layouts``: of its blocks, if it has any, beside each layout of the layers, whose graph it keeps to.
    """

    kind: str = "identity"
    layouts: tuple[BlockLayout, ...] = ()
    damping: float = 0.0
    trained: bool = False

    def coefficients(self, half: HalfStep) -> Coefficients:
        """Of the linear map of its blocks, as it stands in a half-step: X, X^T, A - A^T or none."""
        own = BLOCK_MAPS.get(self.kind, NO_MAP)
        return own.transposed if half.coupled == "CT" else own

    @property
    def layout(self) -> BlockLayout | None:
        """The layout of the first layer, and of all where the coupling is one for all layers."""
        return self.layouts[0] if self.layouts else None


@dataclass(frozen=True)
class System:
    """What a stepper integrates: the architecture on one rank, its layers, its activation and its step size h.

    ``rows``: (rows,) of every part in a state; ``features``: (local agents,). ``flight``: how many columns are worked
    on at a time, and how many such tiles are in flight between ranks; ``None`` where the kernel chooses. ``sharing``:
    where all agents have the same weights, how those of each follow from them.
    """

    architecture: Architecture
    layers: Layers
    activation: Activation
    step: float
    features: np.ndarray
    rows: dict[str, Tensor]
    coupling: CouplingSpec
    store_every: int = 1
    flight: tuple[int, int] | None = None
    sharing: Sharing | None = None

    @property
    def whole(self) -> bool:
        """Whether all agents live here and all layers are alike, so that a pass needs no exchange and one layout."""
        return self.layers.alike and self.layers.layouts[0].halo.agents.world.size == 1

    def again(self, layers: range) -> list[int]:
        """The layers that a backward pass computes once more, between the states that are stored."""
        if not self.architecture.simultaneous:
            return []
        inside = [place for place in range(len(layers) - 1) if (place + 1) % self.store_every]
        return [layers[place] for place in inside]

    def rebuilds(self, half: HalfStep) -> bool:
        """Whether the reverse of this half-step needs F once more: to undo it, or for the gradient of C."""
        trained = self.coupling.trained and half.coupled is not None
        return trained or not self.architecture.simultaneous


class Weights(NamedTuple):
    """``blocks``: all K and b, as ``Layers`` says, or those that agents share, (layers, operators, entries), as
    ``RoleTable`` says; ``coupling``: (1 or layers, size), or (0, 0) where it has none.

    ``size``: of the largest layout of the coupling; in layers with a smaller one, zeros follow.
    """

    blocks: Tensor
    coupling: Tensor


class LayerWeights:
    """What the half-steps of a layer work with, as views of the weights or of their gradients."""

    def __init__(self, system: System, weights: Weights) -> None:
        self._views = LayerViews(system.layers, weights.blocks)
        self._system = system
        self._coupling = weights.coupling

    def of(self, layer: int, half: HalfStep) -> Blocks:
        """K and b of a half-step."""
        K, biases, flat = self._views.of(layer, half.operator)
        return Blocks(K, biases[half.bias], flat, half.bias)

    def coupling(self, layer: int) -> tuple[Tensor, ...]:
        """The blocks of the coupling, per group (A, rows, columns): one coupling for all layers or one for each."""
        layouts = self._system.coupling.layouts
        if not layouts:
            return ()
        given = self._coupling[layer if len(self._coupling) > 1 else 0]
        return tuple(group.matrices(given) for group in layouts[self._system.layers.which[layer]].groups)
