"""Losses: the value, the number of samples that are right, and the gradient by what the head gives, the logits.

Over class numbers without weights they are compiled on a processor (``kernels.cpu.training_step``); elsewhere they are
computed in torch, as here, which is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.kernels.registry import compiled_function
from hdnn_dist.support.arguments import is_number, named, positive_number, require_type, shown

BALANCED = "balanced"
MOST_CLASSES = 64  # with more, torch's vectorised exponentials are faster

# of (logits, labels, told), with logits (batch, outputs), which writes the mean loss and the number of samples that are
# right into told (2,) and, where it is (2 + batch * outputs,), the gradient by the logits; ``ValueError`` for class
# numbers out of range
Judge = Callable[[Tensor, Tensor, Tensor], None]
Each = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """``value(logits, labels)``: mean over the batch of (batch, outputs); ``gradient``: its own by the logits, of their
    shape; ``correct``: how many samples are right; ``decide(logits)``: what the model says of each sample, the
    probability of class 1 of two, or the class of more. ``outputs(classes)``: the logits that the loss needs;
    ``integer``: whether labels are class numbers; ``class_weights``: (classes,) where classes count differently.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor]
    decide: Callable[[Tensor], Tensor]
    outputs: Callable[[int], int]
    integer: bool
    class_weights: Tensor | None = None

    def check(self, labels: Tensor | None, batch: int, classes: int, dtype: torch.dtype) -> Tensor:
        """``labels``: class numbers (batch,), or numbers (batch, classes).

        ``ValueError`` if the root has none, or of a shape or type that does not fit; ``TypeError`` for no tensor.
        """
        if labels is None:
            raise ValueError(
                "the rank that owns the readout's root needs labels, and got None: pass them with the state"
            )
        require_type("labels", labels, Tensor, "a tensor; convert them with torch.as_tensor")
        if self.integer and (labels.shape != (batch,) or labels.dtype != torch.int64):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and type {labels.dtype}: "
                f"{self.name} needs ({batch},) class numbers of type torch.int64; convert them with .long()"
            )
        if not self.integer and (labels.shape != (batch, classes) or labels.dtype != dtype):
            raise ValueError(
                f"targets have shape {tuple(labels.shape)} and type {labels.dtype}: {self.name} with {classes} outputs "
                f"and a batch of {batch} needs {(batch, classes)} of the network's {dtype}"
            )
        return labels

    def check_range(self, labels: Tensor, classes: int) -> None:
        """``ValueError`` for class numbers (batch,) out of range.

        Not on CUDA, where looking would stall and torch checks.
        """
        if self.integer and labels.is_cpu and labels.numel():
            least, most = (int(end) for end in labels.aminmax())
            if least < 0 or most >= classes:
                raise ValueError(
                    f"labels run from {least} to {most}: "
                    f"with {classes} classes they must lie between 0 and {classes - 1}"
                )


def _softmax_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """(softmax - one hot) / batch."""
    return logits.softmax(1).scatter_(1, labels.unsqueeze(1), -1.0, reduce="add").div_(len(labels))


def _binary(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype), reduction=reduction)


def _binary_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.sigmoid().sub_(labels.unsqueeze(1)).div_(len(labels))


def _squared_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - labels).mul_(2 / logits.numel())


def _absolute_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - labels).sign_().div_(logits.numel())


def _huber(delta: float, logits: Tensor, labels: Tensor) -> Tensor:
    return F.huber_loss(logits, labels, delta=delta)


def _huber_gradient(delta: float, logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - labels).clamp_(-delta, delta).div_(logits.numel())


