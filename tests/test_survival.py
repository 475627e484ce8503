"""A job whose ranks are killed again and again ends with the weights of one that nobody has disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_writers
import pytest
import resumed_ranks
import torch
from jobs import command, mpiexec, ranks_of, run, started
from safetensors.torch import load_file
from test_resume import TIMES

from hdnn_dist.runs.index import complete

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
RANKS, KILLS = 2, 10
SETTINGS = (
    "data.samples=2000", "batch_size=20", "epochs=16", "network.layers=4", "network.kernel=torch",
    "checkpoint.every_steps=1",
)  # fmt: skip
HANGS = 900  # seconds, which prove that nobody waits for ever


def arguments(folder: Path, *settings: str) -> list[str]:
    keys = [word for key in (*SETTINGS, *settings) for word in ("--set", key)]
    return ["-m", "hdnn_dist", "train", *keys, "--run-dir", str(folder), "--resume", "auto"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those of the finished run."""
    return tensors(folder / "checkpoints")


def lines(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def check_same(folder: Path, expected: Path) -> None:
    """Bit for bit, and no line missing or twice."""
    own, other = weights(folder), weights(expected)
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert lines(folder) == lines(expected)


def newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in complete(folder / "checkpoints")), default=-1)


def kill_in_training(folder: Path, process: subprocess.Popen[str], draw: random.Random, since: int) -> int:
    """Wait until the job has come further than ``since``, then a moment; kill -9 a rank. The newest checkpoint then."""
    began = time.monotonic()
    while newest(folder) <= since:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < began + HANGS
        time.sleep(0.01)
    time.sleep(draw.random() / 10)
    ranks = ranks_of(str(folder))
    with contextlib.suppress(ProcessLookupError):
        os.kill(ranks[draw.choice(sorted(ranks))], signal.SIGKILL)
    while set(ranks.values()) & set(ranks_of(str(folder)).values()):
        assert time.monotonic() < began + HANGS
        time.sleep(0.05)
    return newest(folder)


def undisturbed(launcher: str, folder: Path) -> Path:
    """The run folder of one that nobody kills, and that makes no checkpoint."""
    result = run(launcher, RANKS, *arguments(folder, "checkpoint.every_steps=0"), timeout=HANGS)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3 * HANGS)
def test_killed_under_torchrun(tmp_path: Path) -> None:
    """torchrun starts the ranks again by itself."""
    folder, draw, at = tmp_path / "run", random.Random(1), -1
    line = command("torchrun", RANKS, *arguments(folder))
    line[line.index("--standalone")] = "--max-restarts=20"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHELASTIC_ERROR_FILE": ""}
    with started(line, environment) as process:
        for _ in range(KILLS):
            at = kill_in_training(folder, process, draw, at)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    check_same(folder, undisturbed("torchrun", tmp_path / "undisturbed"))


@pytest.mark.slow
@pytest.mark.timeout(3 * HANGS)
def test_killed_in_a_loop_of_mpiexec(tmp_path: Path) -> None:
    mpiexec()
    folder, draw, at = tmp_path / "run", random.Random(2), -1
    line, environment = command("mpiexec", RANKS, *arguments(folder)), {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(KILLS):
        with started(line, environment) as process:
            at = kill_in_training(folder, process, draw, at)
            process.communicate(timeout=HANGS)
            assert process.returncode
    result = run("mpiexec", RANKS, *arguments(folder), timeout=HANGS)
    assert result.returncode == 0, result.stderr
    check_same(folder, undisturbed("mpiexec", tmp_path / "undisturbed"))


@pytest.mark.slow
@pytest.mark.timeout(3 * HANGS)
def test_killed_while_it_is_written(tmp_path: Path) -> None:
    """50 moments: there is always a complete checkpoint, and it is sound; often another one was on its way."""
    line = [sys.executable, killed_writers.__file__, str(tmp_path), "50"]
    with started(line, {**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        output, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    found = [tuple(map(int, line.split())) for line in output.splitlines()]
    assert len(found) == 50
    assert all(whole >= 1 for whole, _ in found)
    assert sum(half for _, half in found) >= 10


@pytest.mark.slow
@pytest.mark.timeout(3 * HANGS)
def test_ranks_come_and_go(tmp_path: Path) -> None:
    """8 ranks, 2, 1, 4: at each change the weights are those that were written, and the accuracy is in the end."""
    for quarter, ranks in enumerate((8, 2, 1, 4)):
        result = run("torchrun", ranks, resumed_ranks.__file__, str(tmp_path / "run"), str(quarter), timeout=HANGS)
        assert result.returncode == 0, result.stderr
        if quarter:
            own, expected = (tensors(tmp_path / "run" / f"{when}-{quarter}") for when in ("after", "before"))
            assert own.keys() == expected.keys()
            assert all(torch.equal(own[name], expected[name]) for name in own)
    result = run("torchrun", 1, resumed_ranks.__file__, str(tmp_path / "whole"), "3", timeout=HANGS)
    assert result.returncode == 0, result.stderr
    accuracies = [float((tmp_path / name / "accuracy").read_text()) for name in ("run", "whole")]
    assert accuracies[1] > 0.9
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.002)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("rank-*.safetensors") for name, value in load_file(file).items()}


def test_it_leaves_when_it_is_asked_to(tmp_path: Path) -> None:
    """A signal to one rank alone: all leave with one status, at one step, and the same command goes on."""
    mpiexec()
    folder = tmp_path / "run"
    line = command("mpiexec", RANKS, *arguments(folder, "epochs=100000", "optimizer.schedule=constant"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with started(line, environment) as process:
        while newest(folder) < 0:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.kill(ranks_of(str(folder))[1], signal.SIGTERM)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 75, errors
    assert "asked to leave by SIGTERM; the newest is that of step" in errors
    assert newest(folder) >= 0
