"""Which blocks each layer has, and where its weights lie: one layout for all layers, or a graph per layer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.weights.blocks import BlockLayout

OperatorViews = tuple[
    tuple[Tensor, ...], tuple[Tensor, ...], Tensor
]  # of one operator in one layer: K of every group, biases (rows, 1), and all of it as it lies in memory, (size,)


AddDifferences = Callable[[Tensor, Tensor, float], object]


class Run(NamedTuple):
    """Layers that follow each other and have one layout. ``weights``: (layers of the run, operators, size), a view."""

    layout: BlockLayout
    layers: range
    weights: Tensor


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
        ends = [layer + 1 for layer in range(len(self)) if self.which[layer : layer + 2] != [self.which[layer]] * 2]
        self._runs = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def __len__(self) -> int:
        return len(self.which)

    @property
    def alike(self) -> bool:
        """Whether all layers are one run."""
        return len(self._runs) == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return (len(self), self.operators, self.layouts[0].size) if self.alike else (self._starts[-1],)

    def layout(self, layer: int) -> BlockLayout:
        """The layout of a layer."""
        return self.layouts[self.which[layer]]

    def run_of(self, layer: int) -> int:
        """The number of the run that a layer belongs to."""
        return bisect_right(self._runs, layer, key=lambda run: run.start) - 1

    def run(self, weights: Tensor, number: int) -> Run:
        """That run, with its part (layers of the run, operators, size) of weights of ``shape``, a view."""
        layers = self._runs[number]
        layout = self.layout(layers.start)
        if self.alike:
            return Run(layout, layers, weights)
        part = weights[self._starts[layers.start] : self._starts[layers.stop]]
        return Run(layout, layers, part.view(len(layers), self.operators, layout.size))

    def runs(self, weights: Tensor) -> list[Run]:
        """All runs, first to last, each with its (layers of the run, operators, size) of weights of ``shape``.

        One where layers are alike, one for each layer where no two neighbours are.
        """
        return [self.run(weights, number) for number in range(len(self._runs))]

    def weights(self, weights: Tensor, layer: int) -> Tensor:
        """View (operators, size) of the weights of a layer."""
        run = self.run(weights, self.run_of(layer))
        return run.weights[layer - run.layers.start]

    def differences(self, weights: Tensor) -> Tensor:
        """(n,) weights of each layer minus those of the layer before, of the n that both have. Differentiable."""
        within = [run.weights.diff(dim=0).flatten() for run in self.runs(weights)]
        if self.alike:
            return within[0]
        before, after = (places.to(weights.device) for places in self._shared)
        return torch.cat([*within, weights[after] - weights[before]])

    def add_differences(self, grad: Tensor, weights: Tensor, scale: float, add: AddDifferences | None = None) -> None:
        """grad += scale D^T D weights, with D the linear map of ``differences``.

        Both of the same shape, (layers, operators, size), or flat where layers differ.

        ``add``: does so for one run, in place of torch.
        """
        for into, run in zip(self.runs(grad), self.runs(weights), strict=True):
            (add or add_differences)(into.weights, run.weights, scale)
        if not self.alike:
            before, after = (places.to(weights.device) for places in self._shared)
            difference = weights[after] - weights[before]
            grad.index_add_(0, after, difference, alpha=scale)
            grad.index_add_(0, before, difference, alpha=-scale)

    @cached_property
    def _shared(self) -> tuple[Tensor, Tensor]:
        """Places of what neighbouring runs share: in the last layer of the earlier, in the first of the later one."""
        before, after = [], []
        for layer in (run.stop - 1 for run in self._runs[:-1]):
            first, second = self.layout(layer), self.layout(layer + 1)
            here, there = np.intersect1d(_entry_keys(first), _entry_keys(second), return_indices=True)[1:]
            for operator in range(self.operators):
                before.append(self._starts[layer] + operator * first.size + here)
                after.append(self._starts[layer + 1] + operator * second.size + there)
        return torch.as_tensor(np.concatenate(before)), torch.as_tensor(np.concatenate(after))


def add_differences(grad: Tensor, weights: Tensor, scale: float) -> None:
    """grad += scale D^T D weights, D the differences of neighbours among the layers; (layers, ...) both."""
    difference = weights.diff(dim=0)
    grad[1:].add_(difference, alpha=scale)
    grad[:-1].sub_(difference, alpha=scale)


class LayerViews:
    """Views of weights, (layers, operators, size) or flat, by layer and operator, made for some layers at a time.

    One call makes the views of many layers; those of all layers at once would take memory that grows with depth.
    """

    CHUNK = 32

    def __init__(self, layers: Layers, weights: Tensor) -> None:
        self._layers = layers
        self._weights = weights
        self._cut = range(0)
        self._views: list[list[OperatorViews]] = []

    def of(self, layer: int, operator: int) -> OperatorViews:
        """K (A, rows, columns) of every group, the biases (rows, 1), and both as they lie in memory, (size,)."""
        if layer not in self._cut:
            self._make(self._layers.run(self._weights, self._layers.run_of(layer)), layer)
        return self._views[operator][layer - self._cut.start]

    def _make(self, run: Run, layer: int) -> None:
        """The views of the chunk of a run in which the layer is."""
        start = (layer - run.layers.start) // self.CHUNK * self.CHUNK
        part = run.weights[start : start + self.CHUNK]
        self._cut = run.layers[start : start + self.CHUNK]
        self._views = [_operator_views(run.layout, operator) for operator in part.unbind(1)]


def _operator_views(layout: BlockLayout, weights: Tensor) -> list[OperatorViews]:
    K = zip(*(group.matrices(weights).unbind(0) for group in layout.groups), strict=True)
    b = zip(*(layout.bias(weights, number).unsqueeze(-1).unbind(0) for number in range(layout.biases)), strict=True)
    return list(zip(K, b, weights.unbind(0), strict=True))


def _entry_keys(layout: BlockLayout) -> np.ndarray:
    """A number for every weight of a layer that says what it is, whatever the layout: row, column, or row of a bias."""
    rows, columns, bias_rows = layout.positions()
    n = int(layout.halo.sizes.sum())
    offsets = n * n + n * np.arange(layout.biases)[:, np.newaxis]
    return np.concatenate([rows * n + columns, (offsets + bias_rows).ravel()])


def same_layouts(keys: Sequence[tuple[Pattern, CommunicationGraph]]) -> list[int]:
    """For every layer, the number of its layout; layers with one pattern and graph share one."""
    seen: dict[tuple[Pattern, CommunicationGraph], int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]
