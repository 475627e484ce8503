"""Replicas: ranks in groups that share every batch train what one group trains with the whole batch, to rounding."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import lru_cache
from itertools import product
from pathlib import Path

import pytest
import replicas
import torch
from jobs import LAUNCHERS, ranks_of, run
from safetensors.torch import load_file
from test_killed_ranks import IN_TIME, TIMEOUT, ended, nothing_left, training

from hdnn_dist import CommunicationGraph, average_gradients, connect
from hdnn_dist.runs.checkpoint import CHECKPOINTS, load_weights
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config

SCRIPT = str(Path(replicas.__file__))
SHAPES = {(2, 2): "torchrun", (4, 2): "mpiexec", (4, 4): "torchrun"}  # ranks, replicas -> the launcher, if not slow
SLOW_OVER_MPI = ("torchrun", pytest.param("mpiexec", marks=pytest.mark.slow))
JOBS = [
    pytest.param(launcher, *shape, marks=() if launcher == SHAPES[shape] else pytest.mark.slow)
    for launcher, shape in product(LAUNCHERS, SHAPES)
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    @lru_cache
    def of(launcher: str, ranks: int, number: int) -> list[dict]:
        folder = tmp_path_factory.mktemp(f"{launcher}{ranks}x{number}")
        process = run(launcher, ranks, SCRIPT, str(folder), str(number))
        assert process.returncode == 0, process.stdout + process.stderr
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]

    return of


alone = lru_cache(replicas.expected)


@pytest.mark.parametrize(("launcher", "ranks", "number"), JOBS)
@pytest.mark.parametrize("links", replicas.LINKS)
@pytest.mark.parametrize("case", replicas.CASES)
def test_as_one_replica_with_the_whole_batch(results, launcher, ranks, number, case: str, links: str) -> None:
    """Loss, gradient norms and parameters after all steps; all replicas have the same bits, whatever carries edges."""
    found, key, one = results(launcher, ranks, number), f"{case}, {links}", alone(case)
    for own in (rank[key] for rank in found):
        assert own["rows"] == found[0][key]["rows"]
        assert own["gradients"] == found[0][key]["gradients"]
        torch.testing.assert_close(own["rows"], one["rows"], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(own["gradients"], one["gradients"], rtol=1e-9, atol=1e-12)
        assert own["links"] == (["shared memory" if links == "auto" else OVER[launcher]] if ranks > number else [])
        assert own["waited"] > 0
    for replica in range(number):
        every = replicas.trained(found, key, replica)
        assert every == replicas.trained(found, key, 0)
        assert every.keys() == one["trained"].keys()
        for name, numbers in every.items():
            torch.testing.assert_close(numbers, one["trained"][name], rtol=1e-9, atol=1e-9, msg=name)


OVER = {"torchrun": "gloo", "mpiexec": "mpi"}


@pytest.mark.parametrize(("launcher", "ranks", "number"), JOBS)
def test_the_summary_counts_all_replicas(results, launcher: str, ranks: int, number: int) -> None:
    found, one = results(launcher, ranks, number), alone("H2")["summary"]
    summary = found[0]["H2, auto"]["summary"]
    assert all(rank["H2, auto"]["summary"] == summary for rank in found)
    assert (summary["ranks"], summary["replicas"]) == (ranks, number)
    assert summary["links"] == ({"shared memory": "0-1 2-3"} if ranks > number else {})
    assert sum(summary["parameters_per_rank"]) == number * sum(one["parameters_per_rank"])
    assert len(summary["parameters_per_rank"]) == ranks
    assert summary["messages_per_step"] == number * one["messages_per_step"]
    assert summary["off_graph_messages"] == 0
    assert (summary["wire_messages_per_step"] > 0) == (ranks > number)
    told = 8 * 2 * number * ranks  # loss and right samples of every replica
    assert summary["bytes_between_replicas_per_step"] == 8 * sum(summary["parameters_per_rank"]) + told
    assert one["bytes_between_replicas_per_step"] == 0


@pytest.mark.parametrize(("launcher", "ranks", "number"), JOBS)
def test_a_closed_world_leaves_no_thread_behind(results, launcher: str, ranks: int, number: int) -> None:
    """One that still puts a tensor away when Python ends aborts the process."""
    assert [rank["threads"] for rank in results(launcher, ranks, number)] == [[]] * ranks


REFUSALS = {
    "no divisor": r"replicas is 3, which does not divide {ranks} ranks: start a multiple of 3 ranks",
    "different": r"the ranks disagree: replicas is 1 on rank 0, but 2 on rank 1; give every rank the same",
    "batch": r"batch_size is 1, but there are {number} replicas: each needs a sample of a batch at least",
    "seed": r"the ranks disagree: seed is 0 on rank 0, but 1 on rank {other}; give every rank the same",
    "sample": r"the state is no longer finite in epoch 1, input, agent \d",
    "sample, checked": r"the state is no longer finite in epoch 1, step \d, input, agent \d",
    "disk": rf"{len(replicas.LONG)} characters: no space left",
    "weights": r"the {number} replicas have different parameters: start all of them from the same seed",
}


@pytest.mark.parametrize(("launcher", "ranks", "number"), JOBS)
@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_are_one_line_on_every_rank(results, launcher: str, ranks: int, number: int, what: str) -> None:
    said = {rank[what] for rank in results(launcher, ranks, number)}
    (line,) = said
    assert re.match(REFUSALS[what].format(ranks=ranks, number=number, other=ranks // number), line), line
    assert "\n" not in line


def test_a_graph_with_fewer_agents_than_a_group_has_ranks(tmp_path: Path) -> None:
    settings = ["--set", "graph=path:2", "--replicas", "2", "--run-dir", str(tmp_path / "run")]
    process = run("mpiexec", 6, "-m", "hdnn_dist", "train", *settings)
    lines = [line for line in process.stderr.splitlines() if line.startswith("hdnn-dist: ")]
    assert lines
    assert set(lines) == {
        "hdnn-dist: error: in each of 2 replicas: 3 ranks were started for 2 agents: every rank needs an agent, so "
        "start at most 2 ranks or use a larger graph"
    }
    assert not (tmp_path / "run").exists()


def test_one_process_is_one_replica(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "hdnn_dist", "train", "--replicas", "2", "--run-dir", str(tmp_path / "run")]
    process = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert process.stderr == (
        "hdnn-dist: error: replicas is 2, which does not divide 1 rank: start a multiple of 2 ranks, under torchrun or "
        "mpiexec, or take another number (--replicas 1 for none)\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("launcher", SLOW_OVER_MPI)
def test_one_run_folder(launcher: str, tmp_path: Path) -> None:
    """Of the first replica: its weights are read back by one process, and the config runs again with one."""
    settings = [*replicas.SMALL, "network.kernel=auto"]
    words = [word for key in settings for word in ("--set", key)]
    process = run(launcher, 4, "-m", "hdnn_dist", "train", *words, "--replicas", "2", "--run-dir", str(tmp_path))
    assert process.returncode == 0, process.stderr
    transport = "c10d (gloo)" if launcher == "torchrun" else "mpi"
    first = f"ring:4 on 4 ranks in 2 replicas, {transport}; edges between ranks: 2 through shared memory"
    assert process.stdout.splitlines()[0] == first
    assert sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir()) == [
        "rank-0.safetensors",
        "rank-1.safetensors",
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    summary, config = json.loads((tmp_path / "summary.json").read_text()), load_config(tmp_path / "config.toml")
    assert (summary["replicas"], config.replicas) == (2, 2)
    with connect("local") as world:
        job = build(config, CommunicationGraph.parse(config.graph), world)
        load_weights(job.net, job.others, tmp_path / CHECKPOINTS)
        loss = job.head.loss(job.forward(job.test.inputs), job.test.labels)
    assert loss.item() == pytest.approx(summary["test_loss"], rel=1e-12)


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "replicas.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    script = tmp_path / "s.py"
    script.write_text(example)
    process = run("torchrun", 2, str(script))
    assert process.returncode == 0, process.stderr


def test_average_of_one_replica_is_the_gradient_itself() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.arange(3.0)
    with connect("local") as world:
        average_gradients(parameter, world)
        average_gradients([], world)
        with pytest.raises(ValueError, match="weight is 'half': expected a finite number, the share of this replica"):
            average_gradients(parameter, world, "half")
        with pytest.raises(TypeError, match=r"world is 3: expected what hdnn_dist\.connect"):
            average_gradients(parameter, 3)
    assert parameter.grad.tolist() == [0.0, 1.0, 2.0]


EDGE = r"could not \S+ \S+ rank \d \(such as agent \d -> agent \d of replica \d\): .+"
COPIES = r"rank \d of replica \d could not add up with its copies, rank \d of the job: .+"


@pytest.fixture
def two_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two ranks each."""
    monkeypatch.setenv("REPLICAS", "2")


