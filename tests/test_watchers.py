"""Who is told of every epoch: a terminal, a log, TensorBoard and a tracker; by one rank only, and only where asked."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from jobs import run
from rich.console import Console

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.cli import progress as progress_file
from hdnn_dist.cli.progress import duration, progress
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer

TRACKERS = Path(__file__).parent / "trackers"
SMALL = ("epochs=3", "network.layers=4", "data.samples=400", "network.kernel=torch")


def words(*keys: str) -> list[str]:
    return [word for key in (*SMALL, *keys) for word in ("--set", key)]


def train(folder: Path, *keys: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "hdnn_dist", "train", *words(*keys), "--run-dir", str(folder / "run")]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def shown(terminal: bool, *keys: str) -> str:
    """What a run prints while it trains."""
    config = load_config(None, [*SMALL, *keys])
    job = build(config, CommunicationGraph.parse(config.graph), connect("local"))
    trainer = Trainer(job)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with progress(trainer, console) as (on_step, on_epoch):
        trainer.run(on_step, on_epoch)
    return console.file.getvalue()


class TestProgress:
    def test_a_terminal_has_a_bar(self) -> None:
        text = shown(True)
        assert "100%" in text
        assert "epoch 3/3" in text
        assert "epoch 3: loss" in text

    def test_a_log_has_lines_that_are_not_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Epochs that are over before the next line is due: the last one alone."""
        monkeypatch.setattr(progress_file, "APART", 1e9)
        lines = shown(False).splitlines()
        assert len(lines) == 1
        for word in ("epoch 3/3  loss ", "  test loss ", "  test accuracy ", " samples/s  ", "B/s"):
            assert word in lines[0]
        assert "left" not in lines[0]

    def test_a_log_has_a_line_an_epoch_where_they_take_their_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress_file, "APART", -1.0)
        lines = shown(False).splitlines()
        assert [line[:9] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
        assert lines[0].endswith(" s left")

    def test_a_long_epoch_is_not_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress_file, "PATIENT", -1.0)
        lines = shown(False, "epochs=1").splitlines()
        assert lines[0].startswith("epoch 1/1  50% of the epoch  loss 0.")

    def test_the_last_epoch_of_a_run_that_stops_early_is_told(self) -> None:
        lines = shown(False, "epochs=500", "stop.patience=1", "stop.min_delta=1.0").splitlines()
        assert lines[-1].startswith("epoch 2/500 ")

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text

    def test_one_rank_speaks_for_all(self, tmp_path: Path) -> None:
        process = run("torchrun", 2, "-m", "hdnn_dist", "train", *words(), "--run-dir", str(tmp_path / "run"))
        assert process.returncode == 0, process.stderr
        assert process.stdout.count("epoch 3/3") == 1
        assert "  waiting " in process.stdout


class TestTensorBoard:
    @pytest.fixture
    def scalars(self, tmp_path: Path) -> Mapping[str, list[tuple[int, float]]]:
        pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'hdnn-dist[tensorboard]'")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        process = train(tmp_path, "tensorboard=true", "record_gradients=true")
        assert (process.returncode, process.stderr) == (0, "")
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        events.Reload()
        return {tag: [(at.step, at.value) for at in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    def test_it_is_told_all(self, scalars: Mapping[str, list[tuple[int, float]]], tmp_path: Path) -> None:
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        columns = {
            "loss/training": "loss",
            "loss/test": "test_loss",
            "accuracy/training": "train_accuracy",
            "accuracy/test": "test_accuracy",
            "reconstruction_drift": "drift",
            "learning_rate": "learning_rate",
            "pace/samples_per_second": "samples_per_second",
            "pace/bytes_per_second": "bytes_per_second",
            "pace/share_of_waiting": "waiting",
        }
        for tag, key in columns.items():
            assert [step for step, _ in scalars[tag]] == [1, 2, 3]
            assert [value for _, value in scalars[tag]] == pytest.approx([row[key] for row in rows]), tag
        steps = [json.loads(line) for line in (tmp_path / "run" / "gradients.jsonl").read_text().splitlines()]
        for layer in range(4):
            assert scalars[f"gradient_norm/layer_{layer}"] == [
                (row["step"], pytest.approx(row["norms"][layer])) for row in steps
            ]

    def test_another_run_in_its_folder_begins_anew(
        self, scalars: Mapping[str, list[tuple[int, float]]], tmp_path: Path
    ) -> None:
        from hdnn_dist.runs.folder import RunFolder
        from hdnn_dist.training.config import Config

        RunFolder(tmp_path / "run", Config(), overwrite=True)
        assert not list((tmp_path / "run" / "tensorboard").iterdir())


class TestTracker:
    @staticmethod
    def told(folder: Path, *keys: str, **environment: str) -> subprocess.CompletedProcess[str]:
        where = {"PYTHONPATH": f"{TRACKERS}:{Path(__file__).parents[1]}", "TRACKER_FOLDER": str(folder)}
        return train(folder, "tracker=trackio", *keys, **where, **environment)

    def test_it_is_told_of_every_epoch(self, tmp_path: Path) -> None:
        process = self.told(tmp_path, "tracker_project=rings", "record_gradients=true")
        assert (process.returncode, process.stderr) == (0, "")
        begun = json.loads((tmp_path / "init.json").read_text())
        assert (begun["project"], begun["name"]) == ("rings", "run")
        assert begun["config"]["network"]["layers"] == 4
        rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3]
        assert [row["loss/test"] for row in rows] == [row["test_loss"] for row in metrics]
        assert rows[0].keys() >= {f"gradient_norm/layer_{layer}" for layer in range(4)}
        assert (tmp_path / "finished").exists()

    def test_one_that_does_not_start_is_one_line_on_every_rank(self, tmp_path: Path) -> None:
        process = self.told(tmp_path, TRACKER_FAILS="init")
        assert process.returncode == 2
        assert process.stderr == (
            "hdnn-dist: error: tracker 'trackio' does not start: no server answers; mend it, or leave tracker out\n"
        )

    def test_one_that_fails_later_does_not_end_the_run(self, tmp_path: Path) -> None:
        process = self.told(tmp_path, TRACKER_FAILS="log")
        assert process.returncode == 0
        assert process.stderr == "hdnn-dist: warning: trackio is no longer told of this run: the server is gone\n"
        assert (tmp_path / "run" / "summary.json").exists()

    def test_nothing_is_imported_that_was_not_asked_for(self) -> None:
        code = "import sys, hdnn_dist.cli; print({'tensorboard', 'wandb', 'trackio'} & set(sys.modules))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout == "set()\n"

    @pytest.mark.parametrize("name", ["wandb", "trackio"])
    def test_one_that_is_not_installed_is_one_line_and_no_folder(self, name: str, tmp_path: Path) -> None:
        if importlib.util.find_spec(name) is not None:
            pytest.skip(f"{name} is installed")
        process = train(tmp_path, f"tracker={name}")
        assert process.returncode == 2
        assert process.stderr == (
            f"hdnn-dist: error: tracker = '{name}' needs {name}, which is not installed: pip install {name}, "
            "or leave tracker out\n"
        )
        assert not (tmp_path / "run").exists()
