"""From a config to a trained network: what a job is built of, what its loop does, what it leaves on the disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdnn_dist import CommunicationGraph, connect, place
from hdnn_dist.exchange.agreement import LONGEST_MESSAGE, agreed
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.clipping import clip_grad_norm_
from hdnn_dist.runs import folder as runs
from hdnn_dist.runs.folder import RunFolder
from hdnn_dist.runs.summary import summarise
from hdnn_dist.training import gradients as gradients_file
from hdnn_dist.training.build import build
from hdnn_dist.training.config import Config, OptimizerConfig
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.gradients import StepGradients
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import DivergenceError, Epoch, Outcome, Trainer
from hdnn_dist.training.optimizers import make_optimizer, make_schedule
from hdnn_dist.training.regularization import smoothness

SMALL = ("epochs=2", "batch_size=64", "network.layers=4", "data.samples=400")
ROW = Epoch(1, 0.5, 0.75, 0.6, 0.7, 0.01, 1.5, None)


def job_of(*overrides: str) -> Job:
    config = load_config(None, [*SMALL, *overrides])
    return build(config, CommunicationGraph.parse(config.graph), connect("local"))


def train(*overrides: str) -> tuple[Job, Outcome]:
    job = job_of(*overrides)
    return job, Trainer(job).run(lambda epoch, step: None, lambda row: None)


def untimed(outcome: Outcome) -> list[dict[str, Any]]:
    timed = dict.fromkeys(("seconds", "samples_per_second", "bytes_per_second", "waiting"))
    return [{**dataclasses.asdict(row), **timed} for row in outcome.epochs]


class TestBuild:
    def test_every_part_follows_the_config(self) -> None:
        job = job_of(
            "seed=7",
            "graph=path:4",
            "network.features=[2, 4, 2, 2]",
            "dtype=float64",
            "readout.at=[1, 3]",
            "readout.root=3",
        )
        assert job.net.features.tolist() == [2, 4, 2, 2]
        assert (job.net.layers, job.net.seed) == (4, 7)
        assert {parameter.dtype for parameter in job.net.parameters()} == {torch.float64}
        assert (job.head.at.tolist(), job.head.root) == ([1, 3], 3)
        assert job.train.inputs.shape == (200, 10)

    def test_columns_enter_where_the_config_says(self) -> None:
        """Agent 5 gets column 1 into its p, agent 2 column 0 into its q; nobody else gets anything."""
        job = job_of("data.columns={5=[1], 2=[-1, 0]}")
        entered = job.train.inputs.abs().amax(0).nonzero().flatten().tolist()
        assert entered == [2 * 2 + 1, 2 * 5]
        default = job_of("data.columns={0=[0, 1]}")
        assert torch.equal(job.train.inputs[:, [5, 10]], default.train.inputs[:, [0, 1]])

    def test_the_centre_is_read_where_it_is_asked_for(self) -> None:
        assert job_of("graph=path:5", "readout.at=centre").head.at.tolist() == [2]

    def test_a_loss_for_numbers_is_refused_before_training(self) -> None:
        with pytest.raises(ValueError, match=r"readout\.loss 'mean_squared_error' needs targets that are numbers"):
            job_of("readout.loss=mean_squared_error")

    def test_columns_and_patch_exclude_each_other(self) -> None:
        with pytest.raises(ValueError, match=r"data\.columns and data\.patch are both given"):
            job_of("data.columns={0=[0], 1=[1]}", "data.patch=[1, 1]")


class TestLoop:
    def test_a_seed_decides_everything(self) -> None:
        """Contract 3: parameters bit for bit, and every figure of every epoch."""
        (first, rows), (second, again), (other, _) = train("seed=3"), train("seed=3"), train("seed=4")
        assert torch.equal(first.net.weights, second.net.weights)
        assert torch.equal(first.head.weights, second.head.weights)
        assert untimed(rows) == untimed(again)
        assert not torch.equal(first.net.weights, other.net.weights)

    def test_it_learns(self) -> None:
        """Fails if the gradient has the wrong sign or does not reach the network."""
        deep = ("network.layers=16", "network.step=0.3")
        job, outcome = train("epochs=15", "data.name=double_moons", "data.samples=1000", *deep)
        assert outcome.epochs[-1].loss < 0.5 * outcome.epochs[0].loss
        assert outcome.epochs[-1].test_accuracy > 0.95
        assert outcome.epochs[-1].test_accuracy == Trainer(job).evaluate(job.test).accuracy

    def test_evaluation_is_the_mean_over_all_samples(self) -> None:
        """More samples than an evaluation batch, and a last batch that is short."""
        job = job_of("data.samples=1400")
        with torch.no_grad():
            logits = job.head(job.net(job.train.inputs))
        score = Trainer(job).evaluate(job.train)
        assert score.loss == pytest.approx(F.cross_entropy(logits, job.train.labels).item(), rel=1e-5)
        assert score.accuracy == (logits.argmax(1) == job.train.labels).double().mean().item()

    def test_every_sample_is_seen_once_an_epoch(self) -> None:
        steps: list[tuple[int, int]] = []
        job = job_of()
        outcome = Trainer(job).run(lambda epoch, step: steps.append((epoch, step)), lambda row: None)
        assert steps == [(epoch, step) for epoch in range(2) for step in range(4)]  # 200 samples in batches of 64
        assert outcome.steps == 8
        assert [row.epoch for row in outcome.epochs] == [1, 2]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
        schedule = make_schedule(job.config.optimizer, optimizer, epochs=2, steps_per_epoch=4)
        used = []
        for _ in range(8):
            used.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert [row.learning_rate for row in outcome.epochs] == pytest.approx([used[3], used[7]])

    def test_traffic_is_that_of_training_alone(self) -> None:
        """A layer of H2 is 2 half-steps of 2 rounds, forward and backward; a step goes up and down the tree once."""
        _, outcome = train("epochs=3")
        ring, tree, layers, steps = 2 * 8, 7, 4, 3 * 4
        assert outcome.traffic.messages == steps * (layers * 2 * 4 * ring + 2 * tree)

    def test_no_epoch_is_a_run_too(self) -> None:
        job, outcome = train("epochs=0")
        assert (outcome.epochs, outcome.steps, outcome.traffic.messages) == ([], 0, 0)
        assert summarise(job, outcome, *[Trainer(job).evaluate(job.test)] * 2)["messages_per_step"] == 0

    @pytest.mark.filterwarnings("ignore::hdnn_dist.model.propagation.DriftWarning")
    @pytest.mark.parametrize("batch_size", [64, 200], ids=["within an epoch", "in the last step"])
    def test_a_loss_that_is_no_number_ends_the_run(self, batch_size: int) -> None:
        """Not a summary with NaN in it; the last step is seen by the evaluation only."""
        settings = (
            "epochs=1",
            f"batch_size={batch_size}",
            "optimizer.schedule=constant",
            "optimizer.learning_rate=1e30",
        )
        with pytest.raises(DivergenceError, match=r"no longer finite in epoch 1.*lower optimizer\.learning_rate"):
            train(*settings)

    @pytest.mark.parametrize("name", ["smoothness", "weights", "readout"])
    def test_penalties_act(self, name: str) -> None:
        """Each makes smaller what it penalises."""
        size = {
            "smoothness": lambda job: smoothness(job.net, 1.0),
            "weights": lambda job: job.net.weights.norm(),
            "readout": lambda job: job.head.weights.norm(),
        }[name]
        none = [f"penalties.{other}=0" for other in ("smoothness", "weights", "readout")]
        sgd = ["epochs=1", "optimizer.name=sgd", "optimizer.momentum=0", "optimizer.schedule=constant"]
        (free, _), (held, _) = train(*sgd, *none), train(*sgd, *none, f"penalties.{name}=2.0")
        assert size(held).item() < 0.95 * size(free).item()

    @pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
    @pytest.mark.parametrize("architecture", ["H2", "H1-J1"])
    def test_losses_and_architectures_run(self, loss: str, architecture: str) -> None:
        settings = (f"readout.loss={loss}", f"network.architecture={architecture}", "optimizer.clip=1.0")
        _, outcome = train(*settings, "dtype=float64")
        assert math.isfinite(outcome.epochs[-1].test_loss)
        assert (outcome.epochs[-1].drift is None) == (architecture == "H1-J1")


class TestGradientRecord:
    @staticmethod
    def seen(*overrides: str) -> tuple[Job, list[StepGradients], list[Tensor]]:
        """What a run records, and the gradients of the weights after each of its 8 steps, clipped or not."""
        job, gradients = job_of("record_gradients=true", "dtype=float64", *overrides), []
        outcome = Trainer(job).run(lambda epoch, step: gradients.append(job.net.weights.grad.clone()), lambda row: None)
        return job, [step for row in outcome.epochs for step in row.gradients], gradients

    def test_every_layer_of_every_step(self) -> None:
        _, recorded, gradients = self.seen()
        assert [step.step for step in recorded] == list(range(1, 9))
        for step, gradient in zip(recorded, gradients, strict=True):
            assert step.norms == pytest.approx([layer.norm().item() for layer in gradient])

    def test_before_it_is_clipped(self) -> None:
        _, recorded, gradients = self.seen("optimizer.clip=1e-3")
        assert max(map(torch.norm, gradients)) <= 1e-3
        assert min(max(step.norms) for step in recorded) > 1e-3

    def test_a_long_run_is_thinned_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Evenly, across epochs."""
        every = self.seen()[1]
        monkeypatch.setattr(gradients_file, "MOST_STEPS", 3)
        assert self.seen()[1] == every[::3]

    def test_only_where_it_is_asked_for(self) -> None:
        _, outcome = train()
        assert not any(row.gradients for row in outcome.epochs)

    def test_it_sends_nothing_in_a_step(self) -> None:
        (_, plain), (_, recording) = train(), train("record_gradients=true")
        assert recording.traffic.messages == plain.traffic.messages


