"""Losses at the root: their values by hand, what they count as right, and labels that do not fit."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place
from hdnn_dist.kernels import registry
from hdnn_dist.model.losses import (
    LOSSES,
    MOST_CLASSES,
    balanced,
    chosen_loss,
    judge,
    loss_function,
    loss_of_numbers,
    with_class_weights,
)

LOG3 = math.log(3.0)
TWO_LOGITS = torch.tensor([[0.0, LOG3], [LOG3, 0.0]])  # probabilities 1/4 and 3/4
ONE_LOGIT = torch.tensor([[LOG3], [-LOG3]])
OUTPUTS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

NUMBERS = ("mean_squared_error", "mean_absolute_error", "huber")


@pytest.mark.parametrize(
    ("name", "logits", "labels", "value", "correct"),
    [
        ("cross_entropy", TWO_LOGITS, torch.tensor([1, 1]), (math.log(4 / 3) + math.log(4)) / 2, 1),
        ("binary_cross_entropy", ONE_LOGIT, torch.tensor([1, 1]), (math.log(4 / 3) + math.log(4)) / 2, 1),
        ("binary_cross_entropy", ONE_LOGIT, torch.tensor([1, 0]), math.log(4 / 3), 2),
        ("mean_squared_error", OUTPUTS, torch.tensor([[1.0, 0.0], [3.0, 2.0]]), 2.0, 0),
        ("mean_absolute_error", OUTPUTS, torch.tensor([[1.0, 0.0], [3.0, 5.0]]), 0.75, 0),
        ("huber", OUTPUTS, torch.tensor([[1.0, 0.0], [3.0, 4.5]]), (1.5 + 0.125) / 4, 0),
    ],
)
def test_value_and_correct(name: str, logits: Tensor, labels: Tensor, value: float, correct: int) -> None:
    """The mean over the batch, so that the learning rate does not depend on the batch's size."""
    for kernel in ("torch", "auto"):
        told = torch.full((2,), torch.nan)
        judge(loss_function(name, 2), 2, kernel, logits)(logits, labels, told)
        assert told.tolist() == pytest.approx([value, correct])


@pytest.mark.parametrize(
    ("name", "outputs", "labels"),
    [
        ("cross_entropy", 5, torch.tensor([0, 4, 2, 2, 1, 0, 3])),
        ("binary_cross_entropy", 1, torch.tensor([0, 1, 1, 0, 1, 0, 0])),
        *((name, 3, torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3)) for name in NUMBERS),
    ],
)
def test_the_gradient_is_that_of_the_value(name: str, outputs: int, labels: Tensor) -> None:
    """Also where a logit is so large that its probability rounds to 0 or 1."""
    logits = torch.linspace(-3, 4, 7 * outputs, dtype=torch.float64).reshape(7, outputs).sin().mul(3)
    logits[2] *= 1e3
    logits.requires_grad_()
    value = LOSSES[name].value(logits, labels)
    (expected,) = torch.autograd.grad(value, logits)
    for kernel in ("torch", "auto"):
        told = torch.full((2 + expected.numel(),), torch.nan, dtype=expected.dtype)
        judge(LOSSES[name], max(outputs, 2), kernel, logits)(logits.detach(), labels, told)
        torch.testing.assert_close(told[2:].view_as(expected), expected, rtol=1e-12, atol=1e-15)
        assert told[0].item() == pytest.approx(value.item(), rel=1e-13)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_form_is_the_torch_form(name: str, dtype: torch.dtype) -> None:
    """To rounding, in a batch of many samples too; and what is not finite stays so."""
    loss, generator = LOSSES[name], torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(300, loss.outputs(2), generator=generator, dtype=dtype)
    labels = torch.randint(0, 2, (300,), generator=generator)
    torch_form, compiled = (judge(loss, 2, kernel, logits) for kernel in ("torch", "auto"))
    assert torch_form.__qualname__ != compiled.__qualname__
    for spoiled in (None, torch.nan, torch.inf):
        if spoiled is not None:
            logits[7] = spoiled
        expected, told = torch.zeros(2, 2 + logits.numel(), dtype=dtype)
        torch_form(logits, labels, expected)
        compiled(logits, labels, told)
        torch.testing.assert_close(told, expected, equal_nan=True, rtol=4 * torch.finfo(dtype).eps, atol=1e-9)


def test_many_classes_are_judged_in_torch() -> None:
    logits = torch.zeros(1, MOST_CLASSES + 1)
    few, many = (
        judge(LOSSES["cross_entropy"], classes, "auto", logits) for classes in (MOST_CLASSES, MOST_CLASSES + 1)
    )
    assert few.__qualname__ != many.__qualname__