def _weighted(each: Each, weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Divided by the number of samples, not by their weights: so parts of a batch add up to the batch."""
    return (each(logits, labels) * weights.to(logits)[labels]).mean()


def _weighted_gradient(gradient: Each, weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    return gradient(logits, labels).mul_(weights.to(logits)[labels].unsqueeze(1))


def _largest_right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).sum()


def _sign_right(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits.squeeze(1) > 0) == labels.bool()).sum()


def _none_right(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros((), device=logits.device)


def _class_or_probability(logits: Tensor) -> Tensor:
    return logits.softmax(1)[:, 1] if logits.shape[1] == 2 else logits.argmax(1)


def _probability(logits: Tensor) -> Tensor:
    return logits.squeeze(1).sigmoid()


def _as_it_is(logits: Tensor) -> Tensor:
    return logits


def _one_per_class(classes: int) -> int:
    return classes


def _one_for_two(classes: int) -> int:
    return 1


def _of_numbers(name: str, value: Each, gradient: Each) -> Loss:
    return Loss(name, value, gradient, _none_right, _as_it_is, _one_per_class, integer=False)


LOSSES = {
    loss.name: loss
    for loss in (
        Loss(
            "cross_entropy",
            F.cross_entropy,
            _softmax_gradient,
            _largest_right,
            _class_or_probability,
            _one_per_class,
            integer=True,
        ),
        Loss(
            "binary_cross_entropy",
            _binary,
            _binary_gradient,
            _sign_right,
            _probability,
            _one_for_two,
            integer=True,
        ),
        _of_numbers("mean_squared_error", F.mse_loss, _squared_gradient),
        _of_numbers("mean_absolute_error", F.l1_loss, _absolute_gradient),
        _of_numbers("huber", partial(_huber, 1.0), partial(_huber_gradient, 1.0)),
    )
}
FOR_NUMBERS = [loss.name for loss in LOSSES.values() if not loss.integer]
EACH: dict[str, Each] = {  # the loss of every sample, (batch,)
    "cross_entropy": partial(F.cross_entropy, reduction="none"),
    "binary_cross_entropy": partial(_binary, reduction="none"),
}


def loss_function(name: str, classes: int, delta: float | None = None) -> Loss:
    """The loss of that name; ``delta``: of ``huber``, 1 unless given, where it goes from squares to absolute values.

    ``ValueError`` for an unknown one, for classes that it cannot have, and for a delta where it has none.
    """
    loss = named("loss", name, LOSSES)
    if name == "binary_cross_entropy" and classes != 2:
        raise ValueError(f"binary_cross_entropy was given {classes} classes: it separates 2; use 'cross_entropy'")
    if loss.integer and classes < 2:
        raise ValueError(f"{name} was given 1 class: it tells 2 or more apart; use 'mean_squared_error' for a number")
    return loss if delta is None else _with_delta(loss, delta)


def loss_of_numbers(name: str, delta: float | None = None) -> Loss:
    """As ``loss_function``, for numbers alone; ``ValueError`` for a loss of classes."""
    if named("loss", name, LOSSES).integer:
        raise ValueError(f"{name} tells classes apart, but agents predict numbers: use {' or '.join(FOR_NUMBERS)}")
    return loss_function(name, 1, delta)


def chosen_loss(name: str, classes: int, class_weights: Sequence[float] | str | None, delta: float | None) -> Loss:
    """The loss with all that was given for it; "balanced" weights are checked to fit, and come later.

    ``ValueError`` as ``loss_function`` and ``with_class_weights``.
    """
    loss = loss_function(name, classes, delta)
    if class_weights is None:
        return loss
    if class_weights == BALANCED:
        with_class_weights(loss, [1.0] * classes, classes)
        return loss
    return with_class_weights(loss, class_weights, classes)


def with_class_weights(loss: Loss, weights: Sequence[float] | str, classes: int) -> Loss:
    """The loss with ``weights`` (classes,): a sample counts as much as its class, the mean stays that over samples.

    ``ValueError`` for a loss of numbers, and for weights that are not one number of at least 0 a class, one above 0.
    """
    if loss.name not in EACH:
        raise ValueError(f"class_weights are given, but {loss.name} is a loss of numbers, not of classes: drop them")
    if not isinstance(weights, Sequence) or isinstance(weights, str) or len(weights) != classes:
        raise ValueError(
            f"class_weights is {shown(weights)}: expected 'balanced' or a list of {classes} numbers, one for each class"
        )
    if not all(is_number(weight) and float(weight) >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"class_weights is {shown(weights)}: expected numbers of at least 0, one of them above 0")
    values = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
    return replace(
        loss,
        value=partial(_weighted, EACH[loss.name], values),
        gradient=partial(_weighted_gradient, LOSSES[loss.name].gradient, values),
        class_weights=values,
    )


def balanced(counts: Tensor) -> list[float]:
    """Weights (classes,) that let every class count alike, samples / (classes * counts), as scikit-learn's "balanced".

    ``counts``: (classes,) of the training samples. ``ValueError`` for a class without any.
    """
    if not counts.all():
        raise ValueError(
            f"class {int(counts.argmin())} has no training sample, so class_weights 'balanced' cannot weigh it: "
            f"give a list of {len(counts)} numbers"
        )
    weights: list[float] = (counts.sum().double() / (len(counts) * counts)).tolist()
    return weights


def _with_delta(loss: Loss, delta: float) -> Loss:
    if loss.name != "huber":
        raise ValueError(f"delta is {shown(delta)}, but the loss {loss.name} has none: drop it, or use 'huber'")
    at = positive_number("delta", delta)
    return replace(loss, value=partial(_huber, at), gradient=partial(_huber_gradient, at))


def judge(loss: Loss, classes: int, kernel: str, like: Tensor) -> Judge:
    """What judges logits (batch, outputs) of the type and device of ``like``.

    ``kernel``: of the network; with "torch" nothing is compiled.
    """
    fits = loss.integer and loss.class_weights is None and classes <= MOST_CLASSES
    function = compiled_function(loss.name, kernel, like) if fits else None

    def fast(logits: Tensor, labels: Tensor, told: Tensor) -> None:
        assert function is not None
        if not function(logits.numpy(), labels.contiguous().numpy(), told.numpy()):
            loss.check_range(labels, classes)

    def portable(logits: Tensor, labels: Tensor, told: Tensor) -> None:
        loss.check_range(labels, classes)
        told[0], told[1] = loss.value(logits, labels), loss.correct(logits, labels)
        if len(told) > 2:
            told[2:] = loss.gradient(logits, labels).flatten()

    return portable if function is None else fast