class TestOptimizers:
    PEAK = 0.5

    @pytest.mark.parametrize(
        ("schedule", "first", "last"),
        [
            ("one_cycle", PEAK / 25, PEAK / 25 / 1e4),
            ("cosine", PEAK, 0.0),
            ("exponential", PEAK, PEAK * 0.8**3),
            ("constant", PEAK, PEAK),
        ],
    )
    def test_a_schedule_runs_from_its_first_to_its_last_rate(self, schedule: Any, first: float, last: float) -> None:
        """Not beyond it: a cycle that ends a step early raises, one that is too long never cools down."""
        config = OptimizerConfig(name="sgd", learning_rate=self.PEAK, schedule=schedule, decay=0.8)
        optimizer = make_optimizer(config, [nn.Parameter(torch.ones(1))])
        plan = make_schedule(config, optimizer, epochs=3, steps_per_epoch=10)
        rates = [plan.get_last_lr()[0]]
        for _ in range(30):
            optimizer.step()
            plan.step()
            rates.append(plan.get_last_lr()[0])
        assert rates[0] == pytest.approx(first)
        assert rates[-1] == pytest.approx(last, abs=1e-12)
        assert max(rates) == pytest.approx(self.PEAK, rel=1e-2)

    @pytest.mark.parametrize(
        ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
    )
    def test_kinds(self, name: Any, kind: type[torch.optim.Optimizer]) -> None:
        """Ranks that do not read hold empty parameters, which a fused optimiser cannot step."""
        full, empty = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0))
        optimizer = make_optimizer(OptimizerConfig(name=name, weight_decay=0.25), [full, empty])
        assert isinstance(optimizer, kind)
        assert [parameter.shape for parameter in optimizer.param_groups[0]["params"]] == [(3,)]
        assert optimizer.param_groups[0]["weight_decay"] == 0.25

    @pytest.mark.parametrize(
        ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
    )
    def test_steps_are_those_of_torch(self, name: Any, kind: Any) -> None:
        """Bit for bit, and on from a saved state; ours go without torch's guards against its compiler."""
        ours, other = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
        config = OptimizerConfig(name=name, weight_decay=0.25)
        momentum = {"momentum": config.momentum} if name == "sgd" else {}
        optimizer = make_optimizer(config, [ours])
        expected = kind([other], lr=config.learning_rate, weight_decay=0.25, fused=True, **momentum)
        for step in range(4):
            for one, parameter in ((optimizer, ours), (expected, other)):
                one.zero_grad()
                (parameter**3).sum().backward()
                one.step()
            assert torch.equal(ours, other), step
            saved = optimizer.state_dict()
            optimizer = make_optimizer(config, [ours])
            optimizer.load_state_dict(saved)

    @pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
    def test_the_readout_can_have_a_rate_of_its_own(self, schedule: Any) -> None:
        """At every step so many times that of the others; a rank that does not read has as many groups as the rest."""
        config = OptimizerConfig(learning_rate=self.PEAK, readout_factor=10.0, schedule=schedule)
        body, head = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
        optimizer = make_optimizer(config, [body, head], [head])
        assert [[parameter is body for parameter in group["params"]] for group in optimizer.param_groups] == [[1], [0]]
        plan = make_schedule(config, optimizer, epochs=1, steps_per_epoch=4)
        for _ in range(5):
            first, second = plan.get_last_lr()
            assert second == pytest.approx(10 * first)
            optimizer.step()
            plan.step()
        elsewhere = make_optimizer(config, [body, nn.Parameter(torch.ones(0))], [])
        body.grad = torch.ones(3)
        elsewhere.step()
        assert len(elsewhere.param_groups) == 2

    def test_clipping_limits_the_norm_of_the_whole_gradient(self) -> None:
        tree = SumTree(place(CommunicationGraph.ring(3), connect("local")))
        parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(4))]
        parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
        clip_grad_norm_(parameters, 10.0, tree)
        assert parameters[0].grad.tolist() == [3.0, 0.0]
        clip_grad_norm_(parameters, 1.0, tree)
        torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]))
        torch.testing.assert_close(parameters[1].grad, torch.tensor([0.8]))


