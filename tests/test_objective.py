"""What is learned, from a config to the last line of a run: classes or numbers, at the root or at every agent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import run as run_ranks
from typer.testing import CliRunner

from hdnn_dist import CommunicationGraph
from hdnn_dist.cli.commands import app
from hdnn_dist.data import SOURCES, Description, Request, Split
from hdnn_dist.data.dataset import load
from hdnn_dist.exchange.transports.local import LocalWorld
from hdnn_dist.model.readout import Readout
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.job import Job

QUICK = ("epochs=2", "data.samples=200", "network.layers=4", "network.kernel=torch", "batch_size=50")
NUMBERS = ("data.name=waves", "readout.loss=huber")
EACH = ("data.name=diffusing_field", "readout.loss=mean_squared_error", "readout.at=each")


def train(folder: Path, *keys: str, ranks: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Summary and metrics of a run, and what it says."""
    arguments = ["train", *(word for key in (*QUICK, *keys) for word in ("--set", key)), "--run-dir", str(folder)]
    if ranks == 1:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        said = result.output
    else:
        process = run_ranks("torchrun", ranks, "-m", "hdnn_dist", *arguments)
        assert process.returncode == 0, process.stderr
        said = process.stdout
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return json.loads((folder / "summary.json").read_text()), rows, said


def job(*keys: str, graph: str = "ring:8") -> Job:
    config = load_config(None, [*QUICK, *keys])
    return build(config, CommunicationGraph.parse(graph), LocalWorld(torch.device("cpu")))


@pytest.mark.parametrize("keys", [NUMBERS, EACH])
def test_numbers_have_errors_and_no_accuracy(keys: tuple[str, ...], tmp_path: Path) -> None:
    """In the metrics, the summary, the last line and the pictures."""
    summary, rows, said = train(tmp_path / "run", *keys)
    assert summary["test_accuracy"] is None
    assert rows[-1]["train_accuracy"] is rows[-1]["test_accuracy"] is None
    assert set(rows[-1]["metrics"]) == set(summary["train_metrics"]) == {"mae", "rmse", "r2"}
    assert rows[-1]["metrics"] == summary["test_metrics"]
    assert f"test rmse {summary['test_metrics']['rmse']:.4f}" in said
    assert "accuracy" not in said
    plane = keys == NUMBERS  # over the two columns; a field has a column for each agent
    assert (tmp_path / "run" / "decision.png").exists() == plane
    assert (tmp_path / "run" / "curves.png").exists()


def test_classes_have_all_their_metrics(tmp_path: Path) -> None:
    summary, rows, said = train(tmp_path / "run")
    assert set(rows[-1]["metrics"]) == {"accuracy", "f1", "auc"}
    assert rows[-1]["metrics"]["accuracy"] == pytest.approx(rows[-1]["test_accuracy"])
    assert f"test accuracy {summary['test_accuracy']:.4f}" in said


@pytest.mark.parametrize(("keys", "ranks"), [(NUMBERS, 2), (EACH, 4)], ids=["root", "each"])
def test_the_same_numbers_on_any_number_of_ranks(keys: tuple[str, ...], ranks: int, tmp_path: Path) -> None:
    """To rounding, float64: losses and every metric of every epoch."""
    wide = (*keys, "dtype=float64", "network.layers=2", "data.samples=100")
    _, alone, _ = train(tmp_path / "1", *wide)
    summary, rows, _ = train(tmp_path / str(ranks), *wide, ranks=ranks)
    assert summary["off_graph_messages"] == 0
    for here, there in zip(rows, alone, strict=True):
        for key in ("loss", "test_loss"):
            assert here[key] == pytest.approx(there[key], rel=1e-9)
        assert here["metrics"] == pytest.approx(there["metrics"], rel=1e-8)


def test_the_loss_of_the_squares_is_the_square_of_the_metric(tmp_path: Path) -> None:
    """Of all agents together."""
    summary, _, _ = train(tmp_path / "run", *EACH, "dtype=float64")
    assert math.sqrt(summary["test_loss"]) == pytest.approx(summary["test_metrics"]["rmse"])


def test_one_sensor_predicts_better_than_its_last_value(tmp_path: Path) -> None:
    keys = ("data.name=diffusing_sensor", "readout.at=each", "readout.loss=mean_squared_error", "data.samples=2000")
    summary, _, _ = train(tmp_path / "run", *keys, "epochs=12", "network.initial=scaled", "network.layers=8")
    graph = CommunicationGraph.ring(8)
    data = load("diffusing_sensor", seed=0, index=np.arange(8), samples=2000, graph=graph, targets=[graph.centre])
    last = data.test.inputs[:, [graph.centre]] - data.test.targets[graph.centre]
    assert summary["test_metrics"]["rmse"] < 0.7 * math.sqrt(np.square(last).mean())


