"""A linear map for each of some agents, from its own features to its own outputs: a block-diagonal matrix.

Agents of one shape are multiplied together; one after another, many small products would take their time in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor


class AgentMaps:
    """The maps of n agents; ``widths``, ``outputs`` and ``starts``: (n,) features, outputs, first feature of each.

    Their matrices lie in one flat tensor of weights, (``size``,); outputs are side by side, agent after agent.
    """

    def __init__(self, starts: np.ndarray, widths: np.ndarray, outputs: np.ndarray, device: torch.device) -> None:
        self.outputs = int(outputs.sum())
        self.size = int((widths * outputs).sum())
        self._groups = list(_groups(starts, widths, outputs, device))
        self._where = {place: (group, at) for group in self._groups for at, place in enumerate(group.places)}

    def apply(self, y: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """y (batch, features) -> (batch, outputs), with a bias (outputs,)."""
        result = bias.repeat(len(y), 1)
        for group in self._groups:
            result[:, group.columns] += torch.einsum("bnw,now->bno", y[:, group.rows], group.matrices(weights))
        return result

    def gradients(self, y: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Those of y (batch, features) and of the weights (size,), from that of the outputs, (batch, outputs)."""
        grad_y, grad_weights = torch.zeros_like(y), torch.zeros_like(weights)
        for group in self._groups:
            part = grad[:, group.columns]
            grad_y[:, group.rows] = torch.einsum("bno,now->bnw", part, group.matrices(weights))
            group.matrices(grad_weights).copy_(torch.einsum("bno,bnw->now", part, y[:, group.rows]))
        return grad_y, grad_weights

    def matrix(self, place: int, weights: Tensor) -> Tensor:
        """(outputs, width) of the agent at this place, a view of weights (size,)."""
        group, at = self._where[place]
        return group.matrices(weights)[at]


@dataclass(frozen=True)
class _Group:
    """Agents of one shape: ``rows`` (n, width) of the state, ``columns`` (n, outputs), the start of their weights."""

    places: list[int]
    rows: Tensor
    columns: Tensor
    start: int

    def matrices(self, weights: Tensor) -> Tensor:
        shape = (*self.columns.shape, self.rows.shape[1])
        return weights.narrow(0, self.start, prod(shape)).view(shape)


def _groups(starts: np.ndarray, widths: np.ndarray, outputs: np.ndarray, device: torch.device) -> Iterator[_Group]:
    first, start = np.cumsum(outputs) - outputs, 0
    for width, count in sorted(set(zip(widths.tolist(), outputs.tolist(), strict=True))):
        places = np.flatnonzero((widths == width) & (outputs == count))
        rows = torch.as_tensor(starts[places, np.newaxis] + np.arange(width), device=device)
        columns = torch.as_tensor(first[places, np.newaxis] + np.arange(count), device=device)
        yield _Group(places.tolist(), rows, columns, start)
        start += len(places) * width * count