class TestAgreement:
    """Contract 7 and 8: what fails on one rank fails on all, before they wait for each other."""

    @staticmethod
    def tree(*from_other_ranks: Tensor) -> Any:
        """Rank 0 of 3, and what the others add to each of its sums."""
        others: Iterator[Tensor] = iter(from_other_ranks)
        world = SimpleNamespace(rank=0, size=3, device=torch.device("cpu"))
        world.job, world.of_replicas = world, lambda values: values.unsqueeze(0)
        sent: list[Tensor] = []
        tree = SimpleNamespace(
            agents=SimpleNamespace(world=world),
            sent=sent,
            sum=lambda vector: sent.append(vector.clone()) or vector + next(others),
        )
        tree.collect = MethodType(SumTree.collect, tree)
        return tree

    @staticmethod
    def text(message: str) -> Tensor:
        padded = message.encode().ljust(LONGEST_MESSAGE, b"\0")
        return torch.tensor(list(padded), dtype=torch.float64)

    @pytest.mark.parametrize("kind", [ValueError, OSError])
    def test_a_failing_block_raises(self, kind: type[Exception]) -> None:
        tree = SumTree(place(CommunicationGraph.ring(3), connect("local")))
        with pytest.raises(kind, match="no column 7"), agreed(tree):
            raise kind("no column 7")

    def test_a_block_without_failure_passes(self) -> None:
        with agreed(SumTree(place(CommunicationGraph.ring(3), connect("local")))):
            pass

    @pytest.mark.parametrize(("flag", "kind"), [(1.0, ValueError), (2.0, OSError)])
    def test_a_failure_elsewhere_raises_here(self, flag: float, kind: type[Exception]) -> None:
        """With the same exit status: wrong input is 2, a full disk is 1, on every rank."""
        tree = self.tree(torch.tensor([0.0, 0.0, flag]), self.text("Größe 3 ≠ 2"))
        with pytest.raises(kind, match="rank 2: Größe 3 ≠ 2"), agreed(tree):
            pass

    def test_a_rank_that_fails_itself_reports_its_own_failure(self) -> None:
        tree = self.tree(torch.tensor([0.0, 1.0, 0.0]), self.text(""))
        with pytest.raises(OSError, match=r"^mine$"), agreed(tree):
            raise OSError("mine")
        flags, text = tree.sent
        assert flags.tolist() == [2.0, 0.0, 0.0]
        assert text.equal(self.text("mine"))


