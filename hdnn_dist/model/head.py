"""What stands behind the network and says how good it is: the protocol of every head.

A head reads the state after the last layer, compares what it makes of it with what this rank knows of the answers, and
gives the gradient back. Loss and metrics are the same on every rank. All ranks call the same methods in the same order.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor, nn

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.affine import SharedAffine
from hdnn_dist.model.losses import Loss
from hdnn_dist.model.metrics import Gathering
from hdnn_dist.model.trained import TrainedModule


class Head(TrainedModule, Protocol):
    """``at``: (readers,) the agents that are read; ``criterion``: its loss.

    ``everyone``: the tree over all agents, whose root's rank writes files and shows progress. After a call of ``loss``
    or ``backward``: ``correct``, how many samples were classified right, and ``predicted``, what was compared with the
    labels, (batch, outputs known on this rank).
    """

    agents: Agents
    at: np.ndarray
    criterion: Loss
    everyone: SumTree
    shared: SharedAffine | None
    correct: Tensor
    predicted: Tensor

    @property
    def weights(self) -> Tensor:
        """Its matrices on this rank, as it lays them out, of any shape."""
        ...

    @property
    def trained_weights(self) -> nn.Parameter:
        """The parameter that ``weights`` come from, of any shape."""
        ...

    def __call__(self, y: Tensor) -> Tensor:
        """(batch, local features[, positions...]) -> predictions, (batch, outputs known on this rank)."""
        ...

    def loss(self, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean loss of a batch, a scalar, on every rank. ``labels``: what this rank knows of the answers."""
        ...

    def backward(self, y: Tensor, labels: Tensor | None = None, weight: float = 1.0) -> Tensor:
        """What ``(weight * loss(y, labels)).backward()`` does; the loss, a scalar without a node or the weight."""
        ...

    def metrics(self) -> Gathering:
        """What takes up the predictions of one evaluation."""
        ...
