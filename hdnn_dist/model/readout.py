"""The readout: logits = sum over agents of W_i y_i + c, summed up a tree to the root; gradients come back down it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import isnan, nan, prod
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.affine import SharedAffine, as_it_is
from hdnn_dist.model.given import check_call, check_weight
from hdnn_dist.model.head_weights import HeadWeights, check_shared, told_shared
from hdnn_dist.model.losses import BALANCED, Judge, balanced, chosen_loss, judge, with_class_weights
from hdnn_dist.model.metrics import ClassMetrics, Gathering, NumberMetrics
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.precision import own_types
from hdnn_dist.model.readers import check_agents, check_positions, check_readers, checked_positions
from hdnn_dist.model.trained import Trained, by_columns
from hdnn_dist.support.arguments import require_memory, require_type, whole
from hdnn_dist.weights.initial import draw_readout


class Readout(HeadWeights):
    """A linear head over some or all agents, with its loss.

    ``classes``: classes, or numbers to predict. ``loss``: ``cross_entropy``, ``binary_cross_entropy`` (two classes, one
    logit), or for numbers ``mean_squared_error``, ``mean_absolute_error`` or ``huber``, with its ``delta``. ``at``: the
    agents that are read (default: all). ``root``: the agent where logits are summed and labels are known (default: the
    first of ``at``). ``positions``: the trailing dimensions of the network's output, read by separate weights.
    ``class_weights``: a number for each class, or "balanced" for those of ``balance``. ``shared``: whether W is one for
    all agents, and logits the mean of W y_i, plus c; or the ``shared`` of another readout, on whatever graph.

    ``weights`` (outputs, features of the local agents that are read, times positions) and ``bias`` (outputs,) at the
    root, empty elsewhere, are the parameters, or ``shared.weights`` and ``shared.bias``.
    Raises ``ValueError`` for what cannot be built.

    Messages: the sum takes one per edge of the tree that joins the agents read, the gradient another; where not all
    agents are read, loss and accuracy reach the others by one more along the whole tree.
    """

    def __init__(
        self,
        agents: Agents,
        net: HDNN,
        classes: int = 2,
        loss: str = "cross_entropy",
        at: Sequence[int] | None = None,
        root: int | None = None,
        positions: Sequence[int] = (),
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        delta: float | None = None,
        shared: bool | SharedAffine = False,
    ) -> None:
        super().__init__()
        require_type("agents", agents, Agents, "what hdnn_dist.place(graph, world) returns")
        require_type("net", net, HDNN, "the HDNN that is read")
        net.require_same(classes=classes, loss=loss, at=at, root=root, positions=positions, owners=agents.owner)
        check_shared(shared)
        net.require_same(class_weights=class_weights, delta=delta, shared=told_shared(shared))
        check_agents(agents, net.agents)
        positions = checked_positions(positions)
        self.agents = agents
        self.classes = whole("classes", classes)
        self.criterion = chosen_loss(loss, self.classes, class_weights, delta)
        self._unbalanced = class_weights == BALANCED
        self.outputs = self.criterion.outputs(classes)
        self.at = check_readers(at, agents.graph.agents)
        self.root = int(self.at[0]) if root is None else root
        self.tree = SumTree(agents, self.root, self.at)
        self.everyone = self.tree if at is None else SumTree(agents, self.root)
        self._positions = positions
        self._kernel = net.kernel
        self._tables(net, prod(positions))
        read = net.features * prod(positions)
        require_memory(f"{classes} classes of {read.sum()} features", 8 * classes * int(read.sum()))
        drawn = draw_readout(self._readers, read[self._readers], self.outputs, net.seed, int(read[self.at].sum()))
        weights = torch.as_tensor(drawn, dtype=net.trained_weights.dtype, device=net.trained_weights.device)
        if shared is False:
            self._hold(weights, weights.new_zeros(self.outputs if self.tree.is_root else 0))
        else:
            self._share(shared, net, read[self.at], self.outputs, self.criterion.name)
        self._built, self._local_features = weights.shape, net.local_features

    def _spread(self, W: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return W.repeat(1, len(self._readers)) / len(self.at), c[: len(c) * self.tree.is_root]

    def _add_up(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        W, c = self._trained
        own = weights.unflatten(1, (-1, W.shape[1])).sum(1) / len(self.at)
        return own, bias if len(bias) else torch.zeros_like(c)

    def _tables(self, net: HDNN, positions: int) -> None:
        """Which rows of the local state are read, and to which component of the tree they add."""
        local, device = self.agents.local, self.agents.world.device
        read = np.isin(local, self.at)
        self._readers = local[read]
        self._widths, self._layer = net.features[self._readers] * positions, net.layers
        rows = torch.as_tensor(np.flatnonzero(np.repeat(read, net.features[local])), device=device)
        self._rows = None if read.all() else rows
        part = np.repeat(self.tree.part_of(self._readers), net.features[self._readers] * positions)
        selects = torch.as_tensor(part == np.arange(self.tree.parts)[:, np.newaxis], device=device)
        self._selects = selects.to(net.trained_weights.dtype).unsqueeze(1)

    def forward(self, y: Tensor) -> Tensor:
        """(batch, local features[, positions...]) -> logits (batch, outputs) on the root's rank, (batch, 0) elsewhere.

        Differentiable: the gradient that the root puts into its logits reaches every agent's block. Every rank has
        to call it, and to call backward through it.
        """
        logits: Tensor = _Logits.apply(self._read(y), *self._held(), self)
        return logits

    def loss(self, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean loss of a batch, a scalar, on every rank; y: as in ``forward``.

        ``labels``: class numbers (batch,), or numbers (batch, classes) for ``mean_squared_error``; needed on the root's
        rank only. ``correct`` is then the number of samples that were classified right. With gradients enabled the
        gradient comes down the tree in this call, so that backward needs no message. Raises ``ValueError`` at the root
        for labels that do not fit, and on the other ranks with it.
        """
        loss, self.correct = _Loss.apply(self._read(y), *self._held(), labels, self, torch.is_grad_enabled())
        return loss

    def backward(self, y: Tensor, labels: Tensor | None = None, weight: float = 1.0) -> Tensor:
        """What ``(weight * loss(y, labels)).backward()`` does, with one node of autograd less.

        Returns the loss, a scalar without a node and without the weight. Gradients add to what the parameters hold
        already, the head's and those of everything that led to ``y``. Hooks on the head's parameters are not called.
        """
        check_weight(weight)
        read = self._read(y)
        with torch.no_grad(), own_types(read):
            loss, self.correct, grad = self._judge(read, labels, train=True)
            grad_read, *grads = self._gradients(read, self.weights, grad if weight == 1 else grad * weight)
            self._add_gradients(*grads)
        if read.requires_grad:
            read.backward(grad_read)
        return loss

    def balance(self, counts: Tensor) -> None:
        """Let every class count alike, for class_weights "balanced": ``counts`` (classes,) of the training samples.

        Called on the root's rank before the first loss; the others need not know. ``ValueError`` for an empty class.
        """
        self.criterion = with_class_weights(self.criterion, balanced(counts), self.classes)
        self._unbalanced = False
        self.__dict__.pop("_judge_logits", None)

    def metrics(self) -> Gathering:
        """As ``Head.metrics``: the root takes up what it predicts, and tells it to all."""
        return ClassMetrics(self.classes, self.everyone) if self.criterion.integer else NumberMetrics(self.everyone)

    def _trained_here(self) -> Iterator[Trained]:
        weights, bias = self._trained
        yield from by_columns("readout", weights, self._readers, self._widths, dim=1, layer=self._layer)
        if self.tree.is_root:
            yield Trained("readout.bias", self.root, bias, as_it_is, range(self._layer, self._layer + 1))

    def _names(self) -> Iterator[str]:
        return iter([*(f"agent.{agent}.readout" for agent in self.at.tolist()), "readout.bias"])

    def _of_agents(self) -> dict[str, object]:
        return {"agents that are read": self._readers.tolist(), "root": self.root}

    def _read(self, y: Tensor) -> Tensor:
        """(batch, rows that are read times positions)."""
        check_call(y, self._local_features, self.agents, self.weights, self._built)
        check_positions(y, self._positions)
        return (y if self._rows is None else y.index_select(1, self._rows)).flatten(1)

    def _sum(self, y: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """Logits (batch, outputs) at the root, after one pass up the tree; (batch, 0) elsewhere."""
        root = self.tree.is_root
        if self.tree.parts == 1:
            logits = F.linear(y, weights, bias if root else None)
            self.tree.reduce(logits.view(1, -1))
            return logits if root else logits.new_empty(len(y), 0)
        each = torch.matmul(y, self._by_part(weights).mT)
        if root:
            each[self.tree.root_part] += bias
        self.tree.reduce(each.flatten(1))
        return each[self.tree.root_part] if root else each.new_empty(len(y), 0)

    def _judge(self, y: Tensor, labels: Tensor | None, train: bool) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, correct), and the gradient by the logits (parts, batch, outputs) if ``train``, on every rank.

        A root that refuses its labels tells the others, so that all raise.
        """
        self.predicted = logits = self._sum(y, self.weights, self.bias)
        failure: Exception | None = None
        told = y.new_empty(2 + (len(y) * self.outputs if train else 0))
        try:
            if self.tree.is_root:
                self._require_balance()
                labels = self.criterion.check(labels, len(logits), self.classes, logits.dtype)
                self._judge_logits(logits, labels, told)
        except Exception as error:
            failure = error
            told.fill_(nan)
        (loss, correct), grad = self._down(told)
        if failure is not None or (correct.is_cpu and isnan(correct.item())):  # on CUDA looking would stall
            raise failure or ValueError(f"rank {self.agents.owner[self.root]} refused its labels: see its message")
        return loss, correct, grad.view(len(grad), len(y), self.outputs if train else 0)

    def _require_balance(self) -> None:
        if self._unbalanced:
            raise ValueError(
                "class_weights is 'balanced': call balance(counts) on the root's rank before the first loss"
            )

    @cached_property
    def _judge_logits(self) -> Judge:
        return judge(self.criterion, self.classes, self._kernel, self.weights)

    def _down(self, told: Tensor) -> tuple[Tensor, Tensor]:
        """The root's (loss, correct), and its gradient (parts, batch times outputs) for the agents that are read."""
        if self.tree is self.everyone:
            every = self.tree.spread(told)
            return every[0, :2].clone(), every[:, 2:]
        grad = told[2:]
        return self.everyone.spread(told[:2])[0].clone(), self.tree.spread(grad) if len(grad) else grad.unsqueeze(0)

    def _by_part(self, weights: Tensor) -> Tensor:
        """(parts, outputs, rows): the weights of each component of the tree, zero elsewhere."""
        return weights * self._selects

    def _gradients(self, y: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of y, weights and bias from the logits' gradient ``grad`` (parts, batch, outputs); no message."""
        at_root = grad[self.tree.root_part] if self.tree.is_root else grad.new_empty(1, 0)
        if self.tree.parts == 1:
            only = at_root if self.tree.is_root else grad[0]
            return only @ weights, only.T @ y, at_root.sum(0)
        grad_y = torch.matmul(grad, self._by_part(weights)).sum(0)
        grad_weights = (torch.matmul(grad.mT, y) * self._selects).sum(0)
        return grad_y, grad_weights, at_root.sum(0)


class _Logits(torch.autograd.Function):
    """Up the tree in the forward pass, down the tree in the backward pass."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, bias: Tensor, head: Readout) -> Tensor:
        ctx.head = head
        ctx.save_for_backward(y, weights)
        with own_types(y):
            return head._sum(y, weights, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        y, weights = ctx.saved_tensors
        tree = ctx.head.tree
        values = y.new_empty(tree.parts, len(y) * ctx.head.outputs)
        if tree.is_root:
            values[tree.root_part] = grad_logits.flatten()
        tree.broadcast(values)
        with own_types(y):
            return *ctx.head._gradients(y, weights, values.unflatten(1, (len(y), -1))), None


class _Loss(torch.autograd.Function):
    """Up the tree with the logits, down it with their gradient, the loss and the number of samples that are right."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weights: Tensor, bias: Tensor, labels: Tensor | None, head: Readout, train: bool
    ) -> tuple[Tensor, Tensor]:
        with own_types(y):
            loss, correct, grad = head._judge(y, labels, train)
        ctx.head = head
        ctx.save_for_backward(y, weights, grad)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, weights, grad = ctx.saved_tensors
        with own_types(y):
            return *ctx.head._gradients(y, weights, grad * grad_loss), None, None, None
