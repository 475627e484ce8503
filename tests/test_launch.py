"""The main job as its users start it: the same config in one process, under torchrun and under mpiexec."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import BIN, mpiexec, run

ROOT = Path(__file__).parents[1]
SMALL = ["dtype=float64", "epochs=2", "network.layers=4", "data.samples=400"]
FULL = ["dtype=float64", "epochs=2"]
JOBS = {"local": 1, "torchrun 2": 2, "torchrun 8": 8, "mpiexec 2": 2}


def train(job: str, folder: Path, settings: list[str]) -> dict:
    """summary.json of one run."""
    arguments = [*(word for key in settings for word in ("--set", key)), "--run-dir", str(folder)]
    if job == "local":
        subprocess.run([sys.executable, "-m", "hdnn_dist", "train", *arguments], check=True, capture_output=True)
    else:
        launcher, ranks = job.split()
        process = run(launcher, int(ranks), "-m", "hdnn_dist", "train", *arguments, timeout=600)
        assert process.returncode == 0, process.stderr
    return json.loads((folder / "summary.json").read_text())


def check_same_everywhere(folder: Path, settings: list[str]) -> None:
    summaries = {job: train(job, folder / job.replace(" ", ""), settings) for job in JOBS}
    expected = summaries["local"]
    for job, summary in summaries.items():
        assert summary["ranks"] == JOBS[job]
        assert len(summary["parameters_per_rank"]) == JOBS[job]
        assert sum(summary["parameters_per_rank"]) == sum(expected["parameters_per_rank"])
        for key in ("loss", "test_loss"):
            assert summary[key] == pytest.approx(expected[key], rel=1e-9), job
        for key in ("test_accuracy", "train_accuracy", "messages_per_step", "bytes_per_step", "bytes_per_edge"):
            assert summary[key] == expected[key], (job, key)
        assert summary["off_graph_messages"] == 0
        assert (summary["wire_messages_per_step"] > 0) == (JOBS[job] > 1)


def test_one_config_gives_the_same_result_everywhere(tmp_path: Path) -> None:
    """Contract 3 and 4, end to end."""
    mpiexec()
    check_same_everywhere(tmp_path, SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_config_gives_the_same_result_everywhere(tmp_path: Path) -> None:
    mpiexec()
    check_same_everywhere(tmp_path, FULL)


@pytest.mark.parametrize("script", ["torchrun.sh", "mpirun.sh"])
def test_launch_scripts(script: str, tmp_path: Path) -> None:
    """The scripts of launch/ start the config files beside them, and pass overrides on."""
    mpiexec()
    settings = [word for key in [*SMALL, "epochs=1"] for word in ("--set", key)]
    config = ROOT / "launch" / "configs" / "double_circles_ring8.toml"
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}
    command = [str(ROOT / "launch" / script), "2", str(config), *settings, "--run-dir", str(tmp_path)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["ranks"] == 2
    assert subprocess.run(command[:1], capture_output=True).returncode == 2


@pytest.mark.parametrize("launcher", ["torchrun", "mpiexec"])
def test_wrong_input_ends_on_every_rank_in_one_line(launcher: str, tmp_path: Path) -> None:
    process = run(
        launcher, 3, "-m", "hdnn_dist", "train", "--set", "network.layer=3", "--run-dir", str(tmp_path / "run")
    )
    assert process.returncode != 0
    lines = [line for line in process.stderr.splitlines() if line.startswith("hdnn-dist: error: ")]
    assert lines
    assert all("unknown key 'network.layer': did you mean 'network.layers'?" in line for line in lines)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_example_of_the_readme_runs(ranks: int, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    script = tmp_path / "s.py"
    script.write_text(example)
    if ranks == 1:
        subprocess.run([sys.executable, str(script)], check=True)
    else:
        process = run("torchrun", ranks, str(script))
        assert process.returncode == 0, process.stderr