class Skewed:
    """Three classes of 12, 6 and 2 samples."""

    def describe(self, root: Path | None) -> Description:
        return Description("skewed", columns=2, classes=3, samples=20)

    def read(self, request: Request) -> tuple[Split, Split]:
        part = request.split(np.zeros((20, 2)), np.repeat(np.arange(3), [12, 6, 2]))
        return part, part


def test_balanced_weights_come_from_the_training_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "skewed", Skewed())
    head = job("data.name=skewed", "readout.class_weights=balanced").head
    assert isinstance(head, Readout)
    assert head.criterion.class_weights is not None
    assert head.criterion.class_weights.tolist() == pytest.approx([20 / 36, 20 / 18, 20 / 6])


WRONG = {
    "classes for numbers": (("data.name=waves",), "readout.loss 'cross_entropy' needs classes, but the data set waves"),
    "numbers for classes": (("readout.loss=huber",), "readout.loss 'huber' needs targets that are numbers"),
    "unknown loss": (("readout.loss=mse",), "readout.loss: unknown loss 'mse'"),
    "targets at agents, read at the root": ((*EACH[:2],), "set readout.at = 'each'"),
    "each without targets": ((*NUMBERS, "readout.at=each"), "'each' needs agents with targets of their own"),
    "weights of three classes": (("readout.class_weights=[1, 2, 3]",), "readout: class_weights is .* 2 numbers"),
    "weights below zero": (("readout.class_weights=[1, -2]",), "expected numbers of at least 0"),
    "weights of numbers": ((*NUMBERS, "readout.class_weights=balanced"), "readout: class_weights are given, but huber"),
    "delta of another loss": (("readout.delta=1.0",), "readout: delta is 1.0, but the loss cross_entropy has none"),
    "root that is not there": ((*EACH, "readout.root=8"), "readout.root: agent 8"),
}


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said_in_one_line(case: str, command: str, tmp_path: Path) -> None:
    """By ``check`` too, and before a folder is made."""
    keys, words = WRONG[case]
    if command == "check" and case == "root that is not there":
        return
    arguments = [command, *(word for key in (*QUICK, *keys) for word in ("--set", key))]
    folder = tmp_path / "run"
    result = CliRunner().invoke(app, [*arguments, "--run-dir", str(folder)] if command == "train" else arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    with pytest.raises(ValueError, match=words):
        raise ValueError(result.stderr)
    assert not folder.exists()


def test_what_one_rank_finds_wrong_ends_every_rank(tmp_path: Path) -> None:
    """Targets that are not finite, at an agent of the last rank."""
    script = Path(__file__).parent / "spoiled_targets.py"
    process = run_ranks("torchrun", 2, str(script), str(tmp_path))
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert all("targets of agent 7 are nan at sample 3, output 0" in text for text in said), process.stderr
    assert "rank 1: " in said[0]


@pytest.mark.parametrize("keys", [NUMBERS, EACH], ids=["root", "each"])
def test_other_commands_know_numbers(keys: tuple[str, ...], tmp_path: Path) -> None:
    small = (*keys, "graph=ring:3", "network.layers=2", "data.samples=20", "epochs=1")
    train(tmp_path / "run", *small)
    result = CliRunner().invoke(app, ["analyze", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["check", *(word for key in (*QUICK, *small) for word in ("--set", key))])
    assert result.exit_code == 0, result.output


PAGE = (Path(__file__).parents[1] / "docs" / "objectives.md").read_text()
COMMANDS = [line.partition("#")[0].split() for line in PAGE.replace("\\\n", "").splitlines() if "    hdnn-dist" in line]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: "-".join(words[3:4]) or "plain")
def test_the_commands_of_the_page_run(command: list[str], tmp_path: Path) -> None:
    """With fewer and smaller samples."""
    quick = [word for key in QUICK for word in ("--set", key)]
    words = [word.strip("'") for word in command[1:]]
    result = CliRunner().invoke(app, [*words, *quick, "--run-dir", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output


def test_the_python_of_the_page_runs() -> None:
    exec(PAGE.split("```python\n")[1].split("```")[0], {})
