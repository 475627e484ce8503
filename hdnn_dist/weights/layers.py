"""Which blocks each layer has, and where its weights lie: one layout for all layers, or a graph per layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.weights.blocks import BlockLayout

OperatorViews = tuple[
    tuple[Tensor, ...], tuple[Tensor, ...], Tensor
]  # of one operator in one layer: K of every group, biases (rows, 1), and all of it as it lies in memory, (size,)


class Layers:
    """The layouts of a network: ``layouts`` the different ones, ``which`` (layers,) that of each layer.

    The weights are one tensor: (layers, operators, size) where all layers are alike, else flat, layer after layer.
    """

    def __init__(self, layouts: Sequence[BlockLayout], which: Sequence[int], operators: int) -> None:
        self.layouts = list(layouts)
        self.which = list(which)
        self.operators = operators
        sizes = [operators * self.layouts[layout].size for layout in self.which]
        self._starts = [0, *np.cumsum(sizes).tolist()]

    def __len__(self) -> int:
        return len(self.which)

    @property
    def alike(self) -> bool:
        """Whether all layers have one layout."""
        return len(self.layouts) == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return (len(self), self.operators, self.layouts[0].size) if self.alike else (self._starts[-1],)

    def layout(self, layer: int) -> BlockLayout:
        """The layout of a layer."""
        return self.layouts[self.which[layer]]

    def weights(self, weights: Tensor, layer: int) -> Tensor:
        """View (operators, size) of the weights of a layer."""
        if self.alike:
            return weights[layer]
        return weights[self._starts[layer] : self._starts[layer + 1]].unflatten(0, (self.operators, -1))

    def differences(self, weights: Tensor) -> Tensor:
        """Weights of each layer minus those of the layer before, of the blocks that both have. Differentiable."""
        if self.alike:
            return weights.diff(dim=0)
        before, after = self._shared
        return weights[after.to(weights.device)] - weights[before.to(weights.device)]

    def add_differences(self, grad: Tensor, weights: Tensor, scale: float) -> None:
        """grad += scale D^T D weights, with D the linear map of ``differences``."""
        difference = self.differences(weights)
        if self.alike:
            grad[1:].add_(difference, alpha=scale)
            grad[:-1].sub_(difference, alpha=scale)
            return
        before, after = self._shared
        grad.index_add_(0, after.to(grad.device), difference, alpha=scale)
        grad.index_add_(0, before.to(grad.device), difference, alpha=-scale)

    @cached_property
    def _shared(self) -> tuple[Tensor, Tensor]:
        """Places of what neighbouring layers share: in the earlier and in the later one."""
        before, after = [], []
        for layer in range(len(self) - 1):
            first, second = self.layout(layer), self.layout(layer + 1)
            here, there = np.intersect1d(_entry_keys(first), _entry_keys(second), return_indices=True)[1:]
            for operator in range(self.operators):
                before.append(self._starts[layer] + operator * first.size + here)
                after.append(self._starts[layer + 1] + operator * second.size + there)
        nothing = [np.empty(0, dtype=np.int64)]
        return torch.as_tensor(np.concatenate(before or nothing)), torch.as_tensor(np.concatenate(after or nothing))


class LayerViews:
    """Views of the weights by layer and operator, made for some layers at a time.

    One call makes the views of many layers; those of all layers at once would take memory that grows with depth.
    """

    CHUNK = 32

    def __init__(self, layers: Layers, weights: Tensor) -> None:
        self._layers = layers
        self._weights = weights
        self._cut_at = -1
        self._views: list[list[OperatorViews]] = []

    def of(self, layer: int, operator: int) -> OperatorViews:
        """K of every group, the biases, and both as they lie in memory, of an operator."""
        chunk, place = divmod(layer, self.CHUNK if self._layers.alike else 1)
        if chunk != self._cut_at:
            self._cut_at, self._views = chunk, self._cut(chunk)
        return self._views[operator][place]

    def _cut(self, chunk: int) -> list[list[OperatorViews]]:
        if self._layers.alike:
            part = self._weights[chunk * self.CHUNK : (chunk + 1) * self.CHUNK]
        else:
            part = self._layers.weights(self._weights, chunk).unsqueeze(0)
        layout = self._layers.layout(0 if self._layers.alike else chunk)
        return [_operator_views(layout, operator) for operator in part.unbind(1)]


def _operator_views(layout: BlockLayout, weights: Tensor) -> list[OperatorViews]:
    K = zip(*(group.matrices(weights).unbind(0) for group in layout.groups), strict=True)
    biases = (layout.size - layout.entries) // layout.halo.rows
    b = zip(*(layout.bias(weights, number).unsqueeze(-1).unbind(0) for number in range(biases)), strict=True)
    return list(zip(K, b, weights.unbind(0), strict=True))


def _entry_keys(layout: BlockLayout) -> np.ndarray:
    """A number for every weight of a layer that says what it is, whatever the layout: row, column, or row of a bias."""
    rows, columns, bias_rows = layout.positions()
    n = int(layout.halo.sizes.sum())
    biases = (layout.size - layout.entries) // max(len(bias_rows), 1)
    offsets = n * n + n * np.arange(biases)[:, np.newaxis]
    return np.concatenate([rows * n + columns, (offsets + bias_rows).ravel()])


def same_layouts(keys: Sequence[tuple[Pattern, CommunicationGraph]]) -> list[int]:
    """For every layer, the number of its layout; layers with one pattern and graph share one."""
    seen: dict[tuple[Pattern, CommunicationGraph], int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]
