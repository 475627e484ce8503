"""The recipes of docs/architecture.md, followed from outside the package: a toy of each kind, in tests/recipes."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hdnn_dist import HDNN, CommunicationGraph, Readout, cli, connect, place
from hdnn_dist.analysis.bounds import bounds
from hdnn_dist.analysis.sensitivity import exact
from hdnn_dist.data import SOURCES
from hdnn_dist.exchange.connect import TRANSPORTS
from hdnn_dist.kernels.registry import KERNELS, Kernel, KernelWarning
from hdnn_dist.model.trained import BEFORE, parameters
from hdnn_dist.propagation.architectures import ARCHITECTURES
from hdnn_dist.runs.checkpoint import load_weights, save_weights
from hdnn_dist.training.divergence import Place, first_not_finite

RECIPES = Path(__file__).parent / "recipes"
RING = CommunicationGraph.ring(8)


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The recipes can be imported, and what they register is gone afterwards."""
    monkeypatch.syspath_prepend(str(RECIPES))
    before = [(table, dict(table)) for table in (ARCHITECTURES, TRANSPORTS, SOURCES)]
    commands = list(cli.app.registered_commands)
    yield
    for table, was in before:
        table.clear()
        table.update(was)
    cli.app.registered_commands[:] = commands
    for path in RECIPES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def network(architecture: str, **options: object) -> HDNN:
    return HDNN(
        place(RING, connect("local")), 2, 3, 0.3, architecture, initial="normal", dtype=torch.float64, **options
    )


def samples(net: HDNN, batch: int) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(0).standard_normal((batch, net.local_features)))


def test_an_architecture() -> None:
    importlib.import_module("architecture")
    net = network("leapfrog")
    x = samples(net, 4)
    K, b, _ = net.dense()
    order = torch.as_tensor(net.architecture.dense_rows(net.features))
    p, q = x[:, order].chunk(2, 1)
    for K_j, b_j in zip(K, b, strict=True):
        (Kp, Kq), (bp, bq) = (K_j[:8, :8], K_j[8:, 8:]), b_j.chunk(2)
        p = p - 0.15 * torch.tanh(q @ Kq.T + bq) @ Kq
        q = q + 0.3 * torch.tanh(p @ Kp.T + bp) @ Kp
        p = p - 0.15 * torch.tanh(q @ Kq.T + bq) @ Kq
    assert torch.allclose(net(x)[:, order], torch.cat([p, q], 1), rtol=1e-10)
    assert net.kernel_for(4) != "torch" or not importlib.util.find_spec("numba")
    assert bounds(net).lower == 1.0
    assert RING.check(architecture="leapfrog", layers=2).settled == 1


def test_an_architecture_with_a_vector_field_of_its_own() -> None:
    importlib.import_module("vector_field")
    net = network("squared", kernel="torch")
    x = samples(net, 3).requires_grad_()
    names = [name for name, _ in net.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *given: torch.func.functional_call(net, dict(zip(names, given, strict=True)), (x,)),
        (x, *net.parameters()),
    )
    (_, M) = next(exact(net, x[:1].detach() / 10, [3]))
    assert torch.linalg.matrix_norm(M, 2) <= math.exp(bounds(net).log_upper(3))
    _, dy = net.tangent(x[:1].detach() / 10, torch.eye(16, dtype=torch.float64)[:1])
    assert torch.allclose(dy[0], M[:, 0])
    with pytest.warns(KernelWarning, match="does not know the vector field Squared"):
        network("squared")(x)


def test_a_transport(tmp_path: Path) -> None:
    """The command line over two ranks that named pipes join ends in the loss of one process."""
    losses = []
    for size in (1, 2):
        for here in range(size):
            for there in range(size):
                os.mkfifo(tmp_path / f"{here}-{there}") if here != there else None
        run = tmp_path / f"run{size}"
        settings = [f"--set={key}" for key in ("epochs=2", "data.samples=200", "network.layers=3", "dtype=float64")]
        command = [sys.executable, "train_over_fifos.py", "train", *settings, "--run-dir", str(run)]
        ranks = [
            subprocess.Popen(
                command,
                cwd=RECIPES,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "FIFO_RANK": str(rank), "FIFO_SIZE": str(size), "FIFO_FOLDER": str(tmp_path)},
            )
            for rank in range(size)
        ]
        errors = [rank.communicate(timeout=240)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * size, errors
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["transport"], summary["ranks"], summary["off_graph_messages"]) == ("fifo", size, 0)
        losses.append(summary["loss"])
    assert math.isclose(*losses, rel_tol=1e-9)


def test_a_data_source(tmp_path: Path) -> None:
    importlib.import_module("source")
    settings = ["data.name=quadrants", "epochs=3", "network.layers=3"]
    chosen = [argument for setting in settings for argument in ("--set", setting)]
    result = CliRunner().invoke(cli.app, ["train", *chosen, "--run-dir", str(tmp_path / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["data"] == "quadrants"


def test_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Kernel("counting", "kernel", {"cpu": ("auto", "counting")}, whole=False)
    monkeypatch.setattr("hdnn_dist.kernels.registry.KERNELS", [counting, *KERNELS])
    net, portable = network("H2"), network("H2", kernel="torch")
    x = samples(net, 4)
    net(x).sum().backward()
    portable(x).sum().backward()
    assert torch.equal(net.weights.grad, portable.weights.grad)
    assert net.kernel_for(4) == "counting"
    assert importlib.import_module("kernel").passes == ["forward", "backward"]
    deep = HDNN(net.agents, 2, 9, kernel="counting")
    with pytest.raises(ValueError, match="kernel 'counting' cannot be used: it counts up to 8 layers, not 9"):
        deep(x.float())


def test_a_trained_parameter(tmp_path: Path) -> None:
    """The optimiser, a checkpoint and the search for NaN know of it without being told elsewhere."""
    Gains = importlib.import_module("parameter").Gains
    net = network("H2")
    head, gains = Readout(net.agents, net), Gains(net)
    optimizer = torch.optim.SGD(parameters([gains, net, head]), lr=0.1)
    head.loss(net(gains(samples(net, 6))), torch.tensor([0, 1] * 3)).backward()
    optimizer.step()
    assert not torch.equal(gains.gains, torch.ones(16, dtype=torch.float64))
    save_weights(net, [head, gains], tmp_path)
    again = Gains(net)
    load_weights(net, [head, again], tmp_path)
    assert torch.equal(again.gains, gains.gains)
    with pytest.raises(ValueError, match=r"has agent\.0\.gains, which this network has not"):
        load_weights(net, [head], tmp_path)
    with torch.no_grad():
        gains.gains[7] = math.nan  # the second feature of agent 3
    assert first_not_finite(net, [head, gains], samples(net, 2)) == Place("weights", BEFORE, 3, 3)


def test_a_command() -> None:
    importlib.import_module("command")
    assert CliRunner().invoke(cli.app, ["leaves", "star:8"]).stdout == "7\n"
    wrong = CliRunner().invoke(cli.app, ["leaves", "star:x"])
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)


def test_the_page_names_files_that_exist() -> None:
    """Every path of the page is there, and every recipe of this folder is on the page."""
    page = (RECIPES.parents[1] / "docs" / "architecture.md").read_text()
    named = {word for word in page.replace("`", " ").split() if word.startswith(("hdnn_dist/", "tests/"))}
    missing = [path for path in named if not (RECIPES.parents[1] / path.rstrip(".,;:)")).exists()]
    assert not missing
    assert all(f"tests/recipes/{path.name}" in page for path in RECIPES.glob("*.py"))
