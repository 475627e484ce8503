"""The sweep of learning rates: what it suggests, and that nothing is left of it but the picture."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from jobs import run
from matplotlib.image import imread
from typer.testing import CliRunner

from hdnn_dist import CommunicationGraph, cli, connect
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.find_lr import Sweep, sweep
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer

SMALL = ("network.layers=4", "data.samples=400", "batch_size=40", "network.kernel=torch", "dtype=float64")


def job_of(*overrides: str) -> Job:
    config = load_config(None, [*SMALL, *overrides])
    return build(config, CommunicationGraph.parse(config.graph), connect("local"))


class TestSweep:
    @pytest.mark.parametrize(
        "also", [(), ("penalties.bound=9.0", "network.initial=scaled"), ("accumulate=2", "optimizer.readout_factor=3")]
    )
    def test_the_weights_are_untouched(self, also: tuple[str, ...]) -> None:
        """Bit for bit, though the last steps have blown them up; and what is trained afterwards is the same."""
        job, other = job_of("epochs=1", *also), job_of("epochs=1", *also)
        found = sweep(job, 1e-5, 10.0, 60)
        assert found.rates[0] == pytest.approx(1e-5)
        for mine, first in zip(job.parameters, other.parameters, strict=True):
            assert torch.equal(mine, first)
            assert mine.grad is None
        rows = [Trainer(each).run(lambda epoch, step: None, lambda row: None).epochs[-1] for each in (job, other)]
        assert rows[0].loss == rows[1].loss

    def test_it_suggests_a_rate_that_learns(self) -> None:
        found = sweep(job_of(), 1e-5, 10.0, 100)
        assert found.suggested is not None
        assert 1e-4 < found.suggested < 1.0
        assert found.rates == sorted(found.rates)
        assert len(found.rates) == len(found.losses) == len(found.smoothed)
        assert found.steps == 100

    def test_it_ends_when_the_loss_has_left_all_bounds(self) -> None:
        found, losses = Sweep(100), [1.0] * 20 + [0.9, 0.7, 0.5, 0.3] + [0.3] * 20 + [0.5, 100.0]
        ended = [found.add(float(at), loss) for at, loss in enumerate(losses)]
        assert ended == [False] * 45 + [True]
        assert found.suggested is not None
        assert 20 < found.suggested < 24  # where it falls

    def test_a_loss_that_is_no_number_ends_it_and_is_not_kept(self) -> None:
        found = Sweep(10)
        assert not found.add(0.1, 1.0)
        assert found.add(0.2, math.nan)
        assert found.rates == [0.1]
        assert found.suggested is None

    def test_a_loss_that_never_falls_suggests_nothing(self) -> None:
        found = Sweep(20)
        for at in range(20):
            found.add(0.1 * (at + 1), 1.0 + at)
        assert found.suggested is None

    @pytest.mark.parametrize("given", [(0.0, 1.0, 50), (1.0, 0.1, 50), (0.1, 1.0, 5)])
    def test_rates_have_to_rise(self, given: tuple[float, float, int]) -> None:
        with pytest.raises(ValueError, match=r"a sweep from .*: expected rates that rise, and 10 steps or more"):
            sweep(job_of(), *given)


class TestCommand:
    WORDS = tuple(word for key in SMALL for word in ("--set", key))

    def test_it_prints_what_train_takes(self, tmp_path: Path) -> None:
        picture = tmp_path / "lr.png"
        result = CliRunner().invoke(cli.app, ["find-lr", *self.WORDS, "--picture", str(picture)])
        assert (result.exit_code, result.stderr) == (0, "")
        assert re.match(r"suggested: --set optimizer\.learning_rate=0\.\d+\n", result.stdout)
        assert imread(picture).std() > 0.05
        assert {path.name for path in tmp_path.iterdir()} == {"lr.png"}

    def test_a_picture_of_somebody_else_is_kept(self, tmp_path: Path) -> None:
        mine = tmp_path / "lr.png"
        mine.write_text("mine")
        result = CliRunner().invoke(cli.app, ["find-lr", *self.WORDS, "--picture", str(mine)])
        assert result.exit_code == 2
        assert "is not a picture of ours: choose another --picture" in result.stderr
        assert mine.read_text() == "mine"

    def test_ranks_find_what_one_process_finds(self, tmp_path: Path) -> None:
        alone = CliRunner().invoke(cli.app, ["find-lr", *self.WORDS, "--picture", str(tmp_path / "1.png")])
        words = ["-m", "hdnn_dist", "find-lr", *self.WORDS, "--picture", str(tmp_path / "2.png")]
        two = run("torchrun", 2, *words)
        assert two.returncode == 0, two.stderr
        assert two.stdout.splitlines()[0] == alone.stdout.splitlines()[0]
