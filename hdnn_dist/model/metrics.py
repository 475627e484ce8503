"""How good predictions are, beside their loss: taken up batch by batch, and told to every rank in the end.

A rank takes up what it knows, the root's rank everything where labels are at the root, every rank its own agents where
those have targets. What is kept: counts and sums, and where areas under curves are asked for the scores of the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Protocol

import torch
from torch import Tensor

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.support.rows import Rows

CHUNK = 1 << 16  # samples
LOWER_IS_BETTER = ("mae", "rmse")
Metrics = dict[str, float]


class Gathering(Protocol):
    """What takes up the predictions of an evaluation."""

    def add(self, predicted: Tensor, labels: Tensor | None) -> None:
        """One more batch, as the head gave it and as it took it: (batch, outputs), and labels of this rank or None."""
        ...

    def told(self) -> Metrics:
        """The metrics by name, the same on every rank, which all have to call it: one sum along the tree."""
        ...


def headline(metrics: Mapping[str, float]) -> str:
    """The metric that stands for all in a line of text: "accuracy 0.9875", or "rmse 0.1234" where numbers are learned.

    Empty where there is none.
    """
    name = next((name for name in ("accuracy", "rmse") if name in metrics), None)
    return "" if name is None else f"{name} {metrics[name]:.4f}"


class ClassMetrics:
    """``accuracy``, ``f1`` and ``auc``: F1 is the mean over the classes that occur, the area under the curve that of
    class 1 of two, or the mean of each class against the rest.

    What is undefined, such as the area under a curve where all samples are of one class, is left out.
    """

    def __init__(self, classes: int, tree: SumTree) -> None:
        self._classes, self._tree = classes, tree
        self._scores, self._labels = Rows(), Rows()

    def add(self, predicted: Tensor, labels: Tensor | None) -> None:
        """As ``Gathering.add``, for logits (batch, outputs) and class numbers (batch,)."""
        if labels is not None:
            self._scores.append(_scores(predicted))
            self._labels.append(labels)

    def told(self) -> Metrics:
        """As ``Gathering.told``."""
        own = [0.0] * 3
        if len(self._labels):
            scores, labels = self._scores.all(), self._labels.all()
            chosen = (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)
            right = (chosen == labels).double().mean().item()
            own = [right, macro_f1(chosen, labels, self._classes), mean_auc(scores, labels)]
        return _summed(self._tree, dict(zip(("accuracy", "f1", "auc"), own, strict=True)))


class NumberMetrics:
    """``mae``, ``rmse`` and ``r2``: mean absolute error, root of the mean squared one, share of variance explained.

    Over all samples and outputs; ``r2`` is the mean of that of each output. Sums are kept, no predictions.
    """

    def __init__(self, tree: SumTree) -> None:
        self._tree = tree
        self._count = 0
        self._sums: Tensor | None = None  # (4, outputs): absolute and squared errors, mean of targets, their spread

    def add(self, predicted: Tensor, labels: Tensor | None) -> None:
        """As ``Gathering.add``, for (batch, outputs) both."""
        if labels is None or not labels.shape[1]:
            return
        target, error = labels.double(), predicted.double() - labels.double()
        mean = target.mean(0)
        batch = torch.stack([error.abs().sum(0), error.square().sum(0), mean, (target - mean).square().sum(0)])
        self._sums = batch if self._sums is None else _joined(self._sums, self._count, batch, len(target))
        self._count += len(target)

    def told(self) -> Metrics:
        """As ``Gathering.told``."""
        own = [0.0] * 4
        if self._sums is not None:
            absolute, squared, _, spread = self._sums
            r2 = torch.where(spread > 0, 1 - squared / spread, (squared == 0).double())
            own = [*(float(part.sum()) / self._count for part in (absolute, squared)), float(r2.sum()), len(r2)]
        mae, mse, r2_sum, outputs = _along(self._tree, own)
        return {"mae": mae / outputs, "rmse": (mse / outputs) ** 0.5, "r2": r2_sum / outputs}


def macro_f1(chosen: Tensor, labels: Tensor, classes: int) -> float:
    """Mean over the classes that occur of 2 right / (chosen + given); ``chosen`` and ``labels``: (samples,)."""
    right, picked, given = (
        torch.bincount(part, minlength=classes).double() for part in (labels[chosen == labels], chosen, labels)
    )
    occurs = picked + given > 0
    return float((2 * right[occurs] / (picked + given)[occurs]).mean())


def mean_auc(scores: Tensor, labels: Tensor) -> float:
    """The area under the curve of class 1 of two for scores (samples, 1), else the mean of those of each class.

    ``labels``: (samples,). NaN where no class has samples both inside and outside.
    """
    if scores.shape[1] == 1:
        return auc(scores[:, 0], labels == 1)
    areas = [auc(column, labels == number) for number, column in enumerate(scores.T)]
    defined = [area for area in areas if not isnan(area)]
    return sum(defined) / len(defined) if defined else nan


def auc(scores: Tensor, inside: Tensor) -> float:
    """How often a sample inside scores above one outside, ties half. Both (samples,); needs little more memory."""
    number = int(inside.sum())
    pairs = number * (len(inside) - number)
    if not pairs:
        return nan
    outside = scores[~inside].sort().values
    twice = 0  # how often above, and how often not below
    for part in scores[inside].split(CHUNK):
        twice += int((torch.searchsorted(outside, part) + torch.searchsorted(outside, part, right=True)).sum())
    return twice / 2 / pairs


def _scores(logits: Tensor) -> Tensor:
    """(batch, outputs) -> (batch, 1) for two classes, above 0 for class 1, or the probabilities of more."""
    if logits.shape[1] == 2:
        return logits[:, 1:] - logits[:, :1]
    return logits if logits.shape[1] == 1 else logits.softmax(1)


def _joined(sums: Tensor, count: int, batch: Tensor, more: int) -> Tensor:
    """Sums over both, (4, outputs); spreads are joined without the difference of large squares."""
    joined, total = sums + batch, count + more
    apart = batch[2] - sums[2]
    joined[2] = sums[2] + apart * more / total
    joined[3] += apart.square() * count * more / total
    return joined


def _along(tree: SumTree, own: list[float]) -> list[float]:
    numbers: list[float] = tree.sum(torch.tensor(own, dtype=torch.float64, device=tree.agents.world.device)).tolist()
    return numbers


def _summed(tree: SumTree, own: Metrics) -> Metrics:
    """Those that are defined; one rank knows them, the others give zeros."""
    summed = dict(zip(own, _along(tree, list(own.values())), strict=True))
    return {name: value for name, value in summed.items() if not isnan(value)}
