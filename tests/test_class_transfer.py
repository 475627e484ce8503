"""Class transfer: who sees the class and who reads it, the same data on any number of ranks, and that it is learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from jobs import run

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.data.class_transfer import NAME, ClassTransfer
from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import Dataset, describe, load
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Outcome, Trainer

ROOT = Path(__file__).parents[1]
RING = CommunicationGraph.ring(6)
TINY = (
    "graph=ring:6",
    "data.name=class_transfer",
    "readout.at=[0]",
    "network.features=6",
    "network.layers=3",
    "network.step=1.0",
    "network.initial=scaled",
    "network.kernel=torch",
    "penalties.smoothness=0.0",
    "batch_size=40",
    "optimizer.learning_rate=0.03",
)


def read(source: ClassTransfer, agents: list[int], seed: int = 0, labels: bool = True) -> Dataset:
    """As a rank with these agents of the ring reads it, 6 features an agent."""
    about = describe(source, graph=RING)
    columns = Columns.from_mapping(dict(about.assignment or {}), about.columns, [6] * 6)
    index = columns.index(agents)
    return load(source, seed=seed, index=index, samples=100, noise=source.noise, labels=labels, graph=RING)


def train(*overrides: str) -> Outcome:
    config = load_config(None, [*TINY, *overrides])
    job = build(config, CommunicationGraph.parse(config.graph), connect("local"))
    return Trainer(job).run(lambda epoch, step: None, lambda row: None)


def test_one_agent_sees_the_class_and_all_others_see_nothing() -> None:
    data = read(ClassTransfer(), list(range(6)))
    assert (data.classes, data.columns, data.name) == (5, 5, NAME)
    for split, samples in ((data.train, 80), (data.test, 20)):
        assert split.labels is not None
        blocks = split.inputs.reshape(samples, 6, 6)
        np.testing.assert_array_equal(blocks[:, 3], np.eye(6)[split.labels])
        assert not np.delete(blocks, 3, axis=1).any()
        assert np.bincount(split.labels).tolist() == [samples // 5] * 5


def test_noise_is_at_all_others_between_zero_and_its_width() -> None:
    data = read(ClassTransfer(noise=0.5), list(range(6)))
    blocks = np.concatenate([data.train.inputs, data.test.inputs]).reshape(100, 6, 6)
    others = np.delete(blocks, 3, axis=1)[..., :5]
    assert data.columns == 30
    assert others.min() >= 0
    assert 0.49 < others.max() <= 0.5
    assert abs(others.mean() - 0.25) < 0.01
    assert set(np.unique(blocks[:, 3])) == {0.0, 1.0}


def test_a_rank_draws_the_columns_of_its_own_agents_as_one_process_does() -> None:
    source = ClassTransfer(noise=1.0)
    whole = read(source, list(range(6)))
    for agents in ([0, 4], [3, 1, 2]):
        part, places = read(source, agents, labels=False), np.concatenate([np.arange(6) + 6 * a for a in agents])
        np.testing.assert_array_equal(part.train.inputs, whole.train.inputs[:, places])
        np.testing.assert_array_equal(part.test.inputs, whole.test.inputs[:, places])
        assert part.train.labels is None
    assert not np.array_equal(read(source, [0], seed=1).train.inputs, whole.train.inputs[:, :6])


def test_with_fewer_features_than_classes_codes_are_shown() -> None:
    """Each class has one of its own, wherever it occurs."""
    about = describe(ClassTransfer(features=[2] * 6), graph=RING)
    assert (about.columns, about.assignment) == (2, {3: (0, 1)})
    data = load(ClassTransfer(features=[2] * 6), seed=0, index=np.arange(2), graph=RING)
    for split in (data.train, data.test):
        assert split.labels is not None
        pairs = np.unique(np.column_stack([split.labels, split.inputs]), axis=0)
        assert len(pairs) == len(np.unique(pairs[:, 1:], axis=0)) == 5


@pytest.mark.parametrize(
    ("given", "shown_at"),
    [
        ({}, 3),
        ({"read_at": 1}, 4),
        ({"distance": 2}, 2),
        ({"distance": 2, "read_at": 5}, 1),
        ({"shown_at": 5}, 5),
        ({"shown_at": 5, "distance": 1}, 5),
    ],
)
def test_where_the_class_is_shown(given: dict[str, int], shown_at: int) -> None:
    assert describe(ClassTransfer(**given), graph=RING).assignment == {shown_at: (0, 1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("readout.at=all",), r"is read at one agent alone, but readout.at is 'all': name one, such as readout.at"),
        (("readout.at=[0, 1]",), r"but readout.at is \[0, 1\]: name one"),
        (("readout.at=each",), "but readout.at is 'each': name one"),
        (("readout.at=[9]",), "readout.at: agent 9 does not exist"),
        (("data.transfer.distance=4",), "no agent of ring:6 is 4 hops from agent 0, .*the farthest one is at 3"),
        (("data.transfer.shown_at=0",), "data.transfer: shown_at is agent 0, which reads the class"),
        (("data.transfer.shown_at=6",), "data.transfer.shown_at: agent 6 does not exist"),
        (("data.transfer.shown_at=2", "data.transfer.distance=1"), "distance is 1, but agent 0, .* is 2 hops from"),
        (("graph=path:1",), "no agent of path:1 is 1 hops from agent 0"),
        (("data.name=digits", "data.transfer.distance=1"), "data.transfer is given, but data.name is 'digits'"),
        (("data.source=table", "data.name=double_circles", "data.transfer.classes=3"), "data.transfer is given, but"),
        (("data.samples=24",), "makes 5 samples or more of each of its 5 classes, .*not 24 in all"),
        (("data.patch=[1, 1]",), "a patch needs images"),
        (("readout.loss=huber",), "needs targets that are numbers"),
    ],
)
def test_what_does_not_fit_is_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        train(*overrides)
    assert "\n" not in str(caught.value)


def test_noise_that_a_source_was_not_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise is 0.5, but class_transfer was made for a width of 0: give the same"):
        load(ClassTransfer(), seed=0, index=np.arange(5), noise=0.5, graph=RING)


def test_agents_are_named_by_their_labels() -> None:
    graph = CommunicationGraph(3, [(0, 1), (1, 2)], labels=["Lyon", "Paris", "Gent"])
    config = load_config(None, [*TINY, "readout.at=['Gent']", "data.transfer.shown_at=Lyon"])
    assert build(config, graph, connect("local")).entered == [0]


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_small_ring_is_solved(noise: float) -> None:
    """Three hops, and the run ends at its goal."""
    outcome = train("epochs=40", f"data.noise={noise}", "data.samples=800", "stop.goal=0.99", "stop.metric=accuracy")
    assert outcome.epochs[-1].test_accuracy >= 0.99
    assert len(outcome.epochs) < 40


def test_one_layer_too_few_is_chance() -> None:
    """What is not in the light cone tells nothing of the class."""
    keys = ("graph=path:12", "network.layers=2", "epochs=3", "data.samples=500", "network.architecture=MS1")
    assert train(*keys).epochs[-1].test_accuracy == pytest.approx(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("data.noise=1.0", "data.samples=16000", "batch_size=128", "epochs=10")])
def test_a_wave_carries_a_class_over_fifty_hops(overrides: tuple[str, ...]) -> None:
    """Within 1000 steps, also where all other agents see noise."""
    config = load_config(ROOT / "launch" / "configs" / "class_transfer_ring100.toml", overrides)
    job = build(config, CommunicationGraph.parse(config.graph), connect("local"))
    outcome = Trainer(job).run(lambda epoch, step: None, lambda row: None)
    assert outcome.epochs[-1].test_accuracy >= 0.99


@pytest.mark.slow
def test_two_ranks_learn_what_one_process_does(tmp_path: Path) -> None:
    """The labels are at the rank of agent 0, the class is shown at that of agent 3, and noise is drawn by both."""
    keys = (*TINY, "epochs=5", "data.noise=0.5", "dtype=float64", "optimizer.readout_factor=10")
    job = run(
        "torchrun",
        2,
        "-m",
        "hdnn_dist",
        "train",
        *[w for k in keys for w in ("--set", k)],
        "--run-dir",
        str(tmp_path / "two"),
    )
    assert job.returncode == 0, job.stderr
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    alone = train(*keys[len(TINY) :]).epochs
    assert [row["loss"] for row in rows] == pytest.approx([row.loss for row in alone], rel=1e-9)
