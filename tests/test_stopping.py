"""Steps of several batches, and runs that end early: the same on any number of ranks."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from jobs import run

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.training.build import build
from hdnn_dist.training.config import StopConfig
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.divergence import DivergenceError
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Outcome, Trainer
from hdnn_dist.training.pace import pace
from hdnn_dist.training.stopping import Patience

SMALL = ("epochs=2", "network.layers=4", "data.samples=420", "dtype=float64", "network.kernel=torch")


def train(*overrides: str) -> tuple[Job, Outcome]:
    config = load_config(None, [*SMALL, *overrides])
    job = build(config, CommunicationGraph.parse(config.graph), connect("local"))
    return job, Trainer(job).run(lambda epoch, step: None, lambda row: None)


class TestAccumulation:
    @pytest.mark.parametrize(
        "also",
        [(), ("optimizer.clip=0.05",), ("optimizer.name=sgd", "optimizer.schedule=cosine", "optimizer.clip=0.01")],
    )
    def test_a_step_of_batches_is_one_of_a_large_batch(self, also: Sequence[str]) -> None:
        """210 samples: batches of 20, a step of 60, so that the last step has one whole batch and one of 10."""
        (whole, once), (parts, summed) = train("batch_size=60", *also), train("batch_size=20", "accumulate=3", *also)
        assert summed.steps == once.steps == 2 * 4
        torch.testing.assert_close(parts.net.weights, whole.net.weights, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(parts.head.weights, whole.head.weights, rtol=1e-10, atol=1e-13)
        for row, other in zip(summed.epochs, once.epochs, strict=True):
            assert row.loss == pytest.approx(other.loss, rel=1e-12)
            assert (row.train_accuracy, row.learning_rate) == (other.train_accuracy, other.learning_rate)

    def test_more_than_there_is_takes_all(self) -> None:
        (_, all_), (_, beyond) = train("batch_size=2147483647"), train("batch_size=50", "accumulate=2147483647")
        assert beyond.steps == all_.steps == 2
        assert beyond.epochs[-1].loss == pytest.approx(all_.epochs[-1].loss, rel=1e-12)

    def test_every_batch_of_a_step_is_looked_at(self) -> None:
        """NaN in the first of two batches, of which the last is fine."""
        config = load_config(None, [*SMALL, "accumulate=2", "batch_size=105", "check_finite=true"])
        job = build(config, CommunicationGraph.parse(config.graph), connect("local"))
        job.train.inputs[0, 0] = math.nan
        trainer = Trainer(job)
        with pytest.raises(DivergenceError, match="state is no longer finite in a step, input, agent 0"):
            trainer.step(torch.arange(210))


class TestPatience:
    @pytest.mark.parametrize(
        ("config", "values", "after"),
        [
            ({"patience": 2}, [1.0, 0.9, 0.95, 0.9, 0.1], 4),
            ({"patience": 1}, [1.0, 0.9, 0.8, 0.8, 0.1], 4),
            ({"patience": 2, "min_delta": 0.2}, [1.0, 0.9, 0.85, 0.1], 3),
            ({"patience": 2, "metric": "accuracy"}, [0.5, 0.6, 0.6, 0.55, 0.9], 4),
            ({"patience": 2}, [math.nan, math.nan, 0.1], 2),
            ({}, [1.0] * 50, None),
            ({"goal": 0.5}, [0.9, 0.6, 0.5, 0.4], 3),
            ({"goal": 0.9, "goal_epochs": 2, "metric": "accuracy"}, [0.9, 0.8, 0.95, 0.9, 1.0], 4),
            ({"goal": 0.1, "patience": 2}, [0.5, 0.6, 0.6, 0.1], 3),
        ],
    )
    def test_epochs_without_an_improvement_are_counted(
        self, config: dict[str, float], values: list[float], after: int | None
    ) -> None:
        patience = Patience(StopConfig(**config))
        over = [patience.over(value) for value in values]
        assert (over.index(True) + 1 if True in over else None) == after

    def test_a_run_ends_with_the_epoch_that_was_one_too_many(self) -> None:
        """With a rate that does nothing no epoch is better than the first."""
        job, outcome = train("epochs=9", "stop.patience=3", "stop.min_delta=0.1", "optimizer.learning_rate=1e-12")
        assert len(outcome.epochs) == 1 + 3
        assert outcome.steps == 4 * Trainer(job).steps_per_epoch


@pytest.mark.parametrize(
    ("keys", "known"),
    [
        (("stop.metric=rmse",), "classification has not (data set double_circles): use 'loss', 'accuracy', 'f1'"),
        (
            ("stop.metric=f1", "data.name=waves", "readout.loss=huber"),
            "regression has not (data set waves): use 'loss', 'mae', 'rmse' or 'r2'",
        ),
    ],
)
def test_a_metric_that_the_data_have_not_is_refused(keys: Sequence[str], known: str) -> None:
    with pytest.raises(ValueError, match=re.escape(known)):
        train("stop.patience=1", *keys)
    with pytest.raises(ValueError, match=re.escape(known)):
        train("stop.goal=1", *keys)


def test_a_run_of_numbers_stops_by_its_error() -> None:
    keys = ("data.name=waves", "readout.loss=huber", "stop.metric=r2", "stop.patience=1", "stop.min_delta=10")
    assert len(train("epochs=9", *keys)[1].epochs) == 2


def test_pace_is_that_of_all_ranks() -> None:
    """One rank: what it measured."""
    job, outcome = train()
    measured = pace(job.head.everyone, samples=100, seconds=2.0, waited=0.5, sent=3000)
    assert vars(measured) == {"samples_per_second": 50.0, "bytes_per_second": 1500.0, "waiting": 0.25}
    rows = outcome.epochs
    assert all(row.samples_per_second > 0 and row.bytes_per_second > 0 and row.waiting == 0 for row in rows)
    sent = sum(
        row.bytes_per_second * 210 / row.samples_per_second for row in rows
    )  # seconds of an epoch: samples by pace
    assert sent == pytest.approx(outcome.traffic.bytes)


def test_ranks_stop_together(tmp_path: Path) -> None:
    """Two ranks under torchrun and one process: the same epochs, to rounding the same numbers."""
    keys = ["accumulate=2", "batch_size=50", "optimizer.clip=0.5", "stop.patience=2", "stop.min_delta=0.02"]
    words = [word for key in [*SMALL, "epochs=30", *keys] for word in ("--set", key)]
    subprocess.run(
        [sys.executable, "-m", "hdnn_dist", "train", *words, "--run-dir", str(tmp_path / "1")],
        check=True,
        capture_output=True,
    )
    process = run("torchrun", 2, "-m", "hdnn_dist", "train", *words, "--run-dir", str(tmp_path / "2"))
    assert process.returncode == 0, process.stderr
    alone, two = (json.loads((tmp_path / ranks / "summary.json").read_text()) for ranks in "12")
    assert 2 < alone["epochs"] == two["epochs"] < 30
    assert two["loss"] == pytest.approx(alone["loss"], rel=1e-9)
    rows = [json.loads(line) for line in (tmp_path / "2" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["waiting"] < 1 for row in rows)
