"""What is trained and whose it is, told once: the optimiser, checkpoints and the search for NaN walk through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.weights.blocks import BlockLayout, Group
from hdnn_dist.weights.layers import Layers

View = Callable[[Tensor], Tensor]
BEFORE = -1  # stands for the layer of the input, and of the lift


class SharedParameter(nn.Parameter):
    """A parameter, of any shape, that every rank holds a copy of, with the same gradient: in sums over ranks it counts
    once.
    """


@dataclass(frozen=True)
class Trained:
    """A part of a parameter that belongs to one agent.

    ``name``: on the disk; ``view``: from the parameter, or from what lies like it, its gradient, to this part, of any
    shape; ``layers``: those that its first dimension goes through, or the one that all of it belongs to. ``shared``:
    whether every rank holds it; it is then that of ``agent`` which writes it.
    """

    name: str
    agent: int
    parameter: nn.Parameter
    view: View
    layers: range
    shared: bool = False


class TrainedModule(Protocol):
    """A module whose parameters are trained: the network, the readout, the lift, and whatever joins them."""

    def trained(self) -> Iterator[Trained]:
        """All that is trained on this rank, each number once."""
        ...

    def trained_names(self) -> Iterator[str]:
        """The names of what is trained on any rank, the same on all."""
        ...


def written(modules: Sequence[TrainedModule], agents: Agents) -> Iterator[Trained]:
    """All that is trained whose numbers this rank writes: of its own agents, and shared ones with agent 0."""
    every = (part for module in modules for part in module.trained())
    return (part for part in every if not part.shared or agents.owns(part.agent))


def parameters(modules: Sequence[TrainedModule]) -> list[nn.Parameter]:
    """Everything that is trained on this rank, each parameter once; shared ones on every rank, in the same order."""
    return list(dict.fromkeys(part.parameter for module in modules for part in module.trained()))


def trained_layers(stack: Layers, parameter: nn.Parameter) -> Iterator[Trained]:
    """K (layers, operators, rows, columns) and b (layers, operators, biases, rows) of every agent.

    Where layers differ there is a part for each, without the first dimension.
    """
    for suffix, layers, piece in _pieces(stack):
        layout = stack.layout(layers.start)
        for group in layout.groups:
            for number, agent in enumerate(group.agents.tolist()):
                K, b = partial(_matrix, piece, group, number), partial(_biases, piece, layout, group, number)
                yield Trained(f"agent.{agent}.K{suffix}", agent, parameter, K, layers)
                yield Trained(f"agent.{agent}.b{suffix}", agent, parameter, b, layers)


def trained_blocks(layout: BlockLayout, parameter: nn.Parameter, kind: str) -> Iterator[Trained]:
    """The blocks (1 or layers, rows, columns) of every agent, in a parameter (1 or layers, size)."""
    for group in layout.groups:
        for number, agent in enumerate(group.agents.tolist()):
            view = partial(_matrix, _whole, group, number)
            yield Trained(f"agent.{agent}.{kind}", agent, parameter, view, range(len(parameter)))


def names_of_layers(stack: Layers) -> Iterator[str]:
    """What ``trained_layers`` calls the parts of one agent."""
    return (kind + suffix for suffix, _, _ in _pieces(stack) for kind in "Kb")


def _pieces(stack: Layers) -> Iterator[tuple[str, range, View]]:
    """(what is added to a name, layers, from weights to those of these layers)."""
    if stack.alike:
        yield "", range(len(stack)), _whole
    else:
        yield from ((f".{at}", range(at, at + 1), partial(_layer, stack, at)) for at in range(len(stack)))


def _whole(weights: Tensor) -> Tensor:
    return weights


def _layer(stack: Layers, layer: int, weights: Tensor) -> Tensor:
    return stack.weights(weights, layer)


def _matrix(piece: View, group: Group, number: int, weights: Tensor) -> Tensor:
    return group.matrix(piece(weights), number)


def _biases(piece: View, layout: BlockLayout, group: Group, number: int, weights: Tensor) -> Tensor:
    return layout.biases_of(piece(weights), group, number)


def by_columns(
    suffix: str, parameter: nn.Parameter, agents: np.ndarray, widths: np.ndarray, dim: int, layer: int
) -> Iterator[Trained]:
    """A parameter whose dimension ``dim`` holds ``widths`` (agents,) entries of each of these ``agents`` (agents,)."""
    starts = np.cumsum(widths) - widths
    for agent, start, width in zip(agents.tolist(), starts.tolist(), widths.tolist(), strict=True):
        view = partial(_narrow, dim, start, width)
        yield Trained(f"agent.{agent}.{suffix}", agent, parameter, view, range(layer, layer + 1))


def _narrow(dim: int, start: int, width: int, whole: Tensor) -> Tensor:
    return whole.narrow(dim, start, width)