def test_it_is_compiled_once() -> None:
    """For the types that it is called with: another signature would be compiled at the first step."""
    for loss in (LOSSES["cross_entropy"], LOSSES["binary_cross_entropy"]):
        logits = torch.zeros(4, loss.outputs(2))
        told, function = (
            torch.zeros(2 + logits.numel()),
            registry.compiled_function(loss.name, "auto", logits),
        )
        assert function is not None
        before = list(function.signatures)
        judge(loss, 2, "auto", logits)(logits, torch.zeros(8, dtype=torch.int64)[::2], told)
        assert function.signatures == before


def test_what_cannot_be_compiled_is_judged_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdnn_dist.kernels.cpu.training_step", None)
    registry._compiled.cache_clear()
    told = torch.zeros(2)
    judge(LOSSES["cross_entropy"], 2, "auto", TWO_LOGITS)(TWO_LOGITS, torch.tensor([1, 0]), told)
    assert told.tolist() == pytest.approx([math.log(4 / 3), 2])
    registry._compiled.cache_clear()


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
        ("mean_squared_error", torch.zeros(3), r"shape \(3,\) and .*4 outputs and a batch of 3 needs \(3, 4\)"),
    ],
)
def test_labels_that_do_not_fit(name: str, labels: Tensor | None, words: str) -> None:
    """torch would broadcast some of these silently, or fail inside a kernel."""
    with pytest.raises(ValueError, match=words):
        loss_function(name, 4).check(labels, batch=3, classes=4, dtype=torch.float32)


@pytest.mark.parametrize("kernel", ["torch", "auto"])
@pytest.mark.parametrize(
    ("name", "classes", "labels", "words"),
    [
        ("cross_entropy", 4, [0, 4, 1], "run from 0 to 4: with 4 classes they must lie between 0 and 3"),
        ("cross_entropy", 4, [0, -1, 1], "run from -1 to 1"),
        ("binary_cross_entropy", 2, [0, 1, 2], "run from 0 to 2: with 2 classes they must lie between 0 and 1"),
    ],
)
def test_labels_out_of_range(kernel: str, name: str, classes: int, labels: list[int], words: str) -> None:
    loss = loss_function(name, classes)
    logits = torch.zeros(3, loss.outputs(classes))
    with pytest.raises(ValueError, match=words):
        judge(loss, classes, kernel, logits)(logits, torch.tensor(labels), torch.empty(2))


@pytest.mark.parametrize("kernel", ["torch", "auto"])
def test_an_empty_batch_has_no_range(kernel: str) -> None:
    logits, told = torch.zeros(0, 2), torch.zeros(2)
    judge(LOSSES["cross_entropy"], 2, kernel, logits)(logits, torch.zeros(0, dtype=torch.int64), told)
    assert told[0].isnan()
    assert told[1] == 0


def test_unknown_or_unfit_losses() -> None:
    with pytest.raises(ValueError, match="unknown loss 'cross_entrpy': did you mean 'cross_entropy'"):
        loss_function("cross_entrpy", 2)
    with pytest.raises(ValueError, match="binary_cross_entropy was given 3 classes: it separates 2"):
        loss_function("binary_cross_entropy", 3)


