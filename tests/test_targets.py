"""What is to be predicted, as sources hand it out: class numbers, numbers at the root, numbers at agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdnn_dist import CommunicationGraph
from hdnn_dist.data import SOURCES, Description, Request, Split, describe, load

RING = CommunicationGraph.ring(6)
TWO = {1: 1, 4: 2}
GOOD = Description("made", columns=6, classes=3, samples=4, task="regression", targets=TWO)
NUMBERS = np.arange(8.0).reshape(4, 2)


class Made:
    """A source that says of itself what a case wants."""

    def __init__(self, about: Description, labels: Any = None, targets: Any = None) -> None:
        self.about, self.labels, self.targets = about, labels, targets

    def describe(self, root: Path | None) -> Description:
        return self.about

    def read(self, request: Request) -> tuple[Split, Split]:
        part = Split(np.zeros((4, len(request.columns))), self.labels, self.targets)
        return part, part


def made(monkeypatch: pytest.MonkeyPatch, source: Made, **asked: Any) -> Any:
    monkeypatch.setitem(SOURCES, "made", source)
    return load("made", seed=0, index=np.arange(6), graph=RING, **asked)


def test_numbers_at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    about = Description("made", columns=6, classes=2, samples=4, task="regression")
    data = made(monkeypatch, Made(about, NUMBERS))
    assert (data.task, data.classes, data.targets) == ("regression", 2, None)
    np.testing.assert_array_equal(data.train.labels, NUMBERS)


def test_a_rank_asks_for_the_targets_of_its_own_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for no labels, even where it has the root of the tree."""
    asked: list[Request] = []

    class Files(Made):
        def read(self, request: Request) -> tuple[Split, Split]:
            asked.append(request)
            part = request.split(np.zeros((4, 6)), None, {1: NUMBERS[:, :1], 4: NUMBERS})
            return part, part

    data = made(monkeypatch, Files(GOOD), targets=[4])
    assert (asked[0].targets, asked[0].labels, list(data.train.targets)) == ((4,), False, [4])
    assert (data.train.labels, data.targets) == (None, TWO)
    np.testing.assert_array_equal(data.train.targets[4], NUMBERS)


SPOILED = NUMBERS.copy()
SPOILED[2, 1] = np.nan
ROOT = Description("made", columns=6, classes=2, samples=4, task="regression")
WRONG = {
    "class numbers for regression": (
        ROOT,
        np.zeros(4, dtype=np.int64),
        {},
        "labels are an array of int64, expected an",
    ),
    "a row of numbers": (ROOT, np.zeros(4), {}, r"labels have shape \(4,\), expected \(4, 2\)"),
    "NaN at the root": (ROOT, SPOILED, {}, "training samples .* labels are nan at sample 2, output 1"),
    "no labels": (ROOT, None, {}, "labels are a NoneType"),
    "NaN at an agent": (GOOD, None, {4: SPOILED}, "targets of agent 4 are nan at sample 2, output 1"),
    "targets of another agent": (GOOD, None, {1: NUMBERS}, r"targets are those of agents \[1\], expected \[4\]"),
    "too few outputs": (GOOD, None, {4: NUMBERS[:, :1]}, r"targets of agent 4 have shape \(4, 1\), expected \(4, 2\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_source_hands_out_is_checked(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    about, labels, targets, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        made(monkeypatch, Made(about, labels, targets), targets=[4] if about.targets else [])
    assert "\n" not in str(caught.value)


ABOUT = {"name": "made", "columns": 6, "classes": 2, "samples": 4}
DESCRIPTIONS = {
    "task": ({"task": "ranking"}, "has the task 'ranking': expected classification or regression"),
    "classes at agents": ({"targets": {0: 1}}, "targets at 1 agents for classification"),
    "targets at nobody": ({"task": "regression", "targets": {}}, "targets at 0 agents"),
    "an agent that is not there": (
        {"task": "regression", "targets": {6: 1}},
        "targets at agent 6, which does not exist: there are 6 agents, 0 to 5",
    ),
    "no outputs": ({"task": "regression", "targets": {0: 0}}, "the outputs of agent 0 in the data set made is 0"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_what_a_source_says_of_itself_is_checked(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, message = DESCRIPTIONS[case]
    monkeypatch.setitem(SOURCES, "made", Made(Description(**ABOUT, **given)))
    with pytest.raises(ValueError, match=message):
        describe("made", graph=RING)


def test_targets_that_no_agent_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="targets of agent 0 are asked for, but the data set made has none there"):
        made(monkeypatch, Made(GOOD), targets=[0])


def test_waves_are_numbers_over_the_plane() -> None:
    data = load("waves", seed=0, index=np.arange(2), samples=400, noise=0.0)
    x, y = data.test.inputs.T
    np.testing.assert_allclose(data.test.labels, np.sin(np.pi * x)[:, None] * np.cos(np.pi * y)[:, None])
    assert (data.task, data.classes, len(data.train)) == ("regression", 1, 200)


def test_a_field_spreads_over_the_graph() -> None:
    """Neighbours tell what an agent alone cannot know: three steps of the same linear law."""
    data = load("diffusing_field", seed=0, index=np.arange(6), samples=400, noise=0.0, graph=RING, targets=range(6))
    near = RING.matrix().astype(float)
    np.fill_diagonal(near, 0)
    law = np.linalg.matrix_power(0.6 * np.eye(6) + 0.4 * near / 2, 3)
    later = np.concatenate([data.train.targets[agent] for agent in range(6)], axis=1)
    np.testing.assert_allclose(later, data.train.inputs @ law.T, atol=1e-12)
    assert describe("diffusing_field", graph=RING).targets == dict.fromkeys(range(6), 1)


def test_one_sensor_predicts() -> None:
    about = describe("diffusing_sensor", graph=CommunicationGraph.path(5))
    assert (about.targets, about.classes, about.columns) == ({2: 1}, 1, 5)


@pytest.mark.parametrize("name", ["waves", "diffusing_field"])
def test_every_rank_gets_its_share_of_the_same_samples(name: str) -> None:
    whole = load(name, seed=3, index=np.arange(2), graph=RING, samples=40)
    part = load(name, seed=3, index=np.array([1]), graph=RING, samples=40, labels=False)
    np.testing.assert_array_equal(part.train.inputs, whole.train.inputs[:, 1:])
    assert part.train.labels is None


def test_a_field_needs_its_graph() -> None:
    with pytest.raises(ValueError, match="lives on a graph: pass graph="):
        describe("diffusing_field")


@pytest.mark.parametrize("name", ["waves", "diffusing_field"])
@pytest.mark.parametrize(("options", "words"), [({"samples": 3}, "4 samples or more"), ({"noise": -1.0}, "not -1.0")])
def test_samples_that_cannot_be_made(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(name, seed=0, index=np.arange(2), graph=RING, **options)
