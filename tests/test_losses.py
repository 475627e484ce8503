"""Losses at the root: their values by hand, what they count as right, and labels that do not fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hdnn_dist.losses import LOSSES, loss_function

LOG3 = math.log(3.0)
TWO_LOGITS = torch.tensor([[0.0, LOG3], [LOG3, 0.0]])  # probabilities 1/4 and 3/4
ONE_LOGIT = torch.tensor([[LOG3], [-LOG3]])
OUTPUTS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("name", "logits", "labels", "value", "correct"),
    [
        ("cross_entropy", TWO_LOGITS, torch.tensor([1, 1]), (math.log(4 / 3) + math.log(4)) / 2, 1),
        ("binary_cross_entropy", ONE_LOGIT, torch.tensor([1, 1]), (math.log(4 / 3) + math.log(4)) / 2, 1),
        ("binary_cross_entropy", ONE_LOGIT, torch.tensor([1, 0]), math.log(4 / 3), 2),
        ("mean_squared_error", OUTPUTS, torch.tensor([[1.0, 0.0], [3.0, 2.0]]), 2.0, 0),
    ],
)
def test_value_and_correct(name: str, logits: Tensor, labels: Tensor, value: float, correct: int) -> None:
    """The mean over the batch, so that the learning rate does not depend on the batch's size."""
    loss = loss_function(name, 2)
    assert float(loss.value(logits, loss.check(labels, 2, 2, torch.float32))) == pytest.approx(value)
    assert int(loss.correct(logits, labels)) == correct


@pytest.mark.parametrize(
    ("name", "outputs", "labels"),
    [
        ("cross_entropy", 5, torch.tensor([0, 4, 2, 2, 1, 0, 3])),
        ("binary_cross_entropy", 1, torch.tensor([0, 1, 1, 0, 1, 0, 0])),
        ("mean_squared_error", 3, torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3)),
    ],
)
def test_the_gradient_is_that_of_the_value(name: str, outputs: int, labels: Tensor) -> None:
    """Also where a logit is so large that its probability rounds to 0 or 1."""
    logits = torch.linspace(-3, 4, 7 * outputs, dtype=torch.float64).reshape(7, outputs).sin().mul(3)
    logits[2] *= 1e3
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(LOSSES[name].value(logits, labels), logits)
    torch.testing.assert_close(LOSSES[name].gradient(logits.detach(), labels), expected, rtol=1e-12, atol=1e-15)


def test_what_a_model_says_of_a_sample() -> None:
    """The probability of class 1 of two, the class of more, and targets as they are: what the pictures show."""
    assert LOSSES["cross_entropy"].decide(TWO_LOGITS).tolist() == pytest.approx([0.75, 0.25])
    assert LOSSES["cross_entropy"].decide(torch.tensor([[0.0, 2.0, 1.0]])).tolist() == [1]
    assert LOSSES["binary_cross_entropy"].decide(ONE_LOGIT).tolist() == pytest.approx([0.75, 0.25])
    assert LOSSES["mean_squared_error"].decide(OUTPUTS) is OUTPUTS


@pytest.mark.parametrize(
    ("name", "classes", "outputs"),
    [("cross_entropy", 5, 5), ("binary_cross_entropy", 2, 1), ("mean_squared_error", 3, 3)],
)
def test_outputs(name: str, classes: int, outputs: int) -> None:
    assert loss_function(name, classes).outputs(classes) == outputs


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        ("cross_entropy", None, "owns the readout's root needs labels"),
        ("cross_entropy", torch.tensor([0, 1]), r"shape \(2,\).*needs \(3,\) class numbers"),
        ("cross_entropy", torch.tensor([[0], [1], [1]]), r"shape \(3, 1\)"),
        ("cross_entropy", torch.zeros(3), "type torch.float32.*class numbers of type torch.int64"),
        ("cross_entropy", torch.zeros(3, dtype=torch.int32), "type torch.int32"),
        ("mean_squared_error", torch.zeros(3, 4, dtype=torch.float64), "type torch.float64.*network's torch.float32"),
        ("cross_entropy", torch.tensor([0, 4, 1]), "run from 0 to 4: with 4 classes they must lie between 0 and 3"),
        ("cross_entropy", torch.tensor([0, -1, 1]), "run from -1 to 1"),
        ("mean_squared_error", torch.zeros(3), r"shape \(3,\) and .*4 outputs and a batch of 3 needs \(3, 4\)"),
    ],
)
def test_labels_that_do_not_fit(name: str, labels: Tensor | None, words: str) -> None:
    """torch would broadcast some of these silently, or fail inside a kernel."""
    with pytest.raises(ValueError, match=words):
        loss_function(name, 4).check(labels, batch=3, classes=4, dtype=torch.float32)


def test_an_empty_batch_has_no_range() -> None:
    assert len(loss_function("cross_entropy", 2).check(torch.zeros(0, dtype=torch.int64), 0, 2, torch.float32)) == 0


def test_unknown_or_unfit_losses() -> None:
    with pytest.raises(ValueError, match="unknown loss 'cross_entrpy': did you mean 'cross_entropy'"):
        loss_function("cross_entrpy", 2)
    with pytest.raises(ValueError, match="binary_cross_entropy was given 3 classes: it separates 2"):
        loss_function("binary_cross_entropy", 3)
