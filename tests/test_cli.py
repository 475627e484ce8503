"""The command line: what a run leaves, what it prints, and one line with an exit status for all that goes wrong."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from hdnn_dist import cli
from hdnn_dist.analysis import analyze as analysing
from hdnn_dist.exchange.transports.local import LocalWorld
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.graph import CommunicationGraph
from hdnn_dist.runs.folder import RunFolder
from hdnn_dist.training.config_files import load_config

SMALL = ("epochs=2", "network.layers=4", "data.samples=400")
ALWAYS = {"data.json", "config.toml", "metrics.jsonl", "summary.json", "checkpoints"}
FINDINGS = {"edges.json", "judged.json", "decision.npz"}
PICTURES = {"graph.png", "sparsity.png", "curves.png", "decision.png"}
REQUIRED = {
    *("architecture", "agents", "ranks", "transport", "layers", "parameters_per_rank", "epochs", "train_accuracy"),
    *("test_accuracy", "loss", "seconds", "seconds_per_step", "messages_per_step", "bytes_per_step", "bytes_per_edge"),
    *("off_graph_messages", "reconstruction_drift"),
}


def hdnn_dist(*arguments: str) -> Result:
    """The command in this process; what it does not turn into an exit status is raised."""
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def settings(*pairs: str) -> list[str]:
    return [argument for pair in (*SMALL, *pairs) for argument in ("--set", pair)]


def one_line(errors: str) -> str:
    assert errors.count("\n") == 1, errors
    assert errors.endswith("\n")
    return errors.removesuffix("\n")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@dataclass(frozen=True)
class Run:
    folder: Path
    output: str
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole small run, pictures included."""
    folder = tmp_path_factory.mktemp("runs") / "[bold]run"  # brackets: rich would take them for markup
    result = hdnn_dist("train", *settings(), "--run-dir", str(folder))
    assert (result.exit_code, result.stderr) == (0, "")
    summary = json.loads((folder / "summary.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return Run(folder, result.stdout, summary, metrics)


class TestTrain:
    def test_a_run_folder_holds_what_was_promised(self, run: Run) -> None:
        assert names(run.folder) == {*ALWAYS, *FINDINGS, *PICTURES}
        assert names(run.folder / "checkpoints") == {"rank-0.safetensors"}
        assert run.summary.keys() >= REQUIRED

    def test_the_config_of_the_folder_repeats_the_run(self, run: Run) -> None:
        assert load_config(run.folder / "config.toml") == load_config(None, SMALL)

    def test_metrics_have_a_line_an_epoch(self, run: Run) -> None:
        assert [row["epoch"] for row in run.metrics] == [1, 2]
        assert {"loss", "train_accuracy", "test_accuracy"} <= run.metrics[0].keys()

    def test_the_summary_says_what_happened(self, run: Run) -> None:
        """Counted by hand: 4 layers of 4 rounds each way over 16 directed edges, and a tree of 7 edges up and down."""
        expected = {
            "architecture": "H2",
            "agents": 8,
            "ranks": 1,
            "transport": "local",
            "layers": 4,
            "epochs": 2,
            "parameters_per_rank": [4 * 2 * (8 * 3 + 8) + 2 * 16 + 2],
            "messages_per_step": 4 * 8 * 16 + 2 * 7,
            "off_graph_messages": 0,
        }
        assert {key: run.summary[key] for key in expected} == expected
        assert run.summary["test_accuracy"] == run.metrics[-1]["test_accuracy"]
        assert 0 < run.summary["bytes_per_edge"] < run.summary["bytes_per_step"]
        assert 0 < run.summary["seconds_per_step"] < run.summary["seconds"]
        assert 0 <= run.summary["reconstruction_drift"] < 1e-3

    def test_it_is_quiet_when_nobody_watches(self, run: Run) -> None:
        """No progress bar where the output is no terminal, but the last epoch; the path is printed as it is."""
        *epochs, result, where = run.output.splitlines()
        assert epochs[-1].startswith("epoch 2/2  loss ")
        assert len(epochs) <= 2
        assert f"test accuracy {run.summary['test_accuracy']:.4f}" in result
        assert str(run.folder) in where

    def test_it_shows_its_progress_on_a_terminal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli.train, "console", Console(file=io.StringIO(), force_terminal=True, width=200))
        monkeypatch.setattr(cli.train, "draw_run", lambda *_: [])
        assert hdnn_dist("train", *settings(), "--run-dir", str(tmp_path)).exit_code == 0
        shown = cli.train.console.file.getvalue()
        assert "epoch 2: loss" in shown
        assert "100%" in shown

    def test_a_finished_run_is_not_written_over(self, run: Run) -> None:
        before = (run.folder / "summary.json").read_bytes()
        result = hdnn_dist("train", *settings("seed=1"), "--run-dir", str(run.folder))
        assert result.exit_code == 2
        assert "holds a finished run: choose another --run-dir, or pass --overwrite" in one_line(result.stderr)
        assert (run.folder / "summary.json").read_bytes() == before

    def test_overwrite_replaces_it_with_the_run_that_was_asked_for(self, run: Run, tmp_path: Path) -> None:
        """A run of no epoch has no curves: the picture of the earlier run must not stay."""
        shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / "checkpoints" / "rank-1.safetensors").touch()  # an earlier run may have had more ranks
        (tmp_path / "analysis.json").touch()
        result = hdnn_dist("train", *settings("epochs=0"), "--run-dir", str(tmp_path), "--overwrite")
        assert result.exit_code == 0
        assert names(tmp_path) == names(run.folder) - {"curves.png"}
        assert names(tmp_path / "checkpoints") == {"rank-0.safetensors"}
        assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == 0

    def test_images_read_at_one_agent(self, tmp_path: Path) -> None:
        """A pixel an agent, ten classes, float64, a config file; no plane to draw decision regions over."""
        pytest.importorskip("sklearn")
        config = tmp_path / "digits.toml"
        config.write_text('graph = "grid:8x8"\ndtype = "float64"\ndata.name = "digits"\nreadout.at = [0]\n')
        result = hdnn_dist("train", str(config), *settings("epochs=1"), "--run-dir", str(tmp_path / "run"))
        assert (result.exit_code, result.stderr) == (0, "")
        expected = {*ALWAYS, *FINDINGS, *PICTURES} - {
            "decision.png",
            "decision.npz",
        }
        assert names(tmp_path / "run") == expected