def told_of(loss, logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    told = torch.full((2 + logits.numel(),), torch.nan, dtype=logits.dtype)
    judge(loss, classes, "auto", logits)(logits, labels, told)
    return told


@pytest.mark.parametrize("delta", [0.1, 1.0, 7.5])
def test_huber_goes_from_squares_to_absolute_values_at_its_delta(delta: float) -> None:
    logits, labels = torch.linspace(-9, 9, 20, dtype=torch.float64).view(10, 2).requires_grad_(), torch.zeros(10, 2)
    value = F.huber_loss(logits, labels.double(), delta=delta)
    told = told_of(loss_function("huber", 2, delta), logits.detach(), labels.double(), 2)
    assert told[0].item() == pytest.approx(value.item(), rel=1e-13)
    torch.testing.assert_close(told[2:].view(10, 2), torch.autograd.grad(value, logits)[0], rtol=1e-12, atol=0)


WEIGHTS = [0.5, 2.0, 0.0, 3.0]


def test_weights_of_classes_are_those_of_torch() -> None:
    """Value and gradient; divided by the samples, where torch divides by their weights, so that parts add up."""
    logits = torch.linspace(-3, 4, 28, dtype=torch.float64).view(7, 4).sin().mul(3).requires_grad_()
    labels, weights = torch.tensor([0, 1, 2, 3, 3, 0, 1]), torch.tensor(WEIGHTS, dtype=torch.float64)
    value = F.cross_entropy(logits, labels, weights, reduction="sum") / 7
    told = told_of(with_class_weights(LOSSES["cross_entropy"], WEIGHTS, 4), logits.detach(), labels, 4)
    assert told[0].item() == pytest.approx(value.item(), rel=1e-13)
    torch.testing.assert_close(told[2:].view(7, 4), torch.autograd.grad(value, logits)[0], rtol=1e-12, atol=1e-15)
    parts = [
        told_of(with_class_weights(LOSSES["cross_entropy"], WEIGHTS, 4), logits.detach()[s], labels[s], 4)[0]
        for s in (slice(0, 5), slice(5, 7))
    ]
    assert float(parts[0] * 5 + parts[1] * 2) / 7 == pytest.approx(value.item(), rel=1e-13)


def test_weights_of_two_classes_are_those_of_torch() -> None:
    logits = torch.linspace(-3, 4, 7, dtype=torch.float64).view(7, 1).requires_grad_()
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    each = torch.tensor([0.5, 2.0], dtype=torch.float64)[labels]
    value = F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.double(), each)
    told = told_of(with_class_weights(LOSSES["binary_cross_entropy"], [0.5, 2.0], 2), logits.detach(), labels, 2)
    assert told[0].item() == pytest.approx(value.item(), rel=1e-13)
    torch.testing.assert_close(told[2:].view(7, 1), torch.autograd.grad(value, logits)[0], rtol=1e-12, atol=1e-15)


def test_weights_of_one_change_nothing() -> None:
    logits, labels = torch.linspace(-3, 4, 14).view(7, 2).sin(), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    weighted = told_of(with_class_weights(LOSSES["cross_entropy"], [1, 1], 2), logits, labels, 2)
    torch.testing.assert_close(weighted, told_of(LOSSES["cross_entropy"], logits, labels, 2))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    expected = compute("balanced", classes=labels.unique().numpy(), y=labels.numpy())
    assert balanced(labels.bincount()) == pytest.approx(expected.tolist())
    with pytest.raises(ValueError, match="class 1 has no training sample"):
        balanced(torch.tensor([3, 0, 2]))


def test_a_readout_is_balanced_at_the_root() -> None:
    """Before that it has no loss; after it, it has the loss of the weights."""
    agents = place(CommunicationGraph.ring(4), connect("local"))
    net = HDNN(agents, 2, 2, dtype=torch.float64, kernel="torch")
    y, labels = torch.linspace(-1, 1, 80, dtype=torch.float64).view(10, 8), torch.tensor([0] * 8 + [1] * 2)
    head = Readout(agents, net, class_weights="balanced")
    with pytest.raises(ValueError, match="call balance"):
        head.loss(y, labels)
    head.balance(labels.bincount())
    given = Readout(agents, net, class_weights=[10 / 16, 10 / 4])
    assert head.loss(y, labels).item() == given.loss(y, labels).item()
    assert head.loss(y, labels).item() != Readout(agents, net).loss(y, labels).item()


@pytest.mark.parametrize(
    ("name", "weights", "delta", "words"),
    [
        ("cross_entropy", [1.0], None, r"class_weights is \[1.0\]: expected 'balanced' or a list of 2 numbers"),
        ("cross_entropy", "equal", None, "class_weights is 'equal': expected 'balanced'"),
        ("cross_entropy", [1.0, -1.0], None, "expected numbers of at least 0"),
        ("cross_entropy", [0, 0], None, "one of them above 0"),
        ("cross_entropy", [1.0, math.nan], None, "expected numbers of at least 0"),
        ("huber", [1.0, 1.0], None, "huber is a loss of numbers, not of classes"),
        ("huber", "balanced", None, "huber is a loss of numbers, not of classes"),
        ("huber", None, 0.0, "delta is 0.0: expected a finite number greater than 0"),
        ("cross_entropy", None, 1.0, "delta is 1.0, but the loss cross_entropy has none"),
    ],
)
def test_weights_and_deltas_that_do_not_fit(name: str, weights, delta: float | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chosen_loss(name, 2, weights, delta)


def test_agents_predict_numbers() -> None:
    with pytest.raises(ValueError, match="cross_entropy tells classes apart, but agents predict numbers"):
        loss_of_numbers("cross_entropy")
