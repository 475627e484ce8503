"""The data room: every rank gets its own columns of the same samples in the same order, and nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdnn_dist.data import (
    SOURCES,
    Columns,
    Dataset,
    Description,
    Request,
    Split,
    batches,
    describe,
    load,
    local_features,
)
from hdnn_dist.data.synthetic import double_circles, double_moons, swiss_roll

PLANAR = ["swiss_roll", "double_circles", "double_moons"]


def whole(name: str, seed: int = 0, **options: Any) -> Dataset:
    """A data set with all its columns, in order."""
    return load(name, seed=seed, index=np.arange(describe(name).columns), **options)


def labels_of(part: Split) -> npt.NDArray[np.int64]:
    assert part.labels is not None
    return part.labels


def rows(data: Dataset) -> npt.NDArray[np.float64]:
    """All samples with their label as last column, sorted."""
    table = np.concatenate([np.column_stack([s.inputs, labels_of(s)]) for s in (data.train, data.test)])
    return table[np.lexsort(table.T)].astype(np.float64)


def test_spread_gives_two_columns_to_opposite_agents_of_the_ring() -> None:
    """The recipe of the distributed example: agents 0 and 4 of 8, first feature."""
    columns = Columns.spread(2, [2] * 8)
    assert columns.assignment == {0: (0,), 4: (1,)}
    assert columns.index(range(8)).tolist() == [0, -1] + [-1, -1] * 3 + [1, -1] + [-1, -1] * 3
    assert columns.index(range(8)).dtype == np.int64


def test_minus_one_moves_a_column_into_the_second_half() -> None:
    columns = Columns.from_mapping({0: [-1, 0], 2: [1]}, 2, [2, 3, 4])
    assert columns.index([0, 1, 2]).tolist() == [-1, 0, -1, -1, -1, 1, -1, -1, -1]


def test_index_follows_the_order_of_the_local_agents() -> None:
    columns = Columns.from_mapping({0: [2], 1: [0], 2: [1]}, 3, [1, 2, 1])
    assert columns.index([2, 1]).tolist() == [1, 0, -1]
    assert columns.index(np.array([1, 2])).tolist() == [0, -1, 1]
    assert columns.index([]).shape == (0,)


@st.composite
def spreads(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """Columns, features of each agent, rank of each agent."""
    features = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    total = draw(st.integers(1, len(features)))
    return total, features, draw(st.lists(st.integers(0, 3), min_size=len(features), max_size=len(features)))


@given(spreads())
def test_every_column_enters_exactly_once_on_any_placement(case: tuple[int, list[int], list[int]]) -> None:
    total, features, rank_of = case
    columns = Columns.spread(total, features)
    held = [columns.index([a for a, r in enumerate(rank_of) if r == rank]) for rank in range(4)]
    everything = np.concatenate(held)
    assert len(everything) == sum(features)
    assert sorted(everything[everything >= 0]) == list(range(total))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_patches_hold_the_pixels_of_their_place_row_by_row(down: int, across: int, h: int, w: int) -> None:
    image = np.arange(down * h * across * w).reshape(down * h, across * w)
    columns = Columns.patches((down * h, across * w), (h, w), [h * w + 1] * (down * across))
    for r in range(down):
        for c in range(across):
            patch = image[r * h : (r + 1) * h, c * w : (c + 1) * w]
            assert columns.index([r * across + c]).tolist() == [*patch.ravel(), -1]


def mapped(mapping: Any, total: int = 4, agents: int = 5) -> Callable[[], object]:
    return lambda: Columns.from_mapping(mapping, total, [2] * agents)


WRONG_COLUMNS = {
    "unknown agent": (mapped({5: [0]}), "agent 5 does not exist: there are 5 agents, 0 to 4"),
    "agent below zero": (mapped({-1: [0]}), "agent -1 does not exist"),
    "agent as text": (mapped({"0": [0]}), "agent must be an integer, not '0'"),
    "column out of range": (
        mapped({0: [4]}),
        "column 4, given to agent 0, does not exist: the data have 4 columns",
    ),
    "column below -1": (mapped({0: [-2]}), "column -2, given to agent 0, does not exist"),
    "column as number": (mapped({0: [0.0]}), "a column of agent 0 must be an integer, not 0.0"),
    "two agents": (mapped({0: [3], 4: [3]}), "column 3 is given to agent 0 and agent 4"),
    "one agent twice": (mapped({0: [3, 3]}), "column 3 is given to agent 0 twice"),
    "one column to nobody": (mapped({0: [0, 1], 1: [3]}), "column 2 is given to no agent"),
    "columns to nobody": (
        mapped({0: [0]}, total=9),
        "columns 1, 2, 3, 4, 5 and 3 more are given to no agent",
    ),
    "more than features": (
        mapped({0: [0, 1, 2], 1: [3]}),
        "agent 0 has 2 features but a list of columns of length 3",
    ),
    "zeros count too": (
        mapped({0: [-1, -1, 0]}, total=1),
        "agent 0 has 2 features but a list of columns of length 3",
    ),
    "spread too many": (
        lambda: Columns.spread(9, [2] * 8),
        "9 columns cannot be spread over 8 agents.*data.patch",
    ),
    "no feature": (lambda: Columns.spread(1, [0, 1]), "agent 0 has 0 features"),
    "no tiling": (lambda: Columns.patches((8, 8), (3, 2), [9] * 8), "3 x 2 do not tile an image of 8 x 8"),
    "empty patch": (lambda: Columns.patches((8, 8), (0, 2), [9] * 8), "0 x 2 do not tile"),
    "wrong count": (
        lambda: Columns.patches((8, 8), (2, 2), [4] * 8),
        "into 16, one for each agent, but there are 8",
    ),
    "patch too large": (lambda: Columns.patches((4, 4), (2, 2), [4, 4, 4, 3]), "agent 3 has 3 features"),
    "no image": (lambda: Columns.patches(None, (2, 2), [4]), "a patch needs images"),
    "index of unknown agent": (lambda: Columns.spread(1, [1]).index([1]), "agent 1 does not exist"),
}
REALS: Any = np.zeros(2)
WRONG_LOADS = {
    "misspelt": (
        lambda: describe("swissroll"),
        "unknown data set 'swissroll': did you mean 'swiss_roll'.*digits",
    ),
    "unknown": (lambda: describe("zzz"), "unknown data set 'zzz': there are swiss_roll, double_circles"),
    "odd": (lambda: whole("swiss_roll", samples=9), "swiss_roll makes an even number of samples, .* not 9"),
    "too few": (lambda: whole("double_moons", samples=6), "not 6"),
    "negative noise": (lambda: whole("double_moons", noise=-0.1), "noise of double_moons .* not -0.1"),
    "noise of nan": (lambda: whole("double_moons", noise=float("nan")), "noise of double_moons .* not nan"),
    "digits take no noise": (lambda: whole("digits", noise=0.1), "digits takes no noise, but noise = 0.1"),
    "digits too many": (lambda: whole("digits", samples=1798), "digits has 1797 samples; take 50 to 1797"),
    "digits too few": (lambda: whole("digits", samples=49), "not 49"),
    "seed": (lambda: whole("digits", seed=-1), "seed is -1: expected a whole number from 0"),
    "index out of range": (
        lambda: load("swiss_roll", seed=0, index=np.array([2])),
        "column 2 does not exist",
    ),
    "index below -1": (lambda: load("swiss_roll", seed=0, index=np.array([-2])), "column -2 does not exist"),
    "index of reals": (
        lambda: load("swiss_roll", seed=0, index=REALS),
        "one row of integers, not float64",
    ),
    "batch size": (lambda: batches(10, 0, 0, 0), "the batch size must be 1 or more, not 0"),
    "no samples": (lambda: batches(0, 1, 0, 0), "the number of samples must be 1 or more, not 0"),
    "epoch": (lambda: batches(10, 1, 0, -1), "the epoch must be 0 or more, not -1"),
    "seed of batches": (lambda: batches(10, 1, 1.5, 0), "seed is 1.5"),  # type: ignore[arg-type]
}
WRONG = WRONG_COLUMNS | WRONG_LOADS


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_line_that_names_it(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*PLANAR, "digits"])
def test_description_agrees_with_the_data(name: str) -> None:
    about, data = describe(name), whole(name)
    assert about.name == data.name == name
    assert data.train.inputs.shape[1] == about.columns == data.columns
    assert len(data.train) + len(data.test) == about.samples
    assert data.train.inputs.dtype == np.float64
    for part in (data.train, data.test):
        assert labels_of(part).dtype == np.int64
        assert set(labels_of(part)) == set(range(about.classes))


@pytest.mark.parametrize("name", PLANAR)
@pytest.mark.parametrize("samples", [8, 10, 126, 8000])
def test_train_and_test_are_balanced_halves(name: str, samples: int) -> None:
    """Every second sample of a class, not of the table: else a split could lose a class."""
    data = whole(name, samples=samples)
    assert len(data.train) == len(data.test) == samples // 2
    for part in (data.train, data.test):
        counts = np.bincount(labels_of(part), minlength=2)
        assert abs(counts[0] - counts[1]) <= samples // 2 % 2


@pytest.mark.parametrize("name", [*PLANAR, "digits"])
@settings(max_examples=10, deadline=None)
@given(rank_of=st.lists(st.integers(0, 2), min_size=64, max_size=64), seed=st.integers(0, 2**64 - 1))
def test_ranks_hold_columns_of_the_same_samples(name: str, rank_of: list[int], seed: int) -> None:
    """Contract 3: on any placement, the ranks' columns together are the data of one rank alone."""
    columns = Columns.spread(describe(name).columns, [2] * 64)
    alone = load(name, seed=seed, samples=200, index=columns.index(range(64)))
    for rank in range(3):
        local = [agent for agent, r in enumerate(rank_of) if r == rank]
        part = load(name, seed=seed, samples=200, index=columns.index(local))
        mine = [2 * agent + k for agent in local for k in range(2)]
        np.testing.assert_array_equal(part.train.inputs, alone.train.inputs[:, mine])
        np.testing.assert_array_equal(part.test.inputs, alone.test.inputs[:, mine])
        np.testing.assert_array_equal(part.train.labels, alone.train.labels)


