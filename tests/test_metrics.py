"""Metrics: those of scikit-learn, however an evaluation is cut into batches, and left out where they are undefined."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdnn_dist import CommunicationGraph, connect, place
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.metrics import ClassMetrics, Gathering, NumberMetrics, headline

metrics = pytest.importorskip("sklearn.metrics")
TREE = SumTree(place(CommunicationGraph.ring(3), connect("local")))


def gathered(gathering: Gathering, predicted: torch.Tensor, labels: torch.Tensor, batch: int) -> dict[str, float]:
    for part in torch.arange(len(labels)).split(batch):
        gathering.add(predicted[part], labels[part])
    return gathering.told()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), outputs=st.sampled_from([1, 2, 3, 5]), batch=st.integers(1, 40))
def test_those_of_classes(seed: int, outputs: int, batch: int) -> None:
    """Scores are rounded, so that there are ties; some classes may have no sample."""
    generator = torch.Generator().manual_seed(seed)
    classes = max(outputs, 2)
    labels = torch.randint(classes, (30,), generator=generator)
    logits = torch.randn(30, outputs, generator=generator).mul(2).round()
    found = gathered(ClassMetrics(classes, TREE), logits, labels, batch)
    chosen = (logits[:, 0] > 0).long() if outputs == 1 else logits.argmax(1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, chosen))
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, chosen, average="macro", zero_division=0))
    if len(labels.unique()) == classes:
        scores = logits[:, -1] - (logits[:, 0] if outputs == 2 else 0) if outputs < 3 else logits.softmax(1)
        assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr"))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), outputs=st.integers(1, 3), batch=st.integers(1, 40), far=st.sampled_from([0, 1e6]))
def test_those_of_numbers(seed: int, outputs: int, batch: int, far: float) -> None:
    """Also far from zero, where a difference of sums of squares would lose all digits."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(30, outputs, generator=generator, dtype=torch.float64) + far
    predicted = target + torch.randn(30, outputs, generator=generator, dtype=torch.float64)
    found = gathered(NumberMetrics(TREE), predicted, target, batch)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(target, predicted))
    assert found["rmse"] == pytest.approx(metrics.mean_squared_error(target, predicted) ** 0.5)
    assert found["r2"] == pytest.approx(metrics.r2_score(target, predicted), rel=1e-6)


def test_what_is_undefined_is_left_out() -> None:
    assert gathered(ClassMetrics(2, TREE), torch.ones(4, 1), torch.ones(4, dtype=torch.long), 2) == {
        "accuracy": 1.0,
        "f1": 1.0,
    }


@pytest.mark.parametrize(("predicted", "r2"), [(1.0, 1.0), (2.0, 0.0)])
def test_targets_that_never_change_have_nothing_to_explain(predicted: float, r2: float) -> None:
    """As scikit-learn has it."""
    assert gathered(NumberMetrics(TREE), torch.full((4, 1), predicted), torch.ones(4, 1), 3)["r2"] == r2


def test_numbers_that_are_not_finite_do_not_stop_an_evaluation() -> None:
    """What stops the run is the check of its loss, which says where they come from."""
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [torch.inf, torch.inf]])
    gathered(ClassMetrics(2, TREE), logits, torch.tensor([0, 1, 1]), 2)
    gathered(NumberMetrics(TREE), logits, torch.zeros(3, 2), 2)


def test_the_metric_that_stands_for_all() -> None:
    assert headline({"f1": 0.5, "accuracy": 0.98754}) == "accuracy 0.9875"
    assert headline({"mae": 0.5, "rmse": 0.25}) == "rmse 0.2500"
    assert headline({}) == ""
