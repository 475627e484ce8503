"""A readout at every agent that has targets of its own: prediction_i = W_i y_i + c_i, from its own state alone.

Predictions and their gradients need no message. The losses are summed along the tree, as one mean over all samples and
outputs, so that it does not depend on who shares a rank with whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import nan, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.affine import SharedAffine
from hdnn_dist.model.agent_maps import AgentMaps
from hdnn_dist.model.given import check_call, check_weight
from hdnn_dist.model.head_weights import HeadWeights, check_shared, told_shared
from hdnn_dist.model.losses import loss_of_numbers
from hdnn_dist.model.metrics import Gathering, NumberMetrics
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.precision import own_types
from hdnn_dist.model.readers import check_agents, check_positions, check_readers, checked_positions
from hdnn_dist.model.trained import Trained, by_columns
from hdnn_dist.support.arguments import require_type, whole
from hdnn_dist.weights.initial import draw_readout


class AgentReadouts(HeadWeights):
    """Linear heads, one at each agent with targets, and their common loss: a ``Head``.

    ``targets``: agent -> how many numbers it predicts. ``loss``: ``mean_squared_error``, ``mean_absolute_error`` or
    ``huber``, with its ``delta``. ``root``: the agent from which loss and metrics go out (default: the first that
    predicts). ``positions``: the trailing dimensions of the network's output, read by separate weights.

    ``weights`` (entries,), the W_i (outputs, features times positions) of the local agents one after another, and
    ``bias`` (outputs of the local agents,) are the parameters. Raises ``ValueError`` for what cannot be built.

    ``shared``: whether all have one W and c, ``shared.weights`` (outputs, width) and ``shared.bias``, or the ``shared``
    of another head, on whatever graph; all then have as many features and outputs.

    Messages: loss and metrics are one small sum along the tree, two messages an edge; backward needs none, but for the
    sum of the gradient of what is shared.
    """

    def __init__(
        self,
        agents: Agents,
        net: HDNN,
        targets: Mapping[int, int],
        loss: str = "mean_squared_error",
        root: int | None = None,
        positions: Sequence[int] = (),
        delta: float | None = None,
        shared: bool | SharedAffine = False,
    ) -> None:
        super().__init__()
        require_type("agents", agents, Agents, "what hdnn_dist.place(graph, world) returns")
        require_type("net", net, HDNN, "the HDNN that is read")
        require_type("targets", targets, Mapping, "a dict from agents to how many numbers each predicts")
        check_shared(shared)
        net.require_same(shared=told_shared(shared))
        net.require_same(targets=sorted(targets.items()), loss=loss, root=root, positions=positions, delta=delta)
        check_agents(agents, net.agents)
        self.agents = agents
        self.at = check_readers(sorted(targets), agents.graph.agents)
        self.targets = {i: whole(f"the outputs of agent {i}", targets[i]) for i in self.at.tolist()}
        self.outputs = sum(self.targets.values())
        self.criterion = loss_of_numbers(loss, delta)
        self.root = int(self.at[0]) if root is None else root
        self.everyone = SumTree(agents, self.root)
        self._positions = checked_positions(positions)
        self._layer, self._local_features = net.layers, net.local_features
        self._tables(net, prod(self._positions))
        if shared is False:
            self._draw(net)
        else:
            self._draw_shared(net, shared)
        self._built = torch.Size([self._maps.size])

    def _tables(self, net: HDNN, positions: int) -> None:
        """Where the features of each local reader lie in the state."""
        local = self.agents.local
        here = np.isin(local, self.at)
        self._readers = local[here]
        self._out = np.array([self.targets[agent] for agent in self._readers.tolist()], dtype=np.int64)
        widths = net.features[local] * positions
        self._maps = AgentMaps((np.cumsum(widths) - widths)[here], widths[here], self._out, self.agents.world.device)
        self._widths = widths[here]

    def _draw(self, net: HDNN) -> None:
        weights = net.trained_weights.new_empty(self._maps.size)
        for place, (agent, width) in enumerate(zip(self._readers, self._widths.tolist(), strict=True)):
            drawn = draw_readout(np.array([agent]), np.array([width]), int(self._out[place]), net.seed, width)
            self._maps.matrix(place, weights).copy_(torch.as_tensor(drawn))
        self._hold(weights, weights.new_zeros(self._maps.outputs))

    def _draw_shared(self, net: HDNN, shared: bool | SharedAffine) -> None:
        counts = {self.targets[agent] for agent in self.at.tolist()}
        if len(counts) > 1:
            raise ValueError(
                f"agents predict {sorted(counts)} numbers, but a shared readout is one for all: give all as many, or "
                "leave shared out"
            )
        widths = net.features[self.at] * prod(self._positions)
        self._share(shared, net, widths, counts.pop(), self.criterion.name)

    def _spread(self, W: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return W.flatten().repeat(len(self._readers)), c.repeat(len(self._readers))

    def _add_up(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        W, c = self._trained
        return weights.view(-1, *W.shape).sum(0), bias.view(-1, len(c)).sum(0)

    def forward(self, y: Tensor) -> Tensor:
        """(batch, local features[, positions...]) -> (batch, outputs of the local agents), agent after agent.

        Differentiable, without a message: a rank may call it alone, but not the backward pass of a shared one.
        """
        predicted: Tensor = _Predictions.apply(self._read(y), *self._held(), self._maps)
        return predicted

    def loss(self, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean over samples and outputs of all agents, a scalar, on every rank; y: as in ``forward``.

        ``labels``: (batch, outputs of the local agents), agent after agent, of the network's type; ``None`` where no
        local agent predicts. Raises ``ValueError`` on every rank for labels that do not fit on any.
        """
        loss: Tensor = _Loss.apply(self._read(y), *self._held(), labels, self)
        return loss

    def backward(self, y: Tensor, labels: Tensor | None = None, weight: float = 1.0) -> Tensor:
        """What ``(weight * loss(y, labels)).backward()`` does, with one node of autograd less.

        Returns the loss, a scalar without a node and without the weight. Gradients add to what is there.
        """
        check_weight(weight)
        read = self._read(y)
        with torch.no_grad(), own_types(read):
            loss, grad = self._judge(read, labels)
            grad = grad * weight
            grad_read, grad_weights = self._maps.gradients(read, self.weights, grad)
            self._add_gradients(grad_weights, grad.sum(0))
        if read.requires_grad:
            read.backward(grad_read)
        return loss

    def metrics(self) -> Gathering:
        """As ``Head.metrics``: every rank takes up what its own agents predict."""
        return NumberMetrics(self.everyone)

    def _trained_here(self) -> Iterator[Trained]:
        layers, (weights, bias) = range(self._layer, self._layer + 1), self._trained
        for place, agent in enumerate(self._readers.tolist()):
            yield Trained(f"agent.{agent}.readout", agent, weights, partial(self._maps.matrix, place), layers)
        yield from by_columns("readout.bias", bias, self._readers, self._out, dim=0, layer=self._layer)

    def _names(self) -> Iterator[str]:
        return (f"agent.{agent}.readout{part}" for agent in self.at.tolist() for part in ("", ".bias"))

    def _of_agents(self) -> dict[str, object]:
        return {"agents that predict": [(agent, self.targets[agent]) for agent in self._readers.tolist()]}

    def _read(self, y: Tensor) -> Tensor:
        """(batch, local features times positions)."""
        check_call(y, self._local_features, self.agents, self.weights, self._built)
        check_positions(y, self._positions)
        return y.flatten(1)

    def _judge(self, y: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The loss of all agents, and its gradient by the predictions here (batch, outputs); one sum along the tree.

        A rank that refuses its labels tells the others, so that all raise.
        """
        self.predicted = self._maps.apply(y, self.weights, self.bias)
        self.correct = y.new_zeros(())
        failure: Exception | None = None
        share, grad = y.new_zeros(2), self.predicted
        try:
            share[0], grad = self._own_share(labels)
        except Exception as error:
            failure = error
            share.fill_(nan)
        total = self.everyone.sum(share)
        self._refuse_together(failure, total[1])
        return total[0].clone(), grad

    def _refuse_together(self, failure: Exception | None, refused: Tensor) -> None:
        """Raise on every rank where one ``refused`` its labels; on CUDA looking would stall, and the others get NaN."""
        if not refused.is_cpu:
            if failure is not None:
                raise failure
        elif refused.item():
            with agreed(self.everyone):
                if failure is not None:
                    raise failure

    def _own_share(self, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the agents here add to the loss, a scalar, and its gradient (batch, outputs)."""
        predicted, count = self.predicted, self.predicted.shape[1]
        if not count:
            return predicted.new_zeros(()), predicted
        known = self.criterion.check(labels, len(predicted), count, predicted.dtype)
        share = count / self.outputs
        return self.criterion.value(predicted, known) * share, self.criterion.gradient(predicted, known) * share


class _Predictions(torch.autograd.Function):
    """Each agent from its own state; no message either way."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, bias: Tensor, maps: AgentMaps) -> Tensor:
        ctx.maps = maps
        ctx.save_for_backward(y, weights)
        with own_types(y):
            return maps.apply(y, weights, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        y, weights = ctx.saved_tensors
        with own_types(y):
            return *ctx.maps.gradients(y, weights, grad), grad.sum(0), None


class _Loss(torch.autograd.Function):
    """One sum along the tree in the forward pass; the gradient of its own predictions is known to every rank then."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weights: Tensor, bias: Tensor, labels: Tensor | None, head: AgentReadouts
    ) -> Tensor:
        with own_types(y):
            loss, grad = head._judge(y, labels)
        ctx.maps = head._maps
        ctx.save_for_backward(y, weights, grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, weights, grad = ctx.saved_tensors
        with own_types(y):
            return *ctx.maps.gradients(y, weights, grad * grad_loss), grad.sum(0) * grad_loss, None, None