def test_features_without_a_column_are_zero() -> None:
    index = np.array([-1, 1, -1, 0])
    data, full = load("double_circles", seed=3, index=index), whole("double_circles", seed=3)
    np.testing.assert_array_equal(data.train.inputs[:, [0, 2]], 0.0)
    np.testing.assert_array_equal(data.train.inputs[:, [3, 1]], full.train.inputs)
    np.testing.assert_array_equal(data.train.inputs, local_features(full.train.inputs, index))


def test_a_rank_without_columns_still_knows_how_many_samples_there_are() -> None:
    data = load("double_circles", seed=0, samples=20, index=np.array([-1, -1, -1]), labels=False)
    assert data.train.inputs.shape == (10, 3)
    assert not data.train.inputs.any()


@pytest.mark.parametrize("name", [*PLANAR, "digits"])
def test_labels_stay_away_from_ranks_that_do_not_ask(name: str) -> None:
    data = whole(name, labels=False)
    assert data.train.labels is None
    assert data.test.labels is None


@pytest.mark.parametrize("name", [*PLANAR, "digits"])
def test_the_seed_alone_decides_the_samples(name: str) -> None:
    first, again, other = whole(name, seed=1), whole(name, seed=1), whole(name, seed=2)
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert not np.array_equal(first.train.inputs, other.train.inputs)