class TestRunFolder:
    def test_a_finished_run_is_not_written_over(self, tmp_path: Path) -> None:
        RunFolder(tmp_path, Config()).finish({"loss": 1.0})
        with pytest.raises(ValueError, match=r"holds a finished run: choose another --run-dir, or pass --overwrite"):
            RunFolder(tmp_path, Config(seed=1))
        assert json.loads((tmp_path / "summary.json").read_text()) == {"loss": 1.0}
        assert load_config(tmp_path / "config.toml") == Config()

    def test_overwriting_leaves_nothing_of_the_earlier_run(self, tmp_path: Path) -> None:
        """A picture of another network beside a new summary would be a lie."""
        first = RunFolder(tmp_path, Config())
        first.add(ROW)
        first.finish({})
        for name in ("graph.png", "sparsity.png", "curves.png", "decision.png", "mine.txt"):
            (tmp_path / name).touch()
        RunFolder(tmp_path, Config(seed=1), overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"config.toml", "metrics.jsonl", "mine.txt"}
        assert (tmp_path / "metrics.jsonl").read_text() == ""
        assert load_config(tmp_path / "config.toml").seed == 1

    def test_an_unfinished_run_is_not_erased_without_being_asked(self, tmp_path: Path) -> None:
        RunFolder(tmp_path / "a" / "b", Config()).add(ROW)
        with pytest.raises(ValueError, match="holds a run that was not finished: choose another --run-dir, or pass"):
            RunFolder(tmp_path / "a" / "b", Config())
        assert (tmp_path / "a" / "b" / "metrics.jsonl").read_text()
        RunFolder(tmp_path / "a" / "b", Config(), overwrite=True)

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("files", [("config.toml",), ("config.toml", "metrics.jsonl"), ("notes.txt",)])
    def test_a_folder_of_somebody_else_is_left_alone(
        self, files: tuple[str, ...], overwrite: bool, tmp_path: Path
    ) -> None:
        """Whatever it holds: a config with comments of a user's own, metrics of another program, a checkpoint."""
        for name in files:
            (tmp_path / name).write_text("# mine\nseed = 3\n")
        with pytest.raises(ValueError, match="holds files that are not of a run of ours: choose another --run-dir"):
            RunFolder(tmp_path, Config(), overwrite)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
            files, "# mine\nseed = 3\n"
        )

    def test_a_run_in_progress_holds_its_folder(self, tmp_path: Path) -> None:
        pytest.importorskip("fcntl", reason="this system has no locks of this kind")
        first = RunFolder(tmp_path, Config())
        with pytest.raises(ValueError, match="is held by a run in progress: choose another --run-dir"):
            RunFolder(tmp_path, Config(), overwrite=True)
        first.finish({})
        RunFolder(tmp_path, Config(), overwrite=True)

    def test_default_folders_of_one_second_are_different(self, tmp_path: Path) -> None:
        named = [RunFolder.new(tmp_path / "runs" / "run", Config()).path.name for _ in range(3)]
        assert named == ["run", "run-2", "run-3"]

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "run").touch()
        with pytest.raises(ValueError, match="is a file: choose another --run-dir"):
            RunFolder(tmp_path / "run", Config(), overwrite=True)

    def test_a_line_an_epoch(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path, Config())
        folder.add(ROW)
        folder.add(dataclasses.replace(ROW, epoch=2))
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        fields = {name: value for name, value in vars(ROW).items() if name != "gradients"}
        assert [json.loads(line) for line in lines] == [fields, {**fields, "epoch": 2}]

    def test_a_line_a_recorded_step(self, tmp_path: Path) -> None:
        """Those of a later epoch come behind the earlier ones."""
        folder = RunFolder(tmp_path, Config())
        for step in (1, 2):
            folder.add(dataclasses.replace(ROW, gradients=[StepGradients(step, [0.5, 0.25])]))
        lines = (tmp_path / "gradients.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [{"step": step, "norms": [0.5, 0.25]} for step in (1, 2)]
        folder.finish({})
        RunFolder(tmp_path, Config(), overwrite=True)
        assert not (tmp_path / "gradients.jsonl").exists()

    @pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
    def test_a_full_disk_leaves_no_part_of_a_file(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = RunFolder(tmp_path, Config())
        folder.add(ROW)
        before = {path.name: path.read_text() for path in tmp_path.iterdir()}

        def half(self: Path, text: str, **_: Any) -> int:
            self.write_bytes(text.encode()[: len(text) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(runs.Path, "write_text", half)
        with pytest.raises(OSError, match="No space left"):
            folder.add(ROW) if name == "metrics.jsonl" else folder.finish({"loss": 1.0})
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
