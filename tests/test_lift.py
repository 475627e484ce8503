"""The lift: agents that all see the image compute their own channels of it, and train them with the layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from battery import ALONE
from torch import Tensor
from typer.testing import CliRunner

from hdnn_dist import HDNN, CommunicationGraph, Readout, place
from hdnn_dist.analysis.analyze import analyse_run
from hdnn_dist.analysis.check import check_config
from hdnn_dist.cli import app
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.runs.checkpoint import load_weights, save_weights
from hdnn_dist.training.build import build
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer
from hdnn_dist.weights.initial import draw_lift, draw_readout

DIGITS = (
    "graph=ring:4",
    "data.name=digits",
    "data.samples=100",
    "network.lift=convolution",
    "network.layers=2",
    "epochs=1",
    "batch_size=20",
)


def small(features: int | tuple[int, ...] = 2, seed: int = 0, channels: int = 1) -> tuple[HDNN, ConvolutionalLift]:
    agents = place(CommunicationGraph.ring(4), ALONE)
    net = HDNN(agents, features, 2, 0.3, seed=seed, dtype=torch.float64)
    return net, ConvolutionalLift(net, channels)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def config_of(*overrides: str) -> Config:
    return load_config(None, [*DIGITS, *overrides])


def job_of(*overrides: str) -> Job:
    config = config_of(*overrides)
    return build(config, CommunicationGraph.parse(config.graph), ALONE)


def test_every_feature_is_a_correlation_of_the_image_with_its_own_kernel() -> None:
    """Written out pixel by pixel, with zeros outside of the image, on agents of different sizes and two channels."""
    net, lift = small((2, 4, 2, 6), channels=2)
    torch.nn.init.normal_(lift.bias)
    x = images(3, 2, 5, 4)
    given = lift(x)
    assert given.shape == (3, net.local_features, 5, 4)
    padded = torch.zeros(3, 2, 7, 6, dtype=torch.float64)
    padded[:, :, 1:-1, 1:-1] = x
    for row in range(5):
        for column in range(4):
            window = padded[:, :, row : row + 3, column : column + 3]
            expected = torch.einsum("bcij,fcij->bf", window, lift.weights) + lift.bias
            assert torch.allclose(given[:, :, row, column], expected, atol=1e-13)


def test_weights_are_drawn_for_each_agent_with_variance_one_over_fan_in() -> None:
    _, lift = small((2, 4, 2, 6), seed=5)
    _, other = small((2, 8, 2, 2), seed=5)
    assert torch.equal(lift.weights[:2], other.weights[:2])
    assert torch.equal(lift.weights[6:8], other.weights[10:12])
    assert not lift.bias.any()
    assert draw_lift(np.arange(2), np.array([9000, 11000]), 9, seed=0).var() * 9 == pytest.approx(1, rel=0.02)
    assert not torch.equal(small(seed=1)[1].weights, small(seed=2)[1].weights)


def test_its_draws_are_not_those_of_the_head() -> None:
    agents, one = np.arange(2), np.ones(2, dtype=np.int64)
    lift, head = draw_lift(agents, one, 9, seed=3), draw_readout(agents, one, 9, seed=3, fan_in=9)
    assert lift.shape == head.T.shape
    assert not np.isclose(lift, head.T).any()


@pytest.mark.parametrize("architecture", ["H2", "MS1", "H1-J1", "H1-J2"])
def test_gradients_of_images_and_kernels(architecture: str) -> None:
    """Through the layers at every pixel and the head over all of them, by finite differences."""
    agents = place(CommunicationGraph.ring(4), ALONE)
    net = HDNN(agents, 2, 2, 0.3, architecture, dtype=torch.float64)
    lift, head = ConvolutionalLift(net), Readout(agents, net, classes=3, positions=(3, 2))
    labels = torch.tensor([2, 0])

    def loss(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        y = torch.func.functional_call(lift, {"weights": weights, "bias": bias}, (x,))
        return head.loss(net(y), labels)

    given = (images(2, 1, 3, 2), lift.weights.detach(), lift.bias.detach())
    assert torch.autograd.gradcheck(loss, tuple(part.clone().requires_grad_() for part in given))


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((2, 3, 3), torch.float64, r"images have shape \(2, 3, 3\): expected \(batch, 1, height, width\)"),
        ((2, 2, 3, 3), torch.float64, r"images have shape \(2, 2, 3, 3\)"),
        ((2, 1, 3, 3), torch.float32, r"images are torch\.float32 on cpu, but the weights are torch\.float64"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], dtype: torch.dtype, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small()[1](torch.zeros(shape, dtype=dtype))


def test_an_image_has_channels() -> None:
    with pytest.raises(ValueError, match="channels is 0"):
        small(channels=0)


class TestJob:
    """What a config with a lift builds and trains."""

    def test_every_agent_sees_whole_images(self) -> None:
        job, plain = job_of(), job_of("network.lift=convolution", "dtype=float64")
        assert job.train.inputs.shape == (80, 1, 8, 8)
        assert job.train.inputs.dtype == torch.float32
        assert torch.equal(plain.train.inputs.float(), job.train.inputs)
        assert job.forward(job.test.inputs).shape == (20, 8, 8, 8)
        assert job.head.weights.shape == (10, 8 * 64)
        assert job.entered == [0, 1, 2, 3]
        table = job.test.inputs.flatten(1).numpy()
        assert torch.equal(job.inputs(table), job.test.inputs)

    def test_pixels_are_where_they_are_without_a_lift(self) -> None:
        """Pixel (r, c) of the image is column 8 r + c of the data set."""
        lifted = job_of()
        columns = load_config(None, [*DIGITS[1:3], "graph=grid:8x8"])
        plain = build(columns, CommunicationGraph.parse("grid:8x8"), ALONE)
        assert torch.equal(lifted.train.inputs.flatten(1), plain.train.inputs[:, ::2])

    def test_kernels_are_trained_and_clipped_with_the_rest(self) -> None:
        job = job_of("optimizer.clip=0.01")
        before = [parameter.detach().clone() for parameter in job.parameters]
        Trainer(job).run(lambda epoch, step: None, lambda row: None)
        assert job.lift is not None
        assert [id(parameter) for parameter in job.parameters[-2:]] == [id(job.lift.weights), id(job.lift.bias)]
        assert not any(torch.equal(was, now) for was, now in zip(before, job.parameters, strict=True))
        squares = sum(
            float(parameter.grad.square().sum()) for parameter in job.parameters if parameter.grad is not None
        )
        assert squares == pytest.approx(1e-4, rel=1e-3)

    def test_ten_digits_are_learned(self) -> None:
        job = job_of("data.samples=400", "epochs=15", "optimizer.learning_rate=0.02")
        outcome = Trainer(job).run(lambda epoch, step: None, lambda row: None)
        assert outcome.epochs[-1].test_accuracy > 0.8

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (("data.name=double_circles",), "needs images, but the data set double_circles has none"),
            (("data.patch=[4, 4]",), r"network\.lift 'convolution' and data\.patch are both given"),
            (("data.columns={0=[0]}",), r"network\.lift 'convolution' and data\.columns are both given"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, overrides: tuple[str, ...], words: str) -> None:
        config = config_of(*overrides)
        graph = CommunicationGraph.parse(config.graph)
        for refuse in (lambda: build(config, graph, ALONE), lambda: check_config(config, graph)):
            with pytest.raises(ValueError, match=words) as refused:
                refuse()
            assert "\n" not in str(refused.value)

    def test_check_counts_every_pixel(self) -> None:
        """Every agent has an input; messages are 64 times as wide as those of an image that enters once."""
        checked = check_config(config_of("graph=path:4"), CommunicationGraph.path(4))
        assert checked.failure is None
        assert checked.inputs.tolist() == [0, 1, 2, 3]
        wide = check_config(config_of("graph=path:4", "batch_size=1"), CommunicationGraph.path(4)).conditions.cost
        graph = CommunicationGraph.grid(8, 8)
        narrow = check_config(load_config(None, [*DIGITS[1:3], "graph=grid:8x8", "batch_size=64"]), graph)
        assert wide is not None
        assert narrow.conditions.cost is not None
        assert wide.forward.bytes // wide.forward.messages == (
            narrow.conditions.cost.forward.bytes // narrow.conditions.cost.forward.messages
        )


class TestCheckpoint:
    def test_kernels_are_read_back(self, tmp_path: Path) -> None:
        written, read = job_of("seed=1"), job_of("seed=2")
        assert written.lift is not None
        assert read.lift is not None
        torch.nn.init.normal_(written.lift.bias)
        save_weights(written.net, written.others, tmp_path)
        load_weights(read.net, read.others, tmp_path)
        for given, expected in zip(read.parameters, written.parameters, strict=True):
            assert torch.equal(given, expected)

    def test_a_network_without_a_lift_is_another_one(self, tmp_path: Path) -> None:
        job = job_of()
        save_weights(job.net, [job.head], tmp_path)
        with pytest.raises(ValueError, match=r"has no agent\.0\.lift\.bias, which this network needs"):
            load_weights(job.net, job.others, tmp_path)
        save_weights(job.net, job.others, tmp_path)
        with pytest.raises(ValueError, match=r"has agent\.0\.lift\.bias, which this network has not"):
            load_weights(job.net, [job.head], tmp_path)


def test_a_run_leaves_what_other_runs_leave(tmp_path: Path) -> None:
    """The summary counts the kernels, the pictures are drawn, and the analysis reads the run."""
    run = tmp_path / "run"
    overrides = [argument for pair in DIGITS for argument in ("--set", pair)]
    result = CliRunner().invoke(app, ["train", "--run-dir", str(run), *overrides], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    summary = json.loads((run / "summary.json").read_text())
    job = job_of()
    assert summary["parameters_per_rank"] == [sum(parameter.numel() for parameter in job.parameters)]
    assert {"graph.png", "sparsity.png", "curves.png"} <= {path.name for path in run.iterdir()}
    analyse_run(run, ALONE)
    analysis = json.loads((run / "analysis.json").read_text())
    assert "central pixel" in analysis["at"]
    assert [row["j"] for row in analysis["table"]] == [1, 2]
    assert all(len(row["singular_values"]) == 8 for row in analysis["table"])