def test_only_the_columns_of_a_rank_are_asked_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of files per agent can join by name, and is asked for no other agent's files."""
    asked: list[Request] = []

    class Files:
        def describe(self, root: Path | None) -> Description:
            return Description("files", columns=5, classes=2, samples=3)

        def read(self, request: Request) -> tuple[Split, Split]:
            asked.append(request)
            part = request.split(np.arange(15.0).reshape(3, 5), np.array([0, 1, 0]))
            return part, part

    monkeypatch.setitem(SOURCES, "files", Files())
    data = load("files", seed=0, root="here", index=np.array([4, -1, 2]))
    assert asked[0].columns.tolist() == [4, 2]
    assert asked[0].root == Path("here")
    assert data.train.inputs.tolist() == [[4.0, 0.0, 2.0], [9.0, 0.0, 7.0], [14.0, 0.0, 12.0]]


POINTS = np.arange(15.0).reshape(3, 5)
CLASSES = np.array([0, 1, 0])
UNFIT = {
    "labels as text": (POINTS, np.array(["a", "b", "a"]), r"labels are an array of <U1, expected class numbers"),
    "labels as a list": (POINTS, [0, 1, 0], r"labels are a list, expected class numbers"),
    "labels of 32 bits": (POINTS, CLASSES.astype(np.int32), r"labels are an array of int32, expected .* int64"),
    "too few labels": (POINTS, CLASSES[:2], r"labels have shape \(2,\), expected \(3,\)"),
    "labels as columns": (POINTS, CLASSES[:, None], r"labels have shape \(3, 1\), expected \(3,\)"),
    "labels from 1": (POINTS, CLASSES + 1, r"labels run from 1 to 2, expected 0 to 1"),
    "no labels": (POINTS, None, r"labels are a NoneType"),
    "all columns": (np.zeros((3, 7)), CLASSES, r"inputs have shape \(3, 7\), expected \(samples, 5\)"),
    "no samples": (POINTS[:0], CLASSES[:0], r"inputs have shape \(0, 5\), .* one sample or more"),
    "inputs as text": (POINTS.astype(str), CLASSES, r"inputs are an array of <U32, expected .* floating-point"),
    "inputs as a list": (POINTS.tolist(), CLASSES, r"inputs are a list"),
    "whole numbers": (POINTS.astype(int), CLASSES, r"inputs are an array of int64"),
}


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize("case", UNFIT)
def test_a_source_whose_samples_do_not_fit(case: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels, words = UNFIT[case]
    right, wrong = Split(POINTS, CLASSES), Split(inputs, labels)

    class Odd:
        def describe(self, root: Path | None) -> Description:
            return Description("odd", columns=5, classes=2, samples=3)

        def read(self, request: Request) -> tuple[Split, Split]:
            return (wrong, right) if part == "training" else (right, wrong)

    monkeypatch.setitem(SOURCES, "odd", Odd())
    with pytest.raises(ValueError, match=rf"the {part} samples of the data set odd do not fit: {words}.*mend its read"):
        load("odd", seed=0, index=np.arange(5))


def radius(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.hypot(points[:, 0], points[:, 1])


@pytest.mark.parametrize(("label", "inner", "outer"), [(0, 0.0, 1.0), (1, 0.2, 1.2)])
def test_swiss_roll_spirals_twice_at_its_radii(label: int, inner: float, outer: float) -> None:
    points = swiss_roll(1001, label)
    np.testing.assert_allclose(radius(points), np.linspace(inner, outer, 1001), atol=1e-12)
    turned = np.unwrap(np.arctan2(points[1:, 1], points[1:, 0]))
    assert turned[-1] - turned[0] == pytest.approx(4 * np.pi * 999 / 1000)


@pytest.mark.parametrize(("label", "radii"), [(0, [1, 3]), (1, [2, 4])])
def test_double_circles_alternate_between_the_classes(label: int, radii: list[int]) -> None:
    found, counts = np.unique(radius(double_circles(400, label)).round(9), return_counts=True)
    assert found.tolist() == radii
    assert counts.tolist() == [200, 200]


def test_double_moons_are_four_half_circles_in_a_row() -> None:
    """Centres and sides; and the classes hook into each other without touching."""
    for label, first, side in [(0, (0.0, 0.0), 1), (1, (1.0, 0.5), -1)]:
        for number, arc in enumerate(np.split(double_moons(400, label), 2)):
            middle = np.add(first, (2 * number, 0))
            np.testing.assert_allclose(radius(arc - middle), 1.0)
            assert (side * (arc - middle)[:, 1] > -1e-12).all()
    gaps = np.linalg.norm(double_moons(400, 0)[:, None] - double_moons(400, 1)[None], axis=2)
    assert gaps.min() > 0.3 * np.sqrt(2)


@pytest.mark.parametrize(("name", "width"), [("swiss_roll", 0.0), ("double_circles", 0.6), ("double_moons", 0.3)])
def test_default_noise_is_uniform_of_its_width(name: str, width: float) -> None:
    """Bounded by half the width, and as spread out as a uniform distribution of that width."""
    curve = SOURCES[name].curve  # type: ignore[attr-defined]
    data = whole(name)
    points, labels = rows(data)[:, :2], rows(data)[:, 2]
    clean = np.concatenate([curve(4000, label) for label in (0, 1)])
    centred = points.mean(axis=0) - clean.mean(axis=0)
    np.testing.assert_allclose(centred, 0.0, atol=4 * width / np.sqrt(12 * 8000) + 1e-12)
    np.testing.assert_allclose(points.var(axis=0), clean.var(axis=0) + width**2 / 12, rtol=0.02)
    for label in (0, 1):
        nearest = np.abs(points[labels == label][::20, None] - curve(4000, label)[None]).max(axis=2).min(axis=1)
        assert nearest.max() <= width / 2 + 1e-12


def test_noise_can_be_set() -> None:
    np.testing.assert_array_equal(
        rows(whole("double_moons", noise=0.0, seed=1)), rows(whole("double_moons", noise=0.0))
    )


def test_digits_are_those_of_scikit_learn_over_sixteen() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    table = np.column_stack([pixels / 16, labels])
    np.testing.assert_array_equal(rows(whole("digits")), table[np.lexsort(table.T)])


def test_a_fifth_of_the_digits_is_for_test_in_every_class() -> None:
    data = whole("digits")
    assert (len(data.train), len(data.test)) == (1437, 360)
    train, test = np.bincount(labels_of(data.train)), np.bincount(labels_of(data.test))
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.01)


def test_fewer_digits_can_be_taken() -> None:
    data = whole("digits", samples=50)
    assert (len(data.train), len(data.test)) == (40, 10)
    assert sorted(labels_of(data.test)) == list(range(10))


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'hdnn-dist[data]'")):
        whole("digits")


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_batches_cover_every_sample_once(samples: int, size: int, seed: int, epoch: int) -> None:
    drawn = list(batches(samples, size, seed, epoch))
    assert sorted(np.concatenate(drawn)) == list(range(samples))
    assert {len(batch) for batch in drawn[:-1]} <= {size}
    assert len(drawn[-1]) == (samples % size or min(size, samples))


def test_batches_repeat_with_the_seed_and_change_with_the_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(list(batches(100, 30, seed, epoch))).tolist()

    assert order(0, 0) == order(0, 0)
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(o) for o in orders}) == 9


def test_batches_do_not_depend_on_the_state_of_the_process() -> None:
    """Pinned: ranks on other machines must draw the very same order."""
    np.random.seed(5)
    assert np.concatenate(list(batches(10, 4, seed=7, epoch=2))).tolist() == [1, 7, 2, 9, 4, 5, 3, 6, 0, 8]