class NineRanks(LocalWorld):
    """Rank 0 of a launch with more ranks than the ring has agents."""

    size = 9


def without(module: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A module that is not installed."""

    def hide(monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == module else find(name))
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, "hdnn_dist.exchange.transports.mpi", raising=False)

    return hide


def nine_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.train, "connect", lambda *_, **__: NineRanks(torch.device("cpu")))


def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is needed is here."""


@dataclass(frozen=True)
class Wrong:
    """``pairs`` are set, ``arguments`` given; the line has to say ``words``, a pattern."""

    words: str
    pairs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    arrange: Callable[[pytest.MonkeyPatch], None] = as_it_is


BAD_INPUT = {
    "graph in two parts": Wrong(r"split\.edges: .*not connected.*add an edge", ("graph=split.edges",)),
    "random graph in parts": Wrong(
        r"drew a disconnected graph.*raise p or change the seed", ("graph=erdos_renyi:20,0",)
    ),
    "no graph file": Wrong(r"graph file none\.edges does not exist", ("graph=none.edges",)),
    "unknown graph": Wrong(r"unknown topology 'rng:8': did you mean ring:8", ("graph=rng:8",)),
    "block outside the graph": Wrong(
        r"T has block \(0, 4\), but agents 0 and 4 are not neighbours.*remove them from T or add these edges",
        ("network.pattern=[[0, 0], [0, 4]]",),
    ),
    "agent that reads nothing": Wrong(r"agent 1 reads no block of T.*add at least", ("network.pattern=[[0, 0]]",)),
    "agent without features": Wrong(
        r"agent 2 has 0 features: every agent needs at least one", ("network.features=[2,2,0,2,2,2,2,2]",)
    ),
    "features of other agents": Wrong(r"features is \[2, 2\]: .*8 agents", ("network.features=[2, 2]",)),
    "odd features for H2": Wrong(
        r"agent 0 has 3 features, but H2 .*an even number, such as 4", ("network.features=3",)
    ),
    "more ranks than agents": Wrong(r"9 ranks were started for 8 agents.*start at most 8 ranks", arrange=nine_ranks),
    "placement on no rank": Wrong(r"agent 7 on rank 1, but the ranks are 0 to 0", ("placement=[0,0,0,0,0,0,0,1]",)),
    "unknown placement": Wrong(r"unknown placement 'metiss': did you mean 'metis'", ("placement=metiss",)),
    "METIS is not installed": Wrong(
        r"'metis' needs pymetis, which is not installed: pip install", ("placement=metis",), arrange=without("pymetis")
    ),
    "column given to nobody": Wrong(r"column 1 is given to no agent; give", ("data.columns={0=[0]}",)),
    "column given twice": Wrong(r"column 0 is given to agent 0 and agent 1; give", ("data.columns={0=[0, 1], 1=[0]}",)),
    "column that does not exist": Wrong(r"column 2, given to agent 1, does not", ("data.columns={0=[0], 1=[1, 2]}",)),
    "column to no agent of the graph": Wrong(r"agent 8 does not exist.*0 to 7", ("data.columns={8=[0, 1]}",)),
    "patch of no image": Wrong(r"a patch needs images", ("data.patch=[1, 1]",)),
    "unknown data": Wrong(
        r"unknown data set 'double_circle': did you mean 'double_circles'", ("data.name=double_circle",)
    ),
    "data that cannot be made": Wrong(r"an even number of samples, 8 or more.*not 7", ("data.samples=7",)),
    "more samples than memory": Wrong(
        r"2000000000 samples need .* GiB of memory at least, .*: ask for less", ("data.samples=2000000000",)
    ),
    "more features than memory": Wrong(
        r"the weights of 4 layers, .* need .* GiB of memory at least, .*: ask for less", ("network.features=20000",)
    ),
    "kernel that does not serve": Wrong(r"kernel 'triton' cannot be used: .*use 'auto' or", ("network.kernel=triton",)),
    "data is not installed": Wrong(
        r"digits needs scikit-learn, which is not installed: pip install",
        ("data.name=digits", "graph=grid:8x8"),
        arrange=without("sklearn.datasets"),
    ),
    "unknown key": Wrong(r"--set: unknown key 'netwrk\.layers': did you mean 'network\.layers'", ("netwrk.layers=3",)),
    "unknown key in a file": Wrong(r"slip\.toml.*: unknown key 'epoch': did you mean 'epochs'", (), ("slip.toml",)),
    "wrong type": Wrong(r"network\.layers is 'many': it should be a whole number", ("network.layers=many",)),
    "no key=value": Wrong(r"--set 'layers': expected key=value, such as", ("layers",)),
    "no config file": Wrong(r"config file none\.toml does not exist", (), ("none.toml",)),
    "config file that is no TOML": Wrong(r"broken\.toml is not TOML: .*line 1", (), ("broken.toml",)),
    "folder for a config": Wrong(r"config file folder cannot be read: Is a directory", (), ("folder",)),
    "file for a run folder": Wrong(r"run folder slip\.toml is a file", (), ("--run-dir", "slip.toml")),
    "unknown architecture": Wrong(r"unknown architecture 'H22': did you mean 'H2'", ("network.architecture=H22",)),
    "unknown loss": Wrong(r"unknown loss 'hinge': there are cross_entropy", ("readout.loss=hinge",)),
    "loss for numbers": Wrong(
        r"needs targets that are numbers.*use 'cross_entropy'", ("readout.loss=mean_squared_error",)
    ),
    "root that is no agent": Wrong(r"readout.root: agent 8 does not exist: .* 0 to 7", ("readout.root=8",)),
    "reader that is no agent": Wrong(r"readout.at: agent 8 does not exist: .* 0 to 7", ("readout.at=[0, 8]",)),
    "unknown transport": Wrong(r"unknown transport 'mip': did you mean 'mpi'", (), ("--transport", "mip")),
    "MPI is not installed": Wrong(
        r"'mpi' is not installed \(.*mpi4py.*\): pip install", (), ("--transport", "mpi"), without("mpi4py")
    ),
    "c10d without torchrun": Wrong(
        r"'c10d' needs the environment of torchrun, and RANK.* not set: start with", (), ("--transport", "c10d")
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 8: what, where and the mend, before anything is trained or written."""
    monkeypatch.chdir(tmp_path)
    for variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    Path("split.edges").write_text("0 1\n2 3\n")
    Path("slip.toml").write_text("epoch = 3\n")
    Path("broken.toml").write_text("epochs = \n")
    Path("folder").mkdir()
    before = names(tmp_path)
    wrong = BAD_INPUT[name]
    wrong.arrange(monkeypatch)
    result = hdnn_dist("train", *settings(*wrong.pairs), "--run-dir", "run", *wrong.arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    line = one_line(result.stderr)
    assert line.startswith("hdnn-dist: error: ")
    assert re.search(wrong.words, line), line
    assert names(tmp_path) == before


class TestFailures:
    """Status 1 for what fails on the way, one line, and no summary that says otherwise."""

    def fails(self, folder: Path, *pairs: str) -> str:
        result = hdnn_dist("train", *settings(*pairs), "--run-dir", str(folder))
        assert result.exit_code == 1
        assert names(folder) == {"config.toml", "data.json", "metrics.jsonl"}
        return result.stderr

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl"),
            TransportError("could not send to rank 1 (messages of agents 3 -> 4, ...): timed out"),
            MemoryError("Unable to allocate 7.11 PiB"),
        ],
        ids=["full disk", "lost rank", "no memory"],
    )
    def test_a_failure_is_one_line(self, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(RunFolder, "add", fail)
        assert one_line(self.fails(tmp_path)) == f"hdnn-dist: failed: {error}"

    @pytest.mark.filterwarnings("default")
    def test_divergence_and_its_warning_are_a_line_each(self, tmp_path: Path) -> None:
        """The drift is warned of once, not in every step of the run."""
        errors = self.fails(tmp_path, "optimizer.learning_rate=1e30", "optimizer.schedule=constant").splitlines()
        assert [line.partition(": ")[2].partition(": ")[0] for line in errors] == ["warning", "failed"]
        assert "lower optimizer.learning_rate" in errors[1]

    def test_a_bug_keeps_its_traceback(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only what a user or the world does is turned into a line."""
        monkeypatch.setattr(RunFolder, "add", lambda *_: [][0])
        with pytest.raises(IndexError):
            self.fails(tmp_path)


class TestTopology:
    def test_it_tells_what_the_graph_is_and_costs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By hand: 2 half-steps of 2 rounds; 16 messages a round, each of 125 floats, twice as wide backward."""
        monkeypatch.chdir(tmp_path)
        result = hdnn_dist("topology", "ring:8")
        assert (result.exit_code, result.stderr) == (0, "")
        rows = dict(re.split(r"  +|: ", line, maxsplit=1) for line in result.stdout.splitlines())
        assert rows == {
            "graph": "ring:8",
            "agents": "8",
            "edges": "8",
            "degree": "2 to 2, mean 2.00",
            "diameter": "4",
            "centre": "0",
            "forward, a layer": "4 rounds, 64 messages, 32,000 bytes, 4,000 on the busiest edge",
            "backward, a layer": "4 rounds, 64 messages, 64,000 bytes, 8,000 on the busiest edge",
            "picture": "ring_8.png",
        }
        assert (tmp_path / "ring_8.png").stat().st_size > 1000

    def test_a_picture_of_somebody_else_is_left_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of ours is drawn anew."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ring_8.png").write_bytes(b"a photograph")
        refused = hdnn_dist("topology", "ring:8")
        assert refused.exit_code == 2
        assert "ring_8.png is not a picture of ours: choose another --picture, or pass --overwrite" in refused.stderr
        assert (tmp_path / "ring_8.png").read_bytes() == b"a photograph"
        assert hdnn_dist("topology", "ring:8", "--overwrite").exit_code == 0
        assert hdnn_dist("topology", "ring:8").exit_code == 0

    def test_a_graph_of_any_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Dollar signs are no mathematics, and a name may be longer than that of a file."""
        monkeypatch.chdir(tmp_path)
        nodes = [{"id": 0}, {"id": 1}]
        for name in ("cost in $$ and $x", "n" * 440, "a/b\\c: d"):
            graph = {"graph": {"name": name}, "nodes": nodes, "edges": [{"source": 0, "target": 1}]}
            (tmp_path / "graph.json").write_text(json.dumps({**graph, "directed": False, "multigraph": False}))
            result = hdnn_dist("topology", "graph.json")
            assert (result.exit_code, result.stderr) == (0, "")
        run = hdnn_dist("train", *settings("graph=graph.json"), "--run-dir", str(tmp_path / "run"))
        assert (run.exit_code, run.stderr) == (0, "")
        assert (tmp_path / "run" / "graph.png").stat().st_size > 1000

    def test_a_file_and_a_batch(self, tmp_path: Path) -> None:
        graph, picture = tmp_path / "star.edges", tmp_path / "star.png"
        graph.write_text("0 1\n0 2\n0 3\n")
        result = hdnn_dist("topology", str(graph), "--features", "4", "--batch", "10", "--picture", str(picture))
        assert "degree             1 to 3, mean 1.50" in result.stdout
        assert f"4 rounds, 24 messages, {24 * 2 * 10 * 4:,} bytes" in result.stdout
        assert picture.exists()

    def test_a_clean_file_of_links_both_ways(self, tmp_path: Path) -> None:
        """A config can name what ``--merge --save`` writes, over which nothing is written without ``--overwrite``."""
        given, clean = tmp_path / "given.edges", tmp_path / "clean.edges"
        given.write_text("0 1\n1 0\n1 2\n2 2\n")
        words = ["topology", str(given), "--merge", "--save", str(clean), "--picture", str(tmp_path / "given.png")]
        assert (hdnn_dist(*words).exit_code, clean.read_text()) == (0, "# agents: 3\n0 1\n1 2\n")
        assert hdnn_dist("check", "--set", f"graph={clean}").exit_code == 0
        again = hdnn_dist(*words)
        assert (again.exit_code, again.stdout) == (2, "")
        assert "the file exists; choose another, or pass --overwrite" in one_line(again.stderr)
        assert hdnn_dist(*words, "--overwrite").exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("rng:8",), "did you mean ring:8"),
            (("ring:8", "--features", "3"), "an even number, such as 4"),
            (("ring:8", "--architecture", "H3"), "unknown architecture 'H3'"),
            (("ring:8", "--picture", "none/ring.png"), "the folder none does not exist"),
            (("ring:8", "--save", "none/ring.edges"), "none/ring.edges cannot be written: No such file or directory"),
            (("ring:8", "--save", "ring.png"), "graph file ring.png has suffix '.png', expected one of .edges"),
            (("ring:8", "--merge"), "graph file ring:8 has suffix ''"),
        ],
    )
    def test_bad_input(
        self, arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = hdnn_dist("topology", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in one_line(result.stderr)
        assert names(tmp_path) == set()

    def test_numbers_that_make_no_sense(self) -> None:
        assert hdnn_dist("topology", "ring:8", "--batch", "0").exit_code == 2
        assert hdnn_dist("topology", "ring:8", "--features", "0").exit_code == 2


class TestAnalyze:
    def test_it_asks_for_what_to_analyze(self) -> None:
        result = hdnn_dist("analyze")
        assert (result.exit_code, result.stdout) == (2, "")
        assert one_line(result.stderr).startswith("hdnn-dist: error: RUN is missing: give the folder")

    @pytest.mark.parametrize("later", ["0 1\n1 2\n2 3\n", None], ids=["changed", "gone"])
    def test_a_run_keeps_the_graph_that_it_was_trained_on(
        self, later: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        given, run = tmp_path / "mine.edges", tmp_path / "run"
        given.write_text("0 1\n0 2\n0 3\n")
        assert hdnn_dist("train", *settings("graph=mine.edges"), "--run-dir", "run").exit_code == 0
        if later is None:
            given.unlink()
        else:
            given.write_text(later)
        kept = CommunicationGraph.load(run / "graph.json")
        assert (kept, kept.name) == (CommunicationGraph.star(4), "mine")
        assert hdnn_dist("analyze", "run").exit_code == 0
        again = hdnn_dist("train", *settings("graph=run/graph.json"), "--run-dir", "run", "--overwrite")
        assert (again.exit_code, CommunicationGraph.load(run / "graph.json")) == (0, kept)
        assert hdnn_dist("train", *settings("graph=path:4"), "--run-dir", "run", "--overwrite").exit_code == 0
        assert "graph.json" not in names(run)

    @pytest.mark.parametrize("name", ["counterexample", "depth", "controls"])
    def test_a_file_for_a_folder_is_refused_before_anything_is_computed(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for computes in ("solve", "depth_sweep", "measure"):
            monkeypatch.setattr(analysing, computes, None)
        (tmp_path / "file").touch()
        result = hdnn_dist("analyze", name, "--run-dir", str(tmp_path / "file"))
        assert (result.exit_code, result.stdout) == (2, "")
        assert one_line(result.stderr).endswith("file is a file: choose another")

    @pytest.mark.parametrize("name", ["counterexample", "depth", "controls"])
    def test_a_folder_that_holds_files_is_left_alone(self, name: str, tmp_path: Path) -> None:
        (tmp_path / f"{name}.png").write_text("mine")
        result = hdnn_dist("analyze", name, "--run-dir", str(tmp_path))
        assert (result.exit_code, result.stdout) == (2, "")
        assert "holds files, which could be lost: choose an empty folder" in one_line(result.stderr)
        assert (tmp_path / f"{name}.png").read_text() == "mine"

    @pytest.mark.parametrize("damaged", ["", "{", "[0.5]", '{"step": 2', '{"step": 2, "norms": [0.1, "a"]}'])
    def test_damaged_gradients_are_named_before_all_else(self, damaged: str, run: Run, tmp_path: Path) -> None:
        shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / "gradients.jsonl").write_text(f'{{"step": 1, "norms": [0.1, 0.2]}}\n{damaged}\n')
        result = hdnn_dist("analyze", str(tmp_path))
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.search(r"gradients\.jsonl, line 2: .* is not what a training step writes", one_line(result.stderr))
        assert names(tmp_path) == {*names(run.folder), "gradients.jsonl"}


class TestProcess:
    """What only a process of its own can show."""

    COMMAND = (sys.executable, "-m", "hdnn_dist", "train")

    def test_the_module_is_the_command(self, tmp_path: Path) -> None:
        done = subprocess.run([*self.COMMAND, "none.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert one_line(done.stderr).startswith("hdnn-dist: error: config file none.toml does not exist")

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--nope"], "No such option: --nope; see hdnn-dist --help"),
            (["train", "--nope"], "No such option: --nope; see hdnn-dist train --help"),
            (["train", "--set"], "Option '--set' requires an argument; see hdnn-dist"),
            (["trian"], "No such command 'trian'"),
            (["topology"], "Missing argument 'NAME_OR_FILE'; see hdnn-dist topology --help"),
            (["train", "--set", "network.layers=2147483647"], "layers of 16 features need "),
        ],
    )
    def test_a_slip_is_one_line(self, tmp_path: Path, words: list[str], line: str) -> None:
        """In usage as in the config; nothing is left behind."""
        command = [sys.executable, "-m", "hdnn_dist", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert line in one_line(done.stderr)
        assert not names(tmp_path)

    def test_without_arguments_it_shows_its_help(self) -> None:
        done = subprocess.run([sys.executable, "-m", "hdnn_dist"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert "Train Hamiltonian deep neural networks" in done.stdout

    def test_ctrl_c_ends_a_run_in_order(self, tmp_path: Path) -> None:
        """Status 130, one line, and every file that is there is whole."""
        command = [*self.COMMAND, *settings("epochs=1000000"), "--run-dir", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                self.wait_for_epochs(process, tmp_path / "metrics.jsonl")
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130
        assert all(line.startswith("epoch ") for line in output.splitlines())
        assert one_line(errors) == "hdnn-dist: interrupted; the run folder holds what was finished"
        assert names(tmp_path) == {"config.toml", "data.json", "metrics.jsonl"}
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))

    @staticmethod
    def wait_for_epochs(process: subprocess.Popen[str], metrics: Path) -> None:
        end = time.monotonic() + 100
        while not (metrics.exists() and metrics.stat().st_size):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
