"""Losses at the root: the value, the number of samples that are right, and the gradient by the logits.

Over class numbers they are compiled on a processor (``kernels.cpu.training_step``); elsewhere they are computed in
torch, as here, which is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.kernels.registry import compiled_function
from hdnn_dist.support.arguments import named, require_type

MOST_CLASSES = 64  # with more, torch's vectorised exponentials are faster

# of (logits, labels, told), with logits (batch, outputs), which writes the mean loss and the number of samples that are
# right into told (2,) and, where it is (2 + batch * outputs,), the gradient by the logits; ``ValueError`` for class
# numbers out of range
Judge = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Loss:
    """``value(logits, labels)``: mean over the batch of (batch, outputs); ``gradient``: its own by the logits, of their
    shape; ``correct``: how many samples are right; ``decide(logits)``: what the model says of each sample, the
    probability of class 1 of two, or the class of more. ``outputs(classes)``: the logits that the loss needs;
    ``integer``: whether labels are class numbers.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor]
    decide: Callable[[Tensor], Tensor]
    outputs: Callable[[int], int]
    integer: bool

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


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype))


def _binary_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.sigmoid().sub_(labels.unsqueeze(1)).div_(len(labels))


def _squared_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - labels).mul_(2 / logits.numel())


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
        Loss(
            "mean_squared_error",
            F.mse_loss,
            _squared_gradient,
            _none_right,
            _as_it_is,
            _one_per_class,
            integer=False,
        ),
    )
}


def loss_function(name: str, classes: int) -> Loss:
    """The loss of that name; ``ValueError`` for an unknown one or classes that it cannot have."""
    loss = named("loss", name, LOSSES)
    if name == "binary_cross_entropy" and classes != 2:
        raise ValueError(f"binary_cross_entropy was given {classes} classes: it separates 2; use 'cross_entropy'")
    if loss.integer and classes < 2:
        raise ValueError(f"{name} was given 1 class: it tells 2 or more apart; use 'mean_squared_error' for a number")
    return loss


def judge(loss: Loss, classes: int, kernel: str, like: Tensor) -> Judge:
    """What judges logits (batch, outputs) of the type and device of ``like``.

    ``kernel``: of the network; with "torch" nothing is compiled.
    """
    fits = loss.integer and classes <= MOST_CLASSES
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