@pytest.mark.alone
@pytest.mark.usefixtures("two_replicas")
@pytest.mark.parametrize("links", ["auto", pytest.param("network", marks=pytest.mark.slow)])
def test_a_killed_rank_ends_all_replicas(links: str, tmp_path: Path) -> None:
    """Each names the edge or the copies that it waits for; no launcher ends anybody here."""
    with training("by hand", links, tmp_path) as ranks:
        ranks[3].kill()
        ending = ended(ranks, tmp_path, 3)
    lines = {rank: errors.strip().splitlines()[-1] for rank, errors in ending.errors.items()}
    assert all(re.search(f"TransportError: .*({EDGE}|{COPIES})", line) for line in lines.values()), lines
    assert ending.seconds < IN_TIME
    nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("two_replicas")
def test_a_killed_rank_ends_all_replicas_of_mpi(tmp_path: Path) -> None:
    with training("mpiexec", "auto", tmp_path) as (job,):
        os.kill(ranks_of(str(tmp_path))[3], signal.SIGKILL)
        ending = ended([job], tmp_path)
    assert job.returncode != 0
    assert ending.seconds < IN_TIME
    nothing_left(tmp_path)


@pytest.mark.alone
@pytest.mark.usefixtures("two_replicas")
@pytest.mark.parametrize("launcher", ["by hand", SLOW_OVER_MPI[1]])
def test_a_stopped_rank_ends_all_replicas_at_the_timeout(launcher: str, tmp_path: Path) -> None:
    with training(launcher, "network", tmp_path, TIMEOUT) as processes:
        began = time.monotonic()
        os.kill(ranks_of(str(tmp_path))[3], signal.SIGSTOP)
        if launcher == "by hand":
            ending = ended(processes, tmp_path, 3)
            errors = "".join(ending.errors.values())
        else:
            errors = processes[0].communicate(timeout=60)[1]
    assert time.monotonic() - began < TIMEOUT + 2 * IN_TIME
    assert re.search(f"TransportError: .*({EDGE}|{COPIES})", errors), errors


@pytest.mark.slow
def test_a_run_goes_on(tmp_path: Path) -> None:
    """Bit for bit as one that was not stopped; both roots look for the checkpoint, one of them puts others aside."""

    def train(folder: Path, epochs: int, *options: str) -> dict[str, torch.Tensor]:
        settings = [*replicas.SMALL, f"epochs={epochs}", "checkpoint.every_steps=1", "optimizer.schedule=constant"]
        words = [word for key in settings for word in ("--set", key)]
        process = run(
            "mpiexec", 2, "-m", "hdnn_dist", "train", *words, "--replicas", "2", "--run-dir", str(folder), *options
        )
        assert process.returncode == 0, process.stderr
        return load_file(folder / CHECKPOINTS / "rank-0.safetensors")

    expected = train(tmp_path / "undisturbed", 2)
    train(tmp_path / "stopped", 1)
    found = train(tmp_path / "stopped", 2, "--resume", "auto")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
